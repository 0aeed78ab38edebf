//! Networks in tiles against the same networks at once, to the last bit; what cannot be cut; plans of all sizes.

use std::time::Instant;

use aquatint::frame::{Alpha, Bound, Costs, Slices, Texels, TiledNetwork, TiledPlan, Transfer};
use aquatint::models::path_denoise::path_denoise;
use aquatint::models::{bundled, upscale, vision::VisionModel};
use aquatint::ops::conv_transpose2d::ConvTranspose2dOptions;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::pad::PadMode;
use aquatint::ops::pool::PoolOptions;
use aquatint::ops::resize::{Coordinates, Interpolation};
use aquatint::wgpu::TextureFormat::{Rgba8Unorm, Rgba16Float, Rgba32Float};
use aquatint::{DType, DeviceClass, Error, Gpu, Graph, Network, Plan, Result, Target, Tensor, ValueId};

use crate::harness::*;

type Build<'a> = &'a dyn Fn(usize, usize) -> Result<Graph>;

fn upscaler() -> VisionModel {
    upscale::upscale_x2().unwrap()
}

fn vision(model: &VisionModel, width: usize, height: usize) -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, 3], DType::F32);
    let outputs = model.build(&mut g, x)?;
    g.output("y", outputs[0].1);
    Ok(g)
}

/// The device's own plans, and those that a GPU would have, without textures and with Winograd's convolution only of many channels.
fn targets(gpu: &Gpu) -> [Target; 2] {
    let own = gpu.target().clone();
    let other = Target { class: DeviceClass::Discrete, ..own.clone() };
    [own, other]
}

/// Inputs and outputs in buffers, at once and in tiles of a part of the memory.
fn hold(
    name: &str,
    gpu: &Gpu,
    target: &Target,
    [width, height]: [usize; 2],
    share: f64,
    build: Build,
) -> Result<()> {
    let whole = Plan::compile(&build(width, height)?, target)?;
    let most = (whole.peak_bytes() as f64 * share) as u64;
    let plan = TiledPlan::new(target, [width, height], most, build)?;
    println!(
        "{name}, {width} × {height}: {} tiles of {:?} with {:?} round them, at multiples of {:?}, work {:.2}",
        plan.tiles(),
        plan.tile(),
        plan.overlap(),
        plan.alignment(),
        plan.work()
    );
    assert!(plan.tiles() > 1 && plan.plan().peak_bytes() <= most, "{name}");
    let whole = Network::from_plan(gpu, whole)?;
    let tiled = TiledNetwork::new(gpu, plan)?;
    let ports = [&whole.plan().inputs, &whole.plan().outputs];
    let buffers = ports.map(|ports| {
        let filled = |(i, port): (usize, &aquatint::plan::Port)| {
            let shape = port.desc.shape.clone();
            let tensor = Tensor::from_f32(shape.clone(), &noise(shape.elements(), 7 + i as u32))
                .to_dtype(port.desc.dtype);
            let mut words = tensor.bytes.to_vec();
            words.resize(words.len().next_multiple_of(16), 0);
            (port.name.clone(), storage(gpu, &bytemuck::pod_collect_to_vec::<u8, f32>(&words)))
        };
        ports.iter().enumerate().map(filled).collect::<Vec<_>>()
    });
    let bound: Vec<(&str, Bound)> =
        buffers.iter().flatten().map(|(name, b)| (name.as_str(), b.into())).collect();
    let read = || -> Vec<Vec<u32>> {
        let outputs = buffers[1].iter().zip(&whole.plan().outputs);
        outputs
            .map(|((_, buffer), port)| {
                let numbers = numbers(gpu, buffer, 0, port.desc.bytes().div_ceil(4) as usize);
                numbers.iter().map(|x| x.to_bits()).collect()
            })
            .collect()
    };
    let clear = || {
        for (_, buffer) in &buffers[1] {
            gpu.queue().write_buffer(buffer, 0, &vec![0xff; buffer.size() as usize]);
        }
    };
    clear();
    let bindings = whole.bind(&bound)?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    let wanted = read();
    assert!(wanted.iter().flatten().any(|&x| x != u32::MAX));
    clear();
    let bindings = tiled.bind(&bound)?;
    tiled.network().poison()?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    let found = read();
    for (found, wanted) in found.iter().zip(&wanted) {
        let off = found.iter().zip(wanted).filter(|(a, b)| a != b).count();
        let first = found.iter().zip(wanted).position(|(a, b)| a != b);
        assert_eq!(off, 0, "{name}: {off} of {} numbers, the first is {first:?}", found.len());
    }
    Ok(())
}

