//! The launches at both ends of a run: textures into tensors, tensors into textures, tensors into others.

use super::{Alpha, Texels, Transfer};
use crate::engine::Step;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::lower::fold;
use crate::plan::Port;
use crate::shader::{Kernel, Param, Shader};
use crate::tensor::DType;

/// A launch and the bytes that it reads and writes.
pub(super) type Launch = (Step, u64);

/// Alpha of a texture that is read, kept for one that is written.
pub(super) struct Plane {
    pub name: String,
    pub picture: usize,
    pub buffer: wgpu::Buffer,
    pub size: [u32; 2],
}

/// Pictures of a tensor.
struct Pictures {
    size: [u32; 2],
    /// Of packed bytes: none.
    channels: Option<usize>,
    elem: &'static str,
    /// Pixels before the one that is meant.
    first: usize,
}

/// What a picture is of a larger one.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Of the larger one, `[width, height]`.
    pub whole: [u32; 2],
    /// Where the picture begins in it.
    pub start: [u32; 2],
    /// What of the larger one is written: from, until.
    pub keep: [[u32; 2]; 2],
}

/// Where a picture is in a texture, and how kernels see it.
struct Window {
    origin: [u32; 2],
    size: [u32; 2],
}

const SIDE: u32 = 8;

const DISTANCE: &str = "fn loaded(texel: vec4<f32>) -> vec4<f32> {
    return finite(vec4<f32>(distance_of(texel.x), texel.yzw));
}";

/// From a texture into a tensor, or into one of a part of it; with its alpha into a plane if that is wanted.
pub(super) fn read(
    gpu: &Gpu,
    port: &Port,
    texels: &Texels,
    part: Option<Part>,
    tensor: wgpu::BufferBinding,
    plane: Option<&Plane>,
) -> Result<Launch> {
    let pictures = Pictures::of(port, texels)?;
    let part = part.unwrap_or(Part::all(pictures.size));
    let window = Window::of(port, texels, part.whole, wgpu::TextureUsages::TEXTURE_BINDING)?;
    let format = texels.format();
    let sampled = format.sample_type(Some(texels.aspect()), Some(gpu.device().features()));
    if !matches!(sampled, Some(wgpu::TextureSampleType::Float { .. } | wgpu::TextureSampleType::Depth)) {
        return Err(invalid(port, "a format that is sampled as floats", format!("{format:?}")));
    }
    let exposed = if texels.exposure.is_some() { " * exposure()" } else { "" };
    let mut kernel = Kernel::new("texture_to_tensor")
        .function("to_network", Transfer::function("to_network", texels.held(), texels.network, exposed))
        .alias("Elem", pictures.elem);
    let [at_zero, at_one] = texels.distances.unwrap_or([1.0; 2]);
    match (texels.distances, texels.premultiplied) {
        (None, false) => {}
        (None, true) => {
            kernel = kernel
                .function("loaded", "fn loaded(texel: vec4<f32>) -> vec4<f32> { return straight(texel); }")
        }
        (Some(_), false) if at_zero > 0.0 && at_one > 0.0 => kernel = kernel.function("loaded", DISTANCE),
        (Some(_), false) => {
            return Err(invalid(port, "distances greater than 0", format!("{at_zero} and {at_one}")));
        }
        (Some(_), true) => {
            return Err(invalid(port, "either distances or colours", "distances multiplied by alpha".into()));
        }
    }
    kernel = match pictures.channels {
        Some(channels) => kernel.constant("CHANNELS", format!("{channels}u")),
        None => {
            kernel.function("store", "fn store(pixel: u32, v: vec4<f32>) { dst[pixel] = pack4x8unorm(v); }")
        }
    };
    let mut opaque = 1.0;
    match &texels.alpha {
        Alpha::Along => {}
        Alpha::Fill(alpha) => {
            opaque = *alpha;
            kernel = kernel.function("opacity", "fn opacity(alpha: f32) -> f32 { return P.opaque; }");
        }
        Alpha::Of(_) => {
            return Err(invalid(
                port,
                "alpha that goes along or is filled, for an input",
                "that of another".into(),
            ));
        }
    }
    if plane.is_none() {
        kernel = kernel.function("keep", "fn keep(pixel: u32, alpha: f32) { }");
    }
    let end = |i: usize| window.origin[i] + window.size[i] - 1;
    let begin = [0, 1].map(|i| window.origin[i] + part.start[i]);
    let mut params = normalisation(texels);
    params.extend(places(&pictures, begin));
    params.extend([("right", end(0).into()), ("bottom", end(1).into()), ("opaque", opaque.into())]);
    params.extend([("inverse_at_zero", (1.0 / at_zero).into()), ("inverse_at_one", (1.0 / at_one).into())]);
    let mut buffers = vec![("dst", tensor)];
    buffers.extend(plane.map(|plane| ("alphas", plane.buffer.as_entire_buffer_binding())));
    let step = step(gpu, port, &kernel, texels, buffers, &params, pictures.size)?;
    Ok((step, pictures.bytes(port)))
}

