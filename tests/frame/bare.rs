//! A bare loop of wgpu's, for what recording costs beside it: in a test and in `benches/frame.rs`.

use aquatint::wgpu;

/// As many launches as `record` makes, each with a pipeline and a bind group of its own, as wgpu's users write them.
pub struct Bare {
    pipelines: Vec<wgpu::ComputePipeline>,
    groups: Vec<wgpu::BindGroup>,
}

impl Bare {
    pub fn new(gpu: &aquatint::Gpu, launches: usize) -> Bare {
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
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let buffers = [0, 1].map(|_| buffer(4096, wgpu::BufferUsages::STORAGE));
        let size = buffer(16, wgpu::BufferUsages::UNIFORM);
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

    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (i, group) in self.groups.iter().enumerate() {
            pass.set_pipeline(&self.pipelines[i % 2]);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(1, 1, 1);
        }
    }
}
