//! Attention: scaled dot-product attention, self and cross.

use super::attention_shared::Shared;
use super::attention_subgroups::Streams;
use super::{Operator, float, matrices, share};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, TensorDesc};

/// Largest number of channels in a head.
pub const MAX_HEAD_SIZE: usize = 256;

/// Choices of an attention.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionOptions {
    /// Factor of the scores; 1/√d when `None`.
    pub scale: Option<f32>,
    /// Query i sees keys 0 to i only.
    pub causal: bool,
    /// Added to the scores: `[n or 1, heads or 1, lq, lk]`. −∞ hides a key; a
    /// query that sees no key gives zeros.
    pub mask: Option<ValueId>,
}

/// `softmax(scale · q kᵀ + mask) v` for each head (Vaswani et al., 2017).
/// Inputs: q `[n, lq, heads · d]`, k and v `[n, lk, heads · d]`, the mask if there is one.
#[derive(Clone, Debug)]
pub struct Attention {
    pub heads: usize,
    pub scale: Option<f32>,
    pub causal: bool,
    pub joined: Joined,
}

/// Which of queries, keys and values lie side by side in the channels of one tensor, which is given for each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Joined {
    #[default]
    Apart,
    /// Keys, then values: `[n, lk, 2 · heads · d]`.
    KeysValues,
    /// Queries, keys, values: `[n, l, 3 · heads · d]`.
    All,
}

impl Joined {
    /// How many of them the tensors of queries, keys and values have side by side.
    pub fn parts(self) -> [usize; 3] {
        match self {
            Joined::Apart => [1, 1, 1],
            Joined::KeysValues => [1, 2, 2],
            Joined::All => [3, 3, 3],
        }
    }

    /// Which of these the queries, keys and values are.
    pub fn part(self) -> [usize; 3] {
        match self {
            Joined::Apart => [0, 0, 0],
            Joined::KeysValues => [0, 0, 1],
            Joined::All => [0, 1, 2],
        }
    }
}