/// From a tensor, or one of a part of it, into a texture.
pub(super) fn write(
    gpu: &Gpu,
    port: &Port,
    texels: &Texels,
    part: Option<Part>,
    tensor: wgpu::BufferBinding,
    planes: &[Plane],
) -> Result<Launch> {
    let pictures = Pictures::of(port, texels)?;
    let part = part.unwrap_or(Part::all(pictures.size));
    let window = Window::of(port, texels, part.whole, wgpu::TextureUsages::STORAGE_BINDING)?;
    let exposed = if texels.exposure.is_some() { " / exposure()" } else { "" };
    let mut kernel = Kernel::new("tensor_to_texture")
        .function("to_texture", Transfer::function("to_texture", texels.network, texels.held(), exposed))
        .alias("Elem", pictures.elem)
        .alias("Goal", goal(gpu, port, texels.format())?);
    kernel = match pictures.channels {
        Some(channels) => kernel.constant("CHANNELS", format!("{channels}u")),
        None => {
            kernel.function("load", "fn load(pixel: u32) -> vec4<f32> { return unpack4x8unorm(src[pixel]); }")
        }
    };
    if texels.distances.is_some() {
        return Err(invalid(port, "colours or data, for an output", "distances".into()));
    }
    if texels.premultiplied {
        kernel = kernel.function(
            "stored",
            "fn stored(texel: vec4<f32>) -> vec4<f32> { return vec4<f32>(texel.xyz * texel.w, texel.w); }",
        );
    }
    let (mut opaque, mut plane) = (1.0, None);
    let along = "fn opacity(place: vec2<u32>, alpha: f32) -> f32 { return alpha; }";
    let filled = "fn opacity(place: vec2<u32>, alpha: f32) -> f32 { return P.opaque; }";
    match &texels.alpha {
        Alpha::Along if matches!(pictures.channels, Some(1..=3)) => {
            kernel = kernel.function("opacity", filled)
        }
        Alpha::Along => kernel = kernel.function("opacity", along),
        Alpha::Fill(alpha) => (opaque, kernel) = (*alpha, kernel.function("opacity", filled)),
        Alpha::Of(name) => {
            let found = planes.iter().find(|p| p.name == *name && p.picture == texels.picture);
            plane = Some(found.ok_or_else(|| {
                let expected = format!("a texture bound to the input \"{name}\", whose alpha is kept");
                invalid(port, &expected, "none".to_owned())
            })?);
        }
    }
    let [alpha_width, alpha_height] = plane.map_or([1; 2], |plane| plane.size);
    let [from, until] = part.keep;
    // None, where the part that is written ends before.
    let size = [0, 1].map(|i| until[i].min(window.size[i]).saturating_sub(from[i]));
    let skipped = [0, 1].map(|i| from[i] - part.start[i]);
    let mut params = normalisation(texels);
    params.extend(places(&pictures, [0, 1].map(|i| window.origin[i] + from[i])));
    params.extend([
        ("columns", size[0].into()),
        ("lines", size[1].into()),
        ("from_x", skipped[0].into()),
        ("from_y", skipped[1].into()),
        ("alpha_width", alpha_width.into()),
        ("alpha_height", alpha_height.into()),
        ("opaque", opaque.into()),
    ]);
    let mut buffers = vec![("src", tensor)];
    buffers.extend(plane.map(|plane| ("alphas", plane.buffer.as_entire_buffer_binding())));
    let step = step(gpu, port, &kernel, texels, buffers, &params, size.map(|side| side.max(1)))?;
    Ok((step, pictures.bytes(port)))
}

