//! How a workgroup divides a product among cooperative matrices: small ones that the threads of a subgroup hold together,
//! of f16, whose products are summed in f32.

use std::fmt;

use super::waves::{Pace, units};
use crate::shader::Kernel;
use crate::target::Target;
use crate::tensor::DType;

/// A workgroup's part of a product, `rows` × `columns` numbers of the result, `depth` columns of the left side and rows of
/// the right one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Side of a matrix: 8 or 16.
    pub side: usize,
    /// Subgroups, down and across.
    pub subgroups: [usize; 2],
    /// Matrices of sums that each of them holds, down and across.
    pub held: [usize; 2],
    pub depth: usize,
}

/// A way to divide a product, and the pace of its workgroups.
struct Shape {
    subgroups: [usize; 2],
    held: [usize; 2],
    /// Matrices deep.
    deep: usize,
    /// Whether a step is fetched after the last one too. Without a branch drivers mix what fetches with what multiplies: on an H200
    /// long sums are up to a tenth quicker, but short ones and small parts are slower.
    eager: bool,
    pace: Pace,
}

const fn shape(
    subgroups: [usize; 2],
    held: [usize; 2],
    deep: usize,
    eager: bool,
    at_a_time: usize,
    rate: f64,
) -> Shape {
    Shape { subgroups, held, deep, eager, pace: Pace { at_a_time, rate } }
}

/// Larger parts fetch less for a product, smaller ones are more; those with more subgroups wait less where a unit has but one. 160 and
/// 80 columns are whole parts of the channels of Stable Diffusion's layers, 128 and 64 of most other networks'. A second room for
/// the next step, which saves a barrier, made all of them slower.
const SHAPES: [Shape; 11] = [
    shape([4, 2], [2, 5], 4, true, 1, 1.0),
    shape([4, 5], [2, 2], 4, true, 1, 0.95),
    shape([4, 4], [2, 2], 4, true, 1, 0.95),
    shape([2, 2], [4, 4], 2, false, 2, 1.0),
    shape([4, 2], [2, 2], 4, false, 3, 0.8),
    shape([2, 5], [2, 2], 4, false, 1, 0.72),
    shape([4, 5], [2, 1], 4, true, 1, 0.72),
    shape([2, 5], [2, 1], 4, false, 1, 0.5),
    shape([2, 2], [2, 2], 4, false, 5, 0.62),
    shape([2, 4], [1, 1], 8, false, 6, 0.36),
    shape([2, 2], [1, 1], 8, false, 8, 0.28),
];

/// Operations in the time in which a workgroup begins, and in that in which a matrix of results of each subgroup is written; least in
/// that of a step, as long as it takes to fetch one.
const BEGIN: f64 = 0.8e6;
const RESULT: f64 = 0.6e6;
const STEP: f64 = 0.4e6;

/// Operations of a unit in the time of a launch, and in that of a byte that all units move together.
pub const LAUNCH: f64 = 7e6;
pub const BYTE: f64 = 0.4;

/// WGSL's names of matrices with this side: a left and a right factor, of f16 once they are SPIR-V, and a sum of products.
pub fn types(side: usize) -> [&'static str; 3] {
    match side {
        8 => ["coop_mat8x8<f32, A>", "coop_mat8x8<f32, B>", "coop_mat8x8<f32, C>"],
        _ => ["coop_mat16x16<f32, A>", "coop_mat16x16<f32, B>", "coop_mat16x16<f32, C>"],
    }
}

/// The same where the memory of factors is of f16 too: two types that become one would be declared twice.
pub fn types_of_halves(side: usize) -> [&'static str; 3] {
    match side {
        8 => ["coop_mat8x8<f16, A>", "coop_mat8x8<f16, B>", "coop_mat8x8<f32, C>"],
        _ => ["coop_mat16x16<f16, A>", "coop_mat16x16<f16, B>", "coop_mat16x16<f32, C>"],
    }
}

