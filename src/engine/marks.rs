//! Two timestamps: before the first launch of some work and after its last.

use crate::error::Result;
use crate::gpu::Gpu;

/// Room for both.
pub(super) struct Marks {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

const BYTES: u64 = 2 * 8;

impl Marks {
    /// For a device with timestamps.
    pub fn new(gpu: &Gpu) -> Result<Marks> {
        let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("marks"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Marks { queries, resolved: gpu.buffer("marks", BYTES, usage)? })
    }

    /// What a pass writes that begins or ends the work; the marks are the same where it does both.
    pub fn writes<'a>(
        begin: Option<&'a Marks>,
        end: Option<&'a Marks>,
    ) -> Option<wgpu::ComputePassTimestampWrites<'a>> {
        let marks = begin.or(end)?;
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &marks.queries,
            beginning_of_pass_write_index: begin.map(|_| 0),
            end_of_pass_write_index: end.map(|_| 1),
        })
    }

    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
    }

    /// What lies between them, once the work is done.
    pub fn seconds(&self, gpu: &Gpu) -> Result<f64> {
        let raw = gpu.download(&[(&self.resolved, BYTES)])?.remove(0);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&raw);
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * f64::from(gpu.queue().get_timestamp_period()) * 1e-9)
    }
}
