//! How a workgroup divides a product among cooperative matrices: small ones that the threads of a subgroup hold together,
//! of f16, whose products are summed in f32.

use std::fmt;

use crate::shader::Kernel;
use crate::target::{DeviceClass, Target};
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

/// Subgroups, what each holds and how many matrices deep, the largest part first, and of how many workgroups it takes so many,
/// in halves of what keeps a device busy. Larger parts fetch less for a product, smaller ones are more; those with more
/// subgroups wait less where there are few. On an H200 a product of 4096³ runs at 280, 259 and 175 TFLOP/s with the first three; a
/// second room for the next step, which saves a barrier, made all of them slower.
const SHAPES: [([usize; 2], [usize; 2], usize, usize); 4] =
    [([2, 2], [4, 4], 2, 3), ([2, 4], [4, 2], 4, 1), ([2, 2], [2, 2], 4, 1), ([2, 2], [1, 1], 4, 0)];

/// Workgroups that keep a device busy; none where a matrix is multiplied number by number.
pub fn enough(target: &Target) -> Option<usize> {
    match target.class {
        DeviceClass::Discrete => Some(128),
        DeviceClass::Integrated => Some(32),
        DeviceClass::Cpu => None,
    }
}

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
            SHAPES.into_iter().filter_map(move |(subgroups, held, deep, _)| {
                // Less deep where that is further than the sums go, or there is not the memory.
                let whole = |n: &usize| length.next_multiple_of(n * side) == length.next_multiple_of(side);
                let depths = [deep, 2, 1].into_iter().filter(whole);
                let mut blocks = depths.map(|n| Block { side, subgroups, held, depth: n * side });
                blocks.find(|block| block.fits(target))
            })
        })
    }

    /// The largest of which a result of `rows` × `columns` takes enough, or else the smallest.
    pub fn choose(
        target: &Target,
        dtype: DType,
        [rows, columns]: [usize; 2],
        length: usize,
        batches: usize,
    ) -> Option<Block> {
        let enough = enough(target)?;
        let blocks: Vec<Block> = Block::all(target, dtype, length).collect();
        let side = blocks.first()?.side;
        let mut own_side = blocks.iter().filter(|block| block.side == side);
        let fills = |b: &&Block| 2 * batches * b.count(rows, columns) >= b.halves() * enough;
        own_side.clone().find(fills).or_else(|| own_side.next_back()).copied()
    }

    /// Of how many workgroups a result takes so many, in halves of what keeps a device busy.
    fn halves(&self) -> usize {
        let own = |shape: &&([usize; 2], [usize; 2], usize, usize)| {
            (shape.0, shape.1) == (self.subgroups, self.held)
        };
        SHAPES.iter().find(own).map_or(0, |shape| shape.3)
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
        let threads = self.threads(target);
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

/// Side of a matrix, then rows × columns × depth of the part.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of {} for {}×{}×{}", self.side, self.rows(), self.columns(), self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Matrices;

    fn target(subgroup_size: u32, sides: &[u32]) -> Target {
        Target { matrices: Some(Matrices { sides: sides.to_vec(), subgroup_size }), ..Target::typical() }
    }

    #[test]
    fn large_results_get_large_parts() {
        let target = target(32, &[16, 8]);
        let size = |side: usize, length| {
            let block = Block::choose(&target, DType::F16, [side, side], length, 1).unwrap();
            [block.side, block.rows(), block.columns(), block.depth]
        };
        assert_eq!(size(4096, 320), [16, 128, 128, 32]);
        // Not as deep as it could be: there is not the memory.
        assert_eq!(size(1024, 320), [16, 128, 128, 32]);
        assert_eq!(size(512, 320), [16, 64, 64, 64]);
        assert_eq!(size(64, 16), [16, 32, 32, 16]);
        assert_eq!(size(64, 48), [16, 32, 32, 16]);
    }

    #[test]
    fn what_a_device_has_not_is_not_offered() {
        let count = |target: &Target, dtype| Block::all(target, dtype, 64).count();
        let own = target(32, &[16, 8]);
        assert_eq!(count(&own, DType::F16), 8);
        assert_eq!(count(&own, DType::F32), 0);
        assert_eq!(count(&Target::typical(), DType::F16), 0);
        assert_eq!(count(&Target { max_invocations: 128, ..own.clone() }, DType::F16), 6);
        assert_eq!(count(&Target { shared_memory: 8 << 10, ..own.clone() }, DType::F16), 6);
        assert!(
            Block::choose(&Target { class: DeviceClass::Cpu, ..own }, DType::F16, [64, 64], 64, 1).is_none()
        );
    }
}
