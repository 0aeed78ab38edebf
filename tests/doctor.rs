//! Faults that are planted in kernels are found, named, captured and replayed.

use std::path::Path;

use aquatint::doctor::{self, Examination, Options, Verdict, cases, examine, random_inputs, replay};
use aquatint::ops::Op;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, Error, Gpu, Graph, Network, Source, Tensor, passes};

/// A device of its own for each test, since faults stay with it.
fn gpu() -> Option<Gpu> {
    match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Two convolutions, a norm between them and a softmax at the end.
fn network() -> Graph {
    let mut g = Graph::new();
    let weight = |g: &mut Graph, name: &str, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.37).sin()).collect();
        g.weight(name, Tensor::from_f32(shape, &values))
    };
    let x = g.input("x", [1, 12, 12, 3], DType::F32);
    let w = weight(&mut g, "first", &[16, 3, 3, 3]);
    let y = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
    let y = g.group_norm(y, 4, None, None, 1e-5).unwrap();
    let y = g.silu(y).unwrap();
    let w = weight(&mut g, "second", &[10, 16, 1, 1]);
    let y = g.conv2d(y, w, None, Conv2dOptions::default()).unwrap();
    let y = g.softmax(y, 3).unwrap();
    g.output("y", y);
    g
}

fn look(gpu: &Gpu, graph: &Graph) -> Examination {
    let inputs = random_inputs(graph, 3);
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    examine(gpu, "network", graph, &inputs, &Options::default(), &mut |_, _| true).unwrap()
}

/// Kernels that know the variance of a small group norm, of whatever class the device is.
const NORMS: [&str; 2] = ["group_norm_scale", "row_norm_threads"];

