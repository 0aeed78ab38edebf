//! A network in a program that has its own device: recorded into the program's command encoder or compute pass, between
//! the program's own commands, reading and writing the program's textures and buffers.
//!
//! What a frame needs is made once, as [`Bindings`] of a [`Network`](crate::Network) and of what it reads and writes.
//! From then on [`Bindings::record`] records commands and does nothing else: it makes no object on the device, submits
//! nothing, waits for nothing, installs no handler and opens no error scope.
//!
//! Pictures that take more memory than there is to spare go through a [`TiledNetwork`], a tile at a time and with the same
//! result. Long runs go over several frames in [`Slices`]; results come back to the host through a [`ReadRing`]; networks are
//! made on other threads by [`Background`]. `docs/embedding.md` in the repository goes through it all.

mod background;
mod bindings;
mod bound;
mod convert;
mod costs;
mod overlap;
mod part;
mod read_ring;
mod slices;
mod texels;
mod tiled;
mod transfer;

pub use background::Background;
pub use bindings::Bindings;
pub use bound::Bound;
pub use costs::{Costs, Speed};
pub use read_ring::{Read, ReadRing};
pub use slices::{Progress, Slices};
pub use texels::{Alpha, Texels};
pub use tiled::{TiledNetwork, TiledPlan};
pub use transfer::Transfer;
