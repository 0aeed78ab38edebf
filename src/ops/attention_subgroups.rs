//! Attention whose subgroups stream through the keys, with cooperative matrices.

use super::attention::{Attention, dims, mask_strides, unsigned};
use super::matrices;
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::target::{DeviceClass, Target};
use crate::tensor::DType;

/// How a workgroup divides its queries.
pub(super) struct Streams {
    side: usize,
    /// Each has `side` queries.
    subgroups: usize,
    /// Threads of a subgroup, of all of them.
    lanes: usize,
    /// Keys at a time, and channels of a head, both in whole matrices.
    keys: usize,
    depth: usize,
}

impl Streams {
    /// As many subgroups as there is workgroup memory for; none where subgroups may have fewer threads than others, or heads are
    /// not of whole eights. Two matrices of keys at a time, one of queries for a subgroup, four subgroups: docs/rejected.md has
    /// the times of others.
    pub fn choose(target: &Target, dtype: DType, [lq, lk, d]: [usize; 3]) -> Option<Streams> {
        let matrices = target.matrices.as_ref()?;
        let lanes = matrices.subgroup_size as usize;
        let whole = d.is_multiple_of(8)
            && dtype == DType::F16
            && target.class != DeviceClass::Cpu
            && target.subgroup_size == matrices.subgroup_size;
        let sides = matrices.sides.iter().map(|&side| side as usize);
        let fitting = sides.filter(|&side| side <= lq.min(lk).min(d) && lanes.is_multiple_of(side));
        let mut all = fitting.flat_map(|side| {
            let depth = d.next_multiple_of(side);
            [4, 2, 1].map(|subgroups| Streams { side, subgroups, lanes, keys: 2 * side, depth })
        });
        all.find(|streams| {
            whole
                // A thread holds as many numbers of a matrix as any other.
                && (streams.side * streams.side).is_multiple_of(streams.lanes)
                && streams.threads() <= target.max_invocations as usize
                && streams.memory() <= target.shared_memory as usize
        })
    }

    fn threads(&self) -> usize {
        self.subgroups * self.lanes
    }

    fn rows(&self) -> usize {
        self.subgroups * self.side
    }

    /// Threads that have a query together.
    fn share(&self) -> usize {
        self.lanes / self.side
    }

    /// Workgroup memory, bytes.
    fn memory(&self) -> usize {
        let tokens = 2 * self.keys * (self.depth + 8) * 2;
        tokens + self.rows() * ((self.keys + 4) * 4 + (self.keys + 8) * 2)
    }

    pub fn lower(&self, attention: &Attention, cx: &mut Lower) {
        let [n, lq, c] = dims(cx.output_desc()).expect("checked by infer");
        let lk = cx.desc(1).shape[1];
        let d = c / attention.heads;
        let tiles = lq.div_ceil(self.rows());
        let [left, right, sum] = matrices::types(self.side);
        let mut kernel = Kernel::new("attention_subgroups")
            .constant("SIDE", unsigned(self.side))
            .constant("SUBGROUPS", unsigned(self.subgroups))
            .constant("LANES", unsigned(self.lanes))
            .constant("THREADS", unsigned(self.threads()))
            .constant("ROWS", unsigned(self.rows()))
            .constant("SHARE", unsigned(self.share()))
            .constant("KEYS", unsigned(self.keys))
            .constant("DEPTH", unsigned(self.depth))
            .constant("HELD_KEYS", unsigned(self.keys / self.side))
            .constant("HELD_CHANNELS", unsigned(self.depth / self.side))
            .constant("LOADS", unsigned((self.keys * self.depth / 8).div_ceil(self.threads())))
            .constant("NUMBERS", unsigned(self.side * self.side / self.lanes))
            .constant("CAUSAL", attention.causal)
            .constant("MASKED", cx.inputs() == 4)
            .alias("Left", left)
            .alias("Right", right)
            .alias("Sum", sum);
        let mut buffers =
            vec![("query", cx.input(0)), ("key", cx.input(1)), ("value", cx.input(2)), ("dst", cx.output())];
        if cx.inputs() == 4 {
            kernel = kernel.alias("Mask", "f16").function("biased", BIASED);
            buffers.push(("mask", cx.input(3)));
        }
        let sizes = [
            ("samples", n.into()),
            ("eights", (d / 8).into()),
            ("queries", lq.into()),
            ("keys", lk.into()),
            ("tiles", tiles.into()),
            ("scale", (attention.factor(d) * std::f32::consts::LOG2_E).into()),
        ];
        cx.dispatch(
            kernel,
            &buffers,
            &[&sizes[..], &attention.places(), &mask_strides(cx)].concat(),
            Grid::Groups(n * attention.heads * tiles),
        );
    }
}

const BIASED: &str = "fn biased(products: vec4<f32>, sample: u32, head: u32, i: u32, j: u32) -> vec4<f32> {
    let line = sample * P.mask_sample + head * P.mask_head + min(i, P.queries - 1u) * P.keys;
    var sums = products;
    for (var t = 0u; t < 4u; t++) { // #unroll
        sums[t] += 1.4426950408889634 * f32(mask[line + min(j + t, P.keys - 1u)]);
    }
    return sums;
}";
