//! What adapters add to weights: matrices written with fewer numbers than they have.

use crate::tensor::Tensor;

/// A matrix `[rows, columns]`, or a convolution's kernel `[c_out, c_in, kh, kw]` as the matrix `[c_out, c_in · kh · kw]`.
#[derive(Clone, Debug)]
pub enum Factors {
    Whole(Tensor),
    /// `up` `[rows, r]` times `down` `[r, columns]`.
    Product {
        up: Tensor,
        down: Tensor,
    },
    /// A kernel `Σ up[o, a] · core[a, b, y, x] · down[b, i]` (Tucker 1966); `up` is stored as `[r, c_out]` if `turned`.
    Tucker {
        up: Tensor,
        core: Tensor,
        down: Tensor,
        turned: bool,
    },
}

/// How factors make up what is added.
#[derive(Clone, Debug)]
pub enum Change {
    /// LoRA (Hu et al. 2021, arXiv:2106.09685): the factors as they are.
    Plain(Factors),
    /// LoHa (Hyeon-Woo et al. 2021, arXiv:2108.06098): element times element.
    Hadamard([Factors; 2]),
    /// LoKr (Yeh et al. 2023, arXiv:2309.14859): each element of the first times all of the second.
    Kronecker([Factors; 2]),
}

/// `scale · change`, of as many elements as the weight that it is added to.
#[derive(Clone, Debug)]
pub struct Delta {
    pub scale: f32,
    pub change: Change,
}

impl Factors {
    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        let rest = |t: &Tensor| t.desc.shape.iter().skip(1).product::<usize>();
        let first = |t: &Tensor| t.desc.shape.first().copied().unwrap_or(1);
        match self {
            Factors::Whole(whole) => [first(whole), rest(whole)],
            Factors::Product { up, down } => [first(up), rest(down)],
            Factors::Tucker { up, core, down, turned } => {
                let kernel: usize = core.desc.shape.iter().skip(2).product();
                [if *turned { rest(up) } else { first(up) }, rest(down) * kernel]
            }
        }
    }
}

impl Change {
    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        match self {
            Change::Plain(factors) | Change::Hadamard([factors, _]) => factors.size(),
            Change::Kronecker([a, b]) => {
                let ([a, b], [c, d]) = (a.size(), b.size());
                // What does not fit any weight need not fit a number.
                [a.saturating_mul(c), b.saturating_mul(d)]
            }
        }
    }
}
