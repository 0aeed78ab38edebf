//! Every kernel against a float64 reference in plain Rust; one file an operation.

mod attention;
mod concat;
mod conv2d;
mod conv_transpose2d;
mod elementwise;
mod epilogue;
mod gather;
mod harness;
mod lines;
mod matmul;
mod norm;
mod pad;
mod pool;
mod resize;
mod strided;
