//! What two runs say of each other, and what a script is told.

use aquatint::bench::compare::{CompareOptions, Comparison, Outcome, compare};
use aquatint::bench::exit::ExitReason;
use aquatint::bench::patterns::Patterns;
use aquatint::bench::record::{Results, Row, Status, Summary};
use aquatint::bench::synthetic::{Device, Noise, results, slow_down};

/// A run with this seed; rows that are wrong from the start are not, so that a test sees its own changes.
fn run(seed: u64) -> Results {
    // So quiet that nothing happens by chance.
    let quiet = Noise { process: 0.002, ..Noise::default() };
    let mut run = results(Device::Discrete, seed, quiet);
    for row in run.rows.iter_mut().filter(|row| row.status == Status::Wrong) {
        row.status = Status::Unsupported;
    }
    run
}

fn row<'a>(results: &'a mut Results, id: &str) -> &'a mut Row {
    results.rows.iter_mut().find(|row| row.id == id).unwrap_or_else(|| panic!("no row {id}"))
}

fn fails_as(row: &mut Row, status: Status, reason: &str) {
    row.status = status;
    row.reason = Some(reason.to_owned());
    (row.times, row.rates) = (None, None);
}

fn outcome(comparison: &Comparison, id: &str) -> Outcome {
    comparison.rows.iter().find(|row| row.id == id).map(|row| row.outcome).unwrap()
}

fn with_lists(expected: &str, flaky: &str) -> CompareOptions {
    CompareOptions {
        expected: Patterns::parse("expected.txt", expected).unwrap(),
        flaky: Patterns::parse("flaky.txt", flaky).unwrap(),
        ..CompareOptions::default()
    }
}

const RESNET: &str = "network/resnet50/f32/1";
const SOFTMAX: &str = "kernel/softmax/f32/1";

#[test]
fn a_run_and_itself_are_the_same() {
    let a = run(1);
    let comparison = compare(&a, &a, &CompareOptions::default());
    assert_eq!(comparison.differences, []);
    assert_eq!((comparison.exit(), comparison.clock), (ExitReason::Fine, Some(1.0)));
    assert_eq!(comparison.resolution, 0.03);
    for row in comparison.rows.iter().filter(|r| r.judgement.is_some()) {
        let judgement = row.judgement.as_ref().unwrap();
        assert_eq!(judgement.ratio, 1.0, "{}", row.id);
        assert!(judgement.interval[0] <= 1.0 && judgement.interval[1] >= 1.0, "{judgement:?}");
    }
}

#[test]
fn what_is_slower_broken_or_wrong_gives_its_code() {
    let a = run(1);
    let mut b = run(2);
    slow_down(row(&mut b, RESNET), 1.3);
    let comparison = compare(&a, &b, &CompareOptions::default());
    assert_eq!((outcome(&comparison, RESNET), comparison.exit()), (Outcome::Slower, ExitReason::Regression));

    fails_as(row(&mut b, RESNET), Status::Error, "out of memory");
    let comparison = compare(&a, &b, &CompareOptions::default());
    assert_eq!((outcome(&comparison, RESNET), comparison.exit()), (Outcome::Broken, ExitReason::Regression));

    fails_as(row(&mut b, SOFTMAX), Status::Wrong, "not what the reference says");
    let comparison = compare(&a, &b, &CompareOptions::default());
    assert_eq!((outcome(&comparison, SOFTMAX), comparison.exit()), (Outcome::Wrong, ExitReason::Wrong));
    assert_eq!(comparison.exit().code(), 2);
    // The other way round it is mended, and nothing is worse.
    let back = compare(&b, &a, &CompareOptions::default());
    assert_eq!((outcome(&back, SOFTMAX), outcome(&back, RESNET)), (Outcome::Mended, Outcome::Mended));
    assert_eq!(back.exit(), ExitReason::Fine);
}

