//! How a workgroup shares attention's tiles of keys and values, on devices that are quick with workgroup memory.

use super::attention::{Attention, BIAS, dims, mask_strides, unsigned};
use crate::lower::{Grid, Lower};
use crate::shader::Kernel;
use crate::target::{DeviceClass, Target};
use crate::tensor::DType;

/// Threads of a workgroup, and what each holds; see `shaders/attention_shared.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// Threads down the queries and across the keys.
    threads: [usize; 2],
    /// Queries and keys of a thread.
    held: [usize; 2],
    /// In a head.
    quads: usize,
}

/// Threads and what they hold, the best first. Larger tiles read less for a product; smaller ones fit into less memory.
const SHAPES: [([usize; 2], [usize; 2]); 8] = [
    ([16, 8], [4, 8]),
    ([16, 8], [4, 4]),
    ([16, 8], [2, 4]),
    ([8, 8], [4, 4]),
    ([8, 8], [2, 4]),
    ([8, 4], [4, 4]),
    ([8, 4], [2, 4]),
    ([16, 4], [1, 4]),
];

/// Quads of sums that a thread keeps in registers, at most, and those that it likes best to have side by side.
const MOST_SUMS: usize = 20;
const SIDE_BY_SIDE: usize = 5;

/// Quads that a thread fetches ahead, at most.
const MOST_EARLY: usize = 6;

/// Fewest queries for which threads share keys.
const FEWEST_QUERIES: usize = 16;

impl Shared {
    /// The first that the device has memory for and that is not mostly past the end of the queries or the keys.
    pub fn choose(target: &Target, [lq, lk, d]: [usize; 3]) -> Option<Shared> {
        if target.class == DeviceClass::Cpu || !d.is_multiple_of(4) || lq < FEWEST_QUERIES {
            return None;
        }
        let all = SHAPES.map(|(threads, held)| Shared { threads, held, quads: d / 4 });
        all.into_iter().find(|shared| {
            shared.threads() <= target.max_invocations as usize
                && shared.memory() <= target.shared_memory as usize
                && shared.held[0] * shared.quads_held() <= MOST_SUMS
                && shared.rows() < 2 * lq
                && (shared.held[1] == 4 || 4 * shared.keys() <= lk)
        })
    }

    fn threads(&self) -> usize {
        self.threads[0] * self.threads[1]
    }

    fn rows(&self) -> usize {
        self.threads[0] * self.held[0]
    }

    fn keys(&self) -> usize {
        self.threads[1] * self.held[1]
    }

    /// Threads that divide a head's channels.
    fn across_channels(&self) -> usize {
        let most = self.threads[1];
        self.quads.div_ceil(SIDE_BY_SIDE).next_power_of_two().min(most)
    }

    fn quads_held(&self) -> usize {
        self.quads.div_ceil(self.across_channels())
    }

    /// Quads of a head's channels, divided evenly.
    fn depth(&self) -> usize {
        self.across_channels() * self.quads_held()
    }

    /// Quads of a tile that a thread fetches.
    fn loads(&self) -> usize {
        (self.keys() * self.depth()).div_ceil(self.threads())
    }

    /// Workgroup memory, bytes.
    fn memory(&self) -> usize {
        let line = self.depth() / 2 * 2 + 1;
        let quads = (self.rows() + self.keys()) * line + self.rows() * (self.keys() / 4 + 1);
        16 * quads + 4 * self.rows() * self.threads[1]
    }

    fn kernel(&self) -> Kernel {
        Kernel::new("attention_shared")
            .constant("ROWS_HELD", unsigned(self.held[0]))
            .constant("KEYS_HELD", unsigned(self.held[1]))
            .constant("QUADS_HELD", unsigned(self.quads_held()))
            .constant("ACROSS", unsigned(self.threads[1]))
            .constant("ACROSS_CHANNELS", unsigned(self.across_channels()))
            .constant("ACROSS_KEYS", unsigned(self.threads[1] / self.across_channels()))
            .constant("DOWN", unsigned(self.threads[0]))
            .constant("THREADS", unsigned(self.threads()))
            .constant("ROWS", unsigned(self.rows()))
            .constant("KEYS", unsigned(self.keys()))
            .constant("QUADS", unsigned(self.quads))
            .constant("DEPTH", unsigned(self.depth()))
            .constant("LOADS", unsigned(self.loads()))
            .constant("EARLY", self.loads() <= MOST_EARLY)
    }
}

impl Attention {
    /// With tiles in workgroup memory.
    pub(super) fn lower_shared(&self, shared: Shared, cx: &mut Lower) {
        let q = cx.desc(0);
        let [n, lq, c] = dims(cx.output_desc()).expect("checked by infer");
        let lk = cx.desc(1).shape[1];
        let tiles = lq.div_ceil(shared.rows());
        let quad = if q.dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" };
        let mut kernel =
            shared.kernel().constant("CAUSAL", self.causal).alias("Src", quad).alias("Dst", quad);
        let mut buffers =
            vec![("query", cx.input(0)), ("key", cx.input(1)), ("value", cx.input(2)), ("dst", cx.output())];
        if cx.inputs() == 4 {
            kernel = kernel.constant("MASKED", true).alias("Mask", q.dtype.wgsl()).function("bias", BIAS);
            buffers.push(("mask", cx.input(3)));
        }
        let sizes = [
            ("samples", n.into()),
            ("queries", lq.into()),
            ("keys", lk.into()),
            ("tiles", tiles.into()),
            ("scale", self.factor(c / self.heads).into()),
        ];
        cx.dispatch(
            kernel,
            &buffers,
            &[&sizes[..], &self.places(), &mask_strides(cx)].concat(),
            Grid::Groups(n * self.heads * tiles),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(target: &Target, lq: usize, lk: usize, d: usize) -> Option<[usize; 3]> {
        Shared::choose(target, [lq, lk, d]).map(|shared| {
            assert!(shared.memory() <= target.shared_memory as usize, "{shared:?}");
            assert_eq!(shared.threads[1] % shared.across_channels(), 0, "{shared:?}");
            [shared.rows(), shared.keys(), shared.threads()]
        })
    }

    #[test]
    fn tiles_fit_the_device() {
        let large = Target { shared_memory: 48 << 10, ..Target::typical() };
        assert_eq!(size(&large, 4096, 4096, 40), Some([64, 64, 128]));
        assert_eq!(size(&large, 4096, 77, 40), Some([64, 32, 128]));
        assert_eq!(size(&large, 1024, 1024, 80), Some([64, 32, 128]));
        assert_eq!(size(&large, 256, 256, 160), Some([32, 32, 128]));
        let small = Target { shared_memory: 16 << 10, max_invocations: 256, ..Target::typical() };
        for target in [&large, &Target::typical(), &small] {
            for d in [4, 8, 40, 64] {
                for lq in [16, 17, 33, 4096] {
                    assert!(size(target, lq, lq, d).is_some_and(|[rows, ..]| rows < 2 * lq), "{lq}, {d}");
                }
            }
        }
    }

    #[test]
    fn few_queries_and_odd_heads_are_left_to_others() {
        let target = Target::typical();
        assert_eq!(size(&target, 15, 100, 40), None);
        assert_eq!(size(&target, 100, 100, 30), None);
        assert_eq!(size(&Target { class: DeviceClass::Cpu, ..target }, 100, 100, 40), None);
    }
}
