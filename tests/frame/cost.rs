//! What recording costs the CPU, beside the least that wgpu takes for as many launches.

use std::time::Instant;

use aquatint::wgpu;
use aquatint::{DType, Graph, Network, Result};

use crate::harness::*;

/// As many launches as `record` makes, each with a pipeline and a bind group of its own, as wgpu's users write them.
struct Bare {
    pipelines: Vec<wgpu::ComputePipeline>,
    groups: Vec<wgpu::BindGroup>,
}

impl Bare {
    fn new(gpu: &aquatint::Gpu, launches: usize) -> Bare {
        let source = "struct P { n: u32 }
            @group(0) @binding(0) var<storage, read> a: array<f32>;
            @group(0) @binding(1) var<storage, read_write> b: array<f32>;
            @group(0) @binding(2) var<uniform> p: P;
            @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                if (id.x < p.n) { b[id.x] = a[id.x]; }
            }";
        let device = gpu.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipelines: Vec<_> = (0..2)
            .map(|_| {
                device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: None,
                    layout: None,
                    module: &module,
                    entry_point: None,
                    compilation_options: Default::default(),
                    cache: None,
                })
            })
            .collect();
        let buffers = [0, 1].map(|_| storage(gpu, &[0.0; 1024]));
        let size = buffer(gpu, 16, wgpu::BufferUsages::UNIFORM);
        let groups = (0..launches).map(|i| {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipelines[i % 2].get_bind_group_layout(0),
                entries: &[
                    wgpu::BindGroupEntry { binding: 0, resource: buffers[i % 2].as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 1, resource: buffers[(i + 1) % 2].as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 2, resource: size.as_entire_binding() },
                ],
            })
        });
        Bare { groups: groups.collect(), pipelines }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (i, group) in self.groups.iter().enumerate() {
            pass.set_pipeline(&self.pipelines[i % 2]);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(1, 1, 1);
        }
    }
}

#[test]
fn recording_costs_what_wgpu_costs() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    // A chain that no pass can fuse: tensors of other sizes in turn.
    let mut g = Graph::new();
    let mut x = g.input("x", [1, 8, 8, 4], DType::F32);
    for i in 0..100 {
        x = convolved(&mut g, x, [4, 4], i);
    }
    g.output("y", x);
    let network = Network::new(gpu, &g)?;
    let bindings = network.bind(&[])?;
    let launches = bindings.launches();
    assert!(launches >= 100);
    let bare = Bare::new(gpu, launches);
    // Microseconds of recording and closing an encoder, per hundred launches.
    let time = |record: &dyn Fn(&mut wgpu::CommandEncoder)| {
        let start = Instant::now();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        record(&mut encoder);
        let commands = encoder.finish();
        let taken = start.elapsed().as_secs_f64();
        gpu.wait(gpu.queue().submit([commands])).unwrap();
        taken * 1e6 * 100.0 / launches as f64
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        ours.push(time(&|encoder| bindings.record(encoder).unwrap()));
        theirs.push(time(&|encoder| bare.record(encoder)));
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{launches} launches: {ours:.1} µs per 100, a bare loop of wgpu's {theirs:.1} µs, ratio {:.2}",
        ours / theirs
    );
    // Loose: tests run beside one another. Twice as much would be a mistake of ours.
    assert!(ours <= 2.0 * theirs + 50.0, "{ours} µs per 100 launches, a bare loop takes {theirs}");
    Ok(())
}
