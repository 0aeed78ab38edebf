//! What is kept on disk between processes: pipelines and measurements. Files that are damaged, foreign or absurd change
//! nothing, and no answer is another for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aquatint::cache::{self, Cache};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::tune::{Report, TuneOptions, Verdict, tune};
use aquatint::{AdapterOptions, DType, Error, Gpu, Graph, Network, Plan, Result, Tensor, Tuning};

/// A device with its cache in a folder, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn gpu(cache: &Cache) -> Option<Gpu> {
    let options = AdapterOptions { cache: cache.clone(), tuned: true, ..AdapterOptions::from_env() };
    match Gpu::with_options(&options) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn values(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| (i + seed).wrapping_mul(2_654_435_761) >> 8;
    (0..count as u32).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A convolution of ten million operations, with bias, residual and activation, and a pointwise one.
fn network() -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", [1, 23, 24, 32], DType::F32);
    let w = g.weight("w", Tensor::from_f32([32, 32, 3, 3], &values(32 * 32 * 9, 1)));
    let b = g.weight("b", Tensor::from_f32([32], &values(32, 2)));
    let y = g.conv2d(x, w, Some(b), Conv2dOptions::padded(1))?;
    let y = g.add(y, x)?;
    let y = g.relu(y)?;
    let w = g.weight("w1", Tensor::from_f32([40, 32, 1, 1], &values(40 * 32, 3)));
    let y = g.conv2d(y, w, None, Conv2dOptions::default())?;
    g.output("y", y);
    Ok(g)
}

fn answer(gpu: &Gpu) -> Vec<f32> {
    let network = Network::new(gpu, &network().unwrap()).unwrap();
    network.poison().unwrap();
    let x = Tensor::from_f32([1, 23, 24, 32], &values(23 * 24 * 32, 9));
    network.run(&[("x", &x)]).unwrap()[0].to_f32()
}

/// Sums of 288 and of 32 products: what other orders of the terms let them be off by.
fn assert_same(a: &[f32], b: &[f32], what: &str) {
    let largest = a.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(largest > 1.0 && a.len() == b.len(), "{what}");
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(off <= 1e-5 * largest, "{what}: {off} of {largest}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    found.sort();
    found
}

/// The file of pipelines in a folder; none where the driver gives no data.
fn pipelines(folder: &Path) -> Option<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let all = files(folder);
    assert!(all.iter().all(|path| name(path).starts_with("pipelines-")), "nothing else is left: {all:?}");
    assert!(all.len() <= 1, "{all:?}");
    all.into_iter().next()
}

#[test]
fn pipelines_are_kept_and_damaged_files_are_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("caches"));
    let Some(first) = gpu(&cache) else { return };
    let expected = answer(&first);
    drop(first);
    let Some(file) = pipelines(cache.folder().unwrap()) else {
        eprintln!("SKIPPED: this driver's pipelines cannot be kept");
        return;
    };
    let whole = fs::read(&file).unwrap();
    assert_eq!(answer(&gpu(&cache).unwrap()), expected);
    let identity_at = 32;
    let mut foreign = whole.clone();
    foreign[identity_at + 5] ^= 1;
    let mut absurd = whole.clone();
    absurd[16..28].fill(0xff);
    let mut garbage = whole.clone();
    garbage[identity_at..].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 31) as u8);
    // Whole as a file, and nothing that a driver ever wrote.
    let text_end = identity_at + u32::from_le_bytes(whole[16..20].try_into().unwrap()) as usize;
    let identity = std::str::from_utf8(&whole[identity_at..text_end]).unwrap();
    assert!(cache::open(&whole, b"pipe", identity).is_some());
    let sealed = cache::seal(b"pipe", identity, b"no driver wrote this");
    let bytes: [(&str, &[u8]); 7] = [
        ("empty", &[]),
        ("cut", &whole[..whole.len() / 2]),
        ("cut in its header", &whole[..20]),
        ("foreign", &foreign),
        ("absurd", &absurd),
        ("garbage", &garbage),
        ("sealed garbage", &sealed),
    ];
    for (what, bytes) in bytes {
        fs::write(&file, bytes).unwrap();
        assert_eq!(answer(&gpu(&cache).unwrap()), expected, "{what}");
        let anew = fs::read(&file).unwrap();
        assert!(cache::open(&anew, b"pipe", identity).is_some_and(|data| data.len() > 20), "{what}");
        assert_eq!(pipelines(cache.folder().unwrap()).as_ref(), Some(&file), "{what}");
    }
    // Explicitly, before the device is closed.
    fs::remove_file(&file).unwrap();
    let open = gpu(&cache).unwrap();
    answer(&open);
    assert!(!file.exists());
    open.keep_pipelines();
    assert!(file.exists());
}