/// Kernels begin their sums with the bias, whose magnitude every partial sum then has.
#[test]
fn a_bias_that_dwarfs_the_products_is_not_taken_for_a_fault() {
    let Some(gpu) = gpu() else { return };
    let mut g = Graph::new();
    let x = g.input("x", [1, 24, 25, 64], DType::F32);
    let numbers =
        |n: usize, scale: f32| -> Vec<f32> { (0..n).map(|i| scale * (i as f32 * 1.7 + 0.3).sin()).collect() };
    for (kernel, name) in [(1, "one"), (3, "three")] {
        let taps = kernel * kernel;
        let shape = [72, 64, kernel, kernel];
        let w = g.weight(name, Tensor::from_f32(shape, &numbers(72 * 64 * taps, 0.01)));
        let b = g.weight(&format!("{name}.bias"), Tensor::from_f32([72], &numbers(72, 40.0)));
        let y = g.conv2d(x, w, Some(b), Conv2dOptions::padded(kernel / 2)).unwrap();
        g.output(name, y);
    }
    let found = look(&gpu, &g);
    assert_eq!(found.wrong().map(|finding| format!("{finding:?}")).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_cases_have_every_kind_of_operation() {
    let mut names: Vec<&str> = Vec::new();
    let typical = aquatint::Target::typical();
    // A weight that the host packs is one only where the device is the host.
    let software = aquatint::Target { class: aquatint::DeviceClass::Cpu, mappable: true, ..typical.clone() };
    for case in cases(DType::F32).unwrap() {
        let rewritten = [&typical, &software].map(|target| passes::optimise(&case.graph, target).unwrap());
        for graph in [&case.graph].into_iter().chain(&rewritten) {
            names.extend(graph.values().filter_map(|(_, v)| match &v.source {
                Source::Op { op, .. } => Some(op.name()),
                _ => None,
            }));
        }
    }
    let missing: Vec<_> = Op::NAMES.iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "no case has {missing:?}");
}

#[test]
fn a_sound_device_computes_every_case_right() {
    let Some(gpu) = gpu() else { return };
    for dtype in [DType::F32, DType::F16] {
        if dtype == DType::F16 && !gpu.target().f16 {
            continue;
        }
        for case in cases(dtype).unwrap() {
            let found = case.examine(&gpu, &Options::default()).unwrap();
            let wrong: Vec<_> = found.wrong().collect();
            assert!(wrong.is_empty(), "{}: {wrong:#?}", case.name);
            assert_eq!(found.operations.len(), found.planned, "{}", case.name);
            assert!(found.operations.iter().all(|o| o.judgement.compared > 0), "{}", case.name);
            let undecided = found.operations.iter().map(|o| o.judgement.undecided).sum::<u64>();
            let compared = found.operations.iter().map(|o| o.judgement.compared).sum::<u64>();
            assert!(undecided * 10 < compared, "{}: {undecided} of {compared} undecided", case.name);
        }
    }
}

#[test]
fn nothing_changes_when_the_doctor_looks() {
    let Some(gpu) = gpu() else { return };
    let graph = network();
    let plan = aquatint::Plan::compile(&graph, gpu.target()).unwrap();
    let found = look(&gpu, &graph);
    assert_eq!(found.wrong().count(), 0, "{:#?}", found.wrong().next());
    let launched: Vec<_> =
        found.operations.iter().flat_map(|o| &o.launches).map(|l| (l.kernel, l.groups)).collect();
    let planned: Vec<_> =
        plan.load.iter().chain(&plan.run).map(|d| (d.shader.kernel.name, d.groups)).collect();
    assert_eq!(launched.len(), planned.len());
    assert!(planned.iter().all(|p| launched.contains(p)));
}

#[test]
fn a_fault_is_found_and_named() {
    let Some(gpu) = gpu() else { return };
    // The variance of the norm: only one launch is wrong.
    NORMS.iter().for_each(|kernel| gpu.plant_fault(kernel, "P.eps", "(P.eps + 0.5)"));
    let graph = network();
    let found = look(&gpu, &graph);
    let wrong: Vec<_> = found.wrong().collect();
    assert_eq!(wrong.len(), 1, "what comes after is computed from what is there: {wrong:#?}");
    let first = wrong[0];
    assert_eq!((first.operation, first.output.to_string().as_str()), ("Norm", "f32[1, 12, 12, 16]"));
    assert!(first.launches.iter().any(|l| NORMS.contains(&l.kernel)));
    assert!(first.judgement.max_rel > 1e-3 && first.judgement.wrong * 10 > first.judgement.compared * 9);
    let w = first.judgement.first_wrong.as_ref().unwrap();
    assert!((w.found - w.expected).abs() > w.allowed && w.found.is_finite());
    assert!(
        first.variants.iter().all(|v| matches!(v.verdict, Verdict::Wrong { .. })),
        "all have such a kernel"
    );
    // The network as everybody runs it has the fault too.
    let x = Tensor::from_f32([1, 12, 12, 3], &[0.5; 432]);
    assert!(Network::new(&gpu, &graph).unwrap().run(&[("x", &x)]).is_ok());
}

#[test]
fn variants_that_are_right_are_told_from_those_that_are_not() {
    let Some(gpu) = gpu() else { return };
    let mut g = Graph::new();
    let x = g.input("x", [1, 56, 56, 64], DType::F32);
    let values: Vec<f32> = (0..64 * 64 * 9).map(|i| (i as f32 * 0.37).sin()).collect();
    let w = g.weight("w", Tensor::from_f32([64, 64, 3, 3], &values));
    let y = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
    g.output("y", y);
    let clean = look(&gpu, &g);
    assert_eq!(clean.wrong().count(), 0);
    let planned = clean.operations.last().unwrap().launches[0].kernel;
    assert!(planned.starts_with("conv2d_") || planned == "winograd_source", "{planned}");
    // The source is read a pixel too far to the left.
    assert!(aquatint::shader::Kernel::new(planned).source().unwrap().contains("P.pad_left"));
    gpu.plant_fault(planned, "P.pad_left", "(P.pad_left + 1u)");
    let found = look(&gpu, &g);
    let wrong = found.wrong().next().expect("the fault is found");
    assert_eq!(wrong.operation, "Conv2d");
    let of = |name: &str| wrong.variants.iter().find(|v| v.name == name).map(|v| &v.verdict);
    assert!(matches!(of("as planned"), Some(Verdict::Wrong { .. })), "{:#?}", wrong.variants);
    assert!(matches!(of("direct"), Some(Verdict::Right { .. })), "{:#?}", wrong.variants);
    // Where it reads textures, the case has them.
    let folder = tempfile::tempdir().unwrap();
    found.capture.unwrap().write(folder.path()).unwrap();
    let replayed = replay(&gpu, folder.path()).unwrap();
    assert!(replayed.wrong > 0);
    assert_eq!(replayed.as_captured, replayed.compared);
}

#[test]
fn numbers_that_are_none_are_counted() {
    let Some(gpu) = gpu() else { return };
    gpu.plant_fault("softmax", "return exp(x) / sum", "return sqrt(-1.0 - x * x) + exp(x) / sum");
    gpu.plant_fault("softmax_threads", "return exp(x) / total", "return sqrt(-1.0 - x * x) + exp(x) / total");
    let found = look(&gpu, &network());
    let wrong: Vec<_> = found.wrong().collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].operation, "Softmax");
    assert_eq!(wrong[0].judgement.nans, 1440);
    assert!(wrong[0].judgement.first_wrong.as_ref().unwrap().found.is_nan());
}

/// Writes the capture of a planted fault.
fn captured(folder: &Path) -> Option<Gpu> {
    let gpu = gpu()?;
    NORMS.iter().for_each(|kernel| gpu.plant_fault(kernel, "P.eps", "(P.eps + 0.5)"));
    look(&gpu, &network()).capture.expect("something is wrong").write(folder).unwrap();
    Some(gpu)
}

