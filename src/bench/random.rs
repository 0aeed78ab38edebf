//! Random numbers that are the same everywhere.

use crate::diffusion::philox_block;

/// Random numbers of a seed: Philox in counter mode.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    block: u32,
    left: Vec<u32>,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { seed, block: 0, left: Vec::new() }
    }

    fn word(&mut self) -> u32 {
        if self.left.is_empty() {
            self.left = philox_block(self.seed, 0, self.block).to_vec();
            self.block = self.block.wrapping_add(1);
        }
        self.left.pop().expect("a block has four words")
    }

    /// Between 0 and 1, neither included.
    pub fn uniform(&mut self) -> f64 {
        (f64::from(self.word()) + 0.5) / 4_294_967_296.0
    }

    /// With mean 0 and deviation 1, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