impl Operator for Attention {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        super::arity(inputs, 3..=4)?;
        let [q, k, v] = [0, 1, 2].map(|i| inputs[i]);
        float("query", q)?;
        let ([n, lq, wide], [nk, lk, ck]) = (dims(q)?, dims(k)?);
        let [of_query, of_key, _] = self.joined.parts();
        let c = wide / of_query;
        if k != v || nk != n || ck != c * of_key || wide != c * of_query || k.dtype != q.dtype {
            let wanted = c * of_key;
            return Err(format!("query is {q}, so key and value must be {}[{n}, any, {wanted}], found {k} and {v}", q.dtype));
        }
        if self.heads == 0 || !c.is_multiple_of(self.heads) || c / self.heads > MAX_HEAD_SIZE {
            return Err(format!(
                "{c} channels must be {} heads of at most {MAX_HEAD_SIZE} channels each",
                self.heads
            ));
        }
        if let Some(mask) = inputs.get(3) {
            let fits = |i: usize, size: usize| mask.shape[i] == size || mask.shape[i] == 1;
            let ok = mask.shape.len() == 4
                && fits(0, n)
                && fits(1, self.heads)
                && mask.shape[2..] == [lq, lk]
                && mask.dtype == q.dtype;
            if !ok {
                return Err(format!(
                    "mask must be {}[{n} or 1, {} or 1, {lq}, {lk}], found {mask}",
                    q.dtype, self.heads
                ));
            }
        }
        Ok(TensorDesc::new([n, lq, c], q.dtype))
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        4 * (output.shape.elements() * inputs[1].shape[1]) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let (q, k) = (cx.desc(0), cx.desc(1));
        let [n, lq, c] = dims(cx.output_desc()).expect("checked by infer");
        let lk = k.shape[1];
        let d = c / self.heads;
        if self.joined == Joined::Apart && d.is_multiple_of(4) && cx.prefers_texels(q) && cx.target().reads_texels(k) {
            return self.lower_texels(cx);
        }
        if let Some(streams) = Streams::choose(cx.target(), q.dtype, [lq, lk, d]) {
            return streams.lower(self, cx);
        }
        if let Some(blocks) = Blocks::choose(cx.target(), q.dtype, [lq, lk, d]) {
            return self.lower_matrices(blocks, cx);
        }
        if let Some(shared) = Shared::choose(cx.target(), [lq, lk, d]) {
            return self.lower_shared(shared, cx);
        }
        let quads = d.div_ceil(4);
        // As many queries as registers hold beside their results.
        let most = match cx.target().class {
            DeviceClass::Cpu => 32 / quads.min(32),
            _ => 16 / quads.min(16),
        };
        let queries = most.clamp(1, 4).min(lq);
        let tiles = lq.div_ceil(queries);
        let mut kernel = Kernel::new("attention")
            .constant("QUERIES", unsigned(queries))
            .constant("KEYS", if quads > 16 { "1u" } else { "4u" })
            .constant("QUADS", unsigned(quads))
            .constant("CAUSAL", self.causal);
        let vector = d.is_multiple_of(4);
        let scalar = q.dtype.wgsl();
        if vector {
            let quad = if q.dtype == DType::F16 { "vec4<f16>" } else { "vec4<f32>" };
            kernel = kernel.alias("Src", quad).alias("Dst", quad);
        } else {
            kernel = kernel
                .alias("Src", scalar)
                .alias("Dst", scalar)
                .function("load_query", load_scalars("load_query", "query", "query_place"))
                .function("load_key", load_scalars("load_key", "key", "key_place"))
                .function("load_value", load_scalars("load_value", "value", "value_place"))
                .function("store", STORE_SCALARS);
        }
        let mut buffers =
            vec![("query", cx.input(0)), ("key", cx.input(1)), ("value", cx.input(2)), ("dst", cx.output())];
        if cx.inputs() == 4 {
            kernel = kernel.alias("Mask", scalar).function("bias", BIAS);
            buffers.push(("mask", cx.input(3)));
        }
        let sizes = [
            ("samples", n.into()),
            ("head_size", d.into()),
            ("queries", lq.into()),
            ("keys", lk.into()),
            ("tiles", tiles.into()),
            ("scale", self.factor(d).into()),
        ];
        cx.dispatch(
            kernel,
            &buffers,
            &[&sizes[..], &self.places(), &mask_strides(cx)].concat(),
            Grid::Threads(n * self.heads * tiles),
        );
    }
}

