//! Models by their names on the Hugging Face hub, in the cache that its Python libraries use too.
//!
//! [`fetch`] gives the path of a folder or file that all of this crate opens. Only what it reads is downloaded: the
//! configurations, tokenizers and weights of the parts that it has, never pickled weights.

mod cache;
#[cfg(feature = "hub")]
mod download;
mod fetch;
mod model;
mod name;
mod options;

pub use fetch::fetch;
pub use name::is_name;
pub use options::{Options, Progress};
