//! Devices of one's own, a network that makes use of all that is made on one, and what is left of it.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::wgpu;
use aquatint::{AdapterOptions, DType, Error, Gpu, Graph, Result, Tensor};

/// A device of one's own, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
pub fn open() -> Option<Gpu> {
    match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A device of a caller's, who sets neither a handler of errors nor a callback: what is not caught in a scope panics.
pub fn callers() -> Gpu {
    let options = AdapterOptions::from_env();
    let adapter = aquatint::gpu::choose_adapter(&options).unwrap();
    let abilities = options.abilities(&adapter).unwrap();
    let request = wgpu::DeviceDescriptor {
        required_features: abilities.features,
        required_limits: abilities.limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&request)).unwrap();
    Gpu::from_wgpu(&adapter, device, queue)
}

/// Numbers between −1 and 1 that look like chance.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| {
        let x = i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        (x ^ (x >> 15)).wrapping_mul(0xc2b2_ae35)
    };
    (0..count as u32).map(|i| (hash(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

pub const SHAPE: [usize; 4] = [1, 12, 10, 8];

/// Convolutions with weights of both types, a norm, and a state that sums up what comes out.
pub fn network(seed: u32) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", SHAPE, DType::F32);
    let weight = |g: &mut Graph, name: &str, shape: [usize; 4], dtype| {
        let values: Vec<f32> =
            noise(shape.iter().product(), seed + shape[0] as u32).iter().map(|w| w / 8.0).collect();
        let stored = g.weight(name, Tensor::from_f32(shape, &values).to_dtype(dtype));
        if dtype == DType::F32 { stored } else { g.unpacked(stored, DType::F32).unwrap() }
    };
    let [first, second] = [("first", [16, 8, 3, 3], DType::F32), ("second", [8, 16, 3, 3], DType::F16)]
        .map(|(name, shape, dtype)| weight(&mut g, name, shape, dtype));
    let y = g.conv2d(x, first, None, Conv2dOptions::padded(1)).unwrap();
    let y = g.group_norm(y, 4, None, None, 1e-5).unwrap();
    let y = g.silu(y).unwrap();
    let y = g.conv2d(y, second, None, Conv2dOptions::padded(1)).unwrap();
    let sum = g.state("sum", Tensor::from_f32(SHAPE, &vec![0.0; SHAPE.iter().product()]));
    let next = g.add(sum, y).unwrap();
    g.update(sum, next).unwrap();
    g.output("y", y);
    g
}

pub fn input() -> Tensor {
    Tensor::from_f32(SHAPE, &noise(SHAPE.iter().product(), 77))
}

/// Submits what a caller recorded and waits; what wgpu says against commands on a lost device is the caller's own affair.
pub fn send(gpu: &Gpu, encoder: wgpu::CommandEncoder) -> Result<()> {
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let submission = gpu.queue().submit([encoder.finish()]);
    let _ = pollster::block_on(scope.pop());
    gpu.wait(submission)
}

/// What there is on a device by wgpu's own count: objects of each kind, then bytes of its memory.
pub fn on_device(device: &wgpu::Device) -> Vec<(&'static str, isize)> {
    let hal = device.get_internal_counters().hal;
    vec![
        ("buffers", hal.buffers.read()),
        ("textures", hal.textures.read()),
        ("texture views", hal.texture_views.read()),
        ("bind groups", hal.bind_groups.read()),
        ("bind group layouts", hal.bind_group_layouts.read()),
        ("pipeline layouts", hal.pipeline_layouts.read()),
        ("pipelines", hal.compute_pipelines.read()),
        ("shader modules", hal.shader_modules.read()),
        ("query sets", hal.query_sets.read()),
        ("command encoders", hal.command_encoders.read()),
        ("fences", hal.fences.read()),
        ("bytes of buffers", hal.buffer_memory.read()),
        ("bytes of textures", hal.texture_memory.read()),
    ]
}

/// Of a result that has to be an error, which one.
pub fn kind<T>(result: &Result<T>) -> &'static str {
    match result {
        Ok(_) => "an answer",
        Err(Error::DeviceLost { .. }) => "DeviceLost",
        Err(Error::OutOfMemory { .. }) => "OutOfMemory",
        Err(Error::Limit { .. }) => "Limit",
        Err(Error::Bound { .. }) => "Bound",
        Err(Error::Lacking { .. }) => "Lacking",
        Err(Error::Feature { .. }) => "Feature",
        Err(Error::NoAdapter { .. }) => "NoAdapter",
        Err(Error::Unknown { .. }) => "Unknown",
        Err(Error::Invalid { .. }) => "Invalid",
        Err(Error::Busy { .. }) => "Busy",
        Err(Error::Gpu { .. }) => "Gpu",
        Err(_) => "another error",
    }
}