#[test]
fn lists_excuse_rows_and_say_when_they_need_not() {
    let a = run(1);
    let mut b = run(2);
    slow_down(row(&mut b, RESNET), 1.3);
    fails_as(row(&mut b, SOFTMAX), Status::Wrong, "not what the reference says");
    let exit = |expected: &str, flaky: &str| compare(&a, &b, &with_lists(expected, flaky)).exit();
    assert_eq!(exit("kernel/softmax/*", ""), ExitReason::Regression);
    assert_eq!(exit("", "network/*\nkernel/softmax/f32/1"), ExitReason::Fine);
    assert_eq!(exit("network/resnet50/*\n", "kernel/softmax/*"), ExitReason::Fine);
    let comparison = compare(&a, &b, &with_lists("kernel/resize/f32/1\nno/such/row", ""));
    let notes = comparison.notes.join("\n");
    assert!(notes.contains("kernel/resize/f32/1 is expected to fail and does not: SAME"), "{notes}");
    assert!(notes.contains("expected.txt: no row is called no/such/row"), "{notes}");
}

#[test]
fn rows_that_are_gone_count_if_the_same_was_asked_for() {
    let a = run(1);
    let mut b = run(2);
    b.rows.retain(|row| row.id != RESNET);
    let comparison = compare(&a, &b, &CompareOptions::default());
    assert_eq!((outcome(&comparison, RESNET), comparison.exit()), (Outcome::Missing, ExitReason::Regression));
    assert_eq!(outcome(&compare(&b, &a, &CompareOptions::default()), RESNET), Outcome::New);
    b.settings.filter = Some("kernel".to_owned());
    b.settings.hash = "other".to_owned();
    let comparison = compare(&a, &b, &CompareOptions::default());
    assert_eq!((outcome(&comparison, RESNET), comparison.exit()), (Outcome::Missing, ExitReason::Fine));
    assert!(comparison.differences[0].grave && comparison.differences[0].what == "settings");
}

#[test]
fn another_driver_keeps_the_rows_together_and_is_told() {
    let a = run(1);
    let mut b = run(2);
    b.machine.adapter.driver = "example 1.3.0".to_owned();
    b.program.profile = "debug".to_owned();
    let comparison = compare(&a, &b, &CompareOptions::default());
    let told: Vec<(&str, bool)> = comparison.differences.iter().map(|d| (d.what, d.grave)).collect();
    assert_eq!(told, [("build", true), ("driver", false)]);
    assert!(comparison.rows.iter().all(|r| r.outcome != Outcome::Missing && r.outcome != Outcome::New));
    let software = results(Device::Software, 1, Noise::default());
    let comparison = compare(&a, &software, &CompareOptions::default());
    assert!(comparison.differences.iter().any(|d| d.what == "device" && d.grave));
    assert!(comparison.notes.iter().any(|note| note.contains("ran on the CPU")), "{:?}", comparison.notes);
}

/// Puts these samples into a row.
fn set(row: &mut Row, samples: &[f64]) {
    let times = row.times.as_mut().unwrap();
    times.samples = samples.to_vec();
    times.wall_samples = samples.to_vec();
    times.main = Summary::of(samples).unwrap();
    times.wall = times.main;
    times.visits.clear();
}

#[test]
fn doubtful_samples_are_never_a_verdict() {
    let mut a = run(1);
    let mut b = run(2);
    let mut judge = |first: &[f64], second: &[f64]| {
        set(row(&mut a, RESNET), first);
        set(row(&mut b, RESNET), second);
        let comparison = compare(&a, &b, &CompareOptions::default());
        let row = comparison.rows.into_iter().find(|row| row.id == RESNET).unwrap();
        (row.outcome, row.judgement.unwrap().reason.unwrap_or_default())
    };
    // One sample each, however far apart.
    let (outcome, reason) = judge(&[1.0], &[2.0]);
    assert_eq!(outcome, Outcome::Ambiguous);
    assert!(reason.contains("one sample"), "{reason}");
    // Three that agree are enough for half as much again.
    assert_eq!(judge(&[1.0, 1.01, 1.005], &[1.5, 1.51, 1.49]).0, Outcome::Slower);
    // Two peaks whose shares went from 60:40 to 40:60: the median jumps, the quartiles stay.
    let peaks = |high: usize| -> Vec<f64> {
        (0..100).map(|i| if i * 37 % 100 < high { 1.2 } else { 1.0 } + 1e-4 * (i % 7) as f64).collect()
    };
    assert_eq!(judge(&peaks(35), &peaks(65)).0, Outcome::Ambiguous);
    assert_eq!(judge(&peaks(35), &peaks(35)).0, Outcome::Same);
}
