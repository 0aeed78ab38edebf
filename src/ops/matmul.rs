//! Matmul: batched matrix product of two activations. A product with a constant is a
//! linear layer, [`Graph::linear`].

use super::conv2d::Shared;
use super::elementwise::broadcast;
use super::matrices::Block;
use super::{Operator, arity, float, share};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower, Slot};
use crate::shader::Kernel;
use crate::target::DeviceClass;
use crate::tensor::{DType, Shape, TensorDesc};

/// `a` `[..., m, k]` times `b` `[..., k, n]`; the batch dimensions broadcast as in NumPy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matmul {
    /// `a` is stored as `[..., k, m]`.
    pub transpose_a: bool,
    /// `b` is stored as `[..., n, k]`.
    pub transpose_b: bool,
}

/// Batch dimensions, rows and columns of an operand.
fn parts(desc: &TensorDesc, transposed: bool) -> Result<(Shape, usize, usize), String> {
    let rank = desc.shape.len();
    if rank < 2 {
        return Err(format!("wants matrices, found {desc}"));
    }
    let (batch, matrix) = desc.shape.split_at(rank - 2);
    Ok(match transposed {
        false => (batch.into(), matrix[0], matrix[1]),
        true => (batch.into(), matrix[1], matrix[0]),
    })
}

impl Operator for Matmul {
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 2..=2)?;
        float("left side", inputs[0])?;
        let (batch_a, m, k) = parts(inputs[0], self.transpose_a)?;
        let (batch_b, k_b, n) = parts(inputs[1], self.transpose_b)?;
        if k != k_b || inputs[0].dtype != inputs[1].dtype {
            return Err(format!("left side has {k} columns of {}, right side is {}", inputs[0].dtype, inputs[1]));
        }
        let mut shape = broadcast(&batch_a, &batch_b)?.to_vec();
        shape.extend([m, n]);
        Ok(TensorDesc::new(shape, inputs[0].dtype))
    }

    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let k = parts(inputs[0], self.transpose_a).map_or(0, |p| p.2);
        2 * (output.shape.elements() * k) as u64
    }

    fn lower(&self, cx: &mut Lower) {
        let (_, m, _) = parts(cx.desc(0), self.transpose_a).expect("checked by infer");
        self.lower_as_of(m, cx);
    }
}

/// Rows from which on a product is computed in the same order, whatever their number: [`Matmul::lower_as_of`].
pub(super) const ALIKE: usize = 64;

impl Matmul {
    /// In the way that suits a product of so many rows. As part of another operation, the result of sides in f16 may be f32.
    pub(super) fn lower_as_of(&self, rows: usize, cx: &mut Lower) {
        let (_, _, k) = parts(cx.desc(0), self.transpose_a).expect("checked by infer");
        let (_, _, n) = parts(cx.desc(1), self.transpose_b).expect("checked by infer");
        if self.reads_texels(cx, rows, k, n) {
            return self.lower_texels(cx);
        }
        if let Some(block) = self.choose_block(cx, rows, k, n) {
            return self.lower_matrices(block, cx);
        }
        match self.choose_shared(cx, rows, k, n) {
            Some(tile) => self.lower_shared(tile, cx),
            None => self.lower_registers(cx),
        }
    }

