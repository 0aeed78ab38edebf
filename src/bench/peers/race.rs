//! One engine against ours: checked first, then timed in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use super::items::Item;
use super::process::{Peer, Trouble};
use super::record::{ItemRecord, PeerRow};
use crate::bench::network::{Made, Reference, bytes};
use crate::bench::record::{Check, Status, Summary};
use crate::bench::{check, computed};
use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::Plan;
use crate::tensor::{DType, Tensor};

/// How long a race lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RaceOptions {
    /// Turns at the least and at the most.
    pub rounds: [usize; 2],
    /// Seconds after which there are enough turns, if they are not fewer than the least.
    pub seconds: f64,
    /// Seconds that a turn lasts at least, by running several times in a row.
    pub turn: f64,
}

impl RaceOptions {
    /// For figures that are kept.
    pub const FULL: RaceOptions = RaceOptions { rounds: [5, 31], seconds: 2.0, turn: 0.02 };
    /// For a first look.
    pub const QUICK: RaceOptions = RaceOptions { rounds: [3, 9], seconds: 0.6, turn: 0.01 };
}

/// Rest between turns, in which the other side's threads go to sleep.
const REST: Duration = Duration::from_millis(10);
/// Most runs of a turn.
const MOST_RUNS: f64 = 256.0;

/// Our side of an item, on the device.
pub struct Ours {
    item: Item,
    made: Made,
    network: Network,
    check: Check,
}

impl Ours {
    /// Loads an item, computes it and holds it against its reference.
    ///
    /// # Errors
    /// Those of the device; [`Error::Invalid`] if the answer is wrong.
    pub fn new(gpu: &Gpu, item: Item) -> Result<Ours> {
        let made = item.make()?;
        let network = Network::from_plan(gpu, Plan::compile(&made.graph, gpu.target())?)?;
        let inputs: Vec<(&str, &Tensor)> = made.inputs.iter().map(|(n, x)| (n.as_str(), x)).collect();
        let outputs = network.run(&inputs)?;
        let names = network.plan().outputs.iter().map(|port| port.name.clone());
        let check = held(&made, &names.zip(outputs).collect::<Vec<_>>())?;
        match check::fault(&check) {
            None => Ok(Ours { item, made, network, check }),
            Some(fault) => Err(Error::Invalid {
                what: format!("our own {}", item.id),
                expected: "what the reference says".to_owned(),
                found: fault,
            }),
        }
    }

    /// What it is, for results.
    pub fn record(&self) -> ItemRecord {
        let plan = self.network.plan();
        ItemRecord {
            id: self.item.id.to_owned(),
            title: self.item.title.to_owned(),
            group: self.item.group(),
            flops: plan.flops(),
            bytes: bytes(plan),
        }
    }

    /// Seconds of one run, as the mean of so many; with the way of the numbers to the device and back, or without.
    fn run(&self, runs: u32, transfers: bool) -> Result<f64> {
        let inputs: Vec<(&str, &Tensor)> = self.made.inputs.iter().map(|(n, x)| (n.as_str(), x)).collect();
        let start = Instant::now();
        if transfers {
            for _ in 0..runs {
                self.network.run(&inputs)?;
            }
        } else {
            self.network.gpu().wait(self.network.submit(runs as usize)?)?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(runs))
    }

    /// Holds a peer's answer, as it stands in a file, against the reference of ours.
    fn judge(&self, answer: &Path) -> Result<(Option<Check>, Option<String>)> {
        let read = std::fs::read(answer).map_err(|source| Error::Io { path: answer.to_owned(), source })?;
        let values: Vec<f32> =
            read.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        let port = &self.network.plan().outputs[0];
        let tensor = match self.item.inside(&port.desc.shape, &values) {
            Ok(tensor) => tensor,
            Err(fault) => return Ok((None, Some(fault))),
        };
        let check = held(&self.made, &[(port.name.clone(), tensor)])?;
        let fault = check::fault(&check);
        Ok((Some(check), fault))
    }

    /// Has the peer compute the same, checks what it gives, and takes turns with it if that is right.
    /// Beside the row stands whether the peer has to be started anew.
    ///
    /// # Errors
    /// Those of our device, and of `answer`, where the peer writes to.
    pub fn race(&self, peer: &mut Peer, answer: &Path, options: RaceOptions) -> Result<(PeerRow, bool)> {
        let mut row = PeerRow {
            status: Status::Ok,
            reason: None,
            check: None,
            our_check: self.check.clone(),
            ours: None,
            theirs: None,
            ratio: None,
        };
        let raced = match peer.prepare(self.item.id, answer) {
            Err(trouble) => Err(trouble),
            Ok(()) => {
                let (check, fault) = self.judge(answer)?;
                row.check = check;
                match fault {
                    Some(fault) => {
                        (row.status, row.reason) = (Status::Wrong, Some(fault));
                        return Ok((row, false));
                    }
                    None => self.turns(peer, options)?,
                }
            }
        };
        let (status, reason, gone) = match raced {
            Ok([ours, theirs]) => {
                row.ratio = Some(theirs.median / ours.median);
                (row.ours, row.theirs) = (Some(ours), Some(theirs));
                return Ok((row, false));
            }
            Err(Trouble::Unsupported(reason)) => (Status::Unsupported, reason, false),
            Err(Trouble::Failed(reason)) => (Status::Error, reason, false),
            Err(Trouble::Gone(reason)) => (Status::Error, reason, true),
        };
        (row.status, row.reason) = (status, Some(reason));
        Ok((row, gone))
    }

    /// Times of both in turns: ours, then the peer's.
    fn turns(&self, peer: &mut Peer, options: RaceOptions) -> Result<Result<[Summary; 2], Trouble>> {
        let transfers = peer.hello.transfers;
        let runs = |once: f64| (options.turn / once.max(1e-7)).ceil().clamp(1.0, MOST_RUNS) as u32;
        // The first run of each does what is done once.
        self.run(1, transfers)?;
        if let Err(trouble) = peer.run(1) {
            return Ok(Err(trouble));
        }
        let our_runs = runs(self.run(1, transfers)?);
        let their_runs = match peer.run(1) {
            Ok(once) => runs(once),
            Err(trouble) => return Ok(Err(trouble)),
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let start = Instant::now();
        let [least, most] = options.rounds;
        while ours.len() < least || (ours.len() < most && start.elapsed().as_secs_f64() < options.seconds) {
            std::thread::sleep(REST);
            ours.push(self.run(our_runs, transfers)?);
            std::thread::sleep(REST);
            match peer.run(their_runs) {
                Ok(seconds) => theirs.push(seconds),
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
        let summary = |samples: &[f64]| Summary::of(samples).expect("positive times, three and more");
        Ok(Ok([summary(&ours), summary(&theirs)]))
    }
}

/// Outputs against the item's reference.
fn held(made: &Made, outputs: &[(String, Tensor)]) -> Result<Check> {
    match &made.reference {
        Reference::Stored { source, sha256, expected } => {
            Ok(check::compare((source, sha256), expected, outputs, 1, DType::F32))
        }
        _ => computed::compare(&made.graph, &made.inputs, outputs, DType::F32),
    }
}
