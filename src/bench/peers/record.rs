//! What races against other engines found: the versioned form in which it is kept.
//!
//! Times are in seconds. What was not measured is `null`, never zero.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::record::{Check, Group, Machine, Program, Roof, Status, Summary};
use crate::bench::report::json::write_text;
use crate::error::{Error, Result};

/// Version of [`PeerResults`]. A number more for every change after which older readers would misread a file.
pub const FORMAT: u32 = 1;

/// Races on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerResults {
    /// [`FORMAT`] of the program that wrote this.
    pub peer_format: u32,
    pub machine: Machine,
    pub roof: Roof,
    /// What was run, in the order of tables.
    pub items: Vec<ItemRecord>,
    /// By the peer's short name. Each is measured by itself, in turns with ours.
    pub peers: BTreeMap<String, PeerRecord>,
}

/// A kernel or a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    pub id: String,
    pub title: String,
    pub group: Group,
    /// Work of a run by its definition, whatever the method.
    pub flops: u64,
    /// Bytes of all tensors that our kernels read or write, each counted once a kernel.
    pub bytes: u64,
}

/// All races against one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// The engine and its version, as it says itself.
    pub name: String,
    /// The adapter, or the CPU with so many threads, as it says itself.
    pub runs_on: String,
    /// Whether a run brings the input from the host and the output back, because the engine knows no other; then
    /// ours does too.
    pub transfers: bool,
    /// When the last of them was run, RFC 3339 in UTC.
    pub started: String,
    /// Our side.
    pub program: Program,
    /// By the item's id.
    pub rows: BTreeMap<String, PeerRow>,
}

/// One race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// `ok`, or `wrong`, `unsupported` or `error` of the peer. Only what is `ok` has times.
    pub status: Status,
    /// Why it is not `ok`.
    pub reason: Option<String>,
    /// The peer's answer against the reference.
    pub check: Option<Check>,
    /// Ours against the same.
    pub our_check: Check,
    pub ours: Option<Summary>,
    pub theirs: Option<Summary>,
    /// Median of the peer over ours: so many times as fast are we.
    pub ratio: Option<f64>,
}

/// Reads races that this program's format describes.
///
/// # Errors
/// If the file cannot be read, is of another format, or says what cannot be.
pub fn read(path: impl AsRef<Path>) -> Result<PeerResults> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    parse(&text).map_err(|message| Error::Format { path: path.to_owned(), message })
}

/// Races of a text, or why they are none.
///
/// # Errors
/// What is wrong.
pub fn parse(text: &str) -> Result<PeerResults, String> {
    #[derive(Deserialize)]
    struct Versioned {
        peer_format: u32,
    }
    let found = serde_json::from_str::<Versioned>(text)
        .map_err(|error| format!("no results of benches/peers/run.sh: {error}"))?
        .peer_format;
    if found != FORMAT {
        return Err(format!(
            "races of format {found}, and this program reads {FORMAT}: use the program that wrote them, or measure again"
        ));
    }
    let results = serde_json::from_str(text).map_err(|error| format!("damaged results: {error}"))?;
    check(&results)?;
    Ok(results)
}

/// Writes races under a temporary name, then renames them.
///
/// # Errors
/// If they say what cannot be, or cannot be written.
pub fn write(path: impl AsRef<Path>, results: &PeerResults) -> Result<()> {
    let path = path.as_ref();
    check(results).map_err(|message| Error::Format { path: path.to_owned(), message })?;
    let text = serde_json::to_string_pretty(results).expect("results have nothing that JSON has not");
    write_text(path, &(text + "\n"))
}

/// What a schema cannot say.
///
/// # Errors
/// What is wrong.
pub fn check(results: &PeerResults) -> Result<(), String> {
    let mut known = HashSet::new();
    for item in &results.items {
        if !known.insert(item.id.as_str()) {
            return Err(format!("two items are called {}", item.id));
        }
    }
    for (key, peer) in &results.peers {
        for (id, row) in &peer.rows {
            let fault = |problem: &str| Err(format!("{key}, {id}: {problem}"));
            if !known.contains(id.as_str()) {
                return fault("there is no such item");
            }
            let timed = (row.ours.is_some(), row.theirs.is_some(), row.ratio.is_some());
            match (row.status == Status::Ok, timed) {
                (true, (true, true, true)) | (false, (false, false, false)) => {}
                (true, _) => return fault("it is ok and has not all of its times"),
                (false, _) => return fault("it is not ok and has times"),
            }
            if row.status == Status::Ok && row.check.is_none() {
                return fault("it has times, and its answer was not checked");
            }
            if row.status != Status::Ok && row.reason.is_none() {
                return fault("it is not ok, and nothing says why");
            }
            let medians = [&row.ours, &row.theirs].into_iter().flatten().map(|summary| summary.median);
            if let Some(bad) = medians.chain(row.ratio).find(|v| !(v.is_finite() && *v > 0.0)) {
                return fault(&format!("a time or ratio of {bad}"));
            }
        }
    }
    Ok(())
}

impl PeerResults {
    /// None yet, on this machine.
    pub fn new(machine: Machine, roof: Roof) -> PeerResults {
        PeerResults { peer_format: FORMAT, machine, roof, items: Vec::new(), peers: BTreeMap::new() }
    }

    /// Whether times of this machine may stand beside those that are here.
    ///
    /// # Errors
    /// What differs.
    pub fn same_device(&self, machine: &Machine) -> Result<(), String> {
        let key = |m: &Machine| (m.adapter.name.clone(), m.adapter.driver.clone(), m.cpu.clone(), m.cores);
        match key(&self.machine) == key(machine) {
            true => Ok(()),
            false => Err(format!("measured on {:?}, this is {:?}", key(&self.machine), key(machine))),
        }
    }

    /// Adds what one peer did; rows that it had before and that were not measured again stay if nothing about the
    /// engine or our side has changed.
    pub fn merge(&mut self, key: &str, items: Vec<ItemRecord>, record: PeerRecord) {
        for item in items {
            match self.items.iter_mut().find(|known| known.id == item.id) {
                Some(known) => *known = item,
                None => self.items.push(item),
            }
        }
        match self.peers.get_mut(key) {
            Some(known)
                if (&known.name, &known.runs_on, known.transfers, &known.program.git)
                    == (&record.name, &record.runs_on, record.transfers, &record.program.git) =>
            {
                let mut rows = std::mem::take(&mut known.rows);
                rows.extend(record.rows.clone());
                *known = PeerRecord { rows, ..record };
            }
            _ => {
                self.peers.insert(key.to_owned(), record);
            }
        }
    }
}
