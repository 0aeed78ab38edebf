//! First samples made of others' latents: a small run's, enlarged, and the noise between two seeds'.

use super::parts::Parts;
use super::{Painter, StartFrom, Wish};
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::reduce::Reduction;
use crate::ops::resize::{Coordinates, Interpolation};
use crate::ops::strided::Range;
use crate::tasks::sampling::{NoiseSource, Sampling, padded};
use crate::tensor::{DType, Tensor};

/// How latents are enlarged, as PyTorch's `interpolate` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enlarge {
    Nearest,
    #[default]
    Bilinear,
    Bicubic,
}

/// A seed on the way from a picture's own, and how far: 0 is the picture's own noise, 1 the other's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    pub seed: u64,
    pub share: f32,
}

impl Painter {
    /// Begins a run on the latents of a smaller one, enlarged and with as much noise of `seeds` as the painter's
    /// strength asks for ("hires fix"). The painter must be one for [`StartFrom::Latents`], on the same device and for
    /// as many pictures; the smaller run is finished first.
    ///
    /// # Errors
    /// As [`Painter::start`], and [`Error::Invalid`] for a run that does not fit.
    pub fn start_larger(
        &mut self,
        wishes: &[Wish],
        seeds: &[u64],
        small: &mut Sampling,
        enlarge: Enlarge,
    ) -> Result<Sampling<'_>> {
        let invalid = |what: &str, expected: String, found: String| {
            Err(Error::Invalid { what: what.to_owned(), expected, found })
        };
        if self.canvas != StartFrom::Latents {
            return invalid("painter to go on", "one for Latents".to_owned(), format!("{:?}", self.canvas));
        }
        let desc = small.around.step.desc("sample")?;
        let [slots, batch, h, w, c] = desc.shape[..] else { unreachable!("samples have five dimensions") };
        let parts = self.parts();
        let [.., channels] = parts.latent();
        if batch != self.batch() || small.seeds.len() != seeds.len() || c != channels {
            let expected = format!("{} of {} pictures, {channels} channels", seeds.len(), self.batch());
            let found = format!("{} of {batch}, {c} channels", small.seeds.len());
            return invalid("run to go on from", expected, found);
        }
        small.run()?;
        let network = Network::new(self.gpu(), &parts.larger_graph([slots, h, w], enlarge, self.scales())?)?;
        network.copy("small", &small.around.step, "sample")?;
        self.write_noise(&network, "noise", "seeds", seeds)?;
        network.submit(1)?;
        self.tell(wishes, seeds)?;
        self.around.rewind(seeds, 0)?;
        self.around.step.copy("sample", &network, "sample")?;
        Ok(self.sampling(seeds.to_vec(), 0))
    }

    /// Begins a run from noise that lies between that of each seed and that of another ("variation seed"). At a share of 0
    /// it is the seed's own to the bit.
    ///
    /// # Errors
    /// As [`Painter::start`], and [`Error::Invalid`] for shares that are none.
    pub fn start_between(
        &mut self,
        wishes: &[Wish],
        seeds: &[u64],
        variations: &[Variation],
    ) -> Result<Sampling<'_>> {
        let wrong = variations.iter().find(|v| !(0.0..=1.0).contains(&v.share));
        if self.canvas != StartFrom::Noise || variations.len() != seeds.len() || wrong.is_some() {
            return Err(Error::Invalid {
                what: "variations of a run from noise".to_owned(),
                expected: format!("{}, each with a share from 0 to 1", seeds.len()),
                found: match wrong {
                    Some(variation) => variation.share.to_string(),
                    None => format!("{} from {:?}", variations.len(), self.canvas),
                },
            });
        }
        let parts = self.parts();
        let network = Network::new(self.gpu(), &parts.between_graph(self.scales())?)?;
        let others: Vec<u64> = variations.iter().map(|v| v.seed).collect();
        let shares: Vec<f32> = variations.iter().map(|v| v.share).collect();
        self.write_noise(&network, "noise", "seeds", seeds)?;
        self.write_noise(&network, "other_noise", "other_seeds", &others)?;
        let shares = Tensor::from_f32([self.batch(), 1, 1, 1], &padded(&shares, self.batch()));
        network.write("shares", &shares)?;
        network.submit(1)?;
        self.tell(wishes, seeds)?;
        self.around.rewind(seeds, 0)?;
        self.around.step.copy("sample", &network, "sample")?;
        Ok(self.sampling(seeds.to_vec(), 0))
    }

    /// 1 for the latent itself, 0 for the slots of its history.
    fn scales(&self) -> Tensor {
        let mut scales = vec![0.0; 2 + self.around.table.history];
        scales[0] = 1.0;
        Tensor::from_f32([scales.len(), 1, 1, 1, 1], &scales)
    }

    /// Gives a graph with [`Parts::start_noise`] what it wants.
    fn write_noise(&self, network: &Network, noise: &str, seeds_name: &str, seeds: &[u64]) -> Result<()> {
        match self.options.noise {
            NoiseSource::Cuda => network.write(seeds_name, &self.around.seeds(seeds)),
            NoiseSource::Cpu => {
                let [h, w, c] = self.parts().latent();
                let values =
                    self.around.cpu_noise(&padded(seeds, self.batch()), self.parts().draws().start, 1);
                network.write(noise, &Tensor::from_f32([self.batch(), h, w, c], &values))
            }
        }
    }
}

