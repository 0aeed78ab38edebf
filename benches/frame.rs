//! What a network in a caller's frame costs beyond its kernels: the device's time for a recorded run beside the sum of its
//! kernels' times, and the host's time for recording beside a bare loop of wgpu's.
//!
//! ```text
//! cargo bench --bench frame                    the bundled denoiser of path-traced frames, 320 × 180
//! cargo bench --bench frame -- 640 360
//! ```
//!
//! Both are medians of rounds in which ours and the other come in turns. Kernels are measured one by one, with timestamps
//! round each; a run has one before its first command and one after its last, and goes from textures to a texture.

#[path = "../tests/frame/bare.rs"]
mod bare;

use std::time::Instant;

use aquatint::frame::{Bindings, Texels, Transfer};
use aquatint::models::path_denoise::path_denoise;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::wgpu::{self, TextureFormat::Rgba16Float, TextureUsages};
use aquatint::{DType, Error, Gpu, Graph, Network, Result, Tensor};

const ROUNDS: usize = 9;

/// Rounds of what takes the host microseconds.
const MANY: usize = 200;

fn main() -> Result<()> {
    let sides: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let [width, height] = sides[..].try_into().unwrap_or([320, 180]);
    let gpu = Gpu::headless()?;
    println!("device   {} ({})", gpu.info().name, gpu.info().driver_info);
    device_time(&gpu, width, height)?;
    host_time(&gpu)
}

/// A recorded run beside its kernels.
fn device_time(gpu: &Gpu, width: usize, height: usize) -> Result<()> {
    let network = Network::new(gpu, &path_denoise(width, height, DType::F32)?)?;
    let usage = TextureUsages::TEXTURE_BINDING | TextureUsages::STORAGE_BINDING;
    let texture = || {
        gpu.device().create_texture(&wgpu::TextureDescriptor {
            label: None,
            size: wgpu::Extent3d { width: width as u32, height: height as u32, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: Rgba16Float,
            usage,
            view_formats: &[],
        })
    };
    let [color, albedo, normal, goal] = [(); 4].map(|()| texture());
    let light = |texture| Texels::colour(texture).network(Transfer::Linear).into();
    let textures = network.bind(&[
        ("color", light(&color)),
        ("albedo", light(&albedo)),
        ("normal", Texels::data(&normal).into()),
        ("denoised", light(&goal)),
    ])?;
    let alone = network.bind(&[])?;
    println!("network  path-denoise, {width} × {height}, {} launches", alone.launches());
    let profile = network.profile(1);
    if let Err(Error::Feature { .. }) = profile {
        println!("no timestamps on this device");
        return Ok(());
    }
    run(gpu, &textures)?;
    let (mut kernels, mut whole, mut with_textures) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        kernels.push(network.profile(1)?.seconds());
        whole.push(run(gpu, &alone)?);
        with_textures.push(run(gpu, &textures)?);
    }
    let more: Vec<f64> = whole.iter().zip(&kernels).map(|(whole, kernels)| whole / kernels - 1.0).collect();
    println!("kernels  {:.2} ms, the sum of those of a run", 1e3 * median(kernels));
    println!("run      {:.2} ms from before its first command until after its last", 1e3 * median(whole));
    println!("more     {:+.1} % of the kernels, median of {ROUNDS}", 1e2 * median(more));
    println!("textures {:.2} ms with three read and one written", 1e3 * median(with_textures));
    Ok(())
}

/// Seconds of the device between what comes before a recorded run and what comes after it.
fn run(gpu: &Gpu, bindings: &Bindings) -> Result<f64> {
    let device = gpu.device();
    let stamps = device.create_query_set(&wgpu::QuerySetDescriptor {
        label: None,
        ty: wgpu::QueryType::Timestamp,
        count: 4,
    });
    let buffer = |usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 32,
            usage,
            mapped_at_creation: false,
        })
    };
    let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
    let read = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let mut encoder = device.create_command_encoder(&Default::default());
    let stamp = |encoder: &mut wgpu::CommandEncoder, first: u32| {
        drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &stamps,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            }),
        }));
    };
    stamp(&mut encoder, 0);
    bindings.record(&mut encoder)?;
    stamp(&mut encoder, 2);
    encoder.resolve_query_set(&stamps, 0..4, &resolved, 0);
    encoder.copy_buffer_to_buffer(&resolved, 0, &read, 0, 32);
    let submission = gpu.queue().submit([encoder.finish()]);
    read.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("a buffer of ours"));
    gpu.wait(submission)?;
    let view = read.get_mapped_range(..).expect("it is mapped");
    let times: Vec<u64> =
        view.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight"))).collect();
    // From the end of the pass before to the beginning of the one after.
    Ok(times[2].saturating_sub(times[1]) as f64 * f64::from(gpu.queue().get_timestamp_period()) * 1e-9)
}

/// Recording beside a bare loop.
fn host_time(gpu: &Gpu) -> Result<()> {
    // A chain that no pass can fuse.
    let mut g = Graph::new();
    let mut x = g.input("x", [1, 8, 8, 4], DType::F32);
    for i in 0..100 {
        let weight =
            g.weight(&format!("w{i}"), Tensor::from_f32([4, 4, 3, 3], &[1e-2 * (i + 1) as f32; 144]));
        x = g.conv2d(x, weight, None, Conv2dOptions::padded(1))?;
    }
    g.output("y", x);
    let network = Network::from_plan(gpu, aquatint::Plan::compile(&g, &gpu.target().without_textures())?)?;
    let bindings = network.bind(&[])?;
    let launches = bindings.launches();
    let bare = bare::Bare::new(gpu, launches);
    // Microseconds of recording and closing an encoder, for a hundred launches.
    let time = |record: &dyn Fn(&mut wgpu::CommandEncoder) -> Result<()>| {
        let start = Instant::now();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        record(&mut encoder)?;
        let commands = encoder.finish();
        let taken = start.elapsed().as_secs_f64();
        gpu.wait(gpu.queue().submit([commands]))?;
        Ok::<_, Error>(taken * 1e6 * 100.0 / launches as f64)
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..MANY {
        ours.push(time(&|encoder| bindings.record(encoder))?);
        theirs.push(time(&|encoder| {
            bare.record(encoder);
            Ok(())
        })?);
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    println!("record   {:.1} µs for 100 launches, median of {MANY}", median(ours));
    println!("bare     {:.1} µs for 100 launches of wgpu's in a loop", median(theirs));
    println!("ratio    {:.2}", median(ratios));
    Ok(())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
