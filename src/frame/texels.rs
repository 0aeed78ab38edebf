//! A texture, or part of one, as a picture of a network.

use super::Transfer;

/// A part of a texture that a network reads or writes as one picture: of a tensor `[n, h, w, c]` of up to four channels, `f32`
/// or `f16`, or of pictures `[n, h, w]` of packed bytes.
///
/// A network's number is `scale · to_network(texel) + shift`, a channel at a time: red, green, blue, alpha, of which a tensor
/// has the first `c`. On the way out it is the other way round, with its own scale and shift: `to_texture(scale · number +
/// shift)`; one channel becomes grey. `to_network` goes from what the texture [holds](Texels::holds) to light, times the
/// [exposure](Texels::exposure), and on to what the network [sees](Texels::network); `to_texture` goes back. Alpha goes
/// through neither.
///
/// NaN becomes 0 and what lies beyond ±65 504, the largest 16-bit float, becomes that, both ways.
#[derive(Clone, Debug)]
pub struct Texels {
    pub(super) texture: wgpu::Texture,
    pub(super) view: Option<wgpu::TextureFormat>,
    pub(super) layer: u32,
    pub(super) mip: u32,
    pub(super) rect: Option<[[u32; 2]; 2]>,
    pub(super) picture: usize,
    pub(super) holds: Option<Transfer>,
    pub(super) network: Transfer,
    pub(super) exposure: Option<wgpu::Buffer>,
    pub(super) scale: [f32; 4],
    pub(super) shift: [f32; 4],
    pub(super) alpha: Alpha,
    pub(super) premultiplied: bool,
    pub(super) distances: Option<[f32; 2]>,
}

/// Where alpha comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Alpha {
    /// From where the colours come from: into a tensor of four channels goes the texture's; out of one goes its own, of one
    /// without alpha 1. Tensors of fewer channels drop it.
    Along,
    /// This number everywhere.
    Fill(f32),
    /// On the way out: that of the texture that an input of this name is read from, as it was then; the nearest where sizes
    /// differ.
    Of(String),
}

impl Texels {
    /// All of a texture, as colours. Networks of pictures see sRGB, unless [`Texels::network`] says otherwise.
    pub fn colour(texture: &wgpu::Texture) -> Texels {
        Texels {
            texture: texture.clone(),
            view: None,
            layer: 0,
            mip: 0,
            rect: None,
            picture: 0,
            holds: None,
            network: Transfer::Srgb,
            exposure: None,
            scale: [1.0; 4],
            shift: [0.0; 4],
            alpha: Alpha::Along,
            premultiplied: false,
            distances: None,
        }
    }

    /// All of a texture, with its numbers as they are: normals, motion, depth, masks.
    pub fn data(texture: &wgpu::Texture) -> Texels {
        Self::colour(texture).holds(Transfer::Linear).network(Transfer::Linear)
    }

    /// The depths of a depth buffer, as they are, in the first channel. Of all formats that have depth; with the usage
    /// `TEXTURE_BINDING`, and only read.
    pub fn depth(texture: &wgpu::Texture) -> Texels {
        Self::data(texture)
    }

    /// Depths of a perspective projection become distances, in the units of these: of depth 0 and of depth 1. Near and far for
    /// most projections, far and near for reversed depth, `f32::INFINITY` for a far plane that is at infinity. What the projection
    /// has in front of the eye is meant, along its axis. [`Texels::network`] takes the distance on, to its logarithm for one;
    /// what is infinitely far is 65 504 away.
    pub fn distances(self, at_zero: f32, at_one: f32) -> Texels {
        Texels { distances: Some([at_zero, at_one]), ..self }
    }

    /// The texture's colours are multiplied by its alpha: networks are given what they are without, and 0 where alpha is 0; on
    /// the way out they are multiplied by the alpha that is written. It is the texture's numbers that are, as shaders load and
    /// store them: light, in formats with `Srgb` and in floats.
    pub fn premultiplied(self) -> Texels {
        Texels { premultiplied: true, ..self }
    }

    /// The texture seen in another of its formats. Those with `Srgb` are read as light; they cannot be written, so write the
    /// format without, with [`Transfer::Srgb`].
    pub fn view(self, format: wgpu::TextureFormat) -> Texels {
        Texels { view: Some(format), ..self }
    }

    /// One of a texture's layers; the first, unless this says otherwise.
    pub fn layer(self, layer: u32) -> Texels {
        Texels { layer, ..self }
    }

    /// One of a texture's levels of detail; the first, unless this says otherwise.
    pub fn mip(self, mip: u32) -> Texels {
        Texels { mip, ..self }
    }

    /// The part that begins at `[x, y]` and has `[width, height]` texels; all of the texture, unless this says otherwise. It
    /// may be smaller than the network's picture: then that goes on with the part's last column and line, and on the way out
    /// only the part is written. Nothing beyond the part is read or written.
    pub fn rect(self, origin: [u32; 2], size: [u32; 2]) -> Texels {
        Texels { rect: Some([origin, size]), ..self }
    }

    /// Which of the tensor's pictures; the first, unless this says otherwise.
    pub fn picture(self, picture: usize) -> Texels {
        Texels { picture, ..self }
    }

    /// What the texture's numbers mean, as a shader of yours loads or stores them. Unless this says otherwise: sRGB in
    /// formats with `Unorm`; light in others, and in those with `Srgb`, which are decoded when they are read.
    pub fn holds(self, transfer: Transfer) -> Texels {
        Texels { holds: Some(transfer), ..self }
    }

    /// What the network's numbers mean.
    pub fn network(self, transfer: Transfer) -> Texels {
        Texels { network: transfer, ..self }
    }

    /// A factor of light on the way in, and its inverse on the way out: the first `f32` of a buffer with the usage `STORAGE`,
    /// read anew by each run. Write to it, on the host or by a kernel that meters the frame; nothing is made anew.
    pub fn exposure(self, exposure: &wgpu::Buffer) -> Texels {
        Texels { exposure: Some(exposure.clone()), ..self }
    }

    /// Scale and shift of each channel, red first; those that are not given stay as they are.
    pub fn normalised(mut self, channels: &[(f32, f32)]) -> Texels {
        for (i, &(scale, shift)) in channels.iter().take(4).enumerate() {
            (self.scale[i], self.shift[i]) = (scale, shift);
        }
        self
    }

    pub fn alpha(self, alpha: Alpha) -> Texels {
        Texels { alpha, ..self }
    }

    /// Whether these are texels of the same layer and level of the same texture.
    pub(super) fn is(&self, other: &Texels) -> bool {
        self.texture == other.texture && self.layer == other.layer && self.mip == other.mip
    }

    /// The format that kernels see.
    pub(super) fn format(&self) -> wgpu::TextureFormat {
        self.view.unwrap_or(self.texture.format())
    }

    pub(super) fn held(&self) -> Transfer {
        let format = self.format();
        self.holds.unwrap_or(match format.is_srgb() || !is_normalised(format) {
            true => Transfer::Linear,
            false => Transfer::Srgb,
        })
    }

    /// Size of the level of detail.
    pub(super) fn size(&self) -> [u32; 2] {
        let of = |side: u32| side.checked_shr(self.mip).unwrap_or(0).max(1);
        [of(self.texture.width()), of(self.texture.height())]
    }
}

/// wgpu has no other way to tell.
fn is_normalised(format: wgpu::TextureFormat) -> bool {
    format!("{format:?}").contains("Unorm")
}
