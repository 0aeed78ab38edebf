//! Devices that fail: lost, without memory, without an answer, lacking what is asked of them; wherever that may be.

mod harness;
mod matrix;
mod memory;
mod refused;
mod resumed;
