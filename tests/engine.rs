//! The engine's promises: recording makes nothing, states live on the device,
//! what cannot work is said, and a lost device is an error, not a hang.

use std::sync::OnceLock;

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, DeviceClass, Error, Gpu, Graph, Network, Plan, Result, Target, Tensor};

/// The device, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(open).as_ref()
}

fn open() -> Option<Gpu> {
    match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Two convolutions with a norm between them, about 1 MB of weights.
fn network() -> Graph {
    let mut g = Graph::new();
    let mut weight = {
        let mut seed = 1u32;
        move |g: &mut Graph, shape: &[usize]| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
                })
                .collect();
            g.weight("w", Tensor::from_f32(shape, &values).to_dtype(DType::F16))
        }
    };
    let x = g.input("x", [2, 16, 16, 64], DType::F32);
    let mut y = x;
    for _ in 0..2 {
        let w = weight(&mut g, &[64, 64, 3, 3]);
        let w = g.unpacked(w, DType::F32).unwrap();
        y = g.conv2d(y, w, None, Conv2dOptions::padded(1)).unwrap();
        y = g.group_norm(y, 8, None, None, 1e-5).unwrap();
        y = g.silu(y).unwrap();
    }
    g.output("y", y);
    g
}

#[test]
fn recording_makes_nothing() {
    let Some(gpu) = open() else { return };
    let network = Network::new(&gpu, &network()).unwrap();
    let input = Tensor::from_f32([2, 16, 16, 64], &vec![0.5; 2 * 16 * 16 * 64]);
    network.run(&[("x", &input)]).unwrap();
    let on_device = || {
        let hal = gpu.device().get_internal_counters().hal;
        let counters = [&hal.buffers, &hal.textures, &hal.texture_views, &hal.bind_groups];
        let pipelines = [&hal.compute_pipelines, &hal.shader_modules, &hal.bind_group_layouts];
        counters.iter().chain(&pipelines).map(|c| c.read()).collect::<Vec<_>>()
    };
    let (ours, wgpu) = (gpu.counts(), on_device());
    assert!(ours.pipelines > 0 && wgpu.iter().any(|&n| n > 0), "the counters count");
    for _ in 0..3 {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        network.encode(&mut encoder);
        let commands = encoder.finish();
        assert_eq!(gpu.counts(), ours);
        assert_eq!(on_device(), wgpu);
        let submission = gpu.queue().submit([commands]);
        gpu.wait(submission).unwrap();
    }
    assert_eq!(on_device(), wgpu);
}

#[test]
fn the_plan_predicts_the_memory() {
    let Some(gpu) = open() else { return };
    let memory = || gpu.device().get_internal_counters().hal.buffer_memory.read() as u64;
    let plan = Plan::compile(&network(), gpu.target()).unwrap();
    assert!(plan.peak_bytes() >= plan.resident_bytes());
    let before = memory();
    let network = Network::from_plan(&gpu, plan).unwrap();
    // Uploads are given back a submission later.
    for _ in 0..2 {
        let submission = network.submit(1).unwrap();
        gpu.wait(submission).unwrap();
    }
    let held = memory() - before;
    let textures: u64 = network.plan().textures.iter().map(|t| t.bytes()).sum();
    let predicted = network.plan().resident_bytes() - textures;
    let slack = 64 << 10;
    assert!(held <= predicted + slack && held + slack >= predicted, "predicted {predicted}, held {held}");
    drop(network);
}

