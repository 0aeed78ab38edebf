//! Kernels and networks here and in another engine, in turns; `benches/peers/run.sh` builds the engines and calls this.
//!
//! ```text
//! cargo bench --bench peers -- write FOLDER                    what engines read: numbers of all items
//! cargo bench --bench peers -- race FOLDER RESULTS.json [--quick] [--items PATTERN,…] NAME COMMAND…
//! cargo bench --bench peers -- show RESULTS.json               a table of what is there
//! ```
//!
//! `race` adds to the results, which are those of one device.

use std::path::Path;
use std::time::Duration;

use aquatint::bench::machine;
use aquatint::bench::peers::items::{ITEMS, Item};
use aquatint::bench::peers::process::Peer;
use aquatint::bench::peers::race::{Ours, RaceOptions};
use aquatint::bench::peers::record::{self, PeerRecord, PeerResults};
use aquatint::bench::record::{Machine, Program};
use aquatint::bench::report::ledger;
use aquatint::bench::roof;
use aquatint::{Gpu, units};

/// Longer than any engine takes to compile or tune a network.
const PATIENCE: Duration = Duration::from_secs(300);

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        // `cargo bench` alone, of all benchmarks.
        [] => {
            println!("races need engines to race against: benches/peers/run.sh");
            Ok(())
        }
        ["write", folder] => write(Path::new(folder)),
        ["race", folder, results, ..] => race(Path::new(folder), Path::new(results), &arguments[3..]),
        ["show", results] => record::read(results).map_err(Into::into).map(|results| {
            print!("{}", ledger::races(&results));
        }),
        _ => Err("expected write FOLDER, race FOLDER RESULTS [--quick] [--items PATTERN,…] NAME COMMAND…, or show RESULTS"
            .into()),
    };
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn write(folder: &Path) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    Ok(ITEMS.iter().try_for_each(|item| item.write(folder))?)
}

fn race(folder: &Path, path: &Path, mut arguments: &[String]) -> Outcome<()> {
    let mut options = RaceOptions::FULL;
    let mut patterns = vec![glob::Pattern::new("*")?];
    let (key, command) = loop {
        match arguments {
            [flag, rest @ ..] if flag == "--quick" => (options, arguments) = (RaceOptions::QUICK, rest),
            [flag, text, rest @ ..] if flag == "--items" => {
                patterns = text.split(',').map(glob::Pattern::new).collect::<Result<_, _>>()?;
                arguments = rest;
            }
            [key, command @ ..] if !command.is_empty() => break (key, command),
            _ => return Err("expected the peer's name and its command".into()),
        }
    };
    let chosen: Vec<Item> =
        ITEMS.into_iter().filter(|item| patterns.iter().any(|p| p.matches(item.id))).collect();
    if chosen.is_empty() {
        return Err(format!("--items: no such item; there are {}", ITEMS.map(|i| i.id).join(" ")).into());
    }
    let gpu = Gpu::headless()?;
    let machine = Machine::of(&gpu);
    let mut results = match path.exists() {
        true => record::read(path)?,
        false => PeerResults::new(machine.clone(), roof::measure(&gpu, &mut |_| {})?),
    };
    results.same_device(&machine).map_err(|why| format!("{}: {why}; name another file", path.display()))?;

    let mut peer =
        Peer::start(command, folder, PATIENCE).map_err(|why| format!("{key} does not run: {why}"))?;
    println!("{} on {}, beside {}", peer.hello.name, peer.hello.runs_on, gpu.info().name);
    let mut record = PeerRecord {
        name: peer.hello.name.clone(),
        runs_on: peer.hello.runs_on.clone(),
        transfers: peer.hello.transfers,
        started: machine::now(),
        program: Program::this(),
        rows: Default::default(),
    };
    let scratch = tempfile::tempdir()?;
    let answer = scratch.path().join("answer");
    let mut items = Vec::new();
    let mut end = Ok(());
    for item in chosen {
        let ours = Ours::new(&gpu, item)?;
        items.push(ours.record());
        let (row, gone) = ours.race(&mut peer, &answer, options)?;
        match (&row.ours, &row.theirs, row.ratio) {
            (Some(ours), Some(theirs), Some(ratio)) => println!(
                "{:<16} ours {:>9}  theirs {:>9}  ratio {ratio:>6.2}  off by {:.0e}",
                item.id,
                units::seconds(ours.median),
                units::seconds(theirs.median),
                row.check.as_ref().map_or(0.0, |check| check.max_rel),
            ),
            _ => println!("{:<16} {}: {}", item.id, row.status.name(), row.reason.as_deref().unwrap_or("")),
        }
        record.rows.insert(item.id.to_owned(), row);
        if gone {
            match Peer::start(command, folder, PATIENCE) {
                Ok(started) => peer = started,
                // What was measured before is kept.
                Err(why) => {
                    end = Err(format!("{key} does not run again: {why}").into());
                    break;
                }
            }
        }
    }
    // All items in the order of tables, those of other calls between.
    results.merge(key, items, record);
    results.items.sort_by_key(|item| ITEMS.iter().position(|known| known.id == item.id));
    record::write(path, &results)?;
    end
}