#[test]
fn tiles_are_the_whole_picture() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let model = upscaler();
    for target in targets(gpu) {
        hold("upscale-x2", gpu, &target, [131, 93], 0.8, &|w, h| vision(&model, w, h))?;
        hold("upscale-x2", gpu, &target, [17, 403], 0.7, &|w, h| vision(&model, w, h))?;
    }
    Ok(())
}

#[test]
fn tiles_of_the_path_denoiser() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    for target in targets(gpu) {
        hold("path-denoise", gpu, &target, [37, 1083], 0.8, &|w, h| path_denoise(w, h, DType::F32))?;
    }
    if gpu.target().f16 {
        hold("path-denoise, f16", gpu, gpu.target(), [801, 21], 0.8, &|w, h| path_denoise(w, h, DType::F16))?;
    }
    Ok(())
}

fn filled(g: &mut Graph, shape: &[usize], seed: u32) -> ValueId {
    let count = shape.iter().product();
    let values: Vec<f32> = noise(count, seed).iter().map(|w| (w - 0.4) / (count as f32).sqrt()).collect();
    g.weight(&format!("w{seed}"), Tensor::from_f32(shape, &values))
}

/// Whatever can be computed in tiles.
fn everything(width: usize, height: usize, dtype: DType) -> Result<Graph> {
    let mut g = Graph::new();
    let input = g.input("x", [1, height, width, 3], dtype);
    let guide = g.input("guide", [1, height, width, 1], DType::F32);
    // Sides that strides divide.
    let missing = [height, width].map(|side| [0, side.next_multiple_of(4) - side]);
    let x = g.cast(input, DType::F32)?;
    let x = g.concat(&[x, guide], 3)?;
    let x = g.pad(x, &[[0; 2], missing[0], missing[1], [0; 2]], PadMode::Edge)?;
    let border = [[0; 2], [2; 2], [2; 2], [0; 2]];
    let mirrored = g.pad(x, &border, PadMode::Reflect)?;
    let w = filled(&mut g, &[8, 4, 5, 5], 1);
    let h = g.conv2d(mirrored, w, None, Conv2dOptions::default())?;
    let bias = filled(&mut g, &[8], 2);
    let w = filled(&mut g, &[8, 1, 3, 3], 3);
    let depthwise = g.conv2d(h, w, Some(bias), Conv2dOptions::padded(2).dilation(2).groups(8))?;
    let h = g.add(h, depthwise)?;
    let w = filled(&mut g, &[16, 8, 3, 3], 4);
    let small = g.conv2d(h, w, None, Conv2dOptions::padded(1).stride(2))?;
    let small = g.relu(small)?;
    let (weight, bias) = (filled(&mut g, &[16], 5), filled(&mut g, &[16], 6));
    let small = g.layer_norm(small, Some(weight), Some(bias), 1e-5)?;
    let pooled = g.average_pool(
        small,
        PoolOptions { padding: [1; 4], kernel: [3; 2], ..PoolOptions::square(2) },
        true,
    )?;
    let w = filled(&mut g, &[16, 16, 3, 3], 7);
    let pooled = g.conv2d(pooled, w, None, Conv2dOptions::padded(1))?;
    let sides = [g.shape(small)[1], g.shape(small)[2]];
    let wide = g.resize(pooled, sides, Interpolation::Bilinear, Coordinates::HalfPixel)?;
    let cubic = g.resize(pooled, sides, Interpolation::Bicubic { a: -0.75 }, Coordinates::HalfPixel)?;
    let wide = g.concat(&[wide, cubic, small], 3)?;
    let share = g.softmax(wide, 3)?;
    let wide = g.mul(wide, share)?;
    let w = filled(&mut g, &[48, 8, 3, 3], 8);
    let options = ConvTranspose2dOptions {
        stride: [2; 2],
        padding: [1; 4],
        output_padding: [1; 2],
        ..Default::default()
    };
    let large = g.conv_transpose2d(wide, w, None, options)?;
    let folded = g.pixel_unshuffle(large, 2)?;
    let w = filled(&mut g, &[32, 32, 1, 1], 9);
    let folded = g.conv2d(folded, w, None, Conv2dOptions::default())?;
    let unfolded = g.pixel_shuffle(folded, 2)?;
    let up = g.upsample_nearest(small, 2)?;
    let w = filled(&mut g, &[8, 16, 3, 3], 10);
    let up = g.conv2d(up, w, None, Conv2dOptions::padded(1))?;
    let h = g.add(unfolded, up)?;
    let w = filled(&mut g, &[3, 8, 3, 3], 11);
    let y = g.conv2d(h, w, None, Conv2dOptions::padded(1))?;
    let part = |stop| aquatint::ops::strided::Range { start: 0, stop: Some(stop), step: 1 };
    let all = aquatint::ops::strided::Range::all();
    let y = g.slice(y, &[all, part(height), part(width), all])?;
    let tall = g.upsample_nearest(y, 3)?;
    let y = g.cast(y, dtype)?;
    g.output("y", y);
    g.output("tall", tall);
    Ok(g)
}

