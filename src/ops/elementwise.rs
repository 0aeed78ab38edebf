//! Element-wise operations: any expression of up to four broadcast inputs, one kernel.

use super::expr::{Binary, Expr, Unary};
use super::{Operator, arity};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::lower::{Grid, Lower};
use crate::shader::{Kernel, Param};
use crate::target::DeviceClass;
use crate::tensor::{DType, MAX_RANK, Shape, TensorDesc};

/// Most inputs of one expression.
pub const MAX_INPUTS: usize = 4;

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// Computes `expr` for each element; inputs broadcast as in NumPy.
#[derive(Clone, Debug)]
pub struct Elementwise {
    pub expr: Expr,
    /// Type of the result; that of the first input when `None`.
    pub dtype: Option<DType>,
}

impl Operator for Elementwise {
    fn detail(&self) -> String {
        let formula = self.expr.to_string();
        // An infix operation stands in parentheses, which the outermost does not need.
        let inner = match self.expr {
            Expr::Binary(..) => formula.strip_prefix('(').and_then(|f| f.strip_suffix(')')),
            _ => None,
        };
        inner.map_or(formula.clone(), str::to_owned)
    }

    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
        arity(inputs, 1..=MAX_INPUTS)?;
        let mut shape = inputs[0].shape.clone();
        for input in &inputs[1..] {
            shape = broadcast(&shape, &input.shape)?;
        }
        let dtype = self.dtype.unwrap_or(inputs[0].dtype);
        for input in inputs.iter().map(|d| d.dtype).chain([dtype]) {
            if input == DType::BF16 {
                return Err("bf16 must be unpacked first".to_owned());
            }
            // Arithmetic in f32 would round them.
            if input == DType::I32 {
                return Err("i32 is for typed functions".to_owned());
            }
        }
        Ok(TensorDesc::new(shape, dtype))
    }

    fn lower(&self, cx: &mut Lower) {
        let output = cx.output_desc();
        let indexing: Vec<Indexing> = (0..cx.inputs())
            .map(|i| Indexing::of(&cx.desc(i).shape, &output.shape))
            .collect();
        let quads = output.shape.elements().is_multiple_of(4)
            && indexing.iter().all(Indexing::allows_quads);

        let vec = |dtype: DType| match (quads, dtype) {
            (true, DType::F32) => "vec4<f32>",
            (true, DType::F16) => "vec4<f16>",
            (true, _) => "vec4<u32>",
            (false, dtype) => dtype.wgsl(),
        };
        const SRC: [&str; MAX_INPUTS] = ["src0", "src1", "src2", "src3"];
        const ALIAS: [&str; MAX_INPUTS] = ["T0", "T1", "T2", "T3"];
        const TEXTURES: [&str; MAX_INPUTS] = ["texture0", "texture1", "texture2", "texture3"];
        const LOAD: [&str; MAX_INPUTS] = ["load0", "load1", "load2", "load3"];
        let mut kernel = Kernel::new("elementwise")
            .alias("V", if quads { "vec4<f32>" } else { "f32" })
            .alias("Out", vec(output.dtype));
        let mut buffers = vec![("dst", cx.output())];
        let unit = if quads { 4 } else { 1 };
        let count = output.shape.elements() / unit;
        let down = if cx.target().class == DeviceClass::Cpu { Down::choose(&indexing, output.shape.elements(), unit) } else { None };
        let mut held = String::new();
        let mut blocks = vec![1; MAX_INPUTS];
        let mut rows = vec![1; MAX_INPUTS];
        let mut strides = vec![0u32; MAX_INPUTS * 8];
        for (i, index) in indexing.iter().enumerate() {
            let scalar = matches!(index, Indexing::Scalar | Indexing::Each { .. });
            let dtype = cx.desc(i).dtype;
            kernel = kernel.alias(ALIAS[i], if scalar { dtype.wgsl() } else { vec(dtype) });
            // Few distinct elements of a row come from the cache anyway.
            let texels = quads && matches!(index, Indexing::Same) && cx.finds_texels(i);
            if texels {
                cx.texels(TEXTURES[i], cx.input(i), cx.desc(i));
            }
            let at = match index {
                Indexing::Same if texels => format!("textureLoad({}, texel(i))", TEXTURES[i]),
                Indexing::Scalar => format!("V(f32({}[0]))", SRC[i]),
                Indexing::Same => format!("V({}[i])", SRC[i]),
                Indexing::Row { block, row } => {
                    blocks[i] = (*block / unit) as u32;
                    rows[i] = (*row / unit) as u32;
                    match *block == output.shape.elements() {
                        true => format!("V({}[divide(i, P.rows[0][{i}u]).y])", SRC[i]),
                        false => format!("V({}[row(i, {i}u)])", SRC[i]),
                    }
                }
                Indexing::Each { block } => {
                    blocks[i] = (*block / unit) as u32;
                    format!("V(f32({}[divide(i, P.blocks[0][{i}u]).x]))", SRC[i])
                }
                Indexing::Strided(s) => {
                    strides.splice(i * 8..i * 8 + s.len(), s.iter().rev().copied());
                    format!("V({}[strided(i, {i}u)])", SRC[i])
                }
            };
            let at = match down.as_ref().filter(|down| index.period(unit) == Some(down.apart)) {
                Some(_) => {
                    held += &format!("    held[{i}] = {at};\n");
                    format!("held[{i}]")
                }
                None => at,
            };
            kernel = kernel.function(LOAD[i], format!("fn {}(i: u32) -> V {{ return {at}; }}", LOAD[i]));
            buffers.push((SRC[i], cx.input(i)));
        }
        let text = self.expr.wgsl(&|i| format!("load{i}(i)"));
        kernel = kernel.function("expression", format!("fn expression(i: u32) -> V {{ return {text}; }}"));

        let mut shape = vec![1u32; 8];
        for (to, from) in shape.iter_mut().zip(output.shape.iter().rev()) {
            *to = *from as u32;
        }
        let (units, apart) = match down {
            Some(Down { units, apart }) => {
                kernel = kernel
                    .function("hold", format!("fn hold(i: u32) {{\n{held}}}"))
                    .function("first_of", FIRST_DOWN);
                (units, apart)
            }
            None => (units_of_threads(cx.target().class, count), WORKGROUP),
        };
        let threads = count.div_ceil(units * apart) * apart;
        cx.dispatch(
            kernel
                .constant("RANK", format!("{}u", output.shape.len()))
                .constant("UNITS", format!("{units}u"))
                .constant("WORKGROUP", format!("{WORKGROUP}u")),
            &buffers,
            &[
                ("count", count.into()),
                ("apart", apart.into()),
                ("blocks", Param::Array(blocks)),
                ("rows", Param::Array(rows)),
                ("shape", Param::Array(shape)),
                ("strides", Param::Array(strides)),
            ],
            Grid::Threads(threads),
        );
    }

    fn flops(&self, _: &[&TensorDesc], output: &TensorDesc) -> u64 {
        output.shape.elements() as u64 * self.expr.operations()
    }
}

