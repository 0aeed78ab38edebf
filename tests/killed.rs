//! Files that a program was writing when it was killed: the old one is there or the new one, whole, never a part.
//!
//! This binary starts itself as the program that writes without end, and kills it at random moments: 40 times, or `AQUATINT_TEST_KILLS`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use aquatint::cache::{Cache, Identity};
use aquatint::formats::picture;
use aquatint::{Tuning, wgpu};

const FOLDER: &str = "AQUATINT_TEST_WRITES_INTO";

/// Large enough that a kill falls into the writing of one more often than not.
fn drawn(shade: u8) -> image::RgbImage {
    image::RgbImage::from_fn(160, 120, |x, y| image::Rgb([x as u8 ^ shade, y as u8, (x * y) as u8]))
}

fn identity() -> Identity {
    let info = wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Noop);
    Identity::new(&info, "of a test".to_owned())
}

fn measured(choices: usize) -> Tuning {
    let mut tuning = Tuning::default();
    (0..choices).for_each(|i| tuning.set(format!("operation {i}"), "the way of this operation".repeat(8)));
    tuning
}

/// Not a test: what [`files_are_whole_whenever_their_writer_is_killed`] kills.
#[test]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let cache = Cache::at(folder.join("cache"));
    for turn in 0.. {
        picture::save_png(folder.join("a.png"), &drawn(turn as u8).into(), &[("turn", &turn.to_string())])
            .unwrap();
        assert!(measured(500 + turn % 500).keep(&cache, &identity()));
    }
}

#[test]
fn files_are_whole_whenever_their_writer_is_killed() {
    let kills: u32 = std::env::var("AQUATINT_TEST_KILLS").map_or(40, |n| n.parse().expect("a number"));
    let folder = tempfile::tempdir().unwrap();
    let (path, cache) = (folder.path().join("a.png"), Cache::at(folder.path().join("cache")));
    let (mut turns, mut midway) = (0, 0);
    for kill in 0..kills {
        let start = SystemTime::now();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It is under way once it has written both anew.
        while !written_since(&path, start) || Tuning::kept(&cache, &identity()).is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Times of day are as random as is needed, and differ in each run.
        let random = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        std::thread::sleep(Duration::from_micros(u64::from(random % 60_000)));
        assert!(writer.try_wait().unwrap().is_none(), "it writes until it is killed");
        writer.kill().unwrap();
        writer.wait().unwrap();

        let text = picture::read_text(&path, "turn").unwrap().expect("written with the picture");
        let turn: usize = text.parse().unwrap();
        assert_eq!(picture::open(&path).unwrap(), drawn(turn as u8), "kill {kill}");
        let kept = Tuning::kept(&cache, &identity());
        assert!((500..1000).contains(&kept.len()), "kill {kill}: {} choices", kept.len());
        assert_eq!(kept.to_bytes("d"), measured(kept.len()).to_bytes("d"), "kill {kill}");
        turns += turn;
        midway += usize::from(left_over(folder.path()) + left_over(cache.folder().unwrap()) > 0);
    }
    println!(
        "figure kills: {kills} kills, {midway} of them with a file half written, after {turns} turns; each file whole"
    );
    assert!(turns > 0 && midway > 0, "no kill met a file half written");
}

fn written_since(path: &Path, start: SystemTime) -> bool {
    std::fs::metadata(path).and_then(|about| about.modified()).is_ok_and(|written| written > start)
}

/// Temporary files, which are taken away.
fn left_over(folder: &Path) -> usize {
    let hidden: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.'))
        .collect();
    hidden.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    hidden.len()
}
