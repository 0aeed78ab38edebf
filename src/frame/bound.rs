//! What is bound to an input or output of a network.

use super::Texels;

/// What a network reads as an input or writes as an output.
#[derive(Clone, Debug)]
pub enum Bound {
    /// A picture in a texture. Inputs of several pictures take several, see [`Texels::picture`].
    Texels(Texels),
    /// A tensor as it is, row-major, from an offset on: kernels read or write it where it is. The buffer needs the usage
    /// `STORAGE` (and `COPY_SRC` where [`Bindings`](super::Bindings) say so), and as many bytes from the offset on as the
    /// tensor has, rounded up to 16.
    Buffer { buffer: wgpu::Buffer, offset: u64 },
}

impl From<Texels> for Bound {
    fn from(texels: Texels) -> Bound {
        Bound::Texels(texels)
    }
}

impl From<&wgpu::Buffer> for Bound {
    fn from(buffer: &wgpu::Buffer) -> Bound {
        Bound::Buffer { buffer: buffer.clone(), offset: 0 }
    }
}