    fn lower_registers(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let (_, m, k) = parts(cx.desc(0), self.transpose_a).expect("checked by infer");
        let (_, _, n) = parts(cx.desc(1), self.transpose_b).expect("checked by infer");
        let (tile_rows, tile_quads) = match cx.target().class {
            DeviceClass::Cpu => (8, 4),
            _ => (4, 2),
        };
        let quads_n = n.div_ceil(4);
        let (rows, quads) = (m.min(tile_rows), quads_n.min(tile_quads));
        let (tiles_m, tiles_n) = (m.div_ceil(rows), quads_n.div_ceil(quads));
        let Types { scalar, quad, number } = Types::of(cx.desc(0).dtype);
        let mut kernel = Kernel::new("matmul")
            .constant("ROWS", format!("{rows}u"))
            .constant("QUADS", format!("{quads}u"))
            .alias("Number", number);
        kernel = match (self.transpose_a, k.is_multiple_of(4)) {
            (false, true) => kernel.alias("A", quad),
            (false, false) => kernel.alias("A", scalar).function("load_a", load("load_a", "a", "i", "l", "m", "k")),
            (true, _) => kernel.alias("A", scalar).function("load_a", load_transposed("load_a", "a", "i", "l", "m", "k")),
        };
        kernel = match (self.transpose_b, n.is_multiple_of(4)) {
            (false, true) => kernel.alias("B", quad),
            (false, false) => kernel.alias("B", scalar).function("load_b", load("load_b", "b", "l", "j", "k", "n")),
            (true, _) => kernel.alias("B", scalar).function("load_b", load_transposed("load_b", "b", "l", "j", "k", "n")),
        };
        kernel = match n.is_multiple_of(4) {
            true => kernel.alias("Dst", Types::of(output.dtype).quad),
            false => kernel.alias("Dst", output.dtype.wgsl()).function("store", STORE_SCALARS),
        };
        let batch = Batch::of(self, cx);
        cx.dispatch(
            kernel,
            &[("a", cx.input(0)), ("b", cx.input(1)), ("dst", cx.output())],
            &[
                ("m", m.into()),
                ("n", n.into()),
                ("k", k.into()),
                ("batches", batch.count.into()),
                ("tiles_m", tiles_m.into()),
                ("tiles_n", tiles_n.into()),
                ("rank", batch.shape.len().into()),
                ("shape", batch.shape.into()),
                ("a_strides", batch.a_strides.into()),
                ("b_strides", batch.b_strides.into()),
            ],
            Grid::Threads(batch.count * tiles_m * tiles_n),
        );
    }

    /// Whether both sides are better read as textures: not where there are too few rows for the lanes of a subgroup.
    fn reads_texels(&self, cx: &Lower, m: usize, k: usize, n: usize) -> bool {
        let quads = k.is_multiple_of(4) && n.is_multiple_of(4) && (!self.transpose_a || m.is_multiple_of(4));
        let (a, b) = (cx.desc(0), cx.desc(1));
        let (worth, possible) = if a.shape.elements() < b.shape.elements() { (b, a) } else { (a, b) };
        quads && m >= 2 * CPU_WORKGROUP && cx.prefers_texels(worth) && cx.target().reads_texels(possible)
    }

    /// The tile of workgroups that bring both sides into their memory, on GPUs, where a matrix fills a good part of one: the
    /// largest of which there are enough.
    fn choose_shared(&self, cx: &Lower, m: usize, k: usize, n: usize) -> Option<Shared> {
        let (target, output) = (cx.target(), cx.output_desc());
        let units = super::waves::units(target)?;
        let quads = k.is_multiple_of(4) && n.is_multiple_of(4) && !self.transpose_a && !self.transpose_b;
        let batches = output.shape.elements() / (m * n).max(1);
        let [large, small] = SHARED;
        let tile = if batches * large.count(m, n) >= 4 * units && large.fits(target) { large } else { small };
        (quads && tile.fits(target) && 2 * m >= tile.rows && 2 * n >= tile.columns && k >= tile.depth).then_some(tile)
    }

    fn lower_shared(&self, tile: Shared, cx: &mut Lower) {
        let (_, m, k) = parts(cx.desc(0), self.transpose_a).expect("checked by infer");
        let (_, _, n) = parts(cx.desc(1), self.transpose_b).expect("checked by infer");
        let matrices = [cx.input(0), cx.input(1), cx.output()];
        let types = [cx.desc(0), cx.output_desc()].map(|desc| desc.dtype);
        launch_shared(tile, Batch::of(self, cx), [m, k, n], types, matrices, cx);
    }

