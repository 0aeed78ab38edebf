//! The runner of benchmarks: what is wrong, hangs, drifts or does not fit is told apart and never timed.

mod hashed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquatint::bench::canary;
use aquatint::bench::case::{Case, Estimate, Label, Subject};
use aquatint::bench::network::{Made, NetworkCase, Reference};
use aquatint::bench::record::{
    Canary, Check, ClockSource, Group, KernelTime, Limit, LimitKind, Memory, Roof, Row, Start, Status,
    Stopped,
};
use aquatint::bench::run::{self, Measured, RunOptions};
use aquatint::bench::stop::StopOptions;
use aquatint::bench::workloads::{Suite, cases};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, Error, Gpu, Result, RunTime, Target, Tensor};

/// A device of its own: what is planted in it, others must not see.
fn own_gpu() -> Option<Gpu> {
    hashed::gpu()?;
    Some(Gpu::headless().expect("there was one before"))
}

fn roof() -> Roof {
    let limit = |kind, value| Limit { kind, value: Some(value), reason: None, spread: None, form: None };
    Roof { limits: vec![limit(LimitKind::F32Arithmetic, 1e11), limit(LimitKind::ReadBandwidth, 1e10)] }
}

fn options() -> RunOptions {
    let stop = StopOptions { warm_up: 0.0, least: 6, limit: 0.3, ..StopOptions::default() };
    RunOptions { stop, visits: 1, time_limit: None, cooldown: 0.0, clock: ClockSource::Wall }
}

fn measure(gpu: &Gpu, all: Vec<Box<dyn Case>>, options: &RunOptions) -> Measured {
    run::run(gpu, &all, &roof(), options, &AtomicBool::new(false), &mut |_| {}).expect("the canary sings")
}

fn label(name: &str, dtype: DType) -> Label {
    Label { group: Group::Kernel, name: name.to_owned(), title: name.to_owned(), dtype, batch: 1 }
}

/// A convolution with random numbers.
fn convolution(name: &str) -> Box<dyn Case> {
    let make = |_| {
        let mut made = Made::new(Reference::Computed);
        let g = &mut made.graph;
        let x = g.input("x", [1, 13, 9, 24], DType::F32);
        let w = g.weight("w", Tensor::from_f32([20, 24, 3, 3], &hashed::numbers("w", 20 * 24 * 9)));
        let y = g.conv2d(x, w, None, Conv2dOptions::padded(1))?;
        g.output("y", y);
        made.inputs
            .push(("x".to_owned(), Tensor::from_f32([1, 13, 9, 24], &hashed::numbers("x", 13 * 9 * 24))));
        Ok(made)
    };
    Box::new(NetworkCase::new(label(name, DType::F32), make))
}

/// Something that behaves as it is told, and how it is told so.
#[derive(Clone)]
struct Told {
    label: Label,
    estimate: Estimate,
    /// Seconds of its n-th sample.
    seconds: fn(usize) -> f64,
    fails: Option<fn() -> Error>,
    /// The sample that fails.
    breaks: Option<usize>,
    sampled: usize,
}

impl Told {
    fn new(name: &str) -> Told {
        let label = label(name, DType::F32);
        Told {
            label,
            estimate: Estimate::default(),
            seconds: |_| 0.01,
            fails: None,
            breaks: None,
            sampled: 0,
        }
    }
}

impl Case for Told {
    fn label(&self) -> &Label {
        &self.label
    }

    fn estimate(&self, _: &Target) -> Result<Estimate> {
        Ok(self.estimate)
    }

    fn prepare(&self, _: &Gpu) -> Result<Box<dyn Subject>> {
        match self.fails {
            Some(fails) => Err(fails()),
            None => Ok(Box::new(self.clone())),
        }
    }
}

impl Subject for Told {
    fn start(&self) -> Option<Start> {
        None
    }

    fn memory(&self) -> Option<Memory> {
        None
    }

    fn check(&mut self) -> Result<(Check, Option<String>)> {
        let y = [("y".to_owned(), Tensor::from_f32([1], &[1.0]))];
        Ok((aquatint::bench::check::compare(("nothing", ""), &[], &y, 1, DType::F32), None))
    }

