//! Pictures on the terminal, one drawn over the other as they change.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use console::Term;
use image::RgbImage;

use super::terminal::Way;

/// When pictures are shown while they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// On a terminal
    Auto,
    Always,
    Never,
}

/// Time between two pictures.
const INTERVAL: Duration = Duration::from_millis(250);

/// A place on the terminal where pictures take turns.
pub struct Preview {
    /// Lines that the last picture took.
    lines: u32,
    last: Option<Instant>,
}

impl Preview {
    pub fn new(when: When) -> Option<Preview> {
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let show = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stdout().is_terminal() && !dumb,
        };
        show.then_some(Preview { lines: 0, last: None })
    }

    /// Whether enough time has gone by for another picture.
    pub fn due(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= INTERVAL)
    }

    /// Shows a picture in place of the one before it. What cannot be shown is no reason to stop.
    pub fn show(&mut self, picture: &RgbImage) {
        if self.lines > 0 {
            let mut out = io::stdout().lock();
            let _ = write!(out, "\x1b[{}A\r", self.lines).and_then(|()| out.flush());
        }
        let (rows, columns) = Term::stdout().size();
        // A character is about twice as high as it is wide, and shows two pixels.
        let fits = u32::from(rows).saturating_sub(4) * 2 * picture.width() / picture.height().max(1);
        let columns = u32::from(columns).min(picture.width()).min(fits).max(1);
        let way = Way::of(&|name| std::env::var(name).ok());
        if let Ok(lines) = way.write(&mut BufWriter::new(io::stdout().lock()), picture, columns) {
            self.lines = lines;
        }
        self.last = Some(Instant::now());
    }
}