/// Where pixels are in a tensor and in a texture.
fn places(pictures: &Pictures, [left, top]: [u32; 2]) -> [(&'static str, Param); 5] {
    let [width, height] = pictures.size;
    [
        ("width", width.into()),
        ("height", height.into()),
        ("left", left.into()),
        ("top", top.into()),
        ("first", pictures.first.into()),
    ]
}

/// From a tensor into another of as many bytes.
pub(super) fn copy(
    gpu: &Gpu,
    from: wgpu::BufferBinding,
    to: wgpu::BufferBinding,
    bytes: u64,
) -> Result<Launch> {
    let shader = Shader::new(&Kernel::new("copy"))?;
    let quads = bytes.div_ceil(16);
    let params = shader.pack_params(&[("quads", (quads as usize).into())])?;
    let groups = fold(quads.div_ceil(64), gpu.target().max_workgroups.into());
    let step = Step::lone(gpu, "copy", &shader, &[("src", from), ("dst", to)], None, &params, groups)?;
    Ok((step, 2 * bytes))
}

impl Part {
    fn all(size: [u32; 2]) -> Part {
        Part { whole: size, start: [0; 2], keep: [[0; 2], size] }
    }
}

impl Pictures {
    fn of(port: &Port, texels: &Texels) -> Result<Pictures> {
        let desc = &port.desc;
        let (n, h, w, channels) = match (desc.dtype, &desc.shape[..]) {
            (DType::U32, &[n, h, w]) => (n, h, w, None),
            (DType::F32 | DType::F16, &[n, h, w, c @ 1..=4]) => (n, h, w, Some(c)),
            _ => {
                let expected = "a tensor f32 or f16 [n, h, w, 1 to 4] or u32 [n, h, w]";
                return Err(invalid(port, expected, desc.to_string()));
            }
        };
        if texels.picture >= n {
            return Err(invalid(port, &format!("one of {n} pictures"), format!("number {}", texels.picture)));
        }
        let elem = desc.dtype.wgsl();
        Ok(Pictures { size: [w as u32, h as u32], channels, elem, first: texels.picture * h * w })
    }

    /// Of the tensor's picture, read or written, and of about as many in the texture.
    fn bytes(&self, port: &Port) -> u64 {
        let [width, height] = self.size.map(u64::from);
        width * height * (self.channels.unwrap_or(1) * port.desc.dtype.bytes() + 8) as u64
    }
}

impl Window {
    fn of(port: &Port, texels: &Texels, picture: [u32; 2], usage: wgpu::TextureUsages) -> Result<Window> {
        let texture = &texels.texture;
        if !texture.usage().contains(usage) {
            let expected = format!("a texture with the usage {usage:?}");
            return Err(invalid(port, &expected, format!("{:?}", texture.usage())));
        }
        if texture.dimension() != wgpu::TextureDimension::D2 || texture.sample_count() != 1 {
            let found = format!("{:?} with {} samples", texture.dimension(), texture.sample_count());
            return Err(invalid(port, "a texture of two dimensions, one sample a texel", found));
        }
        let has = [texture.depth_or_array_layers(), texture.mip_level_count()];
        if texels.layer >= has[0] || texels.mip >= has[1] {
            let expected = format!("one of {} layers and {} levels of detail", has[0], has[1]);
            return Err(invalid(port, &expected, format!("layer {}, level {}", texels.layer, texels.mip)));
        }
        let whole = texels.size();
        let Some([origin, size]) = texels.rect else {
            if whole != picture {
                let expected = format!("a texture of {picture:?} texels, or a part of one");
                return Err(invalid(port, &expected, format!("{whole:?}")));
            }
            return Ok(Window { origin: [0; 2], size: whole });
        };
        let within = |i: usize| origin[i].checked_add(size[i]).is_some_and(|end| end <= whole[i]);
        if size.contains(&0) || !within(0) || !within(1) {
            let expected = format!("a part of a texture of {whole:?} texels");
            return Err(invalid(port, &expected, format!("{size:?} from {origin:?} on")));
        }
        if size[0] > picture[0] || size[1] > picture[1] {
            let expected = format!("a part of at most {picture:?} texels, as the network's picture");
            return Err(invalid(port, &expected, format!("{size:?}")));
        }
        Ok(Window { origin, size })
    }
}

/// The WGSL of textures of a format that kernels write.
fn goal(gpu: &Gpu, port: &Port, format: wgpu::TextureFormat) -> Result<&'static str> {
    use wgpu::TextureFormat::{Bgra8Unorm, R32Float, Rgba8Unorm, Rgba16Float, Rgba32Float};
    let bgra = gpu.device().features().contains(wgpu::Features::BGRA8UNORM_STORAGE);
    Ok(match format {
        Rgba8Unorm => "texture_storage_2d<rgba8unorm, write>",
        Rgba16Float => "texture_storage_2d<rgba16float, write>",
        Rgba32Float => "texture_storage_2d<rgba32float, write>",
        R32Float => "texture_storage_2d<r32float, write>",
        Bgra8Unorm if bgra => "texture_storage_2d<bgra8unorm, write>",
        Bgra8Unorm => {
            return Err(Error::Feature {
                device: gpu.target().name.clone(),
                feature: "BGRA8UNORM_STORAGE, which kernels need to write textures of Bgra8Unorm",
                advice: "ask for it when the device is made, or write to one of Rgba8Unorm",
            });
        }
        other => {
            let expected = "a texture of Rgba8Unorm, Bgra8Unorm, Rgba16Float, Rgba32Float or R32Float (for sampling as light, \
                            give one of Rgba8Unorm the view format Rgba8UnormSrgb)";
            return Err(invalid(port, expected, format!("{other:?}")));
        }
    })
}

