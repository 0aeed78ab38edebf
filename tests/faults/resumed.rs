//! Sampling runs whose device is lost on the way: they go on from their last kept step, to the same picture.

use aquatint::cache::Cache;
use aquatint::diffusion::Sampler;
use aquatint::gpu::Trouble;
use aquatint::tasks::{DiffusionModel, GenerateOptions, Generator, SamplingState};
use aquatint::{AdapterOptions, Error, Gpu, Result};

use crate::harness::open;

#[test]
fn a_run_goes_on_from_its_last_step() -> Result<()> {
    if open().is_none() {
        return Ok(());
    }
    // Kernels of earlier devices are at hand: there are many.
    let folder = tempfile::tempdir().unwrap();
    let device = || {
        let cache = Cache::at(folder.path());
        Gpu::with_options(&AdapterOptions { cache, ..AdapterOptions::from_env() })
    };
    let model = DiffusionModel::letters()?;
    let options =
        GenerateOptions { steps: 5, sampler: Sampler::EulerAncestral, guidance: 2.0, ..model.options() };
    let first = device()?;
    let mut generator = Generator::new(&first, &model, 1, &options)?;
    let mut run = generator.start(&["Q"], &[7])?;
    let mut states = 0;
    first.plant_trouble(Trouble::Loss, u64::MAX);
    run.run_keeping(1, &mut |_| states += 1)?;
    let places = u64::MAX - first.spare_trouble().expect("it is far away");
    assert_eq!(states, 5);
    let (latents, picture) = (run.latents()?.to_f32(), run.pictures()?);
    first.keep_pipelines();

    let mut resumed_at = Vec::new();
    for share in [1, 3, 5] {
        let gpu = device()?;
        let mut generator = Generator::new(&gpu, &model, 1, &options)?;
        let mut last: Option<SamplingState> = None;
        let mut run = generator.start(&["Q"], &[7])?;
        gpu.plant_trouble(Trouble::Loss, places * share / 6);
        match run.run_keeping(1, &mut |state| last = Some(state)) {
            Err(Error::DeviceLost { .. }) => {}
            other => panic!("expected a lost device, got {other:?}"),
        }
        // Also the way over a file.
        let other = device()?;
        let mut rebuilt = generator.rebuild(&other)?;
        drop((generator, gpu));
        let mut rest = match &last {
            None => rebuilt.start(&["Q"], &[7])?,
            Some(state) => {
                let path = folder.path().join("run.safetensors");
                state.save(&path)?;
                rebuilt.resume(&SamplingState::load(&path)?)?
            }
        };
        resumed_at.push(rest.steps_done());
        rest.run()?;
        assert_eq!(rest.latents()?.to_f32(), latents, "lost in part {share} of 6");
        assert_eq!(rest.pictures()?, picture, "lost in part {share} of 6");
    }
    println!(
        "figure faults resumed: a run of 5 steps lost three times, gone on after steps {resumed_at:?} to the same bits"
    );
    assert!(resumed_at.iter().any(|&at| (1..5).contains(&at)), "{resumed_at:?}");
    Ok(())
}
