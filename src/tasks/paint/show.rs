//! From latents to pictures.

use super::parts::Parts;
use crate::diffusion::Table;
use crate::error::Result;
use crate::graph::Graph;
use crate::models::autoencoder::{AutoencoderConfig, decode};
use crate::models::latent_diffusion::Part;
use crate::nn::Source;
use crate::tensor::DType;

impl Parts<'_> {
    /// One picture of a sample, as an autoencoder shows it: input `which` says of which slot and picture.
    pub(super) fn show_graph(&self, table: &Table, vae: &Part<AutoencoderConfig>) -> Result<Graph> {
        let [h, w, c] = self.latent();
        let slots = 2 + table.history;
        let mut g = Graph::new();
        let sample = g.input("sample", [slots, self.batch, h, w, c], DType::F32);
        let which = g.input("which", [1], DType::U32);
        let all = g.reshape(sample, [slots * self.batch, h, w, c])?;
        let z = g.gather(all, which, 0)?;
        let [scale, shift] = vae.config.scaling();
        let z = g.affine(z, 1.0 / scale, shift)?;
        let dtype = if vae.config.force_upcast() { DType::F32 } else { self.options.dtype };
        let z = g.cast(z, dtype)?;
        let picture = decode(&mut g, &vae.config, Source { weights: &vae.weights, dtype }, z)?;
        let picture = g.picture_from_tensor(picture, 0, 0.5, 0.5)?;
        g.output("picture", picture);
        Ok(g)
    }
}
