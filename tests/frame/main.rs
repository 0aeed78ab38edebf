//! Networks in a caller's frame: textures and buffers, nothing made while recording, slices, sharing, lost devices.

mod bare;
mod bound;
mod cost;
mod depth;
mod harness;
mod lost;
mod premultiplied;
mod read_back;
mod recording;
mod sharing;
mod slices;
mod textures;
mod tiled;