/// How many units a thread computes of so many. To start a workgroup takes a large GPU a nanosecond, in which it moves as many bytes as
/// sixty-four threads with a quad each do; and a software adapter as long as it takes for one or two of its quads.
fn units_of_threads(class: DeviceClass, count: usize) -> usize {
    let (units, fewest) = match class {
        DeviceClass::Cpu => (8, 1 << 10),
        _ => (4, 1 << 16),
    };
    if count >= units * fewest { units } else { 1 }
}

/// Threads that go down the rows of a tensor, from row to row: what is one row for all of these they read once.
#[derive(Clone, Copy)]
struct Down {
    units: usize,
    /// Units of a row.
    apart: usize,
}

impl Down {
    /// Along the longest rows that there are, as far as these are the same ones.
    fn choose(indexing: &[Indexing], elements: usize, unit: usize) -> Option<Down> {
        let apart = indexing.iter().filter_map(|index| index.period(unit)).max()?;
        let lines = elements / unit / apart;
        // A thread stays within a block, of which the next has another row.
        let fits = |units: usize| {
            indexing.iter().filter(|index| index.period(unit) == Some(apart)).all(|index| match index {
                Indexing::Row { block, .. } | Indexing::Each { block } => {
                    *block == elements || (block / unit / apart).is_multiple_of(units)
                }
                _ => true,
            })
        };
        // As many as there are, where as many threads are left as a software adapter keeps busy.
        let units = (2..=16.min(lines)).rev().find(|&units| fits(units) && elements / unit / units >= 1 << 10)?;
        Some(Down { units, apart })
    }
}

const FIRST_DOWN: &str = "fn first_of(thread: u32) -> u32 {
    let at = divide(thread, P.apart);
    return at.x * P.apart * UNITS + at.y;
}";

/// How the index of a result becomes the index of an input.
enum Indexing {
    Same,
    /// One number for all.
    Scalar,
    /// `(i / block) · row + i mod row`: a vector along the last dimension, or one for each sample.
    Row { block: usize, row: usize },
    /// `i / block`: one number for so many neighbours.
    Each { block: usize },
    /// By coordinates; stride zero where the input has size one.
    Strided(Vec<u32>),
}

