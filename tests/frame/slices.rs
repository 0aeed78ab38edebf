//! Runs in slices leave what whole runs leave.

use std::time::Duration;

use aquatint::frame::{Bindings, Costs, Slices, Speed, Texels};
use aquatint::wgpu::{self, TextureFormat::Rgba32Float, TextureUsages};
use aquatint::{DType, Error, Graph, Network, Result, Tensor};

use crate::harness::*;

/// A picture in, one out, and a state that each run changes.
fn sampler([height, width]: [usize; 2]) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, 3], DType::F32);
    let latent = g.state("latent", Tensor::from_f32([1, height, width, 3], &noise(height * width * 3, 9)));
    let step = g.state("step", Tensor::from_f32([1], &[0.0]));
    let both = g.concat(&[x, latent], 3).unwrap();
    let mut h = convolved(&mut g, both, [6, 8], 1);
    h = g.relu(h).unwrap();
    h = g.add(h, step).unwrap();
    let next = convolved(&mut g, h, [8, 3], 2);
    g.update(latent, next).unwrap();
    let later = g.affine(step, 1.0, 0.125).unwrap();
    g.update(step, later).unwrap();
    let y = g.affine(next, 0.5, 0.5).unwrap();
    g.output("y", y);
    g
}

struct Scene {
    network: Network,
    bindings: Bindings,
    goal: aquatint::wgpu::Texture,
}

/// The picture and the states.
type Left = (Vec<[f64; 4]>, Vec<f32>, Vec<f32>);

const SIZE: [usize; 2] = [10, 12];

fn scene() -> Result<Option<Scene>> {
    let Some(gpu) = gpu() else { return Ok(None) };
    let network = Network::new(gpu, &sampler(SIZE))?;
    let source = texture(gpu, [12, 10], Rgba32Float, READ);
    let chance = noise(120 * 4, 4);
    fill(
        gpu,
        &source,
        &chance.chunks_exact(4).map(|c| std::array::from_fn(|i| f64::from(c[i]))).collect::<Vec<_>>(),
    );
    let goal = texture(gpu, [12, 10], Rgba32Float, WRITTEN);
    let bindings = network.bind(&[("x", Texels::data(&source).into()), ("y", Texels::data(&goal).into())])?;
    Ok(Some(Scene { network, bindings, goal }))
}

impl Scene {
    fn restart(&self) -> Result<()> {
        for state in &self.network.plan().states {
            let values = match state.name.as_str() {
                "latent" => noise(SIZE[0] * SIZE[1] * 3, 9),
                _ => vec![0.0],
            };
            self.network.write(&state.name, &Tensor::from_f32(state.desc.shape.clone(), &values))?;
        }
        Ok(())
    }

    fn left(&self) -> Result<Left> {
        let shown = texels(self.network.gpu(), &self.goal);
        Ok((shown, self.network.read("latent")?.to_f32(), self.network.read("step")?.to_f32()))
    }

    /// Slices until all is done: their number.
    fn finish(&self, slices: &mut Slices, budget: impl Fn(usize) -> Duration) -> Result<usize> {
        let mut count = 0;
        while !slices.is_done() {
            let (before, left) = (slices.progress(), slices.remaining());
            let after = submit(self.network.gpu(), |encoder| slices.record(encoder, budget(count)).unwrap());
            assert!(after.launches > before.launches && after.of == before.of, "a slice gets on");
            assert!(slices.remaining() < left && after == slices.progress());
            count += 1;
        }
        assert_eq!(slices.remaining(), Duration::ZERO);
        Ok(count)
    }
}

