//! Noise: standard normal numbers of a seed and a draw.

use super::diffusion_input::row;
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, elem};
use crate::shader::Kernel;
use crate::tensor::{DType, TensorDesc};

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Standard normal, f32.
    Normal,
    /// One of the four words of the generator's block, u32.
    Bits { word: usize },
}

/// For each picture the `draw`-th tensor that PyTorch's CUDA generator gives for its seed
/// ([`crate::diffusion::cuda_normal`]). Inputs: seeds `[n, 2]`, `u32`, and the row of a sampler
/// ([`crate::diffusion::Row`]) where `draw` is `None`: then it is the row's.
#[derive(Clone, Debug)]
pub struct Noise {
    pub distribution: Distribution,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub draw: Option<u32>,
}

/// Checks seeds: `[n, 2]`, the low word first.
pub(super) fn seeds(desc: &TensorDesc) -> Result<usize, String> {
    match (&desc.shape[..], desc.dtype) {
        (&[n, 2], DType::U32) => Ok(n),
        _ => Err(format!("seeds must be u32[n, 2], found {desc}")),
    }
}

impl Operator for Noise {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        let wanted = 1 + usize::from(self.draw.is_none());
        arity(inputs, wanted..=wanted)?;
        if let Some(desc) = inputs.get(1) {
            row(desc)?;
        }
        let n = seeds(inputs[0])?;
        let dtype = match self.distribution {
            Distribution::Normal => DType::F32,
            Distribution::Bits { word: 0..4 } => DType::U32,
            Distribution::Bits { word } => return Err(format!("a block has words 0 to 3, found {word}")),
        };
        Ok(TensorDesc::new([n, self.height, self.width, self.channels], dtype))
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        // Philox is integer arithmetic; the rest is about this much.
        32 * output.shape.elements() as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let count = cx.output_desc().shape.elements();
        let mut kernel = Kernel::new("noise").alias("Elem", elem(cx.output_desc()));
        if let Distribution::Bits { word } = self.distribution {
            kernel = kernel.function(
                "value",
                format!("fn value(seed: vec2<u32>, index: u32) -> Elem {{ return philox(seed, draw(), index)[{word}]; }}"),
            );
        }
        let mut buffers = vec![("seeds", cx.input(0)), ("dst", cx.output())];
        if self.draw.is_none() {
            kernel = kernel.function("draw", "fn draw() -> u32 { return u32(row[17]); }");
            buffers.push(("row", cx.input(1)));
        }
        cx.dispatch(
            kernel,
            &buffers,
            &[
                ("count", count.into()),
                ("area", (self.height * self.width).into()),
                ("channels", self.channels.into()),
                ("draw", self.draw.unwrap_or(0).into()),
            ],
            Grid::Threads(count),
        );
    }
}

impl Graph {
    /// Standard normal noise `[n, height, width, channels]`, f32, for seeds `[n, 2]` (u32, low word
    /// first): the `draw`-th tensor of each seed, as `torch.randn` on CUDA, channels first.
    pub fn noise(
        &mut self,
        seeds: ValueId,
        [height, width, channels]: [usize; 3],
        draw: u32,
    ) -> Result<ValueId> {
        let draw = Some(draw);
        self.push(Noise { distribution: Distribution::Normal, height, width, channels, draw }, &[seeds])
    }

    /// The same, of the draw that a sampler's row `[1, 32]` names.
    pub fn noise_of_row(
        &mut self,
        seeds: ValueId,
        [height, width, channels]: [usize; 3],
        row: ValueId,
    ) -> Result<ValueId> {
        let noise = Noise { distribution: Distribution::Normal, height, width, channels, draw: None };
        self.push(noise, &[seeds, row])
    }

    /// The words from which [`Graph::noise`] is made, `u32`.
    pub fn noise_bits(
        &mut self,
        seeds: ValueId,
        [height, width, channels]: [usize; 3],
        draw: u32,
        word: usize,
    ) -> Result<ValueId> {
        let draw = Some(draw);
        self.push(Noise { distribution: Distribution::Bits { word }, height, width, channels, draw }, &[seeds])
    }
}
