//! How an engine answers `src/bench/peers/process.rs`: what it is told on standard input, what it says on standard output.
//! Each engine's package includes this file.

use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use safetensors::SafeTensors;

/// Why an item is not computed.
#[allow(dead_code, reason = "not every engine has both")]
pub enum Trouble {
    Unsupported(String),
    Failed(String),
}

/// An item that is ready to run.
pub trait Prepared {
    /// Runs so often and waits for the end of the last.
    fn run(&mut self, runs: u32) -> Result<(), String>;

    /// Runs once and gives the output, row-major.
    fn answer(&mut self) -> Result<Vec<f32>, String>;
}

/// The folder with the items' files.
pub struct Items(PathBuf);

/// f32 with its shape.
#[derive(Clone)]
#[allow(dead_code, reason = "not every engine asks for shapes")]
pub struct Numbers {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

#[allow(dead_code, reason = "some engines read ONNX, the others layers")]
impl Items {
    pub fn path(&self, item: &str, end: &str) -> PathBuf {
        self.0.join(format!("{item}.{end}"))
    }

    /// Inputs and weights of an item by their names; `end` is `safetensors` or `folded.safetensors`.
    pub fn numbers(&self, item: &str, end: &str) -> impl Fn(&str) -> Option<Numbers> + use<> {
        let path = self.path(item, end);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        move |name| {
            let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
            let tensor = file.tensor(name).ok()?;
            let number = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
            let values = tensor.data().chunks_exact(4).map(number).collect();
            Some(Numbers { shape: tensor.shape().to_vec(), values })
        }
    }

    /// What a run of the item is given.
    pub fn inputs(&self, item: &str) -> Vec<(&'static str, Numbers)> {
        let numbers = self.numbers(item, "safetensors");
        ["x", "a", "b", "q", "k", "v"].into_iter().filter_map(|name| Some((name, numbers(name)?))).collect()
    }
}

/// Answers until there are no more questions.
pub fn serve(
    (name, runs_on, transfers): (&str, &str, bool),
    mut prepare: impl FnMut(&Items, &str) -> Result<Box<dyn Prepared>, Trouble>,
) {
    let folder = std::env::args_os().nth(1).expect("the folder of the items");
    let items = Items(Path::new(&folder).to_owned());
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        // Nobody listens any more: there is nothing left to do.
        if writeln!(out, "{}", line.split_whitespace().collect::<Vec<_>>().join(" ")).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    };
    say(&format!("{{\"name\": {name:?}, \"runs_on\": {runs_on:?}, \"transfers\": {transfers}}}"));
    let mut prepared: Option<Box<dyn Prepared>> = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["prepare", item, file] => {
                prepared = None;
                let made = catch_unwind(AssertUnwindSafe(|| {
                    let mut made = prepare(&items, item)?;
                    let answer = made.answer().map_err(Trouble::Failed)?;
                    let bytes: Vec<u8> = answer.iter().flat_map(|v| v.to_le_bytes()).collect();
                    std::fs::write(file, bytes).map_err(|error| Trouble::Failed(format!("{file}: {error}")))?;
                    Ok(made)
                }));
                match made {
                    Ok(Ok(made)) => {
                        prepared = Some(made);
                        say("ready");
                    }
                    Ok(Err(Trouble::Unsupported(why))) => say(&format!("unsupported {why}")),
                    Ok(Err(Trouble::Failed(why))) => say(&format!("failed {why}")),
                    Err(panic) => say(&format!("failed panic: {}", words_of(&*panic))),
                }
            }
            ["run", runs] => {
                let runs = runs.parse().expect("a number of runs");
                let item = prepared.as_mut().expect("an item was prepared");
                let start = Instant::now();
                match item.run(runs) {
                    Ok(()) => say(&start.elapsed().as_secs_f64().to_string()),
                    Err(why) => say(&format!("failed {why}")),
                }
            }
            _ => panic!("asked {line:?}"),
        }
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}
