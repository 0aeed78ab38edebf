//! A kernel that is launched by itself, outside of any network: what measures the device.

use std::time::Instant;

use super::stamps::{self, Stamped};
use super::{Fill, Step};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::shader::{Kernel, Param, Shader};

/// A kernel with its buffers and parameters.
pub(crate) struct Lone {
    shader: Shader,
    step: Step,
    uniforms: wgpu::Buffer,
}

/// A buffer that kernels and copies read and write; of no known content.
pub(crate) fn buffer(gpu: &Gpu, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    gpu.buffer(label, bytes, usage)
}

impl Lone {
    /// `buffers` by the names of the WGSL; `groups` workgroups, spread over two dimensions where one is too short.
    ///
    /// # Errors
    /// [`Error::Limit`] where a workgroup is larger, or uses more memory, than the device allows.
    pub fn new(
        gpu: &Gpu,
        kernel: &Kernel,
        buffers: &[(&str, &wgpu::Buffer)],
        params: &[(&'static str, Param)],
        groups: u64,
    ) -> Result<Lone> {
        let shader = Shader::new(kernel)?;
        let target = gpu.target();
        target.check_kernel(&shader)?;
        let pipeline = gpu.pipeline(&shader)?;
        let bytes = shader.pack_params(params)?;
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer("parameters", bytes.len() as u64, usage)?;
        gpu.queue().write_buffer(&uniforms, 0, &bytes);
        let mut entries = Vec::new();
        for binding in &shader.bindings {
            let given = buffers.iter().find(|(name, _)| *name == binding.name);
            let (_, buffer) = given.ok_or_else(|| Error::Shader {
                kernel: kernel.name.to_owned(),
                message: format!("buffer {} is not given", binding.name),
            })?;
            let resource = buffer.as_entire_binding();
            entries.push(wgpu::BindGroupEntry { binding: binding.binding, resource });
        }
        entries.extend(
            shader
                .params_binding
                .map(|binding| wgpu::BindGroupEntry { binding, resource: uniforms.as_entire_binding() }),
        );
        let bind_group =
            gpu.checked(|| format!("binding {}", kernel.name), || gpu.bind_group(&pipeline, &entries))?;
        let step = Step {
            pipeline,
            bind_group,
            groups: crate::lower::fold(groups, target.max_workgroups.into()),
            fills: Vec::<Fill>::new(),
        };
        Ok(Lone { shader, step, uniforms })
    }

    /// Other parameters for the launches that follow.
    pub fn set(&self, gpu: &Gpu, params: &[(&'static str, Param)]) -> Result<()> {
        gpu.queue().write_buffer(&self.uniforms, 0, &self.shader.pack_params(params)?);
        Ok(())
    }

    /// `launches` launches in one submission; seconds until they are known to be done, by the wall clock.
    pub fn time(&self, gpu: &Gpu, launches: u32) -> Result<f64> {
        timed(gpu, |encoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            (0..launches).for_each(|_| self.step.record(&mut pass));
        })
    }

    /// A few launches in one submission, each between timestamps.
    pub fn stamped(&self, gpu: &Gpu, launches: usize) -> Result<Stamped> {
        stamps::submit(gpu, std::iter::repeat_n(&self.step, launches))
    }
}

/// Copies the whole of a buffer `times` times in one submission; seconds until that is known to be done.
pub(crate) fn time_copy(gpu: &Gpu, from: &wgpu::Buffer, to: &wgpu::Buffer, times: u32) -> Result<f64> {
    timed(gpu, |encoder| {
        (0..times).for_each(|_| encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size()));
    })
}

fn timed(gpu: &Gpu, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<f64> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    let commands = encoder.finish();
    // Parameters that were written are on their way with this one.
    gpu.settle()?;
    let start = Instant::now();
    let submission = gpu.checked(|| "measuring".to_owned(), || gpu.queue().submit([commands]))?;
    gpu.wait(submission)?;
    Ok(start.elapsed().as_secs_f64())
}
