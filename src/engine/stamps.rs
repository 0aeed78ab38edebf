//! Launches with a timestamp before and after each.

use std::time::Instant;

use super::Step;
use crate::error::Result;
use crate::gpu::Gpu;

/// Launches in one submission.
pub(super) const MOST: usize = 256;

/// What the device's clock showed.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    /// Before and after each launch with its copies into textures, in ticks.
    pub ticks: Vec<[u64; 2]>,
    /// Nanoseconds of a tick.
    pub period: f64,
    /// From the submission to knowing of its end, by the wall clock, seconds.
    pub wall: f64,
}

impl Stamped {
    /// Time of each launch.
    pub fn seconds(&self) -> impl Iterator<Item = f64> {
        self.ticks.iter().map(|[begin, end]| end.saturating_sub(*begin) as f64 * self.period * 1e-9)
    }
}

/// Submits at most [`MOST`] launches and waits for them.
pub(super) fn submit<'a>(gpu: &Gpu, steps: impl IntoIterator<Item = &'a Step>) -> Result<Stamped> {
    let steps: Vec<&Step> = steps.into_iter().collect();
    // Mesa's software adapter, once something was rendered on it, writes a timestamp not where it stands but at the next
    // barrier, so that both of a launch's come after it. There launches lie between passes that have nothing but timestamps.
    let apart = gpu.info().device_type == wgpu::DeviceType::Cpu;
    let device = gpu.device();
    let count = 2 * (steps.len() + usize::from(apart)) as u32;
    let queries = gpu.checked(
        || "timestamps".to_owned(),
        || {
            device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            })
        },
    )?;
    let bytes = u64::from(count) * 8;
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    let resolved = gpu.buffer("timestamps", bytes, usage)?;
    let barrier = gpu.buffer("barrier", 4, wgpu::BufferUsages::COPY_DST)?;
    let stamped = |i: usize| wgpu::ComputePassDescriptor {
        label: None,
        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
            query_set: &queries,
            beginning_of_pass_write_index: Some(2 * i as u32),
            end_of_pass_write_index: Some(2 * i as u32 + 1),
        }),
    };
    let stand_apart = |encoder: &mut wgpu::CommandEncoder, i: usize| {
        drop(encoder.begin_compute_pass(&stamped(i)));
        // A second write waits for the first.
        encoder.clear_buffer(&barrier, 0, None);
    };
    // What was submitted before is none of the wall clock's business.
    gpu.settle()?;
    let start = Instant::now();
    let mut encoder = device.create_command_encoder(&Default::default());
    for (i, step) in steps.iter().enumerate() {
        if apart {
            stand_apart(&mut encoder, i);
        }
        step.fills.iter().for_each(|fill| fill.record(&mut encoder));
        let pass = if apart { Default::default() } else { stamped(i) };
        step.record(&mut encoder.begin_compute_pass(&pass));
    }
    if apart {
        stand_apart(&mut encoder, steps.len());
    }
    encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
    let submission = gpu.checked(|| "profile".to_owned(), || gpu.queue().submit([encoder.finish()]))?;
    gpu.wait(submission)?;
    let wall = start.elapsed().as_secs_f64();
    let raw = gpu.download(&[(&resolved, bytes)])?.remove(0);
    let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&raw);
    let of_passes: Vec<[u64; 2]> = ticks.chunks_exact(2).map(|t| [t[0], t[1]]).collect();
    Ok(Stamped {
        ticks: if apart {
            of_passes.windows(2).map(|passes| [passes[0][0], passes[1][0]]).collect()
        } else {
            of_passes
        },
        period: f64::from(gpu.queue().get_timestamp_period()),
        wall,
    })
}
