//! A bar on stderr with speed and time left, when stderr is a terminal.

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A bar of `length` steps; nothing is shown where stderr is no terminal.
pub fn steps(length: u64) -> ProgressBar {
    bar(length, "steps")
}

/// A bar of `length` pictures, in the same way.
pub fn pictures(length: u64) -> ProgressBar {
    bar(length, "pictures")
}

/// A bar of operations, with what they are part of.
#[cfg(feature = "bench")]
pub fn operations(length: u64) -> ProgressBar {
    let template = "{bar:32} {pos}/{len} operations  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::new(length).with_style(style.progress_chars("━╸─"))
}

/// A bar of bytes that arrive, whose number is told as it goes.
pub fn bytes() -> ProgressBar {
    let template = "{bar:32} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::new(0).with_style(style.progress_chars("━╸─"))
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let rate = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.1} {what}/s", state.per_sec());
    };
    let template = format!("{{bar:32}} {{pos}}/{{len}} {what}  {{rate}}  {{eta}} left");
    let style = ProgressStyle::with_template(&template)
        .expect("the template is valid")
        .with_key("rate", rate)
        .progress_chars("━╸─");
    ProgressBar::new(length).with_style(style)
}