    /// How workgroups divide the result, where cooperative matrices are filled by both sides.
    fn choose_block(&self, cx: &Lower, m: usize, k: usize, n: usize) -> Option<Block> {
        let output = cx.output_desc();
        let batches = output.shape.elements() / (m * n).max(1);
        // Parts for four subgroups, with which 4096³ ran at 280 TFLOP/s on an H200. With the choice that suits convolutions, which
        // took sixteen, and no loop round what a subgroup multiplies it ran at 39; which of the two it was is not known.
        let few = |block: &Block| block.subgroups == [2, 2];
        Block::choose_of(cx.target(), cx.desc(0).dtype, [m, n], k, batches, 1, few)
            .filter(|block| m >= block.side && n >= block.side && k >= block.side)
    }

    fn lower_matrices(&self, block: Block, cx: &mut Lower) {
        let (a, b) = (cx.desc(0), cx.desc(1));
        let (_, m, k) = parts(a, self.transpose_a).expect("checked by infer");
        let (_, _, n) = parts(b, self.transpose_b).expect("checked by infer");
        let (tiles_y, tiles_x) = (m.div_ceil(block.rows()), n.div_ceil(block.columns()));
        let [a_lines, a_width] = if self.transpose_a { [k, m] } else { [m, k] };
        let [b_lines, b_width] = if self.transpose_b { [n, k] } else { [k, n] };
        let mut kernel =
            block.kernel("matmul_matrices", cx.target(), [self.transpose_a, self.transpose_b]);
        if !a_width.is_multiple_of(8) {
            kernel = kernel.alias("SrcA", "f16").function("load_a", load_halves("load_a", "a"));
        }
        if !b_width.is_multiple_of(8) {
            kernel = kernel.alias("SrcB", "f16").function("load_b", load_halves("load_b", "b"));
        }
        let dst = cx.output_desc().dtype;
        kernel = match n.is_multiple_of(4) {
            true => kernel.alias("Dst", Types::of(dst).quad),
            false => kernel.alias("Dst", dst.wgsl()).function("store", STORE_SCALARS),
        };
        let batch = Batch::of(self, cx);
        cx.dispatch(
            kernel,
            &[("a", cx.input(0)), ("b", cx.input(1)), ("dst", cx.output())],
            &[
                ("m", m.into()),
                ("n", n.into()),
                ("a_lines", a_lines.into()),
                ("a_width", a_width.into()),
                ("b_lines", b_lines.into()),
                ("b_width", b_width.into()),
                ("batches", batch.count.into()),
                ("tiles_y", tiles_y.into()),
                ("tiles_x", tiles_x.into()),
                ("steps", k.div_ceil(block.depth).into()),
                ("rank", batch.shape.len().into()),
                ("shape", batch.shape.into()),
                ("a_strides", batch.a_strides.into()),
                ("b_strides", batch.b_strides.into()),
            ],
            Grid::Groups(batch.count * tiles_y * tiles_x),
        );
    }

    fn lower_texels(&self, cx: &mut Lower) {
        let (_, m, k) = parts(cx.desc(0), self.transpose_a).expect("checked by infer");
        let (_, _, n) = parts(cx.desc(1), self.transpose_b).expect("checked by infer");
        let share = share::lanes(cx.target());
        let (rows, quads) = tile_of_texels(m, n / 4, share, if self.transpose_a { 4 } else { 1 });
        let (blocks_m, tiles_n) = (m.div_ceil(CPU_WORKGROUP * rows), (n / 4).div_ceil(quads));
        let unsigned = |n: usize| format!("{n}u");
        let batch = Batch::of(self, cx);
        let last_first = |axes: &[u32]| axes.iter().rev().copied().collect::<Vec<_>>();
        // Of one matrix nothing is left to find at run time.
        let rank = if batch.count == 1 { 0 } else { batch.shape.len() };
        let mut kernel = Kernel::new("matmul_texels")
            .constant("RANK", unsigned(rank))
            .constant("ROWS", unsigned(rows))
            .constant("QUADS", unsigned(quads))
            .constant("LANES", unsigned(CPU_WORKGROUP))
            .constant("SHARE", unsigned(share))
            .constant("FETCHES", unsigned(4 * quads / share))
            .constant("TURNED_A", self.transpose_a)
            .constant("TURNED_B", self.transpose_b);
        if share > 1 {
            kernel = kernel.function("share", share::LANES);
        }
        cx.texels("a_texture", cx.input(0), cx.desc(0));
        cx.texels("b_texture", cx.input(1), cx.desc(1));
        cx.dispatch(
            kernel,
            &[("dst", cx.output())],
            &[
                ("m", m.into()),
                ("n", n.into()),
                ("k", k.into()),
                ("batches", batch.count.into()),
                ("blocks_m", blocks_m.into()),
                ("tiles_n", tiles_n.into()),
                ("shape", last_first(&batch.shape).into()),
                ("a_strides", last_first(&batch.a_strides).into()),
                ("b_strides", last_first(&batch.b_strides).into()),
            ],
            Grid::Groups(batch.count * blocks_m * tiles_n),
        );
    }
}

