//! What is kept on disk from one process to the next: compiled pipelines, and which kernels were found to be fastest.
//!
//! All of it can be made anew, so nothing here is an error: what cannot be read, is damaged, or belongs to another device,
//! driver or version of this crate is as if it were not there, and what cannot be written is left out.

mod folder;
mod identity;
mod sealed;

pub use folder::{Cache, FOLDER_VARIABLE, OFF_VARIABLE};
pub use identity::Identity;
pub(crate) use sealed::checksum;
#[doc(hidden)]
pub use sealed::{open, seal};