fn normalisation(texels: &Texels) -> Vec<(&'static str, Param)> {
    let scales = ["scale0", "scale1", "scale2", "scale3"].into_iter().zip(texels.scale);
    let shifts = ["shift0", "shift1", "shift2", "shift3"].into_iter().zip(texels.shift);
    scales.chain(shifts).map(|(name, value)| (name, value.into())).collect()
}

/// A launch over the pixels of a picture.
fn step<'a>(
    gpu: &Gpu,
    port: &Port,
    kernel: &Kernel,
    texels: &'a Texels,
    mut buffers: Vec<(&str, wgpu::BufferBinding<'a>)>,
    params: &[(&'static str, Param)],
    size: [u32; 2],
) -> Result<Step> {
    if let Some(exposure) = &texels.exposure {
        if !exposure.usage().contains(wgpu::BufferUsages::STORAGE) || exposure.size() < 4 {
            let found = format!("{} bytes with {:?}", exposure.size(), exposure.usage());
            return Err(invalid(port, "an exposure of 4 bytes in a buffer with the usage STORAGE", found));
        }
        buffers.push(("exposures", exposure.as_entire_buffer_binding()));
    }
    let target = gpu.target();
    let shader = Shader::new(kernel)?;
    target.check_kernel(&shader)?;
    let groups = size.map(|side| side.div_ceil(SIDE));
    for count in groups {
        target.check(
            || format!("workgroups of {}", kernel.name),
            count.into(),
            target.max_workgroups.into(),
        )?;
    }
    let params = shader.pack_params(params)?;
    Step::lone(gpu, &port.name, &shader, &buffers, Some(texels), &params, [groups[0], groups[1], 1])
}

impl Texels {
    /// What of its texels kernels see.
    fn aspect(&self) -> wgpu::TextureAspect {
        match self.format().has_depth_aspect() {
            true => wgpu::TextureAspect::DepthOnly,
            false => wgpu::TextureAspect::All,
        }
    }

    fn create_view(&self, usage: wgpu::TextureUsages) -> wgpu::TextureView {
        self.texture.create_view(&wgpu::TextureViewDescriptor {
            label: None,
            // Of its own, that of the aspect.
            format: self.view,
            dimension: Some(wgpu::TextureViewDimension::D2),
            usage: Some(usage),
            aspect: self.aspect(),
            base_mip_level: self.mip,
            mip_level_count: Some(1),
            base_array_layer: self.layer,
            array_layer_count: Some(1),
        })
    }
}

impl Step {
    /// A kernel with its own parameters and what it binds, by the names of the WGSL.
    pub(super) fn lone(
        gpu: &Gpu,
        name: &str,
        shader: &Shader,
        buffers: &[(&str, wgpu::BufferBinding)],
        texels: Option<&Texels>,
        params: &[u8],
        groups: [u32; 3],
    ) -> Result<Step> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer("parameters of a frame", params.len() as u64, usage)?;
        gpu.checked(|| "upload".to_owned(), || gpu.queue().write_buffer(&uniforms, 0, params))?;
        let pipeline = gpu.pipeline(shader)?;
        let view = |writes: bool| {
            let usage = match writes {
                true => wgpu::TextureUsages::STORAGE_BINDING,
                false => wgpu::TextureUsages::TEXTURE_BINDING,
            };
            texels.map(|texels| texels.create_view(usage))
        };
        let bind = || {
            let mut entries = Vec::new();
            for binding in &shader.bindings {
                let given = buffers.iter().find(|(name, _)| *name == binding.name);
                let (_, buffer) = given.expect("each buffer that the kernel uses is given");
                let resource = wgpu::BindingResource::Buffer(buffer.clone());
                entries.push(wgpu::BindGroupEntry { binding: binding.binding, resource });
            }
            let read = shader.textures.first().map(|(_, binding)| (*binding, false));
            let written = shader.storage_textures.first().map(|(binding, _)| (*binding, true));
            let texture = read.or(written).and_then(|(binding, writes)| Some((binding, view(writes)?)));
            entries.extend(texture.iter().map(|(binding, view)| wgpu::BindGroupEntry {
                binding: *binding,
                resource: wgpu::BindingResource::TextureView(view),
            }));
            let params = shader.params_binding;
            entries.extend(
                params
                    .map(|binding| wgpu::BindGroupEntry { binding, resource: uniforms.as_entire_binding() }),
            );
            gpu.bind_group(&pipeline, &entries)
        };
        let bind_group = gpu.checked(|| format!("binding \"{name}\""), bind)?;
        Ok(Step { pipeline, bind_group, groups, fills: Vec::new() })
    }
}

pub(super) fn invalid(port: &Port, expected: &str, found: String) -> Error {
    Error::Invalid {
        what: format!("what is bound to \"{}\"", port.name),
        expected: expected.to_owned(),
        found,
    }
}