impl Indexing {
    fn of(input: &Shape, output: &Shape) -> Self {
        let elements = input.elements();
        if elements == output.elements() {
            return Indexing::Same;
        }
        if elements == 1 {
            return Indexing::Scalar;
        }
        let rank = output.len();
        let padded: Vec<usize> = std::iter::repeat_n(1, rank - input.len())
            .chain(input.iter().copied())
            .collect();
        // Leading dimensions kept, then ones, then trailing dimensions kept.
        let kept = |d: usize| padded[d] == output[d];
        let tail = (0..rank).rev().take_while(|&d| kept(d)).count();
        let head = (0..rank).take_while(|&d| kept(d)).count();
        if (head..rank - tail).all(|d| padded[d] == 1) {
            let row: usize = output[rank - tail..].iter().product();
            let block: usize = output[head..].iter().product();
            // With no kept head, all blocks read the one row.
            return if row == 1 { Indexing::Each { block } } else { Indexing::Row { block, row } };
        }
        let strides = Shape::from(padded.clone()).strides();
        let strides = (0..rank)
            .map(|d| if padded[d] == 1 { 0 } else { strides[d] as u32 })
            .collect();
        Indexing::Strided(strides)
    }

    fn allows_quads(&self) -> bool {
        match self {
            Indexing::Same | Indexing::Scalar => true,
            Indexing::Row { row: numbers, .. } | Indexing::Each { block: numbers } => numbers.is_multiple_of(4),
            Indexing::Strided(_) => false,
        }
    }

    /// Units after which the same number comes again, as long as the block lasts.
    fn period(&self, unit: usize) -> Option<usize> {
        match self {
            Indexing::Row { row, .. } => Some(row / unit),
            Indexing::Each { .. } => Some(1),
            _ => None,
        }
    }
}

/// The shape that two shapes broadcast to.
pub fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let dim = |s: &Shape, d: usize| (d + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|d| match (dim(a, d), dim(b, d)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("shapes {a} and {b} do not broadcast")),
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Shape::from)
}

const _: () = assert!(MAX_RANK <= 8, "the kernel's shape parameters hold eight dimensions");

impl Graph {
    /// `expr` of the given values, element by element.
    pub fn elementwise(&mut self, expr: Expr, inputs: &[ValueId]) -> Result<ValueId> {
        self.push(Elementwise { expr, dtype: None }, inputs)
    }

    /// `f(x)`.
    pub fn unary(&mut self, f: Unary, x: ValueId) -> Result<ValueId> {
        self.elementwise(Expr::unary(f, Expr::input(0)), &[x])
    }

    /// `f(a, b)`, broadcast.
    pub fn binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.elementwise(Expr::binary(f, Expr::input(0), Expr::input(1)), &[a, b])
    }

    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Add, a, b)
    }

    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.binary(Binary::Mul, a, b)
    }

    /// `x · scale + shift` with constants.
    pub fn affine(&mut self, x: ValueId, scale: f32, shift: f32) -> Result<ValueId> {
        let scaled = Expr::binary(Binary::Mul, Expr::input(0), Expr::Const(scale));
        self.elementwise(Expr::binary(Binary::Add, scaled, Expr::Const(shift)), &[x])
    }

    /// Batch normalisation with running statistics, over the last dimension
    /// (Ioffe and Szegedy, 2015): `(x − mean) / √(variance + eps) · weight + bias`, all `[c]`.
    pub fn batch_norm(
        &mut self,
        x: ValueId,
        weight: ValueId,
        bias: ValueId,
        mean: ValueId,
        variance: ValueId,
        eps: f32,
    ) -> Result<ValueId> {
        let [x0, x1, x2] = [Expr::input(0), Expr::input(1), Expr::input(2)];
        let deviation = Expr::binary(Binary::Add, x1, Expr::Const(eps));
        let scale = Expr::binary(Binary::Mul, x0.clone(), Expr::unary(Unary::Rsqrt, deviation));
        let scale = self.elementwise(scale, &[weight, variance])?;
        let moved = Expr::binary(Binary::Mul, Expr::input(1), x2.clone());
        let shift = self.elementwise(Expr::binary(Binary::Sub, x0.clone(), moved), &[bias, mean, scale])?;
        let scaled = Expr::binary(Binary::Mul, x0, Expr::input(1));
        self.elementwise(Expr::binary(Binary::Add, scaled, x2), &[x, scale, shift])
    }

    pub fn silu(&mut self, x: ValueId) -> Result<ValueId> {
        self.unary(Unary::Silu, x)
    }

    pub fn relu(&mut self, x: ValueId) -> Result<ValueId> {
        self.unary(Unary::Relu, x)
    }

    /// The same numbers in another type; nothing if it is that type already.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        match self.desc(x).dtype == dtype {
            true => Ok(x),
            false => self.push(
                Elementwise {
                    expr: Expr::input(0),
                    dtype: Some(dtype),
                },
                &[x],
            ),
        }
    }
}