    fn time(&mut self, runs: u32) -> Result<RunTime> {
        // The first is the one that says how many runs make a sample.
        let wall = (self.seconds)(self.sampled.saturating_sub(1)) * f64::from(runs);
        self.sampled += 1;
        if self.breaks == Some(self.sampled) {
            let [what, expected, found] = ["a run", "an answer", "none, once"].map(str::to_owned);
            return Err(Error::Invalid { what, expected, found });
        }
        std::thread::sleep(Duration::from_millis(2));
        Ok(RunTime { encode: wall / 10.0, wall, device: None })
    }

    fn kernels(&mut self) -> Result<Vec<KernelTime>> {
        Ok(Vec::new())
    }
}

fn reason(row: &Row) -> &str {
    row.reason.as_deref().unwrap_or_default()
}

/// Whether times are kept. How steady those of a real kernel are depends on what else the machine does.
fn is_timed(row: &Row) -> bool {
    matches!(row.status, Status::Ok | Status::Unstable) && row.times.is_some()
}

#[test]
fn a_right_kernel_is_timed_and_a_wrong_one_is_not() {
    let Some(gpu) = own_gpu() else { return };
    let row = measure(&gpu, vec![convolution("right")], &options()).rows.remove(0);
    assert!(is_timed(&row), "{row:?}");
    let times = row.times.expect("times");
    assert!(times.main.n >= 6 && times.main.min > 0.0 && times.samples.len() == times.main.n as usize);
    assert!(row.check.expect("a check").compared > 200);
    assert!(row.rates.expect("rates").share.expect("a share") > 0.0);

    let kernels: Vec<String> = row.kernels.into_iter().map(|k| k.kernel).collect();
    assert!(!kernels.is_empty(), "this test needs timestamps to know the kernels");
    let Some(gpu) = own_gpu() else { return };
    kernels.iter().for_each(|kernel| gpu.plant_fault(kernel, "P.pad_left", "(P.pad_left + 1u)"));
    let row = measure(&gpu, vec![convolution("faulty")], &options()).rows.remove(0);
    is_wrong(&row, "of the range off");
}

fn is_wrong(row: &Row, why: &str) {
    assert_eq!(row.status, Status::Wrong, "{row:?}");
    assert!(reason(row).contains(why), "{}", reason(row));
    assert!(row.times.is_none() && row.rates.is_none() && row.kernels.is_empty());
}

#[test]
fn a_kernel_that_gives_nans_is_named() {
    let Some(gpu) = own_gpu() else { return };
    let softmax = || {
        let make = |_| {
            let mut made = Made::new(Reference::Computed);
            let x = made.graph.input("x", [7, 41], DType::F32);
            let y = made.graph.softmax(x, 1)?;
            made.graph.output("y", y);
            made.inputs.push(("x".to_owned(), Tensor::from_f32([7, 41], &hashed::numbers("x", 287))));
            Ok(made)
        };
        Box::new(NetworkCase::new(label("softmax", DType::F32), make))
    };
    let row = measure(&gpu, vec![softmax()], &options()).rows.remove(0);
    assert!(is_timed(&row), "{row:?}");
    gpu.plant_fault("softmax", "return exp(x) / sum", "return sqrt(-1.0 - x * x) + exp(x) / sum");
    is_wrong(&measure(&gpu, vec![softmax()], &options()).rows[0], "287 NaNs");
}

