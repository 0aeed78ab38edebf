//! Results that come back to the host without a wait.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// Buffers that take turns: a copy into one is recorded with a frame, and some frames later its bytes are there. Nothing is
/// waited for; a frame that finds none free goes without.
pub struct ReadRing {
    gpu: Gpu,
    bytes: u64,
    free: Vec<wgpu::Buffer>,
    /// Oldest first.
    under_way: VecDeque<Copied>,
}

/// A copy that was recorded.
struct Copied {
    buffer: wgpu::Buffer,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
    tag: u64,
    /// Bytes of a line, without what wgpu wants it to end in.
    line: u64,
    lines: u64,
    padded: u64,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What the copy was recorded with.
    pub tag: u64,
    /// Of a texture, line by line without gaps.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for ReadRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ReadRing({} of {} under way)",
            self.under_way.len(),
            self.under_way.len() + self.free.len()
        )
    }
}

/// Lines of a texture begin at multiples of so many bytes of a buffer.
const LINE: u64 = wgpu::COPY_BYTES_PER_ROW_ALIGNMENT as u64;

impl ReadRing {
    /// So many buffers of so many bytes: [`ReadRing::bytes_of`] for textures. Two or three are enough for one frame each.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(gpu: &Gpu, buffers: usize, bytes: u64) -> Result<ReadRing> {
        let bytes = bytes.next_multiple_of(16);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let free = (0..buffers).map(|i| gpu.buffer(&format!("read-back {i}"), bytes, usage));
        Ok(ReadRing {
            gpu: gpu.clone(),
            bytes,
            free: free.collect::<Result<_>>()?,
            under_way: VecDeque::new(),
        })
    }

    /// Bytes that a buffer needs for a texture's first layer and level.
    pub fn bytes_of(texture: &wgpu::Texture) -> u64 {
        let texel = u64::from(texture.format().block_copy_size(None).unwrap_or(0));
        (u64::from(texture.width()) * texel).next_multiple_of(LINE) * u64::from(texture.height())
    }

    /// Records a copy of `bytes` of a buffer, from `offset` on; false, and nothing is recorded, while all are under way.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a buffer without the usage `COPY_SRC`, or a place that it has not or that is not of whole words.
    pub fn push_buffer(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
        tag: u64,
    ) -> Result<bool> {
        let padded = bytes.next_multiple_of(4);
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(invalid("a buffer with the usage COPY_SRC", format!("{:?}", buffer.usage())));
        }
        if !offset.is_multiple_of(4) || offset.checked_add(padded).is_none_or(|end| end > buffer.size()) {
            let expected = format!("words of a buffer of {} bytes", buffer.size());
            return Err(invalid(&expected, format!("{bytes} bytes from {offset} on")));
        }
        self.fits(padded)?;
        let Some(free) = self.free.pop() else { return Ok(false) };
        encoder.copy_buffer_to_buffer(buffer, offset, &free, 0, padded);
        self.under_way(encoder, free, tag, [bytes, 1, padded]);
        Ok(true)
    }

    /// Records a copy of a texture's first layer and level; false as above.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a texture without the usage `COPY_SRC`, of blocks or of depth.
    pub fn push_texture(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        texture: &wgpu::Texture,
        tag: u64,
    ) -> Result<bool> {
        if !texture.usage().contains(wgpu::TextureUsages::COPY_SRC) {
            return Err(invalid("a texture with the usage COPY_SRC", format!("{:?}", texture.usage())));
        }
        let format = texture.format();
        let texel = format.block_copy_size(None).filter(|_| format.block_dimensions() == (1, 1));
        let Some(texel) = texel.filter(|_| !format.has_depth_aspect() && !format.has_stencil_aspect()) else {
            return Err(invalid("a texture of colours, texel by texel", format!("{format:?}")));
        };
        let line = u64::from(texture.width()) * u64::from(texel);
        let padded = line.next_multiple_of(LINE);
        self.fits(Self::bytes_of(texture))?;
        let Some(free) = self.free.pop() else { return Ok(false) };
        let layout = wgpu::TexelCopyBufferLayout {
            offset: 0,
            bytes_per_row: u32::try_from(padded).ok(),
            rows_per_image: None,
        };
        let size = wgpu::Extent3d { depth_or_array_layers: 1, ..texture.size() };
        let to = wgpu::TexelCopyBufferInfo { buffer: &free, layout };
        encoder.copy_texture_to_buffer(texture.as_image_copy(), to, size);
        self.under_way(encoder, free, tag, [line, texture.height().into(), padded]);
        Ok(true)
    }

    fn fits(&self, bytes: u64) -> Result<()> {
        match bytes <= self.bytes {
            true => Ok(()),
            false => {
                Err(invalid(&format!("at most {} bytes, as the ring has", self.bytes), bytes.to_string()))
            }
        }
    }

    fn under_way(
        &mut self,
        encoder: &wgpu::CommandEncoder,
        buffer: wgpu::Buffer,
        tag: u64,
        [line, lines, padded]: [u64; 3],
    ) {
        let (done, mapped) = channel();
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            let _ = done.send(result);
        });
        self.under_way.push_back(Copied { buffer, mapped, tag, line, lines, padded });
    }

    /// The oldest copy if it is done; none otherwise. What was recorded but never submitted is left out.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and what else befell the device.
    pub fn poll(&mut self) -> Result<Option<Read>> {
        let _ = self.gpu.poll(wgpu::PollType::Poll)?;
        self.gpu.check_lost()?;
        while let Some(oldest) = self.under_way.front() {
            let mapped = match oldest.mapped.try_recv() {
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => None,
                Ok(mapped) => Some(mapped),
            };
            let Some(copied) = self.under_way.pop_front() else { return Ok(None) };
            match mapped {
                None => self.free.push(copied.buffer),
                Some(Err(error)) => {
                    let error = self.gpu.not_mapped(&error);
                    self.free.push(copied.buffer);
                    return Err(error);
                }
                Some(Ok(())) => {
                    let read = copied.read(&self.gpu);
                    // A device that is lost meanwhile refuses even this.
                    let unmapped = self.gpu.checked(|| "a read-back".to_owned(), || copied.buffer.unmap());
                    self.free.push(copied.buffer);
                    return read.and_then(|read| unmapped.map(|()| Some(read)));
                }
            }
        }
        Ok(None)
    }

    /// Copies that are under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

impl Copied {
    fn read(&self, gpu: &Gpu) -> Result<Read> {
        let view = self.buffer.get_mapped_range(..).map_err(|error| gpu.not_mapped(&error))?;
        let mut bytes = Vec::with_capacity((self.line * self.lines) as usize);
        for line in view.chunks(self.padded.max(1) as usize).take(self.lines as usize) {
            bytes.extend_from_slice(&line[..self.line as usize]);
        }
        Ok(Read { tag: self.tag, bytes })
    }
}

fn invalid(expected: &str, found: String) -> Error {
    Error::Invalid { what: "what is read back".to_owned(), expected: expected.to_owned(), found }
}
