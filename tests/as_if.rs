//! A device that plays a weaker one: networks give the same answers, wgpu refuses what goes beyond, and what does not fit is an error.

use std::sync::OnceLock;

use aquatint::models::letters;
use aquatint::tasks::{self, DiffusionModel};
use aquatint::{AdapterOptions, DType, DeviceClass, Error, Gpu, Graph, Network, Plan, Tensor};

/// Abilities that a weak device lacks, one by one and together.
const PROFILES: [&str; 7] = [
    "webgpu",
    "no-f16,no-subgroups,no-timestamps",
    "shared=8KiB,invocations=128",
    "storage-buffers=8,workgroups=1024",
    "max-binding=8MiB,max-buffer=16MiB,max-texture=2048",
    "class=discrete,no-subgroups",
    "class=integrated,shared=16KiB,invocations=256",
];

/// The same in fewer, for a network with many more kernels to compile.
const TOGETHER: [&str; 3] = [
    "no-f16,no-subgroups,no-timestamps,shared=8KiB,invocations=128,storage-buffers=8,workgroups=1024,max-binding=8MiB,\
     max-buffer=16MiB,max-texture=2048",
    "class=discrete,no-subgroups",
    "class=integrated,shared=16KiB,invocations=256",
];

/// All of the device, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn whole() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let options = AdapterOptions { as_if: None, ..AdapterOptions::from_env() };
    let open = || match Gpu::with_options(&options) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    };
    GPU.get_or_init(open).as_ref()
}

fn as_if(profile: &str) -> Result<Gpu, Error> {
    let as_if = Some(profile.to_owned());
    Gpu::with_options(&AdapterOptions { as_if, ..AdapterOptions::from_env() })
}

/// Runs once on inputs drawn from their names; all outputs.
fn answers(gpu: &Gpu, graph: &Graph) -> Vec<Tensor> {
    let network = Network::new(gpu, graph).unwrap_or_else(|e| panic!("{e}"));
    for port in &network.plan().inputs {
        let count = port.desc.shape.elements() as u32;
        let tensor = match port.desc.dtype {
            DType::F32 | DType::F16 => {
                let hash = |i: u32| (i + 7).wrapping_mul(2_654_435_761) >> 8;
                let values: Vec<f32> = (0..count).map(|i| hash(i) as f32 / (1 << 24) as f32).collect();
                Tensor::from_f32(port.desc.shape.clone(), &values).to_dtype(port.desc.dtype)
            }
            _ => Tensor::from_u32(port.desc.shape.clone(), &(0..count).map(|i| i % 3).collect::<Vec<_>>()),
        };
        network.write(&port.name, &tensor).unwrap();
    }
    network.run(&[]).unwrap()
}

fn hold(name: &str, graph: &Graph, profiles: &[&str]) {
    let Some(gpu) = whole() else { return };
    let expected = answers(gpu, graph);
    for &profile in profiles {
        let found = answers(&as_if(profile).unwrap(), graph);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.desc, expected.desc, "{name}, {profile}");
            let (found, expected) = (found.to_f32(), expected.to_f32());
            let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let worst = found.iter().zip(&expected).fold(0.0f32, |most, (f, e)| most.max((f - e).abs()));
            assert!(largest > 0.0 && largest.is_finite(), "{name}: nothing to compare");
            // Sums in another order.
            assert!(worst <= 1e-4 * largest, "{name}, {profile}: {worst} of {largest}");
        }
    }
}

#[test]
fn a_classifier_answers_the_same() {
    let model = letters::letters_classifier().unwrap();
    let size = model.preprocess.size.unwrap_or([224, 224]);
    hold("letters-classifier", &tasks::classifier_graph(&model, 1, size).unwrap(), &PROFILES);
}

#[test]
fn a_diffusion_step_draws_the_same() {
    let model = DiffusionModel::letters().unwrap();
    hold("letters-unet", &model.step_graph(2, &model.options()).unwrap(), &TOGETHER);
}

#[test]
fn wgpu_itself_refuses_what_goes_beyond() {
    let Some(whole) = whole() else { return };
    let gpu = as_if("max-buffer=1MiB,shared=4KiB,no-f16,no-timestamps").unwrap();
    assert_eq!((gpu.target().max_buffer, gpu.target().shared_memory), (1 << 20, 4 << 10));
    assert!(!gpu.target().f16 && !gpu.has_timestamps());
    assert_eq!(gpu.target().class, whole.target().class);
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let usage = wgpu::BufferUsages::STORAGE;
    let (label, size, mapped_at_creation) = (None, 2 << 20, false);
    let _refused =
        gpu.device().create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation });
    let error = pollster::block_on(scope.pop()).expect("a buffer of 2 MiB is too large");
    assert!(error.to_string().contains("size"), "{error}");
}

#[test]
fn what_does_not_fit_is_a_limit() {
    let Some(_) = whole() else { return };
    let model = DiffusionModel::letters().unwrap();
    let graph = model.step_graph(2, &model.options()).unwrap();
    for profile in ["max-binding=1KiB", "max-buffer=1KiB", "invocations=1", "storage-buffers=1", "shared=16"]
    {
        let gpu = as_if(profile).unwrap();
        match Plan::compile(&graph, gpu.target()).and_then(|plan| Network::from_plan(&gpu, plan)) {
            Err(Error::Limit { .. }) => {}
            // No kernel of this network on this device needs so much.
            Ok(_) if profile.starts_with("shared") => {}
            other => panic!("{profile}: {other:?}"),
        }
    }
}

#[test]
fn only_weaker_devices_are_played() {
    let Some(whole) = whole() else { return };
    let error = as_if("storage-buffers=1000000").unwrap_err();
    assert!(
        matches!(error, Error::Invalid { .. }) && error.to_string().contains(&whole.target().name),
        "{error}"
    );
    assert!(matches!(as_if("no-gravity").unwrap_err(), Error::Unknown { .. }));
    // A class is a choice of kernels, no ability.
    assert_eq!(as_if("class=discrete").unwrap().target().class, DeviceClass::Discrete);
}