#[test]
fn a_device_that_does_not_answer_ends_the_run() {
    let Some(gpu) = own_gpu() else { return };
    struct Slow(Label);
    impl Case for Slow {
        fn label(&self) -> &Label {
            &self.0
        }
        fn estimate(&self, _: &Target) -> Result<Estimate> {
            Ok(Estimate::default())
        }
        fn prepare(&self, gpu: &Gpu) -> Result<Box<dyn Subject>> {
            // Longer than anybody waits here, though it ends.
            gpu.set_patience(Duration::from_millis(20));
            let subject = large().prepare(gpu);
            gpu.set_patience(Duration::from_secs(60));
            subject
        }
    }
    fn large() -> NetworkCase {
        let make = |_| {
            let mut made = Made::new(Reference::Computed);
            let g = &mut made.graph;
            let shape = [4, 128, 128, 64];
            let mut y = g.input("x", shape, DType::F32);
            let w = Tensor::from_f32([64, 64, 3, 3], &hashed::numbers("w", 64 * 64 * 9));
            for i in 0..8 {
                let w = g.weight(&format!("w{i}"), w.clone());
                y = g.conv2d(y, w, None, Conv2dOptions::padded(1))?;
            }
            g.output("y", y);
            let count = shape.iter().product();
            made.inputs.push(("x".to_owned(), Tensor::from_f32(shape, &hashed::numbers("x", count))));
            Ok(made)
        };
        NetworkCase::new(label("large", DType::F32), make)
    }
    let slow = Box::new(Slow(label("slow", DType::F32)));
    let measured =
        measure(&gpu, vec![Box::new(Told::new("before")), slow, Box::new(Told::new("after"))], &options());
    let [before, slow, after] = &measured.rows[..] else { panic!("three rows") };
    // A fast device may do it in time.
    if is_timed(slow) {
        return;
    }
    assert_eq!((before.status, slow.status), (Status::Ok, Status::Error));
    assert!(reason(slow).contains("no answer for 0.0 s"), "{}", reason(slow));
    assert!(measured.lost && after.status == Status::Skipped, "{after:?}");
    assert!(reason(after).contains("lost in kernel/slow"), "{}", reason(after));
    assert!(measured.cut_short.is_some());
}

#[test]
fn clocks_that_fall_and_times_that_scatter_are_named() {
    let Some(gpu) = own_gpu() else { return };
    let mut falling = Told::new("falling");
    falling.seconds = |n| if n < 31 { 0.010 } else { 0.016 };
    let mut scattered = Told::new("scattered");
    scattered.seconds = |n| 0.005 + 0.020 * ((n * 7919 % 101) as f64 / 101.0);
    let stop = StopOptions { warm_up: 0.0, least: 45, precision: 1e-9, limit: 5.0, most: 45 };
    let measured =
        measure(&gpu, vec![Box::new(falling), Box::new(scattered)], &RunOptions { stop, ..options() });
    let [falling, scattered] = &measured.rows[..] else { panic!("two rows") };
    assert_eq!(falling.status, Status::Unstable, "{falling:?}");
    assert!(reason(falling).contains("slower than the first"), "{}", reason(falling));
    assert_eq!(scattered.status, Status::Unstable);
    assert!(reason(scattered).contains("only known to"), "{}", reason(scattered));
    assert!(scattered.times.is_some(), "they are kept, with a warning");

    let sample =
        |i: usize, seconds| Canary { at: i as f64, seconds, after: Some(format!("row {i}")), rounds: 8 };
    let series: Vec<Canary> = (0..20).map(|i| sample(i, if i < 12 { 0.01 } else { 0.014 })).collect();
    let throttled = canary::throttled(&series).expect("it slowed down");
    assert!((0.65..0.78).contains(&throttled.left), "{throttled:?}");
}

#[test]
fn rows_take_turns() {
    let Some(gpu) = own_gpu() else { return };
    let all: Vec<Box<dyn Case>> = vec![Box::new(Told::new("one")), Box::new(Told::new("two"))];
    let stop = StopOptions { warm_up: 0.0, least: 18, precision: 1.0, ..StopOptions::default() };
    let options = RunOptions { stop, visits: 3, ..options() };
    let mut seen = Vec::new();
    let measured = run::run(&gpu, &all, &roof(), &options, &AtomicBool::new(false), &mut |event| {
        if let run::Event::Again { rows, visit, of } = event {
            seen.push((rows, visit, of));
        }
    });
    let measured = measured.expect("the canary sings");
    assert_eq!(seen, [(2, 2, 3), (2, 3, 3)]);
    let visits = |row: &Row| row.times.clone().expect("times").visits;
    let [one, two] = [0, 1].map(|i| visits(&measured.rows[i]));
    assert_eq!((one.len(), two.len()), (3, 3));
    for (one, two) in one.iter().zip(&two) {
        // As steady as these are, all of them count, whatever the canary met.
        assert!(one.at < two.at && one.counts && one.samples == 6 && one.canary.is_some());
    }
    assert!(two[0].at < one[1].at && two[1].at < one[2].at);
    assert_eq!(measured.rows[0].times.as_ref().map(|times| times.samples.len()), Some(18));
    // Before all, and after each visit.
    assert_eq!(measured.canary.len(), 7);
}

