//! The time of slices by the device's own clock.

use aquatint::frame::ReadRing;
use aquatint::{Gpu, Result, wgpu};

/// Two timestamps round each slice, which come back some frames later.
pub struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    ring: ReadRing,
    /// Seconds of a tick.
    tick: f64,
    seconds: f64,
}

/// Of two timestamps.
const BYTES: u64 = 2 * 8;

/// Slices that may be under way.
const MOST: usize = 4;

impl Clock {
    /// None on a device without timestamps.
    pub fn new(gpu: &Gpu) -> Result<Option<Clock>> {
        if !gpu.has_timestamps() {
            return Ok(None);
        }
        let device = gpu.device();
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("slice"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("slice"),
            size: BYTES,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let tick = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
        Ok(Some(Clock { queries, resolved, ring: ReadRing::new(gpu, MOST, BYTES)?, tick, seconds: 0.0 }))
    }

    /// Forgets what was measured.
    pub fn reset(&mut self) {
        self.seconds = 0.0;
    }

    /// Before a slice.
    pub fn begin(&self, encoder: &mut wgpu::CommandEncoder) {
        self.mark(encoder, 0);
    }

    /// After it.
    pub fn end(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.mark(encoder, 1);
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        self.ring.push_buffer(encoder, &self.resolved, 0, BYTES, 0)?;
        Ok(())
    }

    /// Writes a timestamp, which WebGPU lets passes do alone.
    fn mark(&self, encoder: &mut wgpu::CommandEncoder, index: u32) {
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: None,
            end_of_pass_write_index: Some(index),
        };
        encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) });
    }

    /// Takes what came back.
    pub fn poll(&mut self) -> Result<()> {
        while let Some(read) = self.ring.poll()? {
            let stamp =
                |at: usize| u64::from_le_bytes(read.bytes[at..at + 8].try_into().expect("eight bytes"));
            self.seconds += stamp(8).saturating_sub(stamp(0)) as f64 * self.tick;
        }
        Ok(())
    }

    /// Whether as many slices are under way as may be: the device is behind.
    pub fn is_behind(&self) -> bool {
        self.ring.len() == MOST
    }

    /// What all slices took, in seconds, once the last is back.
    pub fn seconds(&self) -> Option<f64> {
        self.ring.is_empty().then_some(self.seconds)
    }
}
