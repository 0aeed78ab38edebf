//! An engine in a process of its own, and how it is spoken to.
//!
//! It is started with the folder of the items and says what it is in a line of JSON ([`Hello`]). Then it is told:
//!
//! - `prepare ITEM FILE`: make ITEM ready, compute it once, write the answer into FILE (f32, little-endian, row-major,
//!   in the outside's layout) and say `ready`, or `unsupported WHY`, or `failed WHY`;
//! - `run N`: run what was prepared N times, wait for the end, and say how many seconds that took.
//!
//! What it prints otherwise belongs on its standard error.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde::Deserialize;

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Hello {
    /// With its version.
    pub name: String,
    /// The adapter, or the CPU with so many threads.
    pub runs_on: String,
    /// Whether a run brings the input from the host and the output back.
    pub transfers: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// The engine says that it cannot do this.
    Unsupported(String),
    /// It says that it failed; it can be asked something else.
    Failed(String),
    /// It ended, does not answer, or answers what it should not.
    Gone(String),
}

/// A running engine.
pub struct Peer {
    pub hello: Hello,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: std::fs::File,
    patience: Duration,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It waits for a line that never comes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts `command` with the folder as one more argument; no answer may take longer than `patience`.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn start(command: &[String], folder: &Path, patience: Duration) -> Result<Peer, String> {
        let (program, arguments) = command.split_first().ok_or("a peer without a command")?;
        let errors = tempfile::tempfile().map_err(|error| format!("no temporary file: {error}"))?;
        let stderr = errors.try_clone().map_err(|error| format!("no temporary file: {error}"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let hello = Hello { name: String::new(), runs_on: String::new(), transfers: false };
        let mut peer = Peer { hello, child, input, lines, errors, patience };
        let line = peer.line()?;
        peer.hello =
            serde_json::from_str(&line).map_err(|error| format!("it begins with {line:?}: {error}"))?;
        Ok(peer)
    }

    /// Has an item made ready and its answer written to a file.
    pub fn prepare(&mut self, item: &str, answer: &Path) -> Result<(), Trouble> {
        let line = self.ask(&format!("prepare {item} {}", answer.display())).map_err(Trouble::Gone)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "ready" => Ok(()),
            "unsupported" => Err(Trouble::Unsupported(rest.to_owned())),
            "failed" => Err(Trouble::Failed(rest.to_owned())),
            _ => Err(Trouble::Gone(format!("it answers {line:?}"))),
        }
    }

    /// Seconds of one run, as the mean of so many.
    pub fn run(&mut self, runs: u32) -> Result<f64, Trouble> {
        let line = self.ask(&format!("run {runs}")).map_err(Trouble::Gone)?;
        match line.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds / f64::from(runs)),
            _ => Err(Trouble::Gone(format!("it answers {line:?} to how long runs took"))),
        }
    }

    fn ask(&mut self, question: &str) -> Result<String, String> {
        // Where it has ended already, the missing answer says so better.
        let _ = writeln!(self.input, "{question}");
        self.line()
    }

    fn line(&mut self) -> Result<String, String> {
        match self.lines.recv_timeout(self.patience) {
            Ok(line) => Ok(line.trim().to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                Err(format!("no answer in {} s", self.patience.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().map_or_else(|error| error.to_string(), ended);
                Err(format!("{status}{}", self.last_words()))
            }
        }
    }

    /// The end of what it wrote to its standard error.
    fn last_words(&mut self) -> String {
        const MOST: usize = 200;
        let mut bytes = Vec::new();
        let read =
            self.errors.seek(SeekFrom::Start(0)).and_then(|_| self.errors.read_to_end(&mut bytes)).is_ok();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note:"));
        // A panic's message stands after the line that says where it was.
        let panic = lines.clone().skip_while(|line| !line.contains("panicked at")).nth(1);
        match panic.or_else(|| lines.next_back()).filter(|_| read) {
            Some(line) => format!(": {}", line.chars().take(MOST).collect::<String>()),
            None => String::new(),
        }
    }
}

fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("it was ended by signal {signal}");
    }
    format!("it ended with {status}")
}