#[test]
fn tiles_of_whatever_can_be_cut() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    for target in targets(gpu) {
        for (size, share) in [([151, 133], 0.6), ([9, 397], 0.3), ([402, 33], 0.4)] {
            hold("everything", gpu, &target, size, share, &|w, h| everything(w, h, DType::F32))?;
        }
        if target.f16 {
            hold("everything, f16", gpu, &target, [133, 201], 0.6, &|w, h| everything(w, h, DType::F16))?;
        }
    }
    Ok(())
}

/// Winograd's convolution as GPUs have it: tiles begin where its squares do.
#[test]
fn tiles_with_squares_on_gpus() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let target =
        Target { class: DeviceClass::Integrated, matrices: None, mappable: false, ..gpu.target().clone() };
    let build = |width: usize, height: usize| {
        let mut g = Graph::new();
        let x = g.input("x", [1, height, width, 3], DType::F32);
        let w = filled(&mut g, &[96, 3, 3, 3], 1);
        let h = g.conv2d(x, w, None, Conv2dOptions::padded(1).stride(2))?;
        let (w, bias) = (filled(&mut g, &[96, 96, 3, 3], 2), filled(&mut g, &[96], 3));
        let h = g.conv2d(h, w, Some(bias), Conv2dOptions::padded(1))?;
        let h = g.relu(h)?;
        let w = filled(&mut g, &[12, 96, 3, 3], 4);
        let h = g.conv2d(h, w, None, Conv2dOptions::padded(1))?;
        let y = g.pixel_shuffle(h, 2)?;
        g.output("y", y);
        Ok(g)
    };
    let plan = Plan::compile(&build(190, 118)?, &target)?;
    let kernels: Vec<&str> = plan.run.iter().map(|launch| launch.shader.kernel.name).collect();
    assert!(kernels.contains(&"winograd_source") && kernels.contains(&"matmul_shared"), "{kernels:?}");
    hold("squares", gpu, &target, [190, 118], 0.6, &build)
}