/// What kernels call the numbers of a type, four of them, and what they compute with.
struct Types {
    scalar: &'static str,
    quad: &'static str,
    number: &'static str,
}

impl Types {
    fn of(dtype: DType) -> Types {
        let (quad, number) = match dtype {
            DType::F16 => ("vec4<f16>", "f32"),
            DType::I32 => ("vec4<i32>", "i32"),
            _ => ("vec4<f32>", "f32"),
        };
        Types { scalar: dtype.wgsl(), quad, number }
    }
}

/// Tiles of workgroups on GPUs, the larger first: a product of 4096³ runs at 40 TFLOP/s with it on an H200, at 32 with the other.
pub(super) const SHARED: [Shared; 2] = [
    Shared { rows: 128, columns: 128, depth: 16, held: 8, quads: 2, parts: 1 },
    Shared { rows: 64, columns: 64, depth: 16, held: 4, quads: 1, parts: 1 },
];

/// Of f32 with channels in whole quads, the products `[batches, m, k]` by `[batches, k, n]`, as part of another operation.
pub(super) fn multiply(tile: Shared, [batches, m, k, n]: [usize; 4], matrices: [Slot; 3], cx: &mut Lower) {
    let batch = Batch { count: batches, shape: vec![batches as u32], a_strides: vec![1], b_strides: vec![1] };
    launch_shared(tile, batch, [m, k, n], [DType::F32; 2], matrices, cx);
}

fn launch_shared(
    tile: Shared,
    batch: Batch,
    [m, k, n]: [usize; 3],
    [sides, result]: [DType; 2],
    [a, b, dst]: [Slot; 3],
    cx: &mut Lower,
) {
    let (tiles_y, tiles_x) = (m.div_ceil(tile.rows), n.div_ceil(tile.columns));
    let Types { quad, number, .. } = Types::of(sides);
    let mut kernel = tile
        .constants(Kernel::new("matmul_shared"))
        .alias("Quad", quad)
        .alias("Dst", Types::of(result).quad)
        .alias("Number", number);
    if sides == DType::I32 {
        kernel = kernel.function("add", ADD_INTEGERS);
    }
    cx.dispatch(
        kernel,
        &[("a", a), ("b", b), ("dst", dst)],
        &[
            ("m", m.into()),
            ("quads_n", (n / 4).into()),
            ("k", k.into()),
            ("batches", batch.count.into()),
            ("tiles_y", tiles_y.into()),
            ("tiles_x", tiles_x.into()),
            ("steps", k.div_ceil(tile.depth).into()),
            ("rank", batch.shape.len().into()),
            ("shape", batch.shape.into()),
            ("a_strides", batch.a_strides.into()),
            ("b_strides", batch.b_strides.into()),
        ],
        Grid::Groups(batch.count * tiles_y * tiles_x),
    );
}

/// Threads that fetch for one another, where there are subgroups of so many.
const CPU_WORKGROUP: usize = 8;