#[test]
fn a_capture_replays_what_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_) = captured(folder.path()) else { return };
    // Another device, without the fault: the case brings its own.
    let sound = gpu().unwrap();
    let found = replay(&sound, folder.path()).unwrap();
    assert_eq!((found.operation.as_str(), found.compared), ("Norm", 12 * 12 * 16));
    assert!(found.wrong * 10 > found.compared * 9 && found.first_wrong.is_some());
    assert_eq!(found.as_captured, found.compared);
    let mut mended = 0;
    for entry in folder.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "wgsl") {
            let text = std::fs::read_to_string(&path).unwrap();
            mended += usize::from(text.contains("(P.eps + 0.5)"));
            std::fs::write(&path, text.replace("(P.eps + 0.5)", "P.eps")).unwrap();
        }
    }
    assert_eq!(mended, 1);
    let found = replay(&sound, folder.path()).unwrap();
    assert_eq!(found.wrong, 0, "{:?}", found.first_wrong);
    assert!(folder.path().join("README.md").exists());
}

#[test]
fn folders_that_hold_no_case_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let Some(gpu) = captured(folder.path()) else { return };
    let path = folder.path().join("case.json");
    let sound: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let refuse = |what: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut case = sound.clone();
        change(&mut case);
        std::fs::write(&path, serde_json::to_vec(&case).unwrap()).unwrap();
        let error = replay(&gpu, folder.path()).expect_err(what);
        let typed = matches!(
            error,
            Error::Format { .. } | Error::Limit { .. } | Error::Io { .. } | Error::Gpu { .. }
        );
        assert!(typed, "{what}: {error:?}");
        error.to_string()
    };
    refuse("another format", &|c| c["format"] = 9.into());
    refuse("a buffer without end", &|c| c["buffers"][0]["bytes"] = (1u64 << 60).into());
    refuse("a buffer larger than the device's", &|c| c["buffers"][0]["bytes"] = (1u64 << 32).into());
    refuse("no bytes", &|c| c["buffers"][0]["bytes"] = 0.into());
    refuse("a buffer that is not there", &|c| c["launches"][0]["bindings"][0]["buffer"] = 77.into());
    refuse("too many workgroups", &|c| c["launches"][0]["groups"][0] = u32::MAX.into());
    refuse("no launches", &|c| c["launches"] = serde_json::json!([]));
    refuse("a result larger than its buffer", &|c| c["result"]["shape"][0] = 1_000_000.into());
    refuse("a result that overflows", &|c| {
        c["result"]["shape"] = serde_json::json!([u32::MAX, u32::MAX, u32::MAX])
    });
    refuse("another type", &|c| c["result"]["dtype"] = "f64".into());
    refuse("something else", &|c| c["surprise"] = true.into());
    let found = refuse("a file outside", &|c| c["launches"][0]["wgsl"] = "../../etc/passwd".into());
    assert!(found.contains("not the name of a file in the folder"), "{found}");
    refuse("a file that is missing", &|c| c["result"]["expected"] = "nothing.bin".into());
    std::fs::write(&path, serde_json::to_vec(&sound).unwrap()).unwrap();
    std::fs::write(folder.path().join("launch0.wgsl"), "no shader").unwrap();
    assert!(matches!(replay(&gpu, folder.path()), Err(Error::Gpu { .. })));
    std::fs::write(folder.path().join("expected.bin"), [0; 31]).unwrap();
    assert!(matches!(replay(&gpu, folder.path()), Err(Error::Format { .. })));
    std::fs::write(&path, "{").unwrap();
    assert!(matches!(replay(&gpu, folder.path()), Err(Error::Format { .. })));
    assert!(matches!(replay(&gpu, Path::new("/no/such/folder")), Err(Error::Io { .. })));
    // A folder with something in it is not written to.
    let found = look(&gpu, &network());
    assert!(matches!(found.capture.unwrap().write(folder.path()), Err(Error::Invalid { .. })));
}

#[test]
fn operations_have_errors_in_units_of_the_last_place() {
    let Some(gpu) = gpu() else { return };
    let rows = doctor::errors(&gpu, DType::F32).unwrap();
    let of = |name: &str| rows.iter().find(|r| r.operation == name && r.precision == "f32").unwrap();
    assert_eq!(of("Concat").max_ulp, 0.0);
    let conv = of("Conv2d");
    assert!(
        conv.elements > 1000 && conv.max_rel < 1e-5 && conv.mean_ulp > 0.0 && conv.mean_ulp < 100.0,
        "{conv:?}"
    );
    assert!(rows.len() > 40, "{}", rows.len());
}
