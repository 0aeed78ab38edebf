//! A device, textures with known contents, and small networks.

use std::sync::OnceLock;

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::wgpu::{self, TextureFormat, TextureUsages};
use aquatint::{DType, Error, Gpu, Graph, Tensor};

/// The device, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
pub fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(open).as_ref()
}

/// A device of one's own.
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

/// Numbers between 0 and 1 that look like chance.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| {
        let x = i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        (x ^ (x >> 15)).wrapping_mul(0xc2b2_ae35)
    };
    (0..count as u32).map(|i| (hash(i) >> 8) as f32 / (1 << 24) as f32).collect()
}

/// A convolution over each pixel and its neighbours, from one number of channels to another.
pub fn convolved(
    g: &mut Graph,
    x: aquatint::ValueId,
    [from, to]: [usize; 2],
    seed: u32,
) -> aquatint::ValueId {
    let weight: Vec<f32> =
        noise(to * from * 9, seed).iter().map(|w| (w - 0.3) / (3.0 * from as f32)).collect();
    let weight = g.weight(&format!("w{seed}"), Tensor::from_f32([to, from, 3, 3], &weight));
    g.conv2d(x, weight, None, Conv2dOptions::padded(1)).unwrap()
}

/// `[1, h, w, c]` in and out, two convolutions between.
pub fn filter([height, width]: [usize; 2], channels: usize, dtype: DType) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, channels], dtype);
    let mut y = if dtype == DType::F32 { x } else { g.cast(x, DType::F32).unwrap() };
    y = convolved(&mut g, y, [channels, 8], 1);
    y = g.relu(y).unwrap();
    y = convolved(&mut g, y, [8, channels], 2);
    if dtype != DType::F32 {
        y = g.cast(y, dtype).unwrap();
    }
    g.output("y", y);
    g
}

pub fn texture(
    gpu: &Gpu,
    [width, height]: [u32; 2],
    format: TextureFormat,
    usage: TextureUsages,
) -> wgpu::Texture {
    textures(gpu, [width, height], [1, 1], format, usage)
}

pub fn textures(
    gpu: &Gpu,
    [width, height]: [u32; 2],
    [layers, mips]: [u32; 2],
    format: TextureFormat,
    usage: TextureUsages,
) -> wgpu::Texture {
    gpu.device().create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width, height, depth_or_array_layers: layers },
        mip_level_count: mips,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage,
        view_formats: match format {
            TextureFormat::Rgba8Unorm => &[TextureFormat::Rgba8UnormSrgb],
            _ => &[],
        },
    })
}

pub const READ: TextureUsages = TextureUsages::TEXTURE_BINDING.union(TextureUsages::COPY_DST);
pub const WRITTEN: TextureUsages =
    TextureUsages::STORAGE_BINDING.union(TextureUsages::COPY_SRC).union(TextureUsages::COPY_DST);