/// Whatever the size of the parts and whether the host may write where kernels read: the same result, and no more
/// memory afterwards than predicted.
#[test]
fn weights_arrive_in_any_parts() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let values =
        |count: usize, step: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * step).sin()).collect() };
    let weight = |shape: &[usize], step: f32| Tensor::from_f32(shape, &values(shape.iter().product(), step));
    let mut g = Graph::new();
    let x = g.input("x", [1, 12, 12, 33], DType::F32);
    // One that is read as it is, in pieces; an odd number of halves; one that launches far apart read.
    let table = g.weight("table", weight(&[1, 12, 12, 33], 0.11));
    let odd = g.weight("odd", weight(&[7, 33, 3, 3], 0.37).to_dtype(DType::F16));
    let shared = g.weight("shared", weight(&[33, 7, 3, 3], 0.23).to_dtype(DType::BF16));
    let [odd, shared] = [g.unpacked(odd, DType::F32)?, g.unpacked(shared, DType::F32)?];
    let same = Conv2dOptions { padding: [1; 4], ..Conv2dOptions::default() };
    let mut h = g.add(x, table)?;
    for i in 0..3 {
        let scaled = g.affine(shared, 1.0 + i as f32, 0.0)?;
        let narrow = g.conv2d(h, odd, None, same)?;
        let wide = g.conv2d(narrow, scaled, None, same)?;
        let own = g.weight(&format!("own.{i}"), weight(&[33, 33, 1, 1], 0.05 * (i + 1) as f32));
        h = g.conv2d(wide, own, None, Conv2dOptions::default())?;
        h = g.layer_norm(h, None, None, 1e-5)?;
    }
    g.output("y", h);

    let memory = || {
        let hal = gpu.device().get_internal_counters().hal;
        (hal.buffer_memory.read() + hal.texture_memory.read()) as u64
    };
    let x = weight(&[1, 12, 12, 33], 0.7);
    let mut first: Option<Vec<f32>> = None;
    for mappable in [gpu.target().mappable, false] {
        for chunk in [32 << 20, 20_000, 1024] {
            let mut plan = Plan::compile(&g, &Target { mappable, ..gpu.target().clone() })?;
            plan.load_chunk = chunk;
            let before = memory();
            let (held, peak) = (plan.resident_bytes(), plan.peak_bytes());
            assert!(peak >= held);
            let network = Network::from_plan(&gpu, plan)?;
            network.poison()?;
            let found = network.run(&[("x", &x)])?.remove(0).to_f32();
            assert!(found.iter().all(|v| v.is_finite()));
            assert_eq!(
                &found,
                first.get_or_insert_with(|| found.clone()),
                "{mappable}, parts of {chunk} bytes"
            );
            let now = memory() - before;
            let slack = 256 << 10;
            assert!(now <= held + slack, "predicted {held}, found {now}");
        }
    }
    Ok(())
}

#[test]
fn states_stay_on_the_device() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut g = Graph::new();
    let step = g.input("step", [5], DType::F32);
    let sum = g.state("sum", Tensor::from_f32([5], &[1.0, 2.0, 3.0, 4.0, 5.0]));
    let next = g.add(sum, step)?;
    g.update(sum, next)?;
    g.output("next", next);
    let network = Network::new(gpu, &g)?;
    network.write("step", &Tensor::from_f32([5], &[1.0; 5]))?;
    network.submit(10)?;
    assert_eq!(network.read("sum")?.to_f32(), [11.0, 12.0, 13.0, 14.0, 15.0]);
    // A state is a value: taken out, put back, gone on from.
    let saved = network.read("sum")?;
    network.submit(7)?;
    network.write("sum", &saved)?;
    network.submit(1)?;
    assert_eq!(network.read("sum")?.to_f32()[0], 12.0);
    assert_eq!(network.read("next")?.to_f32()[0], 12.0);
    Ok(())
}

#[test]
fn half_an_element_more_than_a_word() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut g = Graph::new();
    let values = [0.5, -1.5, 2.25];
    let w = g.weight("w", Tensor::from_f32([3], &values).to_dtype(DType::BF16));
    let w = g.unpacked(w, DType::F32)?;
    let x = g.input("x", [3], DType::F32);
    let y = g.mul(x, w)?;
    g.output("y", y);
    let y = Network::new(gpu, &g)?.run(&[("x", &Tensor::from_f32([3], &[1.0; 3]))])?.remove(0);
    assert_eq!(y.to_f32(), values);
    Ok(())
}

#[test]
fn large_constants_are_computed_before_textures_show_them() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    // Large enough to be read as a texture where buffers are slow.
    let values: Vec<f32> = (0..1 << 15).map(|i| (i % 1000) as f32).collect();
    let mut g = Graph::new();
    let w = g.weight("w", Tensor::from_f32([1 << 13, 4], &values));
    let w = g.affine(w, 2.0, 1.0)?;
    let x = g.input("x", [1 << 13, 4], DType::F32);
    let y = g.mul(x, w)?;
    g.output("y", y);
    let ones = Tensor::from_f32([1 << 13, 4], &[1.0; 1 << 15]);
    let y = Network::new(gpu, &g)?.run(&[("x", &ones)])?.remove(0).to_f32();
    assert!(y.iter().zip(&values).all(|(y, v)| *y == 2.0 * v + 1.0), "{:?}", &y[..8]);
    Ok(())
}