impl Block {
    /// All that the device can take for sums of `length` products, the largest first.
    pub fn all(target: &Target, dtype: DType, length: usize) -> impl Iterator<Item = Block> {
        let sides = target.matrices.iter().filter(move |_| dtype == DType::F16).flat_map(|m| m.sides.iter());
        sides.flat_map(move |&side| {
            let side = side as usize;
            SHAPES.iter().filter_map(move |&Shape { subgroups, held, deep, .. }| {
                // Less deep where that is further than the sums go, or there is not the memory.
                let whole = |n: &usize| length.next_multiple_of(n * side) == length.next_multiple_of(side);
                let depths = [8, 4, 2, 1].into_iter().filter(|&n| n <= deep).filter(whole);
                let mut blocks = depths.map(|n| Block { side, subgroups, held, depth: n * side });
                blocks.find(|block| block.fits(target))
            })
        })
    }

    /// The one that takes least for a result of `rows` × `columns` in each of so many batches, each number
    /// the sum of so many times `length` products, by a model.
    pub fn choose(
        target: &Target,
        dtype: DType,
        size: [usize; 2],
        length: usize,
        batches: usize,
        taps: usize,
    ) -> Option<Block> {
        Block::choose_of(target, dtype, size, length, batches, taps, |_| true)
    }

    /// The same of those that are `fit`.
    pub fn choose_of(
        target: &Target,
        dtype: DType,
        [rows, columns]: [usize; 2],
        length: usize,
        batches: usize,
        taps: usize,
        fit: impl Fn(&Block) -> bool,
    ) -> Option<Block> {
        let units = units(target)?;
        let blocks: Vec<Block> = Block::all(target, dtype, length).collect();
        let side = blocks.first()?.side;
        let own_side = blocks.into_iter().filter(|block| block.side == side && fit(block));
        let time = |block: &Block| {
            block.time(units, batches * block.count(rows, columns), taps * length.div_ceil(block.depth))
        };
        own_side.min_by(|a, b| time(a).total_cmp(&time(b)))
    }

    /// Time of so many workgroups with so many steps each, in operations of a unit at its full rate.
    pub fn time(&self, units: usize, workgroups: usize, steps: usize) -> f64 {
        let pace = self.shape().map_or(Pace { at_a_time: 1, rate: 1.0 }, |shape| shape.pace);
        let step = (2 * self.rows() * self.columns() * self.depth) as f64 / pace.rate;
        let one = steps as f64 * step.max(STEP) + BEGIN + RESULT * (self.held[0] * self.held[1]) as f64;
        Pace { rate: 1.0, ..pace }.time(units, workgroups, one)
    }

    fn shape(&self) -> Option<&'static Shape> {
        SHAPES.iter().find(|shape| (shape.subgroups, shape.held) == (self.subgroups, self.held))
    }

    pub fn rows(&self) -> usize {
        self.subgroups[0] * self.held[0] * self.side
    }

    pub fn columns(&self) -> usize {
        self.subgroups[1] * self.held[1] * self.side
    }

    /// How many workgroups the numbers of a result take.
    pub fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows()) * columns.div_ceil(self.columns())
    }

    /// Threads of a workgroup.
    fn threads(&self, target: &Target) -> usize {
        let subgroup = target.matrices.as_ref().map_or(1, |m| m.subgroup_size as usize);
        self.subgroups[0] * self.subgroups[1] * subgroup
    }

    fn fits(&self, target: &Target) -> bool {
        let threads = self.threads(target);
        threads <= target.max_invocations as usize
            && self.memory() <= target.shared_memory as usize
            // Then a thread always fetches the same columns of the left side.
            && threads.is_multiple_of(self.depth / 8)
    }

    /// Workgroup memory, bytes, whichever side is turned.
    fn memory(&self) -> usize {
        let side = |lines: usize, width: usize| (lines * (width + 8)).max(width * (lines + 8)) * 2;
        let sums = self.subgroups[0] * self.columns() * self.side * 4;
        sums.max(side(self.rows(), self.depth) + side(self.depth, self.columns()))
    }

    /// The kernel of this name with the constants of `lib/matrices`.
    pub fn kernel(
        &self,
        name: &'static str,
        target: &Target,
        [turned_left, turned_right]: [bool; 2],
    ) -> Kernel {
        let unsigned = |n: usize| format!("{n}u");
        let (threads, matrices) = (self.threads(target), target.matrices.as_ref());
        let stored = |lines: usize, width: usize, turned: bool| match turned {
            false => [lines, width / 8],
            true => [width, lines / 8],
        };
        let left = stored(self.rows(), self.depth, turned_left);
        let right = stored(self.depth, self.columns(), turned_right);
        let types = types(self.side);
        Kernel::new(name)
            .constant("SIDE", unsigned(self.side))
            .constant("ROWS", unsigned(self.rows()))
            .constant("COLUMNS", unsigned(self.columns()))
            .constant("DEPTH", unsigned(self.depth))
            .constant("SUBGROUPS", unsigned(self.subgroups[0] * self.subgroups[1]))
            .constant("SUBGROUPS_X", unsigned(self.subgroups[1]))
            .constant("HELD_Y", unsigned(self.held[0]))
            .constant("HELD_X", unsigned(self.held[1]))
            .constant("THREADS", unsigned(threads))
            .constant("ALIKE", matrices.is_some_and(|m| m.subgroup_size == target.subgroup_size))
            .constant("EAGER", self.shape().is_some_and(|shape| shape.eager))
            .constant("LOADS_LEFT", unsigned((left[0] * left[1]).div_ceil(threads)))
            .constant("LOADS_RIGHT", unsigned((right[0] * right[1]).div_ceil(threads)))
            .constant("ROOM", unsigned(self.memory() / 16))
            .constant("TURNED_LEFT", turned_left)
            .constant("TURNED_RIGHT", turned_right)
            .constant("LINES_LEFT", unsigned(left[0]))
            .constant("EIGHTS_LEFT", unsigned(left[1]))
            .constant("LINES_RIGHT", unsigned(right[0]))
            .constant("EIGHTS_RIGHT", unsigned(right[1]))
            .alias("Left", types[0])
            .alias("Right", types[1])
            .alias("Sum", types[2])
    }
}

