//! Recording makes nothing, in encoders and in passes, for ten thousand frames.

use aquatint::frame::{Background, Bindings, Costs, ReadRing, Slices, Texels};
use aquatint::wgpu::{self, TextureFormat::Rgba8Unorm};
use aquatint::{DType, Error, Gpu, Graph, Network, Plan, Result, Scratch, Tensor};

use crate::harness::*;

#[test]
fn recording_makes_nothing() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let network = Network::new(&gpu, &filter([21, 33], 3, DType::F32))?;
    let source = texture(&gpu, [33, 21], Rgba8Unorm, READ);
    let goals = [0, 1].map(|_| texture(&gpu, [33, 21], Rgba8Unorm, WRITTEN));
    let bindings = [0, 1].map(|i| {
        network
            .bind(&[("x", Texels::colour(&source).into()), ("y", Texels::colour(&goals[i]).into())])
            .unwrap()
    });
    submit(&gpu, |encoder| bindings.iter().for_each(|b| b.record(encoder).unwrap()));
    let (ours, theirs) = (gpu.counts(), on_device(&gpu));
    assert!(ours.pipelines > 0 && theirs.iter().any(|&n| n > 0), "the counters count");
    for frame in 0..6 {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        bindings[frame % 2].record(&mut encoder)?;
        let commands = encoder.finish();
        assert_eq!(gpu.counts(), ours);
        assert_eq!(on_device(&gpu), theirs);
        gpu.wait(gpu.queue().submit([commands]))?;
    }
    assert_eq!(on_device(&gpu), theirs);
    Ok(())
}

/// In a pass that is open, between launches of others; with states.
#[test]
fn a_pass_of_the_callers() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let [height, width] = [32, 48];
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, 8], DType::F32);
    let history = g.state("history", Tensor::from_f32([1, height, width, 8], &vec![0.0; height * width * 8]));
    let blend = g.add(x, history)?;
    let next = g.affine(blend, 0.5, 0.0)?;
    g.update(history, next)?;
    let y = convolved(&mut g, next, [8, 8], 3);
    g.output("y", y);
    let input = Tensor::from_f32([1, height, width, 8], &noise(height * width * 8, 1));
    let run = |network: &Network, record: &dyn Fn(&Bindings, &mut wgpu::CommandEncoder) -> Result<()>| {
        network.write("x", &input)?;
        let bindings = network.bind(&[])?;
        for _ in 0..3 {
            submit(gpu, |encoder| record(&bindings, encoder).unwrap());
        }
        Ok::<_, Error>((network.read("y")?.to_f32(), network.read("history")?.to_f32()))
    };
    let in_pass = |bindings: &Bindings, encoder: &mut wgpu::CommandEncoder| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        bindings.record_in(&mut pass)
    };
    let plan = Plan::compile(&g, &gpu.target().without_textures())?;
    let wanted = run(&Network::from_plan(gpu, plan.clone())?, &|bindings, encoder| bindings.record(encoder))?;
    let network = Network::from_plan(gpu, plan)?;
    assert!(!network.bind(&[])?.needs_encoder());
    assert_eq!(run(&network, &in_pass)?, wanted);
    // As submitted without any of this.
    let plain = Network::from_plan(gpu, network.plan().clone())?;
    plain.write("x", &input)?;
    plain.submit(3)?;
    assert_eq!((plain.read("y")?.to_f32(), plain.read("history")?.to_f32()), wanted);

    // Tensors that are read as textures are filled by copies.
    let texels = Network::new(gpu, &g)?;
    if texels.plan().run.iter().any(|launch| !launch.fills.is_empty()) {
        let bindings = texels.bind(&[])?;
        assert!(bindings.needs_encoder());
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let error = in_pass(&bindings, &mut encoder).unwrap_err();
        assert!(matches!(error, Error::Pass { .. }), "{error}");
        assert!(error.to_string().contains("without_textures"), "{error}");
    }
    Ok(())
}

