//! What one vec4 costs from each kind of memory, and a multiply-add and a store
//! beside it: the numbers that kernels are designed by. They differ more between
//! devices than anything else: on a software adapter a storage buffer may cost
//! ten times a texture.
//!
//! ```text
//! cargo bench --bench memory
//! ```
//!
//! A figure is the time of the whole device over all threads, for one operation.

use std::time::Instant;

use aquatint::Gpu;

/// Threads, each of which does TURNS times what is measured.
const THREADS: u32 = 1 << 16;
const TURNS: u32 = 64;
const WORKGROUP: u32 = 64;

/// What stands around the measured code. Everything is touched, so that all cases bind the same.
const FRAME: &str = "
@group(0) @binding(0) var<storage, read> storage_: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> uniform_: array<vec4<f32>, 1024>;
@group(0) @binding(2) var texture_: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> dst: array<vec4<f32>>;
var<workgroup> shared_: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let thread = id.x;
    shared_[local] = storage_[0] + uniform_[0] + textureLoad(texture_, vec2<u32>(0u), 0);
    workgroupBarrier();
    var private_: array<vec4<f32>, 16>;
    for (var k = 0u; k < 16u; k++) { private_[k] = shared_[0] + f32(k + thread); }
    var sum = vec4<f32>(f32(thread));
    for (var k = 0u; k < TURNS; k++) { BODY }
    dst[thread] = sum + private_[thread & 15u];
}
";

const CASES: &[(&str, &str)] = &[
    ("nothing", "sum.x += f32(k);"),
    ("multiply-add", "sum.x += f32(k); sum = sum * sum + 0.5;"),
    ("storage, neighbours", "sum.x += f32(k); sum += storage_[(thread ^ k) & 1023u];"),
    ("storage, the same in all threads", "sum.x += f32(k); sum += storage_[k];"),
    ("uniform, neighbours", "sum.x += f32(k); sum += uniform_[(thread ^ k) & 1023u];"),
    ("uniform, the same in all threads", "sum.x += f32(k); sum += uniform_[k];"),
    (
        "texture, neighbours",
        "sum.x += f32(k); sum += textureLoad(texture_, vec2<u32>((thread ^ k) & 1023u, 0u), 0);",
    ),
    (
        "texture, the same in all threads",
        "sum.x += f32(k); sum += textureLoad(texture_, vec2<u32>(k, 0u), 0);",
    ),
    ("workgroup memory", "sum.x += f32(k); sum += shared_[(local ^ k) & (WORKGROUP - 1u)];"),
    ("private array", "sum.x += f32(k); sum += private_[(thread ^ k) & 15u];"),
    ("store", "sum.x += f32(k); dst[thread ^ (k & 7u)] = sum;"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::headless()?;
    let (device, queue) = (gpu.device(), gpu.queue());
    let buffer = |size: u64, usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let source = buffer(1024 * 16, wgpu::BufferUsages::STORAGE);
    let uniform = buffer(1024 * 16, wgpu::BufferUsages::UNIFORM);
    let target = buffer(u64::from(THREADS) * 16, wgpu::BufferUsages::STORAGE);
    let texture = device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width: 1024, height: 1, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba32Float,
        usage: wgpu::TextureUsages::TEXTURE_BINDING,
        view_formats: &[],
    });
    let view = texture.create_view(&Default::default());

    println!("device: {}", gpu.target().name);
    println!("{:34} {:>10}", "a vec4<f32>", "ps each");
    let mut nothing = 0.0;
    for &(name, body) in CASES {
        let text = FRAME
            .replace("BODY", body)
            .replace("TURNS", &format!("{TURNS}u"))
            .replace("WORKGROUP", &format!("{WORKGROUP}u"));
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let resources = [
            source.as_entire_binding(),
            uniform.as_entire_binding(),
            wgpu::BindingResource::TextureView(&view),
            target.as_entire_binding(),
        ];
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });

        let mut best = f64::MAX;
        for _ in 0..5 {
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(THREADS / WORKGROUP, 1, 1);
            drop(pass);
            let start = Instant::now();
            gpu.wait(queue.submit([encoder.finish()]))?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        if name == "nothing" {
            nothing = best;
            continue;
        }
        let each = (best - nothing) / f64::from(THREADS) / f64::from(TURNS);
        println!("{name:34} {:>10.1}", each * 1e12);
    }
    Ok(())
}