#[test]
fn what_takes_longer_than_a_row_may_is_timed_once() {
    let Some(gpu) = own_gpu() else { return };
    let long = Told { seconds: |n| 40.0 + n as f64, ..Told::new("long") };
    let times = measure(&gpu, vec![Box::new(long)], &options()).rows.remove(0).times.expect("times");
    assert_eq!((times.samples, times.stopped), (vec![40.0], Stopped::TimeUp));
}

#[test]
fn a_row_that_failed_once_is_not_made_good_by_later_visits() {
    let Some(gpu) = own_gpu() else { return };
    let broken = Told { breaks: Some(10), ..Told::new("broken") };
    let stop = StopOptions { warm_up: 0.0, least: 18, precision: 1.0, ..StopOptions::default() };
    let all: Vec<Box<dyn Case>> = vec![Box::new(broken), Box::new(Told::new("whole"))];
    let measured = measure(&gpu, all, &RunOptions { stop, visits: 4, ..options() });
    let [broken, whole] = &measured.rows[..] else { panic!("two rows") };
    assert_eq!((broken.status, whole.status), (Status::Error, Status::Ok));
    assert!(broken.times.is_none() && reason(broken).contains("once"), "{broken:?}");
    assert_eq!(whole.times.as_ref().map(|times| times.visits.len()), Some(4));
}

#[test]
fn what_does_not_fit_is_skipped_and_says_why() {
    let Some(gpu) = own_gpu() else { return };
    let mut long = Told::new("long");
    long.estimate = Estimate { flops: 1 << 44, least_runs: 8, ..Estimate::default() };
    let mut huge = Told::new("huge");
    huge.estimate.weights = 1 << 50;
    let mut lacking = Told::new("lacking");
    lacking.fails = Some(|| Error::Limit {
        device: "this".to_owned(),
        what: "a buffer".to_owned(),
        needed: 2,
        available: 1,
    });
    let all: Vec<Box<dyn Case>> = vec![Box::new(long), Box::new(Told::new("short")), Box::new(lacking)];
    let measured = measure(&gpu, all, &RunOptions { time_limit: Some(20.0), ..options() });
    let [long, short, lacking] = &measured.rows[..] else { panic!("three rows") };
    assert_eq!((long.status, short.status), (Status::Skipped, Status::Ok));
    assert!(reason(long).contains("--time-limit"), "{}", reason(long));
    assert_eq!(lacking.status, Status::Unsupported);
    assert!(reason(lacking).contains("a buffer"), "{}", reason(lacking));
    let huge = measure(&gpu, vec![Box::new(huge)], &options()).rows.remove(0);
    assert!(huge.status == Status::Skipped && reason(&huge).contains("memory"), "{huge:?}");
}

#[test]
fn a_user_can_stop_it() {
    let Some(gpu) = own_gpu() else { return };
    let stop = AtomicBool::new(false);
    let all: Vec<Box<dyn Case>> = vec![Box::new(Told::new("one")), Box::new(Told::new("two"))];
    let measured = run::run(&gpu, &all, &roof(), &options(), &stop, &mut |event| {
        if let run::Event::Done(_) = event {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let measured = measured.expect("it ran");
    assert_eq!((measured.rows[0].status, measured.rows[1].status), (Status::Ok, Status::Skipped));
    assert_eq!(measured.cut_short.as_deref(), Some("stopped by the user"));
}

#[test]
fn networks_agree_with_their_references_in_both_types() {
    let Some(gpu) = own_gpu() else { return };
    let dtypes = if gpu.target().f16 { vec![DType::F32, DType::F16] } else { vec![DType::F32] };
    let mut all = cases(Suite::Quick, &dtypes, &[1, 2]);
    // The suites measure the others.
    all.retain(|case| {
        case.label().name == "mobilenet_v2" && (case.label().dtype, case.label().batch) != (DType::F16, 2)
    });
    assert_eq!(all.len(), dtypes.len() + 1);
    let stop = StopOptions { warm_up: 0.0, least: 1, limit: 0.0, ..StopOptions::default() };
    let measured = measure(&gpu, all, &RunOptions { stop, ..options() });
    for row in &measured.rows {
        assert!(is_timed(row), "{}: {}", row.id, reason(row));
        let check = row.check.as_ref().expect("a check");
        println!("{}: {:.1e} of the range", row.id, check.max_rel);
        assert!(check.reference.as_ref().is_some_and(|sha| sha.len() == 64) && check.distinct == 1);
    }
}