impl Parts<'_> {
    /// Unit noise for the first sample: an input, or of seeds that are one.
    fn start_noise(&self, g: &mut Graph, noise: &str, seeds: &str) -> Result<ValueId> {
        let [h, w, c] = self.latent();
        match self.options.noise {
            NoiseSource::Cuda => {
                let seeds = g.input(seeds, [self.batch, 2], DType::U32);
                g.noise(seeds, self.latent(), self.draws().start as u32)
            }
            NoiseSource::Cpu => Ok(g.input(noise, [self.batch, h, w, c], DType::F32)),
        }
    }

    /// A smaller run's sample → the first of this one.
    fn larger_graph(&self, [slots, h, w]: [usize; 3], enlarge: Enlarge, scales: Tensor) -> Result<Graph> {
        let start = self.start()?;
        let [height, width, c] = self.latent();
        let (interpolation, coordinates) = match enlarge {
            Enlarge::Nearest => (Interpolation::Nearest, Coordinates::Asymmetric),
            Enlarge::Bilinear => (Interpolation::Bilinear, Coordinates::HalfPixel),
            Enlarge::Bicubic => (Interpolation::Bicubic { a: -0.75 }, Coordinates::HalfPixel),
        };
        let mut g = Graph::new();
        let small = g.input("small", [slots, self.batch, h, w, c], DType::F32);
        let first = Range { start: 0, stop: Some(1), step: 1 };
        let small = g.slice(small, &[first, Range::all(), Range::all(), Range::all(), Range::all()])?;
        let small = g.reshape(small, [self.batch, h, w, c])?;
        let large = g.resize(small, [height, width], interpolation, coordinates)?;
        let noise = self.start_noise(&mut g, "noise", "seeds")?;
        let (large, noise) =
            (g.affine(large, start.clean as f32, 0.0)?, g.affine(noise, start.noise as f32, 0.0)?);
        let sample = g.add(large, noise)?;
        in_slots(&mut g, sample, scales)?;
        Ok(g)
    }

    /// The noise of two seeds → a first sample between them, on the arc from one to the other. The angle is that
    /// between the columns of each channel, as A1111 takes it, so that its pictures can be made again.
    fn between_graph(&self, scales: Tensor) -> Result<Graph> {
        let scale = self.start()?.table.init_noise_scale as f32;
        let mut g = Graph::new();
        let low = self.start_noise(&mut g, "noise", "seeds")?;
        let high = self.start_noise(&mut g, "other_noise", "other_seeds")?;
        let share = g.input("shares", [self.batch, 1, 1, 1], DType::F32);
        const ROWS: &[usize] = &[1];
        let products = g.mul(low, high)?;
        let dot = g.reduce(products, Reduction::Sum, ROWS, true)?;
        let [low_length, high_length] =
            [g.reduce(low, Reduction::L2, ROWS, true)?, g.reduce(high, Reduction::L2, ROWS, true)?];
        let (mul, sub, div) = (
            |a, b| Expr::binary(Binary::Mul, a, b),
            |a, b| Expr::binary(Binary::Sub, a, b),
            |a, b| Expr::binary(Binary::Div, a, b),
        );
        let cosine = div(Expr::input(0), mul(Expr::input(1), Expr::input(2)));
        // Of the same noise twice the arc is a point: the angle stays where its sine is a number to divide by.
        let angle = Expr::unary(Unary::Acos, Expr::clamp(cosine, -LARGEST_COSINE, LARGEST_COSINE));
        let angle = g.elementwise(angle, &[dot, low_length, high_length])?;
        let part = |share: Expr| {
            div(Expr::unary(Unary::Sin, mul(share, Expr::input(1))), Expr::unary(Unary::Sin, Expr::input(1)))
        };
        // At the ends a quotient that should be 1 may miss it by a rounding: there the share itself is what it is to be.
        let other = || sub(Expr::Const(1.0), Expr::input(0));
        let inside = || mul(Expr::unary(Unary::Sign, Expr::input(0)), Expr::unary(Unary::Sign, other()));
        let exact = |share: Expr| {
            let outside = mul(sub(Expr::Const(1.0), inside()), share.clone());
            Expr::binary(Binary::Add, mul(inside(), part(share)), outside)
        };
        let from_low = g.elementwise(exact(other()), &[share, angle])?;
        let from_high = g.elementwise(exact(Expr::input(0)), &[share, angle])?;
        let (low, high) = (g.mul(low, from_low)?, g.mul(high, from_high)?);
        let noise = g.add(low, high)?;
        let sample = g.affine(noise, scale, 0.0)?;
        in_slots(&mut g, sample, scales)?;
        Ok(g)
    }
}

/// An angle of a thousandth: f32 still tells its cosine from 1.
const LARGEST_COSINE: f32 = 1.0 - 5e-7;

/// Puts a sample into the first of its slots, and makes that the output.
fn in_slots(g: &mut Graph, sample: ValueId, scales: Tensor) -> Result<()> {
    let slots = g.weight("slots", scales);
    let sample = g.mul(sample, slots)?;
    g.output("sample", sample);
    Ok(())
}
