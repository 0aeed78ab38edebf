//! Where a model of the command line lies: a path, or a name on a hub, which is fetched.

use std::path::{Path, PathBuf};

use anyhow::Result;
use aquatint::formats::hub;

use super::{interrupt, progress};

/// The path of a model, downloaded first if it is a name on the hub and not in its cache.
pub fn locate(model: &Path, offline: bool) -> Result<PathBuf> {
    let name = model.to_string_lossy();
    if !hub::is_name(&name) {
        return Ok(model.to_owned());
    }
    let environment = hub::Options::default();
    let options = hub::Options { offline: offline || environment.offline, ..environment };
    let bar = progress::bytes();
    let path = hub::fetch(&name, &options, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.file.to_owned());
        !interrupt::asked()
    });
    bar.finish_and_clear();
    Ok(path?)
}
