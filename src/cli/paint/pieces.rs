//! The pictures of a call: where the noise of each comes from, and what it is called.

use aquatint::tasks::Variation;

use crate::cli::painting::Painting;

/// A picture to be painted.
#[derive(Clone, Debug)]
pub struct Piece {
    pub seed: u64,
    pub variation: Option<Variation>,
    /// Its name among the others of the call.
    pub name: String,
}

impl Piece {
    /// One a seed, from `first` on.
    pub fn seeds(first: u64, count: usize, variation: Option<Variation>) -> Vec<Piece> {
        let seeds = (0..count as u64).map(|i| first.wrapping_add(i));
        seeds.map(|seed| Piece { seed, variation, name: seed.to_string() }).collect()
    }

    /// What the picture says of itself, out of what all have in common.
    pub fn painting(&self, common: &Painting) -> Painting {
        let mut painting = common.clone();
        painting.settings.seed = Some(self.seed);
        painting.settings.text.variation =
            self.variation.map(|Variation { seed, share }| format!("{seed}:{share}"));
        painting
    }
}
