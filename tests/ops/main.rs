//! Every kernel against a float64 reference in plain Rust; one file an operation.

mod attention;
mod conv2d;
mod elementwise;
mod epilogue;
mod harness;
mod norm;
