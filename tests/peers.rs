//! Races against other engines, of which scripts play the part: what is right is timed, and nothing else.

#![cfg(unix)]

mod hashed;

use std::path::Path;
use std::time::Duration;

use aquatint::bench::peers::items::{ITEMS, Item};
use aquatint::bench::peers::process::{Peer, Trouble};
use aquatint::bench::peers::race::{Ours, RaceOptions};
use aquatint::bench::peers::record::PeerRow;
use aquatint::bench::record::Status;
use aquatint::{Gpu, Network};

const OPTIONS: RaceOptions = RaceOptions { rounds: [3, 3], seconds: 0.0, turn: 0.0 };
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer that does what a shell script says: `$item` and `$answer` are what it is to prepare and where to.
fn peer(folder: &Path, prepare: &str, run: &str, transfers: bool, patience: Duration) -> Peer {
    let script = format!(
        r#"echo '{{"name": "script 1.0", "runs_on": "a shell", "transfers": {transfers}}}'
        while read word item answer; do
            case $word in
            prepare) {prepare} ;;
            run) {run} ;;
            esac
        done"#
    );
    let command = ["sh", "-c", &script, "sh"].map(str::to_owned);
    Peer::start(&command, folder, patience).expect("sh runs")
}

fn item(id: &str) -> Item {
    *ITEMS.iter().find(|item| item.id == id).expect("an item")
}

/// The right answer as bytes, written to FOLDER/right.
fn write_right(gpu: &Gpu, item: Item, folder: &Path) {
    let made = item.make().unwrap();
    let network = Network::new(gpu, &made.graph).unwrap();
    let inputs: Vec<_> = made.inputs.iter().map(|(name, x)| (name.as_str(), x)).collect();
    let values = network.run(&inputs).unwrap()[0].to_f32();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.join("right"), bytes).unwrap();
}

#[test]
fn right_answers_are_timed_and_others_are_not() {
    let Some(gpu) = hashed::gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let item = item("matmul-512");
    write_right(gpu, item, path);
    let ours = Ours::new(gpu, item).unwrap();
    let right = format!("cp {}/right $answer; echo ready", path.display());
    let race = |prepare: &str, run: &str, transfers: bool| -> (PeerRow, bool) {
        let mut peer = peer(path, prepare, run, transfers, PATIENCE);
        ours.race(&mut peer, &path.join("answer"), OPTIONS).unwrap()
    };
    for transfers in [false, true] {
        let (row, gone) = race(&right, "echo 0.5", transfers);
        assert_eq!((row.status, gone), (Status::Ok, false), "{:?}", row.reason);
        assert_eq!((row.theirs.unwrap().n, row.theirs.unwrap().median), (3, 0.5));
        assert_eq!(row.ratio.unwrap(), 0.5 / row.ours.unwrap().median);
        assert!(row.check.unwrap().max_rel < 1e-4);
    }

    let wrong = format!("head -c {} /dev/zero >$answer; echo ready", 4 * 512 * 512);
    let short = "head -c 400 /dev/zero >$answer; echo ready";
    let cases: [(&str, &str, Status, bool, &str); 7] = [
        (&wrong, "echo 0.5", Status::Wrong, false, "of the range off"),
        (short, "echo 0.5", Status::Wrong, false, "gave 100 numbers, 262144 wanted"),
        ("echo unsupported no $item here", "", Status::Unsupported, false, "no matmul-512 here"),
        ("echo failed the driver said no", "", Status::Error, false, "the driver said no"),
        ("echo 'out of memory' >&2; exit 3", "", Status::Error, true, "exit status: 3: out of memory"),
        ("kill -SEGV $$", "", Status::Error, true, "signal 11"),
        (&right, "echo failed later", Status::Error, true, "how long runs took"),
    ];
    for (prepare, run, status, gone, reason) in cases {
        let (row, found_gone) = race(prepare, run, false);
        assert_eq!((row.status, found_gone), (status, gone), "{prepare}: {row:?}");
        assert!(row.reason.as_ref().unwrap().contains(reason), "{prepare}: {row:?}");
        assert!(row.ours.is_none() && row.theirs.is_none() && row.ratio.is_none(), "{prepare}: {row:?}");
    }
}

#[test]
fn engines_that_hang_or_are_none_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer");
    let mut hangs = peer(folder.path(), "sleep 60", "", false, Duration::from_millis(300));
    assert_eq!(hangs.hello.name, "script 1.0");
    let trouble = hangs.prepare("matmul-512", &answer).unwrap_err();
    assert!(matches!(&trouble, Trouble::Gone(why) if why.contains("no answer")), "{trouble:?}");

    let start = |command: &[&str]| {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        Peer::start(&command, folder.path(), PATIENCE).err().expect("it is no engine")
    };
    assert!(start(&["/nonexistent/engine"]).contains("/nonexistent/engine"));
    assert!(start(&["sh", "-c", "echo hello"]).contains("begins with \"hello\""));
    let panicked = "thread 'main' panicked at src/main.rs:3:5:\nno adapter\nnote: run with RUST_BACKTRACE=1";
    let failed = start(&["sh", "-c", "printf '%s\\n' \"$0\" >&2; exit 101", panicked]);
    assert!(failed.contains("101") && failed.ends_with(": no adapter"), "{failed}");
}