/// The bytes of a texel.
pub fn pack(format: TextureFormat, texel: [f64; 4]) -> Vec<u8> {
    let bytes =
        |order: [usize; 4]| order.iter().map(|&c| (texel[c].clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    match format {
        TextureFormat::Rgba8Unorm | TextureFormat::Rgba8UnormSrgb => bytes([0, 1, 2, 3]),
        TextureFormat::Bgra8Unorm => bytes([2, 1, 0, 3]),
        TextureFormat::Rgba16Float => {
            texel.iter().flat_map(|&v| half::f16::from_f64(v).to_le_bytes()).collect()
        }
        TextureFormat::Rgba32Float => texel.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        TextureFormat::R32Float => (texel[0] as f32).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

pub fn unpack(format: TextureFormat, bytes: &[u8]) -> [f64; 4] {
    let of = |order: [usize; 4]| order.map(|c| f64::from(bytes[c]) / 255.0);
    match format {
        TextureFormat::Rgba8Unorm | TextureFormat::Rgba8UnormSrgb => of([0, 1, 2, 3]),
        TextureFormat::Bgra8Unorm => of([2, 1, 0, 3]),
        TextureFormat::Rgba16Float => {
            std::array::from_fn(|c| half::f16::from_le_bytes([bytes[2 * c], bytes[2 * c + 1]]).to_f64())
        }
        TextureFormat::Rgba32Float => {
            std::array::from_fn(|c| f32::from_le_bytes(bytes[4 * c..][..4].try_into().unwrap()).into())
        }
        TextureFormat::R32Float => [f32::from_le_bytes(bytes.try_into().unwrap()).into(), 0.0, 0.0, 1.0],
        other => panic!("{other:?}"),
    }
}

/// How far what is stored may be off.
pub fn tolerance(format: TextureFormat, value: f64) -> f64 {
    match format {
        TextureFormat::Rgba16Float => 1e-3 * value.abs().max(1.0),
        TextureFormat::Rgba32Float | TextureFormat::R32Float => 1e-4 * value.abs().max(1.0),
        _ => 1.0 / 255.0 + 1e-6,
    }
}

pub fn fill(gpu: &Gpu, texture: &wgpu::Texture, texels: &[[f64; 4]]) {
    fill_at(gpu, texture, [0, 0], texels);
}

/// Fills a layer and level of detail.
pub fn fill_at(gpu: &Gpu, texture: &wgpu::Texture, [layer, mip_level]: [u32; 2], texels: &[[f64; 4]]) {
    let bytes: Vec<u8> = texels.iter().flat_map(|&texel| pack(texture.format(), texel)).collect();
    let [width, height] = [texture.width(), texture.height()].map(|side| (side >> mip_level).max(1));
    let to = wgpu::TexelCopyTextureInfo {
        mip_level,
        origin: wgpu::Origin3d { x: 0, y: 0, z: layer },
        ..texture.as_image_copy()
    };
    let layout = wgpu::TexelCopyBufferLayout {
        offset: 0,
        bytes_per_row: Some((bytes.len() / height as usize) as u32),
        rows_per_image: None,
    };
    gpu.queue().write_texture(to, &bytes, layout, wgpu::Extent3d { width, height, depth_or_array_layers: 1 });
}

/// Waits for a texture's texels.
pub fn texels(gpu: &Gpu, texture: &wgpu::Texture) -> Vec<[f64; 4]> {
    let mut ring =
        aquatint::frame::ReadRing::new(gpu, 1, aquatint::frame::ReadRing::bytes_of(texture)).unwrap();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    assert!(ring.push_texture(&mut encoder, texture, 0).unwrap());
    let submission = gpu.queue().submit([encoder.finish()]);
    gpu.wait(submission).unwrap();
    let read = loop {
        if let Some(read) = ring.poll().unwrap() {
            break read;
        }
    };
    let size = texture.format().block_copy_size(None).unwrap() as usize;
    read.bytes.chunks_exact(size).map(|texel| unpack(texture.format(), texel)).collect()
}

/// Records into an encoder of its own, submits and waits.
pub fn submit<T>(gpu: &Gpu, record: impl FnOnce(&mut wgpu::CommandEncoder) -> T) -> T {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let recorded = record(&mut encoder);
    let submission = gpu.queue().submit([encoder.finish()]);
    gpu.wait(submission).unwrap();
    recorded
}

pub fn buffer(gpu: &Gpu, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let (label, size, mapped_at_creation) = (None, bytes, false);
    gpu.device().create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
}

pub fn storage(gpu: &Gpu, values: &[f32]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let buffer = buffer(gpu, (4 * values.len() as u64).next_multiple_of(16), usage);
    gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(values));
    buffer
}

/// Waits for numbers of a buffer.
pub fn numbers(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, count: usize) -> Vec<f32> {
    let bytes = 4 * count as u64;
    let mut ring = aquatint::frame::ReadRing::new(gpu, 1, bytes).unwrap();
    submit(gpu, |encoder| assert!(ring.push_buffer(encoder, buffer, offset, bytes, 0).unwrap()));
    loop {
        if let Some(read) = ring.poll().unwrap() {
            return bytemuck::pod_collect_to_vec(&read.bytes);
        }
    }
}

/// Objects and bytes on a device, as wgpu counts them.
pub fn on_device(gpu: &Gpu) -> Vec<isize> {
    let hal = gpu.device().get_internal_counters().hal;
    let objects = [&hal.buffers, &hal.textures, &hal.texture_views, &hal.bind_groups, &hal.samplers];
    let kinds = [&hal.compute_pipelines, &hal.shader_modules, &hal.bind_group_layouts, &hal.query_sets];
    let memory = [&hal.buffer_memory, &hal.texture_memory];
    objects.iter().chain(&kinds).chain(&memory).map(|counter| counter.read()).collect()
}