/// Textures, with the light, the alpha and the parts that they have; in one encoder and in slices.
#[test]
fn tiles_of_textures() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let model = upscaler();
    let build = |w: usize, h: usize| vision(&model, w, h);
    let [width, height] = [93u32, 71u32];
    let [_, target] = targets(gpu);
    let whole = Plan::compile(&build(93, 71)?, &target)?;
    let plan = TiledPlan::new(&target, [93, 71], whole.peak_bytes() / 2, build)?;
    assert!(plan.tiles() >= 4, "{}", plan.tiles());
    let source = texture(gpu, [width + 9, height + 5], Rgba16Float, READ);
    let count = ((width + 9) * (height + 5)) as usize;
    let chance = noise(count * 4, 3);
    fill(
        gpu,
        &source,
        &chance.chunks_exact(4).map(|c| std::array::from_fn(|i| f64::from(c[i]))).collect::<Vec<_>>(),
    );
    let exposure = storage(gpu, &[1.7]);
    let goals = [0, 1].map(|_| texture(gpu, [2 * width + 3, 2 * height + 1], Rgba16Float, WRITTEN));
    // The whole picture, and less than that: the rest is its last column and line.
    for size in [[width, height], [width - 20, height - 31], [5, 70]] {
        let large = size.map(|side| 2 * side);
        let texels_in =
            Texels::colour(&source).rect([9, 5], size).exposure(&exposure).network(Transfer::Srgb);
        let out = |goal| {
            let texels = Texels::colour(goal).rect([3, 1], large).exposure(&exposure);
            texels.network(Transfer::Srgb).alpha(Alpha::Of("x".into())).into()
        };
        let reference = Network::from_plan(gpu, whole.clone())?;
        let at_once = reference.bind(&[("x", texels_in.clone().into()), ("y", out(&goals[0]))])?;
        let network = TiledNetwork::new(gpu, plan.clone())?;
        let bindings = network.bind(&[("x", texels_in.into()), ("y", out(&goals[1]))])?;
        assert_eq!(bindings.launches(), plan.tiles() * (network.network().plan().run.len() + 2));
        submit(gpu, |encoder| {
            at_once.record(encoder).unwrap();
            bindings.record(encoder).unwrap();
        });
        let wanted = texels(gpu, &goals[0]);
        assert_eq!(texels(gpu, &goals[1]), wanted);

        fill(gpu, &goals[1], &vec![[0.0; 4]; wanted.len()]);
        let mut slices = Slices::new(&bindings, &Costs::predicted(network.network().plan()), 1)?;
        let mut submissions = 0;
        while !slices.is_done() {
            submit(gpu, |encoder| slices.record(encoder, slices.remaining() / 3).map(drop).unwrap());
            submissions += 1;
        }
        assert!(submissions >= 3);
        let place = |x: u32, y: u32| ((y + 1) * (2 * width + 3) + x + 3) as usize;
        let found = texels(gpu, &goals[1]);
        for y in 0..large[1] {
            for x in 0..large[0] {
                assert_eq!(found[place(x, y)], wanted[place(x, y)], "({x}, {y})");
            }
        }
        for goal in &goals {
            fill(gpu, goal, &vec![[0.0; 4]; wanted.len()]);
        }
    }
    let Some(other) = open() else { return Ok(()) };
    let tiles = plan.tiles();
    assert_eq!(TiledNetwork::new(gpu, plan)?.rebuild(&other)?.tiles(), tiles);
    Ok(())
}

