//! The operations, one file each: a struct with the op's attributes, its shape
//! rule, its choice of kernel, and the method that appends it to a [`Graph`](crate::Graph).

use crate::lower::Lower;
use crate::tensor::TensorDesc;

/// What every operation says about itself.
pub trait Operator {
    /// Shape and type of the result, or what is wrong with the inputs (in the
    /// style `weight wants 64 channels, input has 32`).
    fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String>;

    /// Records the dispatches that compute the result.
    fn lower(&self, cx: &mut Lower);

    /// Whether the result is the first input's memory under another shape; such an operation records nothing.
    fn is_view(&self) -> bool {
        false
    }

    /// What tells it from others of its kind, for people: a formula, a kernel size.
    fn detail(&self) -> String {
        String::new()
    }

    /// Floating-point operations, a multiply-add counted as two.
    fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
        let _ = inputs;
        output.shape.elements() as u64
    }
}

/// Declares the operations: a module, a variant of [`Op`] and the forwarding for each line.
macro_rules! ops {
    ($($module:ident :: $op:ident,)*) => {
        $(pub mod $module; pub use $module::$op;)*

        /// Any operation.
        #[derive(Clone, Debug)]
        pub enum Op { $($op($op),)* }

        $(impl From<$op> for Op { fn from(op: $op) -> Op { Op::$op(op) } })*

        impl Op {
            /// Names of all operations.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($op),)*];

            /// Name of the operation, as in messages and plans.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$op(_) => stringify!($op),)* }
            }
        }

        impl Operator for Op {
            fn infer(&self, inputs: &[&TensorDesc]) -> Result<TensorDesc, String> {
                match self { $(Op::$op(op) => op.infer(inputs),)* }
            }
            fn lower(&self, cx: &mut Lower) {
                match self { $(Op::$op(op) => op.lower(cx),)* }
            }
            fn is_view(&self) -> bool {
                match self { $(Op::$op(op) => op.is_view(),)* }
            }
            fn detail(&self) -> String {
                match self { $(Op::$op(op) => op.detail(),)* }
            }
            fn flops(&self, inputs: &[&TensorDesc], output: &TensorDesc) -> u64 {
                match self { $(Op::$op(op) => op.flops(inputs, output),)* }
            }
        }
    };
}

ops! {
    arg_reduce::ArgReduce,
    attention::Attention,
    best_boxes::BestBoxes,
    border_mean::BorderMean,
    class_map::ClassMap,
    concat::Concat,
    conv2d::Conv2d,
    conv2d_integer::Conv2dInteger,
    conv_transpose2d::ConvTranspose2d,
    conv_weight::ConvWeight,
    cumulate::Cumulate,
    deform_columns::DeformColumns,
    dequantize::Dequantize,
    diffusion_input::DiffusionInput,
    diffusion_step::DiffusionStep,
    elementwise::Elementwise,
    fold_columns::FoldColumns,
    gather::Gather,
    gather_elements::GatherElements,
    gather_nd::GatherNd,
    grid_sample::GridSample,
    matmul::Matmul,
    matmul_integer::MatmulInteger,
    max_pool_places::MaxPoolPlaces,
    noise::Noise,
    norm::Norm,
    overlay::Overlay,
    packed_weight::PackedWeight,
    pad::Pad,
    picture_crops::PictureCrops,
    picture_from_tensor::PictureFromTensor,
    picture_to_tensor::PictureToTensor,
    pool::Pool,
    quantized::Quantized,
    quantize::Quantize,
    reduce::Reduce,
    reshape::Reshape,
    resize::Resize,
    roi_align::RoiAlign,
    scatter::Scatter,
    softmax::Softmax,
    strided::Strided,
    suppress::Suppress,
    timestep_embedding::TimestepEmbedding,
    top_k::TopK,
    typed::Typed,
    unpack::Unpack,
    unpack_bytes::UnpackBytes,
}

mod attention_shared;
mod attention_subgroups;
pub mod epilogue;
pub mod expr;
mod lines;
pub mod matrices;
mod share;
mod waves;

/// Checks the number of inputs.
pub(crate) fn arity(inputs: &[&TensorDesc], expected: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    match expected.contains(&inputs.len()) {
        true => Ok(()),
        false => {
            Err(format!("wants {} to {} inputs, found {}", expected.start(), expected.end(), inputs.len()))
        }
    }
}

/// Reads a feature map's `[n, h, w, c]`.
pub(crate) fn nhwc(what: &str, desc: &TensorDesc) -> Result<[usize; 4], String> {
    desc.shape[..].try_into().map_err(|_| format!("{what} must be [n, h, w, c], found {}", desc.shape))
}

/// Checks that a tensor holds floating-point numbers that kernels can read.
pub(crate) fn float(what: &str, desc: &TensorDesc) -> Result<(), String> {
    match desc.dtype {
        crate::DType::F32 | crate::DType::F16 => Ok(()),
        other => Err(format!("{what} must be f32 or f16, found {other}")),
    }
}
