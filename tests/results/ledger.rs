//! The ledger: all that is kept and nothing else, and the one in the repository is what is made of the files there.

use std::path::{Path, PathBuf};

use aquatint::bench::peers::record::{self, FORMAT, ItemRecord, PeerRecord, PeerResults, PeerRow};
use aquatint::bench::record::{Check, Group, Results, Status, Summary};
use aquatint::bench::report::{json, ledger};
use aquatint::bench::synthetic::{Device, Noise, results};

fn check() -> Check {
    Check {
        against: "a test".to_owned(),
        reference: None,
        compared: 256,
        elements: 256,
        max_abs: 0.0,
        max_rel: 1e-6,
        rms: 0.0,
        psnr: None,
        tolerance: 1e-4,
        nans: 0,
        infinities: 0,
        replays: 1,
        distinct: 1,
    }
}

fn timed(ours: f64, theirs: f64) -> PeerRow {
    let summary = |median: f64| Summary::of(&[median * 0.9, median, median * 1.1]);
    PeerRow {
        status: Status::Ok,
        reason: None,
        check: Some(check()),
        our_check: check(),
        ours: summary(ours),
        theirs: summary(theirs),
        ratio: Some(theirs / ours),
    }
}

fn untimed(status: Status, reason: &str) -> PeerRow {
    PeerRow {
        status,
        reason: Some(reason.to_owned()),
        ours: None,
        theirs: None,
        ratio: None,
        ..timed(1.0, 1.0)
    }
}

fn peer(of: &Results, name: &str, rows: &[(&str, PeerRow)]) -> PeerRecord {
    PeerRecord {
        name: name.to_owned(),
        runs_on: "the adapter".to_owned(),
        transfers: false,
        started: "2026-11-26T10:00:00Z".to_owned(),
        program: of.program.clone(),
        rows: rows.iter().map(|(id, row)| ((*id).to_owned(), row.clone())).collect(),
    }
}

fn items() -> Vec<ItemRecord> {
    let item = |id: &str, group, flops| ItemRecord {
        id: id.to_owned(),
        title: format!("the {id}"),
        group,
        flops,
        bytes: 1_000_000,
    };
    vec![item("conv", Group::Kernel, 2_000_000_000), item("net", Group::Network, 8_000_000_000)]
}

fn races() -> PeerResults {
    let of = results(Device::Discrete, 1, Noise::default());
    let mut races = PeerResults::new(of.machine.clone(), of.roof.clone());
    let right = [("conv", timed(0.002, 0.004)), ("net", timed(0.01, 0.08))];
    let faulty =
        [("conv", untimed(Status::Wrong, "is 0.5 off")), ("net", untimed(Status::Error, "a | panic"))];
    races.merge("alpha", items(), peer(&of, "alpha 1.0", &right));
    races.merge("beta", items(), peer(&of, "beta 2.0", &faulty));
    races
}

#[test]
fn races_come_back_and_their_faults_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("races.json");
    record::write(&path, &races()).unwrap();
    assert_eq!(record::read(&path).unwrap().peers["beta"].rows, races().peers["beta"].rows);

    let text = std::fs::read_to_string(&path).unwrap();
    let newer = text.replacen(&format!("\"peer_format\": {FORMAT}"), "\"peer_format\": 99", 1);
    assert!(record::parse(&newer).unwrap_err().contains("races of format 99"));
    assert!(record::parse("{}").unwrap_err().contains("no results of benches/peers/run.sh"));

    type Spoil = fn(&mut PeerResults);
    let cases: [(&str, Spoil); 6] = [
        ("two items", |r| r.items[1].id = r.items[0].id.clone()),
        ("no such item", |r| drop(r.items.remove(0))),
        ("not ok and has times", |r| spoilt(r).status = Status::Wrong),
        ("not all of its times", |r| spoilt(r).ours = None),
        ("was not checked", |r| spoilt(r).check = None),
        ("a time or ratio of NaN", |r| spoilt(r).ratio = Some(f64::NAN)),
    ];
    for (wanted, spoil) in cases {
        let mut races = races();
        spoil(&mut races);
        assert!(record::check(&races).unwrap_err().contains(wanted), "{wanted}");
        assert!(record::write(folder.path().join("spoilt.json"), &races).is_err(), "{wanted}");
    }
}

