//! Other adapters for a painter that is ready.

use super::Painter;
use super::parts::Parts;
use crate::engine::Reloaded;
use crate::error::{Error, Result};
use crate::weights::Weights;

impl Painter {
    /// Gives the denoiser the adapters of these weights, at their strengths, in the place of those that it has. The
    /// weights are [the model's own](Painter::model), with what [`Lora::apply`](crate::formats::lora::Lora::apply) adds to
    /// them or [without any](Weights::without_adapters).
    ///
    /// Only layers whose adapters change are computed again, from the model's files, so that the painter is to the last
    /// bit one that was made with these weights, see [`Network::reload`](crate::Network::reload). Texts are encoded
    /// elsewhere, and again if adapters of their encoders change.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the weights of another model, [`Error::Budget`] where there is no room for the way of
    /// weights to the device beside all else, and what else [`Painter::new`] refuses: then nothing has changed. Those of
    /// the device.
    pub fn set_adapters(&mut self, weights: &Weights) -> Result<Reloaded> {
        let mut model = self.model.clone();
        let own = std::mem::replace(&mut model.denoiser.weights, weights.clone());
        if weights.file() != own.file() {
            return Err(Error::Invalid {
                what: format!("weights with adapters for {}", model.name),
                expected: format!("those of {}", own.file()),
                found: format!("those of {}", weights.file()),
            });
        }
        let parts = Parts { model: &model, ..self.parts() };
        let graph = parts.step_graph(parts.step(&self.around.table)?)?;
        let reload = self.around.step.prepare_reload(&graph)?;
        let memory = self.memory.with_step(reload.plan.memory());
        let most = memory.peak.max(memory.beside_step() + reload.peak_bytes());
        if self.options.memory_budget.is_some_and(|budget| most > budget) {
            return Err(parts.too_much(self.gpu().target(), most, &[("UNet", reload.peak_bytes())]));
        }
        (self.model, self.memory) = (model, memory);
        self.around.step.finish_reload(reload)
    }
}