#[test]
fn wrong_inputs_are_named() {
    let Some(gpu) = gpu() else { return };
    let network = Network::new(gpu, &network()).unwrap();
    let wrong = Tensor::from_f32([3], &[0.0; 3]);
    let text = network.run(&[("x", &wrong)]).unwrap_err().to_string();
    assert!(text.contains("\"x\"") && text.contains("[2, 16, 16, 64]") && text.contains("f32[3]"), "{text}");
    let text = network.run(&[("z", &wrong)]).unwrap_err().to_string();
    assert!(text.contains("\"z\"") && text.contains("expected one of: x"), "{text}");
    assert!(matches!(network.read("nothing"), Err(Error::Unknown { .. })));
}

#[test]
fn devices_that_are_too_small_are_refused_before_anything_is_made() {
    for (target, what) in [
        (Target { max_binding: 1 << 10, ..Target::typical() }, "tensor"),
        (Target { max_storage_buffers: 2, ..Target::typical() }, "storage buffers"),
        (Target { max_invocations: 16, ..Target::typical() }, "workgroup size"),
    ] {
        match Plan::compile(&network(), &target) {
            Err(Error::Limit { what: found, needed, available, .. }) => {
                assert!(found.contains(what) && needed > available, "{found}");
            }
            other => panic!("expected a limit on {what}, got {:?}", other.map(|p| p.run.len())),
        }
    }
    let mut halves = Graph::new();
    let x = halves.input("x", [8], DType::F32);
    let y = halves.cast(x, DType::F16).unwrap();
    halves.output("y", y);
    let error = Plan::compile(&halves, &Target { f16: false, ..Target::typical() }).unwrap_err();
    assert!(matches!(error, Error::Lacking { .. }) && error.to_string().contains("SHADER_F16"), "{error}");
}

/// A weight that is larger than the device binds gives the same results in parts, whichever way it lies in its file.
#[test]
fn weights_larger_than_a_binding_are_split() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let values = |count: usize| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.731).sin()).collect() };
    let mut g = Graph::new();
    let x = g.input("x", [3, 150], DType::F32);
    let rows = g.weight("rows", Tensor::from_f32([204, 150], &values(204 * 150)).to_dtype(DType::F16));
    let rows = g.unpacked(rows, DType::F32)?;
    let bias = g.weight("bias", Tensor::from_f32([204], &values(204)));
    let y = g.linear(x, rows, Some(bias))?;
    let y = g.relu(y)?;
    let columns = g.weight("columns", Tensor::from_f32([204, 90], &values(204 * 90)));
    let columns = g.transpose(columns, &[1, 0])?;
    let y = g.linear(y, columns, None)?;
    g.output("y", y);
    let x = Tensor::from_f32([3, 150], &values(450));

    let target = Target { max_binding: 50_000, ..gpu.target().clone() };
    assert!(g.values().any(|(_, v)| v.desc.bytes() > target.max_binding));
    let split = Network::from_plan(gpu, Plan::compile(&g, &target)?)?;
    assert!(split.plan().buffers.iter().all(|b| b.bytes <= target.max_binding));
    split.poison()?;
    let found = split.run(&[("x", &x)])?[0].to_f32();
    let wanted = Network::new(gpu, &g)?.run(&[("x", &x)])?[0].to_f32();
    let range = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() <= 1e-5 * range, "{found} {wanted}");
    }
    Ok(())
}