#[test]
fn slices_leave_what_whole_runs_leave() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let gpu = scene.network.gpu();
    let mut costs = vec![
        Costs::predicted(scene.network.plan()),
        Costs::at(scene.network.plan(), Speed { flops: 1e6, bytes: 1e6, launch: 1e-4 }),
    ];
    if gpu.has_timestamps() {
        costs.push(Costs::measured(&scene.network.profile(3)?));
    }
    for runs in [1, 5] {
        scene.restart()?;
        submit(gpu, |encoder| (0..runs).for_each(|_| scene.bindings.record(encoder).unwrap()));
        let wanted = scene.left()?;
        for costs in &costs {
            let whole = costs.seconds() * runs as f64;
            assert!(whole > 0.0);
            for budget in [0.0, whole / 7.0, whole / 2.5, 1e9] {
                for shown in [false, true] {
                    scene.restart()?;
                    scene.network.poison()?;
                    let mut slices = Slices::new(&scene.bindings, costs, runs)?;
                    if shown {
                        slices = slices.shown_each_run();
                    }
                    let all = slices.progress().of;
                    // Budgets that change, too.
                    let budget_of = |i: usize| Duration::from_secs_f64(budget * (1.0 + (i % 3) as f64));
                    let count = scene.finish(&mut slices, budget_of)?;
                    assert_eq!(slices.progress().runs, runs);
                    if budget == 0.0 {
                        // The two updates of states go with the launch before them.
                        assert_eq!(count, all - 2 * runs);
                    }
                    if budget == 1e9 {
                        assert_eq!(count, 1);
                    }
                    assert_eq!(scene.left()?, wanted, "{runs} runs, {budget} s, {shown}");
                    // Nothing is left to do, and the memory is free.
                    submit(gpu, |encoder| {
                        assert!(slices.record(encoder, Duration::MAX).unwrap().is_done());
                    });
                    assert_eq!(scene.left()?, wanted);
                    scene.network.submit(0)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn shown_each_run_shows_each_run() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let gpu = scene.network.gpu();
    let costs = Costs::predicted(scene.network.plan());
    scene.restart()?;
    let mut wanted = Vec::new();
    for _ in 0..3 {
        submit(gpu, |encoder| scene.bindings.record(encoder).unwrap());
        wanted.push(scene.left()?.0);
    }
    assert!(wanted[0] != wanted[1] && wanted[1] != wanted[2]);
    scene.restart()?;
    let mut slices = Slices::new(&scene.bindings, &costs, 3)?.shown_each_run();
    let mut found = Vec::new();
    while !slices.is_done() {
        let before = slices.progress().runs;
        submit(gpu, |encoder| slices.record(encoder, Duration::ZERO).unwrap());
        if slices.progress().runs > before {
            found.push(texels(gpu, &scene.goal));
        }
    }
    assert_eq!(found, wanted);
    Ok(())
}

#[test]
fn what_is_under_way_is_not_disturbed() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let gpu = scene.network.gpu();
    let costs = Costs::predicted(scene.network.plan());
    scene.restart()?;
    let mut slices = Slices::new(&scene.bindings, &costs, 4)?;
    let mut others = Slices::new(&scene.bindings, &costs, 1)?;
    // Into the middle of the third run.
    while slices.progress().runs < 2 || slices.progress().launches % 3 != 2 {
        submit(gpu, |encoder| slices.record(encoder, Duration::ZERO).unwrap());
    }
    submit(gpu, |encoder| {
        let busy = |result: Result<()>| assert!(matches!(result, Err(Error::Busy { .. })), "{result:?}");
        busy(scene.bindings.record(encoder));
        busy(others.record(encoder, Duration::ZERO).map(drop));
        busy(scene.network.submit(1).map(drop));
        let mut pass = encoder.begin_compute_pass(&Default::default());
        busy(match scene.bindings.needs_encoder() {
            true => scene.bindings.record_in(&mut pass).or(Err(Error::Busy { what: String::new() })),
            false => scene.bindings.record_in(&mut pass),
        });
    });
    // Cancelled: states are those of two whole runs, and others may go on.
    slices.cancel();
    assert_eq!(slices.progress().launches, 0);
    assert_eq!(scene.network.read("step")?.to_f32(), [0.25]);
    submit(gpu, |encoder| scene.bindings.record(encoder).unwrap());
    assert_eq!(scene.network.read("step")?.to_f32(), [0.375]);
    // From the beginning again; dropping gives the memory back as well.
    scene.restart()?;
    submit(gpu, |encoder| slices.record(encoder, Duration::ZERO).unwrap());
    assert!(matches!(scene.network.submit(1), Err(Error::Busy { .. })));
    drop(slices);
    scene.network.submit(1)?;

    let other = Network::new(gpu, &filter([4, 4], 3, DType::F32))?;
    let error = Slices::new(&other.bind(&[])?, &costs, 1).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let place = storage(gpu, &noise(48, 1));
    let in_place = other.bind(&[("x", (&place).into()), ("y", (&place).into())])?;
    let costs = Costs::predicted(other.plan());
    assert!(Slices::new(&in_place, &costs, 1).is_ok() && Slices::new(&in_place, &costs, 2).is_err());
    Ok(())
}

/// Launches of a profile lie within its wall clock and fill most of it, also where somebody drew on the device before:
/// Mesa's software adapter then writes timestamps late.
#[test]
fn costs_are_measured_where_something_was_drawn() -> Result<()> {
    let Some(gpu) = open() else { return Ok(()) };
    if !gpu.has_timestamps() {
        return Ok(());
    }
    let network = Network::new(&gpu, &filter([384, 384], 8, DType::F32))?;
    // The first run compiles.
    network.profile(1)?;
    for drawn in [false, true] {
        if drawn {
            let target = texture(&gpu, [16, 16], Rgba32Float, TextureUsages::RENDER_ATTACHMENT);
            let view = target.create_view(&Default::default());
            submit(&gpu, |encoder| {
                let attachment = wgpu::RenderPassColorAttachment {
                    view: &view,
                    depth_slice: None,
                    resolve_target: None,
                    ops: wgpu::Operations {
                        load: wgpu::LoadOp::Clear(wgpu::Color::WHITE),
                        store: wgpu::StoreOp::Store,
                    },
                };
                drop(encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                    color_attachments: &[Some(attachment)],
                    ..Default::default()
                }));
            });
        }
        // Of several, as others use this machine, too.
        let profiles: Vec<_> = (0..5).map(|_| network.profile(1)).collect::<Result<_>>()?;
        let parts = profiles.iter().map(|profile| profile.seconds() / profile.wall);
        let part = parts.clone().fold(0.0, f64::max);
        assert!(parts.clone().all(|part| part < 1.0), "drawn {drawn}: longer than the wall clock");
        // On a GPU these launches are shorter than what surrounds them.
        let least = if gpu.target().class == aquatint::DeviceClass::Cpu { 0.5 } else { 0.05 };
        assert!(part > least, "drawn {drawn}: {part:.3} of the wall clock");
        println!("drawn {drawn}: launches are {part:.3} of the wall clock");
    }
    Ok(())
}
