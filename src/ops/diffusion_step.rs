//! Diffusion step: one step of any sampler, guidance and noise included.

use super::diffusion_input::{row, sample};
use super::{Operator, arity, float};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// The next sample. Inputs: sample `[2 + history, n, h, w, c]` (the latent, the last x0, earlier
/// predictions), the model's prediction `[n, h, w, c]`, or `[2 n, h, w, c]` for guidance (with the
/// label, then without), the row `[1, 32]` ([`crate::diffusion::Row`]), the guidance scale `[1]`, then seeds
/// `[n, 2]` (u32) if noise is to be drawn, and rates `[n, 2]` (f32) if there are rows that correct: what each picture's
/// prediction and noise are multiplied by on the way to the next latent.
#[derive(Clone, Debug)]
pub struct DiffusionStep;

impl Operator for DiffusionStep {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 4..=6)?;
        let [_, n, h, w, c] = sample(inputs[0])?;
        float("prediction", inputs[1])?;
        if inputs[1].shape[..] != [n, h, w, c] && inputs[1].shape[..] != [2 * n, h, w, c] {
            return Err(format!(
                "prediction must be {:?} or twice as many, found {}",
                [n, h, w, c],
                inputs[1].shape
            ));
        }
        row(inputs[2])?;
        if inputs[3].shape.elements() != 1 || inputs[3].dtype != DType::F32 {
            return Err(format!("guidance must be f32[1], found {}", inputs[3]));
        }
        let more: Vec<DType> = inputs[4..].iter().map(|desc| desc.dtype).collect();
        if !matches!(more[..], [] | [DType::U32 | DType::F32] | [DType::U32, DType::F32]) {
            return Err(format!("wants seeds (u32), then rates (f32), found {more:?}"));
        }
        if let Some(desc) = inputs[4..].iter().find(|desc| desc.shape[..] != [n, 2]) {
            return Err(format!("sample has {n} pictures, seeds and rates must be [{n}, 2], found {desc}"));
        }
        Ok(inputs[0].clone())
    }

    fn flops(&self, inputs: &[&TensorDesc], _: &TensorDesc) -> u64 {
        24 * inputs[1].shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let [slots, n, h, w, c] = sample(cx.desc(0)).unwrap_or_else(|_| unreachable!("checked by infer"));
        let elements = n * h * w * c;
        let mut kernel = Kernel::new("diffusion_step").alias("Elem", elem(cx.desc(1)));
        if cx.desc(1).shape[0] == 2 * n {
            kernel = kernel.function("predicted", GUIDED);
        }
        let mut buffers = vec![
            ("sample", cx.input(0)),
            ("prediction", cx.input(1)),
            ("row", cx.input(2)),
            ("guidance", cx.input(3)),
            ("dst", cx.output()),
        ];
        let input = |dtype| (4..cx.inputs()).find(|&i| cx.desc(i).dtype == dtype).map(|i| cx.input(i));
        match input(DType::U32) {
            Some(seeds) => buffers.push(("seeds", seeds)),
            None => kernel = kernel.function("fresh", "fn fresh(i: u32) -> f32 { return 0.0; }"),
        }
        match input(DType::F32) {
            Some(rates) => buffers.push(("rates", rates)),
            None => kernel = kernel.function("rate", "fn rate(i: u32) -> vec2<f32> { return vec2(1.0); }"),
        }
        cx.dispatch(
            kernel,
            &buffers,
            &[
                ("elements", elements.into()),
                ("area", (h * w).into()),
                ("channels", c.into()),
                ("history", (slots - 2).into()),
            ],
            Grid::Threads(elements),
        );
    }
}

const GUIDED: &str = "fn predicted(i: u32) -> f32 {
    let unconditional = f32(prediction[P.elements + i]);
    return unconditional + guidance[0] * (f32(prediction[i]) - unconditional);
}";

impl Graph {
    /// The sample after one step; see [`DiffusionStep`].
    pub fn diffusion_step(
        &mut self,
        sample: ValueId,
        prediction: ValueId,
        row: ValueId,
        guidance: ValueId,
        seeds: Option<ValueId>,
        rates: Option<ValueId>,
    ) -> Result<ValueId> {
        let mut inputs = vec![sample, prediction, row, guidance];
        inputs.extend(seeds.into_iter().chain(rates));
        self.push(DiffusionStep, &inputs)
    }
}
