//! Every kernel against a float64 reference in plain Rust; one file an operation.

mod attention;
mod boxes;
mod columns;
mod concat;
mod conv2d;
mod conv_transpose2d;
mod diffusion_step;
mod elementwise;
mod epilogue;
mod gather;
mod harness;
mod indexing;
mod integer;
mod lines;
mod matmul;
mod noise;
mod norm;
mod pad;
mod picture;
mod pool;
mod resize;
mod sampling;
mod strided;
mod suppress;
mod timestep_embedding;
mod typed;