/// Rows, a multiple of `unit`, and quads that a thread computes of `m` rows and `quads_n` quads: those that take least in
/// all, when a fetch takes as long as some eighty multiply-adds and what lies beyond the end as long as the rest.
fn tile_of_texels(m: usize, quads_n: usize, share: usize, unit: usize) -> (usize, usize) {
    const FETCH: usize = 80;
    let cost = |&(rows, quads): &(usize, usize)| {
        let tiles = m.div_ceil(CPU_WORKGROUP * rows) * quads_n.div_ceil(quads);
        tiles * (FETCH * (rows + 4 * quads / share) + 16 * rows * quads)
    };
    let sides = |rows: usize| (1..=8).map(move |quads| (rows, quads));
    let whole = |&(rows, quads): &(usize, usize)| rows % unit == 0 && (4 * quads) % share == 0;
    (1..=8).flat_map(sides).filter(whole).min_by_key(cost).expect("eight rows of eight quads")
}

/// The matrices of a batch, and how many matrices lie between those of either side; zero where a side is broadcast.
struct Batch {
    count: usize,
    shape: Vec<u32>,
    a_strides: Vec<u32>,
    b_strides: Vec<u32>,
}

impl Batch {
    fn of(op: &Matmul, cx: &Lower) -> Batch {
        let output = &cx.output_desc().shape;
        let batch = Shape::from(&output[..output.len() - 2]);
        let strides = |input: usize, transposed: bool| -> Vec<u32> {
            let (own, ..) = parts(cx.desc(input), transposed).expect("checked by infer");
            let skip = batch.len() - own.len();
            let own_strides = own.strides();
            (0..batch.len())
                .map(|d| if d < skip || own[d - skip] == 1 { 0 } else { own_strides[d - skip] as u32 })
                .collect()
        };
        Batch {
            count: batch.elements(),
            shape: batch.iter().map(|&d| d as u32).collect(),
            a_strides: strides(0, op.transpose_a),
            b_strides: strides(1, op.transpose_b),
        }
    }
}

/// Four numbers along the second index, `rows` × `columns` stored row by row, zero past the end.
fn load(name: &str, buffer: &str, i: &str, j: &str, rows: &str, columns: &str) -> String {
    format!(
        "fn {name}(matrix: u32, {i}: u32, {j}: u32) -> V {{
    var v = V();
    for (var t = 0u; t < min(4u, P.{columns} - {j} * 4u); t++) {{
        v[t] = Number({buffer}[(matrix * P.{rows} + {i}) * P.{columns} + {j} * 4u + t]);
    }}
    return v;
}}"
    )
}

/// The same of a matrix stored column by column.
fn load_transposed(name: &str, buffer: &str, i: &str, j: &str, rows: &str, columns: &str) -> String {
    format!(
        "fn {name}(matrix: u32, {i}: u32, {j}: u32) -> V {{
    var v = V();
    for (var t = 0u; t < min(4u, P.{columns} - {j} * 4u); t++) {{
        v[t] = Number({buffer}[(matrix * P.{columns} + {j} * 4u + t) * P.{rows} + {i}]);
    }}
    return v;
}}"
    )
}

/// Eight numbers of a line for cooperative matrices, zero past its end.
fn load_halves(name: &str, buffer: &str) -> String {
    format!(
        "fn {name}(line: u32, eight: u32) -> Eight {{
    var v: array<vec4<f16>, 2>;
    for (var t = 0u; t < min(8u, P.{buffer}_width - eight * 8u); t++) {{
        v[t / 4u][t % 4u] = {buffer}[line * P.{buffer}_width + eight * 8u + t];
    }}
    return eight_of(v[0], v[1]);
}}"
    )
}

const ADD_INTEGERS: &str = "fn add(sum: V, x: Number, y: V) -> V { return sum + x * y; }";

const STORE_SCALARS: &str = "fn store(batch: u32, i: u32, j: u32, value: V) {
    for (var t = 0u; t < min(4u, P.n - j * 4u); t++) {
        dst[(batch * P.m + i) * P.n + j * 4u + t] = Dst(value[t]);
    }
}";

impl Graph {
    /// Matrix product of `a` `[..., m, k]` and `b` `[..., k, n]`, either of them transposed.
    pub fn matmul(&mut self, a: ValueId, b: ValueId, options: Matmul) -> Result<ValueId> {
        self.push(options, &[a, b])
    }
}