fn spoilt(races: &mut PeerResults) -> &mut PeerRow {
    races.peers.get_mut("alpha").unwrap().rows.get_mut("conv").unwrap()
}

#[test]
fn later_races_replace_earlier_ones_of_the_same_engine_alone() {
    let of = results(Device::Discrete, 1, Noise::default());
    let mut kept = races();
    kept.merge("alpha", items(), peer(&of, "alpha 1.0", &[("conv", timed(0.002, 0.006))]));
    assert_eq!(kept.peers["alpha"].rows["conv"].ratio, Some(3.0));
    assert_eq!(kept.peers["alpha"].rows.len(), 2, "the row that was not measured again stays");
    // Another version: nothing of the old one stands beside it.
    kept.merge("alpha", items(), peer(&of, "alpha 1.1", &[("conv", timed(0.002, 0.006))]));
    assert_eq!(kept.peers["alpha"].rows.len(), 1);
    assert_eq!(kept.peers["beta"].rows.len(), 2);
    assert_eq!(kept.items.len(), 2);
    assert!(kept.same_device(&of.machine).is_ok());
    assert!(kept.same_device(&results(Device::Software, 1, Noise::default()).machine).is_err());
}

#[test]
fn the_ledger_has_devices_rows_ratios_and_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    json::write(path("discrete.json"), &results(Device::Discrete, 1, Noise::default())).unwrap();
    json::write(path("software.json"), &results(Device::Software, 1, Noise::default())).unwrap();
    record::write(path("races.json"), &races()).unwrap();
    std::fs::write(path("other.json"), "{\"version\": 1}").unwrap();
    std::fs::write(path("notes.txt"), "no JSON").unwrap();
    let kept = ledger::read(&[folder.path().to_owned()]).unwrap();
    assert_eq!((kept.results.len(), kept.races.len()), (2, 1));
    let text = ledger::render(&kept);
    assert_eq!(text.matches("\n## ").count(), 2, "{text}");
    assert_eq!(text.matches("A software adapter").count(), 1);
    // Ours, FLOP/s by the definition, two ratios; the second engine's faults in place of its ratios.
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("| the conv |").contains("| 2.00 ms | 1.00 TFLOP/s |"), "{}", line("| the conv |"));
    assert!(line("| the conv |").ends_with("| 2.0 | wrong |"), "{}", line("| the conv |"));
    assert!(line("| the net |").ends_with("| 8.0 | error |"), "{}", line("| the net |"));
    assert!(line("| *geometric mean, networks*").ends_with("| 8.0 (1) | – |"));
    assert!(text.contains("- beta, net: error: a \\| panic"), "{text}");
    assert!(text.contains("80.0 (10.0)"), "times of both stand there: {text}");
    // A table has as many cells in every line.
    for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let first = cells(table.lines().next().unwrap());
        table.lines().for_each(|line| assert_eq!(cells(line), first, "{line}"));
    }
    let refused = ledger::read(&[path("other.json")]).unwrap_err().to_string();
    assert!(refused.contains("neither results of aquatint bench nor"), "{refused}");
}

/// `UPDATE_LEDGER=1 cargo test --test results` writes it anew, as `aquatint bench ledger` does.
#[test]
fn the_ledger_in_the_repository_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path: PathBuf = root.join("docs/performance.md");
    let current = ledger::render(&ledger::read(&[root.join("benches/results")]).unwrap());
    if std::env::var_os("UPDATE_LEDGER").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap_or_default() == current, "docs/performance.md is stale");
}