#[test]
fn folders_that_cannot_be_written_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plain) = gpu(&Cache::off()) else { return };
    let expected = answer(&plain);
    fs::write(folder.path().join("file"), "in the way").unwrap();
    let cache = Cache::at(folder.path().join("file/below"));
    assert_eq!(answer(&gpu(&cache).unwrap()), expected);
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"in the way");
    // A folder where a file should be.
    let cache = Cache::at(folder.path().join("caches"));
    answer(&gpu(&cache).unwrap());
    if let Some(file) = pipelines(cache.folder().unwrap()) {
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(answer(&gpu(&cache).unwrap()), expected);
        assert!(file.is_dir() && files(&file).is_empty());
    }
}

#[test]
fn two_at_once_leave_one_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    if gpu(&Cache::off()).is_none() {
        return;
    }
    let answers: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| answer(&gpu(&cache).unwrap()))).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(answers[0], answers[1]);
    if let Some(file) = pipelines(folder.path()) {
        let bytes = fs::read(file).unwrap();
        let end = 32 + u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        let identity = std::str::from_utf8(&bytes[32..end]).unwrap();
        assert!(cache::open(&bytes, b"pipe", identity).is_some());
    }
}

#[test]
fn a_callers_own_device_writes_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let options = AdapterOptions::from_env();
    let Ok(adapter) = aquatint::gpu::choose_adapter(&options) else {
        assert!(std::env::var_os("REQUIRE_GPU").is_none());
        return;
    };
    let open = || {
        let request = wgpu::DeviceDescriptor {
            required_features: adapter.features() & wgpu::Features::PIPELINE_CACHE,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        pollster::block_on(adapter.request_device(&request)).unwrap()
    };
    let (device, queue) = open();
    let plain = Gpu::from_wgpu(&adapter, device, queue);
    let expected = answer(&plain);
    plain.keep_pipelines();
    drop(plain);
    let (device, queue) = open();
    let cache = Cache::at(folder.path());
    let asked = Gpu::from_wgpu_cached(&adapter, device, queue, &cache);
    assert_eq!(answer(&asked), expected);
    assert!(files(folder.path()).is_empty(), "written when it is dropped");
    drop(asked);
    pipelines(folder.path());
}

fn tuned(gpu: &Gpu, tuning: &mut Tuning) -> Report {
    tune(gpu, &network().unwrap(), tuning, &TuneOptions::default(), &mut |_, _| true).unwrap()
}

/// Kernels of a run with their variants.
fn kernels(gpu: &Gpu) -> Vec<String> {
    let plan = Plan::compile(&network().unwrap(), gpu.target()).unwrap();
    plan.run.iter().map(|d| format!("{} {}", d.shader.kernel.name, d.shader.kernel.variant())).collect()
}

#[test]
fn every_way_gives_the_same_answer() {
    let Some(gpu) = gpu(&Cache::off()) else { return };
    let expected = answer(&gpu);
    let mut tuning = Tuning::default();
    let report = tuned(&gpu, &mut tuning);
    assert_eq!((report.rows.len(), report.known, report.left, tuning.len()), (2, 0, 0, 2));
    assert_same(&expected, &answer(&gpu.tuned(tuning.clone())), "tuned");
    let first = &report.rows[0];
    assert!(first.operation.contains("3×3") && first.tried.len() > 3, "{first:#?}");
    let (mut plans, own) = (Vec::new(), kernels(&gpu));
    for row in &report.rows {
        assert_eq!(row.tried[0].way, row.default);
        assert_eq!(tuning.get(&row.operation), Some(&*row.chosen));
        assert!(row.ratio() <= 1.0 && row.chosen_seconds > 0.0, "{row:#?}");
        for tried in &row.tried {
            assert!(matches!(tried.verdict, Verdict::Right { seconds } if seconds > 0.0), "{tried:?}");
            let mut one = Tuning::default();
            one.set(row.operation.clone(), tried.way.clone());
            let gpu = gpu.tuned(one);
            assert_same(&expected, &answer(&gpu), &tried.way);
            plans.push(kernels(&gpu));
        }
        for way in
            ["rows 1000000×7×9", "rows 0×0×0", "texels 18446744073709551616×1×1", "depthwise", "", "rows"]
        {
            let mut one = Tuning::default();
            one.set(row.operation.clone(), way.to_owned());
            assert_eq!(kernels(&gpu.tuned(one)), own, "{way} is none of the ways");
        }
    }
    assert!(plans.iter().any(|plan| *plan != own), "other kernels were tried");
    // What is known is not measured again.
    let report = tuned(&gpu, &mut tuning);
    assert_eq!((report.rows.len(), report.known), (0, 2));
    // And the first is always measured, however little time there is.
    let options = TuneOptions { time_limit: 0.0, again: true };
    let report = tune(&gpu, &network().unwrap(), &mut tuning, &options, &mut |_, _| true).unwrap();
    assert_eq!((report.rows.len(), report.known, report.left), (1, 0, 1));
}