#[test]
fn ten_thousand_frames() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    let network = Network::new(&gpu, &filter([8, 8], 3, DType::F32))?;
    let source = texture(&gpu, [8, 8], Rgba8Unorm, READ);
    fill(&gpu, &source, &[[0.25, 0.5, 0.75, 1.0]; 64]);
    let goal = texture(&gpu, [8, 8], Rgba8Unorm, WRITTEN);
    let bindings =
        network.bind(&[("x", Texels::colour(&source).into()), ("y", Texels::colour(&goal).into())])?;
    let mut ring = ReadRing::new(&gpu, 2, ReadRing::bytes_of(&goal))?;
    let (mut first, mut seen) = (None, 0);
    let (mut objects, mut resident, mut files) = (Vec::new(), 0, 0);
    let frames = 10_000;
    for frame in 0..frames {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        bindings.record(&mut encoder)?;
        ring.push_texture(&mut encoder, &goal, frame)?;
        let submission = gpu.queue().submit([encoder.finish()]);
        if frame % 50 == 49 {
            gpu.wait(submission)?;
        }
        while let Some(read) = ring.poll()? {
            assert_eq!(&read.bytes, first.get_or_insert_with(|| read.bytes.clone()), "frame {}", read.tag);
            seen += 1;
        }
        if frame == 999 {
            (objects, resident, files) = (on_device(&gpu), resident_bytes(), open_files());
        }
    }
    gpu.wait(gpu.queue().submit([]))?;
    assert_eq!(on_device(&gpu), objects, "objects and device memory of frame 1000 and {frames}");
    // Other tests of this process may have some open, which were not there then.
    let (grown, alone) = (resident_bytes().saturating_sub(resident), std::env::var_os("NEXTEST").is_some());
    assert!(!alone || open_files() <= files, "{} open files, {files} after 1000 frames", open_files());
    println!(
        "figure frames: {frames} frames, {seen} read back: no object more than after 1000, {} KB more resident",
        grown >> 10
    );
    assert!(seen >= 40, "{seen} came back");
    assert!(grown < 16 << 20, "{grown} bytes more after {frames} frames than after 1000");
    Ok(())
}

/// Of this process; 0 where that is not known.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    4096 * pages.unwrap_or(0)
}

/// Of this process; 0 where that is not known.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[test]
fn networks_are_made_on_other_threads() -> Result<()> {
    fn may_go<T: Send>() {}
    fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<Gpu>();
    may_be_shared::<Graph>();
    may_be_shared::<Plan>();
    may_be_shared::<Network>();
    may_be_shared::<Scratch>();
    may_be_shared::<Bindings>();
    may_be_shared::<Costs>();
    may_be_shared::<Slices>();
    may_be_shared::<Texels>();
    may_be_shared::<Error>();
    may_go::<ReadRing>();
    may_go::<Background<Network>>();

    let Some(gpu) = gpu() else { return Ok(()) };
    let graph = filter([12, 12], 3, DType::F32);
    let wanted = Network::new(gpu, &graph)?;
    let (there, made_there) = (gpu.clone(), graph.clone());
    let mut coming = Background::start(move || Network::new(&there, &made_there))?;
    let mut frames = 0;
    let network = loop {
        // Frames go on meanwhile.
        submit(gpu, |encoder| wanted.bind(&[]).unwrap().record(encoder).unwrap());
        frames += 1;
        if let Some(network) = coming.take() {
            break network?;
        }
    };
    assert!(frames >= 1 && !coming.is_ready() && coming.wait().is_none());
    let input = Tensor::from_f32([1, 12, 12, 3], &noise(432, 1));
    assert_eq!(network.run(&[("x", &input)])?[0].to_f32(), wanted.run(&[("x", &input)])?[0].to_f32());
    // What cannot be made is an error there, too.
    let gpu = gpu.clone();
    let failing = Background::start(move || {
        let plan = Plan::compile(&filter([4, 4], 3, DType::F32), gpu.target())?;
        Network::sharing(
            &gpu,
            plan,
            aquatint::Shares { scratch: Some(&Scratch::from_buffers(Vec::new())?), ..Default::default() },
        )
    })?;
    assert!(matches!(failing.wait(), Some(Err(Error::Invalid { .. }))));
    Ok(())
}

/// Two threads record and submit two networks on one device.
#[test]
fn threads_share_a_device() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let networks = [[10, 14], [13, 9]].map(|size| Network::new(gpu, &filter(size, 3, DType::F32)).unwrap());
    let inputs = networks.each_ref().map(|network| {
        let shape = network.desc("x").unwrap().shape.clone();
        Tensor::from_f32(shape.clone(), &noise(shape.elements(), 5))
    });
    let wanted: Vec<Vec<f32>> =
        (0..2).map(|i| networks[i].run(&[("x", &inputs[i])]).unwrap()[0].to_f32()).collect();
    std::thread::scope(|scope| {
        for i in 0..2 {
            let (network, wanted) = (&networks[i], &wanted[i]);
            scope.spawn(move || {
                let bindings = network.bind(&[]).unwrap();
                for _ in 0..20 {
                    submit(gpu, |encoder| bindings.record(encoder).unwrap());
                    assert_eq!(&network.read("y").unwrap().to_f32(), wanted);
                }
            });
        }
    });
    Ok(())
}