impl Attention {
    pub(super) fn factor(&self, head_size: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (head_size as f32).sqrt())
    }

    /// Parameters of `shaders/lib/heads.wgsl`.
    pub(super) fn places(&self) -> [(&'static str, Param); 5] {
        let [query, key, value] = self.joined.part().map(|part| part * self.heads);
        let [wide, wide_keys, _] = self.joined.parts().map(|parts| parts * self.heads);
        debug_assert_eq!(query, 0);
        [
            ("heads", self.heads.into()),
            ("query_heads", wide.into()),
            ("key_heads", wide_keys.into()),
            ("first_key", key.into()),
            ("first_value", value.into()),
        ]
    }

    /// With cooperative matrices.
    fn lower_matrices(&self, blocks: Blocks, cx: &mut Lower) {
        let [n, lq, c] = dims(cx.output_desc()).expect("checked by infer");
        let lk = cx.desc(1).shape[1];
        let d = c / self.heads;
        let tiles = lq.div_ceil(blocks.rows());
        let subgroup = cx.target().matrices.as_ref().map_or(1, |m| m.subgroup_size as usize);
        let [left, right, sum] = matrices::types_of_halves(blocks.side);
        let mut kernel = Kernel::new("attention_matrices")
            .constant("SIDE", unsigned(blocks.side))
            .constant("SUBGROUPS", unsigned(blocks.subgroups))
            .constant("THREADS", unsigned(blocks.subgroups * subgroup))
            .constant("ROWS", unsigned(blocks.rows()))
            .constant("KEYS", unsigned(blocks.keys))
            .constant("DEPTH", unsigned(blocks.depth))
            .constant("HELD_KEYS", unsigned(blocks.keys / blocks.side))
            .constant("HELD_CHANNELS", unsigned(blocks.depth / blocks.side))
            .constant("CAUSAL", self.causal)
            .alias("Left", left)
            .alias("Right", right)
            .alias("Sum", sum);
        let mut buffers =
            vec![("query", cx.input(0)), ("key", cx.input(1)), ("value", cx.input(2)), ("dst", cx.output())];
        if cx.inputs() == 4 {
            kernel = kernel.alias("Mask", "f16").function("bias", BIAS);
            buffers.push(("mask", cx.input(3)));
        }
        let sizes = [
            ("samples", n.into()),
            ("quads", (d / 4).into()),
            ("queries", lq.into()),
            ("keys", lk.into()),
            ("tiles", tiles.into()),
            ("scale", self.factor(d).into()),
        ];
        cx.dispatch(
            kernel,
            &buffers,
            &[&sizes[..], &self.places(), &mask_strides(cx)].concat(),
            Grid::Groups(n * self.heads * tiles),
        );
    }

    /// All that is read in textures.
    fn lower_texels(&self, cx: &mut Lower) {
        let [n, lq, c] = dims(cx.output_desc()).expect("checked by infer");
        let lk = cx.desc(1).shape[1];
        let d = c / self.heads;
        let queries = queries_of_texels(d / 4, lq);
        let blocks = lq.div_ceil(CPU_WORKGROUP * queries);
        let share = share::lanes(cx.target());
        // To ask any lane is one instruction where there are eight, and many where there are fewer: lanes are constants there, and
        // the keys of all of them are one turn.
        let keys = if share == 8 { 2 } else { 4 };
        let mut kernel = Kernel::new("attention_texels")
            .constant("QUERIES", unsigned(queries))
            .constant("KEYS", unsigned(keys))
            .constant("QUADS", unsigned(d / 4))
            .constant("LANES", unsigned(CPU_WORKGROUP))
            .constant("SHARE", unsigned(share))
            .constant("TURN", unsigned(keys.min(share)))
            .constant("FETCHES", unsigned((keys / share).max(1)))
            .constant("CAUSAL", self.causal);
        kernel = match share {
            8 => kernel.function("share", share::ANY_LANE),
            1 => kernel,
            _ => kernel.function("share", share::LANES).function("turn", ONE_TURN),
        };
        if share > 1 {
            kernel = kernel.function("any_thread", ANY_THREAD);
        }
        cx.texels("query_texture", cx.input(0), cx.desc(0));
        cx.texels("key_texture", cx.input(1), cx.desc(1));
        cx.texels("value_texture", cx.input(2), cx.desc(2));
        let mut buffers = vec![("dst", cx.output())];
        if cx.inputs() == 4 {
            kernel = kernel.function("bias", BIAS);
            buffers.push(("mask", cx.input(3)));
        }
        let sizes = [
            ("samples", n.into()),
            ("heads", self.heads.into()),
            ("queries", lq.into()),
            ("keys", lk.into()),
            ("blocks", blocks.into()),
            ("token", (c / 4).into()),
            ("scale", self.factor(d).into()),
        ];
        cx.dispatch(
            kernel,
            &buffers,
            &[&sizes[..], &mask_strides(cx)].concat(),
            Grid::Groups(n * self.heads * blocks),
        );
    }
}

/// How a workgroup with cooperative matrices divides its queries.
struct Blocks {
    side: usize,
    /// Each has `side` queries.
    subgroups: usize,
    /// Keys at a time, and channels of a head, both in whole matrices.
    keys: usize,
    depth: usize,
}

impl Blocks {
    /// As many subgroups as there is workgroup memory for, where there are enough queries, keys and channels to fill
    /// matrices, and a thread for each query.
    fn choose(target: &Target, dtype: DType, [lq, lk, d]: [usize; 3]) -> Option<Blocks> {
        let matrices = target.matrices.as_ref()?;
        let whole = d.is_multiple_of(4) && dtype == DType::F16 && target.class != DeviceClass::Cpu;
        let sides = matrices.sides.iter().map(|&side| side as usize);
        let subgroup = matrices.subgroup_size as usize;
        let fitting = sides.filter(|&side| side <= lq.min(lk).min(d).min(subgroup));
        let mut all = fitting.flat_map(|side| {
            let depth = d.next_multiple_of(side);
            [4, 2, 1].map(|subgroups| Blocks { side, subgroups, keys: 2 * side, depth })
        });
        all.find(|blocks| {
            whole
                && blocks.subgroups * subgroup <= target.max_invocations as usize
                && blocks.memory() <= target.shared_memory as usize
        })
    }

