//! A bar on stderr with speed and time left, when stderr is a terminal.

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A bar of `length` steps; nothing is shown where stderr is no terminal.
pub fn steps(length: u64) -> ProgressBar {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.1} steps/s", state.per_sec());
    };
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} steps  {rate}  {eta} left")
        .expect("the template is valid")
        .with_key("rate", rate)
        .progress_chars("━╸─");
    ProgressBar::new(length).with_style(style)
}