/// Side of a matrix, then rows × columns × depth of the part and its subgroups.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [down, across] = self.subgroups;
        write!(
            f,
            "of {} for {}×{}×{} by {}",
            self.side,
            self.rows(),
            self.columns(),
            self.depth,
            down * across
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{DeviceClass, Matrices};

    fn target(subgroup_size: u32, sides: &[u32]) -> Target {
        Target { matrices: Some(Matrices { sides: sides.to_vec(), subgroup_size }), ..Target::typical() }
    }

    #[test]
    fn results_get_parts_that_come_out_even() {
        let target = Target { shared_memory: 48 << 10, ..target(32, &[16, 8]) };
        let size = |rows: usize, columns: usize, length| {
            let block = Block::choose(&target, DType::F16, [rows, columns], length, 1, 1).unwrap();
            [block.side, block.rows(), block.columns(), block.depth]
        };
        // Layers of Stable Diffusion for two pictures: a part for each of 128 units, or two.
        assert_eq!(size(8192, 320, 1280), [16, 128, 160, 64]);
        assert_eq!(size(2048, 640, 640), [16, 128, 80, 64]);
        assert_eq!(size(2048, 2560, 640), [16, 128, 160, 64]);
        assert_eq!(size(512, 1280, 1280), [16, 64, 80, 64]);
        // Powers of two.
        assert_eq!(size(4096, 4096, 1024), [16, 128, 128, 64]);
        assert_eq!(size(1024, 1024, 1024), [16, 128, 80, 64]);
        // Sums that end before a step would.
        assert_eq!([16, 48, 40].map(|length| size(64, 64, length)[3]), [16, 16, 16]);
        // Not as deep as it could be: there is not the memory.
        let less = Target { shared_memory: 32 << 10, ..target.clone() };
        let block = Block::choose(&less, DType::F16, [4096, 4096], 1024, 1, 1).unwrap();
        assert_eq!([block.rows(), block.columns(), block.depth], [128, 128, 32]);
    }

    #[test]
    fn what_a_device_has_not_is_not_offered() {
        let count = |target: &Target, dtype| Block::all(target, dtype, 64).count();
        let own = target(32, &[16, 8]);
        assert_eq!(count(&own, DType::F16), 20);
        assert_eq!(count(&own, DType::F32), 0);
        assert_eq!(count(&Target::typical(), DType::F16), 0);
        assert_eq!(count(&Target { max_invocations: 128, ..own.clone() }, DType::F16), 6);
        assert_eq!(count(&Target { shared_memory: 8 << 10, ..own.clone() }, DType::F16), 12);
        assert!(
            Block::choose(&Target { class: DeviceClass::Cpu, ..own }, DType::F16, [64, 64], 64, 1, 1)
                .is_none()
        );
    }
}
