//! Networks that remember frames: sequences that stand still, move, uncover what was hidden, are cut and are damaged.

#[path = "../hashed/mod.rs"]
mod hashed;
#[path = "../../examples/path_tracer/mod.rs"]
mod path_tracer;

mod clip;
mod denoise;
mod traced;
mod upscale;

use aquatint::{Gpu, Graph, Network, Tensor};
use clip::Frame;

/// A network that is run frame by frame.
struct Sequence(Network);

impl Sequence {
    fn new(gpu: &Gpu, graph: &Graph) -> Sequence {
        let network = Network::new(gpu, graph).unwrap();
        network.poison().unwrap();
        Sequence(network)
    }

    /// What comes out. Inputs that the network has not are left out.
    fn step(&self, frame: &Frame, more: &[(&str, &Tensor)]) -> Vec<f32> {
        let Frame { color, albedo, normal, motion, depth } = frame;
        let all =
            [("color", color), ("albedo", albedo), ("normal", normal), ("motion", motion), ("depth", depth)];
        let of = &self.0.plan().inputs;
        let inputs: Vec<_> = all
            .into_iter()
            .chain(more.iter().copied())
            .filter(|(name, _)| of.iter().any(|p| p.name == *name))
            .collect();
        self.0.run(&inputs).unwrap().remove(0).to_f32()
    }

    /// All that is remembered.
    fn states(&self) -> Vec<(String, Vec<f32>)> {
        let names = self.0.plan().states.iter().map(|port| port.name.clone());
        names.map(|name| (name.clone(), self.0.read(&name).unwrap().to_f32())).collect()
    }

    fn fill_states(&self, value: f32) {
        for port in &self.0.plan().states {
            let shape = port.desc.shape.clone();
            let values = vec![value; shape.elements()];
            self.0.write(&port.name, &Tensor::from_f32(shape, &values)).unwrap();
        }
    }
}

fn number(value: f32) -> Tensor {
    Tensor::from_f32([1], &[value])
}

/// Bit for bit.
fn assert_same(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let other = found.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(other, 0, "of {} numbers", found.len());
}

/// Numbers that no frame should have.
const BAD: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -1.0, 1e-40, 65504.0];

/// Every bad number, in all that a frame has.
fn mess([h, w]: [usize; 2]) -> Frame {
    let tensor = |c: usize, step: usize| {
        let values: Vec<f32> = (0..c * h * w).map(|i| BAD[i * step / 7 % BAD.len()]).collect();
        Tensor::from_f32([1, h, w, c], &values)
    };
    Frame {
        color: tensor(3, 1),
        albedo: tensor(3, 3),
        normal: tensor(3, 5),
        motion: tensor(3, 9),
        depth: tensor(1, 11),
    }
}