#[test]
fn a_picture_that_fits_is_one_tile() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let build = |w: usize, h: usize| Ok(filter([h, w], 3, DType::F32));
    let plan = TiledPlan::new(gpu.target(), [20, 10], 1 << 30, build)?;
    assert_eq!((plan.tiles(), plan.tile(), plan.overlap(), plan.work()), (1, [20, 10], [0; 4], 1.0));
    let network = TiledNetwork::new(gpu, plan)?;
    // In place is all right then, and nothing need be bound.
    let picture = texture(gpu, [20, 10], Rgba32Float, READ | WRITTEN);
    let bindings =
        network.bind(&[("x", Texels::data(&picture).into()), ("y", Texels::data(&picture).into())])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    network.bind(&[])?;
    Ok(())
}

#[test]
fn memory_is_as_planned() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let build = |w: usize, h: usize| path_denoise(w, h, DType::F32);
    let whole = Plan::compile(&build(40, 1200)?, gpu.target())?;
    let held = || {
        let hal = gpu.device().get_internal_counters().hal;
        (hal.buffer_memory.read() + hal.texture_memory.read()) as u64
    };
    for share in [0.9, 0.75] {
        let most = (whole.peak_bytes() as f64 * share) as u64;
        let plan = TiledPlan::new(gpu.target(), [40, 1200], most, build)?;
        assert!(plan.tiles() > 1);
        let (planned, before) = (plan.plan().resident_bytes(), held());
        let network = TiledNetwork::new(&gpu, plan)?;
        gpu.wait(gpu.queue().submit([]))?;
        let grown = held() - before;
        println!("{share}: {grown} bytes, {planned} planned, {most} allowed, {} whole", whole.peak_bytes());
        assert!(grown.abs_diff(planned) <= 1 << 16 && planned <= most, "{grown} bytes, {planned} planned");
        drop(network);
        gpu.wait(gpu.queue().submit([]))?;
    }
    Ok(())
}

#[test]
fn what_looks_at_the_whole_picture_is_named() -> Result<()> {
    let target = Target::typical();
    let style = bundled::bundled("style-engraving").expect("is bundled")?;
    let error = |build: Build, most: u64| TiledPlan::new(&target, [512, 512], most, build).unwrap_err();
    let found = error(&|w, h| vision(&style, w, h), 1 << 20);
    let Error::Whole { op: "Norm", node, needed: Some(_), budget: 1_048_576, .. } = &found else {
        panic!("{found}")
    };
    assert_eq!(node, "in1");
    assert!(found.to_string().contains("means over the whole picture"), "{found}");

    let pooled: Build = &|w, h| {
        let mut g = filter([h, w], 3, DType::F32);
        let x = g.input("more", [1, h, w, 3], DType::F32);
        let mean = g.scoped("squeeze", |g| {
            g.global_pool(x, aquatint::ops::pool::PoolKind::Mean { include_pad: false })
        })?;
        let z = g.mul(x, mean)?;
        g.output("z", z);
        Ok(g)
    };
    let found = error(pooled, 1 << 20);
    assert!(matches!(&found, Error::Whole { op: "Pool", node, .. } if node == "squeeze"), "{found}");

    let state: Build = &|w, h| {
        let mut g = Graph::new();
        let x = g.input("x", [1, h, w, 3], DType::F32);
        let history = g.state("history", Tensor::from_f32([1, h, w, 3], &vec![0.0; 3 * w * h]));
        let next = g.add(x, history)?;
        g.update(history, next)?;
        g.output("y", next);
        Ok(g)
    };
    let found = error(state, 1 << 20);
    assert!(matches!(&found, Error::Whole { op: "State", node, .. } if node == "history"), "{found}");

    // A weight for each place is another at another size.
    let places: Build = &|w, h| {
        let mut g = Graph::new();
        let x = g.input("x", [1, h, w, 1], DType::F32);
        let places = g.weight("places", Tensor::from_f32([1, h, w, 1], &vec![0.5; w * h]));
        let y = g.add(x, places)?;
        g.output("y", y);
        Ok(g)
    };
    assert!(matches!(
        error(places, 1 << 18),
        Error::Whole { op: "Weight", .. } | Error::Whole { op: "Elementwise", .. }
    ));
    // And one that changes with the size, too.
    let sized: Build = &|w, h| {
        let mut g = Graph::new();
        let x = g.input("x", [1, h, w, 1], DType::F32);
        let scale = g.weight("scale", Tensor::from_f32([1], &[w as f32]));
        let y = g.mul(x, scale)?;
        g.output("y", y);
        Ok(g)
    };
    assert!(matches!(error(sized, 1 << 18), Error::Whole { op: "Weight", node, .. } if node == "scale"));

    let denoise: Build = &|w, h| path_denoise(w, h, DType::F32);
    let found = error(denoise, 1 << 20);
    assert!(matches!(found, Error::Budget { budget: 1_048_576, needed, .. } if needed > 1 << 20), "{found}");
    Ok(())
}

