//! Parts of tensors in the caller's buffers, copied from and to tensors of tiles.

use super::convert::{Launch, Part};
use crate::engine::Step;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::lower::fold;
use crate::plan::Port;
use crate::shader::{Kernel, Shader};

/// A tensor of a tile, `[n, h, w, c]` or `[n, h, w]`, in its buffer, and the whole picture's in the caller's.
pub(super) struct Whole<'a> {
    pub port: &'a Port,
    pub tile: wgpu::BufferBinding<'a>,
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
}

/// A rectangle of pictures whose lines lie so many elements apart.
struct Rect {
    first: u64,
    line: u64,
    sample: u64,
}

impl Whole<'_> {
    /// Bytes of the whole tensor, whose pictures have this size `[width, height]`.
    pub fn bytes(port: &Port, size: [u32; 2]) -> u64 {
        let [tile, whole] = [[port.desc.shape[2], port.desc.shape[1]].map(|n| n as u64), size.map(u64::from)];
        let each = port.desc.bytes() / (tile[0] * tile[1]);
        each * whole[0] * whole[1]
    }

    /// The tile out of the whole.
    pub fn take(self, gpu: &Gpu, part: Part) -> Result<Launch> {
        let size = self.size();
        let (whole, near, binding) = self.bind(gpu, part, part.start, size)?;
        let tile = self.rect([0; 2]);
        self.copy(gpu, size, (near, binding), (tile, self.tile.clone())).map(|step| (step, whole))
    }

    /// What is kept of the tile into the whole.
    pub fn give(self, gpu: &Gpu, part: Part) -> Result<Launch> {
        let [from, until] = part.keep;
        let size = [0, 1].map(|i| until[i] - from[i]);
        let (whole, far, binding) = self.bind(gpu, part, from, size)?;
        let tile = self.rect([0, 1].map(|i| from[i] - part.start[i]));
        self.copy(gpu, size, (tile, self.tile.clone()), (far, binding)).map(|step| (step, whole))
    }

    fn size(&self) -> [u32; 2] {
        [self.port.desc.shape[2], self.port.desc.shape[1]].map(|side| side as u32)
    }

    /// Elements of a pixel, pictures, bytes of an element.
    fn units(&self) -> [u64; 3] {
        let (desc, size) = (&self.port.desc, self.size());
        let pixels = u64::from(size[0]) * u64::from(size[1]) * desc.shape[0] as u64;
        [desc.shape.elements() as u64 / pixels, desc.shape[0] as u64, desc.dtype.bytes() as u64]
    }

    /// A place in the tile.
    fn rect(&self, [x, y]: [u32; 2]) -> Rect {
        let [channels, ..] = self.units();
        let [width, height] = self.size().map(u64::from);
        let line = channels * width;
        Rect { first: u64::from(y) * line + u64::from(x) * channels, line, sample: line * height }
    }

    /// The same in the whole, with the lines of the caller's buffer that it is in; and the bytes that are moved.
    fn bind(
        &self,
        gpu: &Gpu,
        part: Part,
        [x, y]: [u32; 2],
        size: [u32; 2],
    ) -> Result<(u64, Rect, wgpu::BufferBinding<'_>)> {
        let [channels, samples, bytes] = self.units();
        let [width, height] = part.whole.map(u64::from);
        let line = channels * width;
        let sample = line * height;
        // Of several pictures all lines.
        let lines = match samples {
            1 => [u64::from(y), u64::from(y + size[1])],
            _ => [0, samples * height],
        };
        let align = u64::from(gpu.device().limits().min_storage_buffer_offset_alignment);
        let begin = self.offset + lines[0] * line * bytes;
        let aligned = begin / align * align;
        let end = (self.offset + lines[1] * line * bytes).next_multiple_of(4);
        let target = gpu.target();
        target.check(|| format!("a part of \"{}\"", self.port.name), end - aligned, target.max_binding)?;
        let first = (u64::from(y) - if samples == 1 { lines[0] } else { 0 }) * line + u64::from(x) * channels;
        let rect = Rect { first: (begin - aligned) / bytes + first, line, sample };
        let binding = wgpu::BufferBinding {
            buffer: self.buffer,
            offset: aligned,
            size: wgpu::BufferSize::new(end - aligned),
        };
        let moved = 2 * u64::from(size[0]) * u64::from(size[1]) * channels * samples * bytes;
        Ok((moved, rect, binding))
    }

    fn copy(
        &self,
        gpu: &Gpu,
        size: [u32; 2],
        (from, src): (Rect, wgpu::BufferBinding),
        (to, dst): (Rect, wgpu::BufferBinding),
    ) -> Result<Step> {
        let [channels, samples, _] = self.units();
        let [columns, lines] = size.map(u64::from);
        let count = columns * channels * lines * samples;
        let target = gpu.target();
        target.check(|| format!("elements of a part of \"{}\"", self.port.name), count, 1 << 31)?;
        let shader = Shader::new(&Kernel::new("tensor_part").alias("Elem", self.port.desc.dtype.wgsl()))?;
        let params = [
            ("line", columns * channels),
            ("lines", lines),
            ("samples", samples),
            ("src_first", from.first),
            ("src_line", from.line),
            ("src_sample", from.sample),
            ("dst_first", to.first),
            ("dst_line", to.line),
            ("dst_sample", to.sample),
        ];
        let params = shader.pack_params(&params.map(|(name, value)| (name, (value as usize).into())))?;
        let groups = fold(count.div_ceil(64), target.max_workgroups.into());
        Step::lone(gpu, &self.port.name, &shader, &[("src", src), ("dst", dst)], None, &params, groups)
    }
}