/// What depends on weights alone is computed while loading, when no texture shows them yet.
#[test]
fn large_constants_are_computed_while_loading() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let values: Vec<f32> = (0..1 << 16).map(|i| (i % 251) as f32 / 8.0).collect();
    let mut g = Graph::new();
    let weight = g.weight("w", Tensor::from_f32([1 << 10, 1 << 6], &values));
    let square = g.mul(weight, weight)?;
    let joined = g.concat(&[square, weight], 0)?;
    let input = g.input("x", [1], DType::F32);
    let sum = g.add(joined, input)?;
    g.output("y", sum);
    let network = Network::new(gpu, &g)?;
    let found = network.run(&[("x", &Tensor::from_f32([1], &[0.5]))])?[0].to_f32();
    let wanted = values.iter().map(|v| v * v + 0.5).chain(values.iter().map(|v| v + 0.5));
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(*found, wanted, "element {i}");
    }
    Ok(())
}

#[test]
fn a_plan_needs_no_device() {
    for class in [DeviceClass::Discrete, DeviceClass::Integrated, DeviceClass::Cpu] {
        let plan = Plan::compile(&network(), &Target { class, ..Target::typical() }).unwrap();
        assert!(plan.flops() > 2 * 2 * 2 * 16 * 16 * 64 * 64 * 9);
        assert!(plan.load.len() >= 2 && !plan.run.is_empty());
    }
}

#[test]
fn a_lost_device_is_an_error() {
    let Some(gpu) = open() else { return };
    let network = Network::new(&gpu, &network()).unwrap();
    let input = Tensor::from_f32([2, 16, 16, 64], &vec![0.5; 2 * 16 * 16 * 64]);
    network.run(&[("x", &input)]).unwrap();
    gpu.device().destroy();
    let lost = |result: Result<()>| match result {
        Err(Error::DeviceLost { reason }) => assert!(!reason.is_empty()),
        other => panic!("expected a lost device, got {other:?}"),
    };
    lost(network.run(&[("x", &input)]).map(drop));
    lost(network.read("y").map(drop));
    lost(Network::new(&gpu, &crate::network()).map(drop));
}

#[test]
fn a_watched_run_names_what_went_wrong_first() {
    use aquatint::ops::expr::Unary;
    use aquatint::ops::reduce::Reduction;
    let Some(gpu) = gpu().filter(|gpu| gpu.target().f16) else { return };
    let mut g = Graph::new();
    let x = g.input("x", [1, 3, 5, 4], DType::F32);
    let halves = g.scoped("halved", |g| g.cast(x, DType::F16)).unwrap();
    let sum = g.scoped("sum", |g| g.reduce(halves, Reduction::Sum, &[3], true)).unwrap();
    let sum = g.cast(sum, DType::F32).unwrap();
    let logs = g.scoped("logs", |g| g.unary(Unary::Log, sum)).unwrap();
    let means = g.scoped("means", |g| g.reduce(logs, Reduction::Mean, &[1, 2], true)).unwrap();
    // The bits of an opaque pixel are those of a NaN, and are not one.
    let bytes = g.picture_from_tensor(x, 0, 0.5, 0.5);
    if let Ok(bytes) = bytes {
        g.output("bytes", bytes);
    }
    g.output("y", means);
    let network = Network::new(gpu, &g).unwrap();
    let watched = |values: &[f32]| {
        network.write("x", &Tensor::from_f32([1, 3, 5, 4], values)).unwrap();
        network.run_watched().unwrap()
    };
    let ones = vec![1.0; 60];
    assert_eq!(watched(&ones), None);
    let with = |i: usize, value: f32| {
        let mut values = ones.clone();
        values[i] = value;
        values
    };
    // 1e6 is beyond 16 bits, 60000 · 4 is so when summed; −5 + 3 has no logarithm.
    let found = watched(&with(8, 1e6)).unwrap();
    assert!(found.label.contains("halved") && found.infinities == 1, "{found}");
    let mut large = ones.clone();
    large[8..12].fill(6e4);
    let found = watched(&large).unwrap();
    assert!(found.label.contains("sum") && found.op == Some("Reduce"), "{found}");
    let found = watched(&with(8, -5.0)).unwrap();
    assert!(found.label.contains("logs") && found.nans == 1, "{found}");
    let found = watched(&with(0, f32::NAN)).unwrap();
    assert_eq!((found.label.as_str(), found.op), ("x", None), "{found}");
    assert!(found.to_string().contains("before anything ran"), "{found}");
    assert_eq!(watched(&ones), None, "nothing is left of the runs before");
}