#[test]
fn what_cannot_be_bound_in_tiles() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let build = |w: usize, h: usize| Ok(filter([h, w], 4, DType::F32));
    let whole = Plan::compile(&build(64, 90)?, gpu.target())?;
    let network =
        TiledNetwork::new(gpu, TiledPlan::new(gpu.target(), [64, 90], whole.peak_bytes() * 2 / 3, build)?)?;
    assert!(network.tiles() > 1);
    let picture = texture(gpu, [64, 90], Rgba32Float, READ | WRITTEN);
    let small = texture(gpu, [64, 89], Rgba8Unorm, READ | WRITTEN);
    let numbers = storage(gpu, &[0.0; 64 * 90 * 4]);
    let few = storage(gpu, &[0.0; 64 * 89 * 4]);
    let texels = |texture| Bound::from(Texels::data(texture));
    for (bound, said) in [
        (vec![("y", texels(&picture))], "none for \"x\""),
        (vec![("x", texels(&picture)), ("y", texels(&picture))], "two textures"),
        (vec![("x", Bound::from(&numbers)), ("y", Bound::from(&numbers))], "two buffers"),
        (vec![("x", texels(&small)), ("y", texels(&picture))], "[64, 90]"),
        (vec![("x", Bound::from(&few)), ("y", texels(&picture))], "92160 bytes"),
    ] {
        let error = network.bind(&bound).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(said), "{error}");
    }
    Ok(())
}

/// No device, no overflow, no long wait.
#[test]
fn pictures_of_all_sizes_are_planned() -> Result<()> {
    let model = upscaler();
    let denoise: Build = &|w, h| path_denoise(w, h, DType::F32);
    let networks: [(&str, Build); 2] =
        [("path-denoise", denoise), ("upscale-x2", &|w, h| vision(&model, w, h))];
    let lanes = Target { class: DeviceClass::Cpu, subgroup_size: 8, mappable: true, ..Target::typical() };
    for target in [Target::typical(), lanes] {
        for (name, build) in networks {
            for size in
                [[1, 1], [1, 4320], [8192, 1], [5, 7], [641, 359], [1920, 1080], [3839, 2161], [8192, 4320]]
            {
                let start = Instant::now();
                let most = 512 << 20;
                let plan = TiledPlan::new(&target, size, most, build)?;
                let took = start.elapsed();
                println!(
                    "{name}, {:?}, {size:?}: {} tiles of {:?}, {} MB, work {:.2}, {:.2} s",
                    target.class,
                    plan.tiles(),
                    plan.tile(),
                    plan.plan().peak_bytes() >> 20,
                    plan.work(),
                    took.as_secs_f64()
                );
                assert!(plan.plan().peak_bytes() <= most);
                // Squares of Winograd's convolution, on software adapters, look three times as far.
                assert!(target.class == DeviceClass::Cpu || plan.work() < 1.5, "{}", plan.work());
                assert!(took.as_secs() < 60);
                let pixels: usize = size.iter().product();
                assert!(plan.tiles() == 1 || pixels > 1 << 20);
            }
        }
    }
    Ok(())
}
