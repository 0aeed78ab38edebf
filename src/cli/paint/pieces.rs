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

    /// From the noise of one seed to that of another, by equal shares of the arc between them. The first and the last are
    /// the pictures of the seeds alone.
    pub fn series(first: u64, last: u64, count: usize) -> Vec<Piece> {
        let digits = (count - 1).to_string().len().max(2);
        let piece = |i: usize| {
            let share = i as f32 / (count - 1) as f32;
            let (seed, variation) = match i {
                0 => (first, None),
                _ if i + 1 == count => (last, None),
                _ => (first, Some(Variation { seed: last, share })),
            };
            Piece { seed, variation, name: format!("{i:0digits$}") }
        };
        (0..count).map(piece).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_goes_from_a_seed_to_another() {
        let series = Piece::series(5, 9, 3);
        let found: Vec<_> = series.iter().map(|p| (p.seed, p.variation, p.name.as_str())).collect();
        let between = Variation { seed: 9, share: 0.5 };
        assert_eq!(found, [(5, None, "00"), (5, Some(between), "01"), (9, None, "02")]);
        assert_eq!(Piece::series(1, 2, 101)[7].name, "007");
        let text = &series[1].painting(&Painting::default()).settings.text;
        assert_eq!(text.variation.as_deref(), Some("9:0.5"));
    }
}
