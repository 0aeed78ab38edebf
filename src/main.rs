//! The command line: parses, calls the library, prints.

#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

mod cli;

use std::process::ExitCode;

#[expect(unsafe_code)]
fn main() -> ExitCode {
    // Mesa's device-select layer complains on stderr when there is no session
    // to connect to, as over ssh or in a container. Adapters are sorted here anyway.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread has been started.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    cli::main()
}
