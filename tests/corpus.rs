//! Files that the fuzzer found or began with (`scripts/fuzz.sh`): each must be read or refused, soon and without a panic.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

/// A second on a machine that does nothing else, with room for one that does and for builds with fewer optimisations.
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn every_file_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let (mut count, mut slowest) = (0, Duration::ZERO);
    for (name, target) in targets::TARGETS {
        let mut files: Vec<_> =
            std::fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            // What is printed last is the one that panics.
            println!("{}", file.display());
            let start = Instant::now();
            target(&bytes);
            let took = start.elapsed();
            assert!(took < LONGEST, "{} took {took:?}", file.display());
            count += 1;
            slowest = slowest.max(took);
        }
    }
    println!("figure corpus: {count} files, none took longer than {slowest:.1?}");
}