    fn rows(&self) -> usize {
        self.subgroups * self.side
    }

    /// Workgroup memory, bytes.
    fn memory(&self) -> usize {
        let line = |numbers: usize, size: usize| (numbers + 8) * size;
        let sides = (self.rows() + 2 * self.keys) * line(self.depth, 2);
        // Scores, weights in two parts, and their sum.
        sides + self.rows() * (line(self.keys, 4) + 2 * line(self.keys, 2) + 4) + 6 * 16
    }
}

/// Threads that fetch for one another, where there are subgroups of so many.
const CPU_WORKGROUP: usize = 8;

/// How many of `lq` queries a thread computes: eight, for heads beyond 80 channels fewer, as the first-level cache holds.
/// What lanes fetch at a time costs as much as two queries cost to compute, and queries past the end cost as much as others.
fn queries_of_texels(quads: usize, lq: usize) -> usize {
    let most = if quads <= 20 { 8 } else { (128 / quads).max(1) };
    let cost = |queries: usize| lq.div_ceil(CPU_WORKGROUP * queries) * (queries + 2);
    (1..=most).min_by_key(|&queries| cost(queries)).expect("at least one")
}

const ANY_THREAD: &str = "fn any_thread(own: bool) -> bool { // #inline
    return subgroupAny(own);
}";

const ONE_TURN: &str = "fn turn(t: u32) -> u32 { // #inline
    return 0u;
}";

pub(super) fn unsigned(n: usize) -> String {
    format!("{n}u")
}

/// Of samples and heads in the mask; zero where it is the same for all.
pub(super) fn mask_strides(cx: &Lower) -> [(&'static str, Param); 2] {
    let strides = match cx.inputs() {
        4 => {
            let [samples, heads, lq, lk] = cx.desc(3).shape[..].try_into().expect("checked by infer");
            let stride = |count: usize, size: usize| if count == 1 { 0 } else { size };
            [stride(samples, heads * lq * lk), stride(heads, lq * lk)]
        }
        _ => [0, 0],
    };
    [("mask_sample", strides[0].into()), ("mask_head", strides[1].into())]
}

pub(super) fn dims(desc: &TensorDesc) -> Result<[usize; 3], String> {
    desc.shape[..].try_into().map_err(|_| format!("query, key and value must be [n, tokens, channels], found {desc}"))
}

/// For heads whose size is not a multiple of four: the missing lanes are zero.
fn load_scalars(name: &str, buffer: &str, place: &str) -> String {
    format!(
        "fn {name}(token: u32, head: u32, quad: u32) -> V {{
    var v = V(0.0);
    let first = {place}(token, head, P.head_size, quad * 4u);
    for (var i = 0u; i < min(4u, P.head_size - quad * 4u); i++) {{
        v[i] = f32({buffer}[first + i]);
    }}
    return v;
}}"
    )
}

const STORE_SCALARS: &str = "fn store(token: u32, head: u32, quad: u32, v: V) {
    let first = place(token, P.heads, head, P.head_size, quad * 4u);
    for (var i = 0u; i < min(4u, P.head_size - quad * 4u); i++) {
        dst[first + i] = Dst(v[i]);
    }
}";

pub(super) const BIAS: &str = "fn bias(sample: u32, head: u32, i: u32, j: u32) -> f32 {
    return f32(mask[sample * P.mask_sample + head * P.mask_head + i * P.keys + j]);
}";

impl Graph {
    /// Attention of queries `q` `[n, lq, heads · d]` over keys and values `k`, `v`
    /// `[n, lk, heads · d]`; the result is as `q`. A feature map reshaped to
    /// `[n, h · w, c]` is such a sequence.
    pub fn attention(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        heads: usize,
        options: AttentionOptions,
    ) -> Result<ValueId> {
        let mut inputs = vec![q, k, v];
        inputs.extend(options.mask);
        self.push(Attention { heads, scale: options.scale, causal: options.causal, joined: Joined::Apart }, &inputs)
    }
}
