//! Devices that fail: lost, without memory, without an answer, lacking what is asked of them; wherever that may be.

mod harness;
#[path = "../hashed/mod.rs"]
mod hashed;
mod matrix;
mod memory;
mod painted;
mod refused;
mod resumed;