#[test]
fn a_wrong_way_is_named_and_refused() {
    let Some(gpu) = gpu(&Cache::off()) else { return };
    // No products at all: the fastest of them by far, and wrong.
    gpu.plant_fault("conv2d_direct", "ky < P.kernel_y", "ky < 0u");
    let mut tuning = Tuning::default();
    let report = tuned(&gpu, &mut tuning);
    for row in &report.rows {
        let direct = row.tried.iter().find(|tried| tried.way == "direct").expect("a candidate");
        match direct.verdict {
            Verdict::Wrong { difference, allowed } => assert!(difference > 100.0 * allowed),
            ref other => panic!("{other:?}"),
        }
        assert_ne!(row.chosen, "direct");
        let others = row.tried.iter().filter(|tried| tried.way != "direct");
        assert!(others.clone().all(|tried| matches!(tried.verdict, Verdict::Right { .. })), "{row:#?}");
    }
    // A default that is wrong disagrees with all that are right: none of them is taken for it.
    let first = report.rows[0].default.split(' ').next().unwrap();
    let Some(kernel) =
        [("rows", "conv2d_rows"), ("texels", "conv2d_texels")].iter().find(|(n, _)| *n == first)
    else {
        return;
    };
    gpu.plant_fault(kernel.1, "P.pad_top", "(P.pad_top + 1u)");
    let report = tuned(&gpu, &mut Tuning::default());
    assert!(report.rows.iter().all(|row| {
        row.tried.iter().all(|t| row.chosen != t.way || matches!(t.verdict, Verdict::Right { .. }))
    }));
}

#[test]
fn measurements_are_kept_for_the_device_that_they_were_made_on() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let Some(first) = gpu(&cache) else { return };
    assert!(first.target().tuning.is_none());
    let mut tuning = Tuning::default();
    tuning.set("an operation".to_owned(), "a way".to_owned());
    assert!(tuning.keep(&cache, &first.identity()));
    assert_eq!(gpu(&cache).unwrap().target().tuning.as_deref(), Some(&tuning));
    // Its name is the same when it is opened with it, and other abilities make it another.
    assert_eq!(gpu(&cache).unwrap().identity(), first.identity());
    let weaker = Some("no-subgroups,no-f16".to_owned());
    let options =
        AdapterOptions { cache: cache.clone(), tuned: true, as_if: weaker, ..AdapterOptions::from_env() };
    assert!(Gpu::with_options(&options).unwrap().target().tuning.is_none());
    // Only where it is asked for.
    let options = AdapterOptions { cache: cache.clone(), tuned: false, ..AdapterOptions::from_env() };
    assert!(Gpu::with_options(&options).unwrap().target().tuning.is_none());
    let file = files(folder.path()).into_iter().find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
    fs::write(&file, b"{\"format\":").unwrap();
    assert!(gpu(&cache).unwrap().target().tuning.is_none());
}

#[test]
fn the_program_tunes_and_uses_it() {
    if gpu(&Cache::off()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let aquatint = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatint"));
        command.env_remove("AQUATINT_NO_CACHE").env("AQUATINT_CACHE", folder.path());
        command.args(arguments).output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let done = aquatint(&["tune", "letters-classifier", "--time-limit", "0", "--json"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let row = &report["report"]["rows"][0];
    assert_eq!(report["report"]["rows"].as_array().unwrap().len(), 1);
    let kept = |operation: &str| {
        let all = files(folder.path());
        let file = all.iter().find(|path| path.extension().is_some_and(|e| e == "json"))?;
        let file: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        file["choices"][operation].as_str().map(str::to_owned)
    };
    let operation = row["operation"].as_str().unwrap();
    assert_eq!(kept(operation).as_deref(), row["chosen"].as_str());
    let again = aquatint(&["tune", "letters-classifier", "--time-limit", "0"]);
    assert!(text(&again.stdout).contains("1 were known"), "{}", text(&again.stdout));
    assert!(aquatint(&["tune", "--forget"]).status.success());
    assert_eq!(kept(operation), None);
    let mut off = Command::new(env!("CARGO_BIN_EXE_aquatint"));
    let off = off.env("AQUATINT_NO_CACHE", "1").args(["tune", "letters-classifier"]).output().unwrap();
    assert_eq!(off.status.code(), Some(1));
    assert!(text(&off.stderr).contains("AQUATINT_NO_CACHE"), "{}", text(&off.stderr));
}
