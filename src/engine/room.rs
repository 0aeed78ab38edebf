//! A room: where weights lie on their way to the device, see [`Loading`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};

use super::load::STORAGE;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::packed_weight::{PackedWeight, Packer};
use crate::parallel;
use crate::plan::{Buffer, BufferId, CUT, Loading, Part, Plan, Role, Upload};

/// Buffers that parts of the load take in turns.
pub(super) struct Room {
    /// Written by the host; the first lane itself where the device lets it.
    staging: wgpu::Buffer,
    lanes: Vec<wgpu::Buffer>,
}

/// Bytes that a thread copies at a time.
const PIECE: usize = 1 << 16;

/// Bytes of which rows of packed weights are multiples, as are the places where uploads are cut.
const UNIT: usize = CUT as usize;

/// A place that the host writes to, of a length that is known, as what goes to another thread must be.
type To<'a, const N: usize> = wgpu::WriteOnly<'a, [u8; N]>;

/// What a thread does of a part by itself.
enum Job<'a> {
    /// The bytes from a place of a tensor on, and zeros after its end.
    Copy { bytes: &'a [u8], at: usize, to: To<'a, PIECE> },
    /// Pieces of a weight that are made of the same numbers, from these bytes of it on.
    Pack { weight: &'a PackedWeight, pieces: Vec<(usize, Vec<To<'a, UNIT>>)> },
}

impl Job<'_> {
    fn write(self) {
        match self {
            Job::Copy { bytes, at, to } => copy(bytes, at, to.into()),
            Job::Pack { weight, pieces } => {
                let mut packer = Packer::new(weight);
                let row = 4 * weight.row();
                for (at, to) in pieces {
                    let first = at / row;
                    let packed = packer.pack(first..(at + to.len() * UNIT).div_ceil(row));
                    let packed: &[[u8; UNIT]] = bytemuck::cast_slice(packed);
                    let units = &packed[(at - first * row) / UNIT..];
                    to.into_iter().zip(units).for_each(|(to, unit)| to.write(*unit));
                }
            }
        }
    }
}

fn copy(bytes: &[u8], at: usize, mut to: wgpu::WriteOnly<[u8]>) {
    let [start, end] = [at, at + to.len()].map(|byte| byte.min(bytes.len()));
    to.slice(..end - start).copy_from_slice(&bytes[start..end]);
    to.slice(end - start..).fill(0);
}

/// What there is to do for some bytes of a buffer, from `at` on.
fn jobs<'a>(buffer: &'a Buffer, mut at: usize, to: wgpu::WriteOnly<'a, [u8]>) -> Vec<Job<'a>> {
    match &buffer.role {
        Role::Weight { tensor, .. } => {
            let (whole, last) = to.into_chunks::<PIECE>();
            let places = (at..).step_by(PIECE);
            copy(&tensor.bytes, at + whole.len() * PIECE, last);
            let job = |(to, at)| Job::Copy { bytes: &tensor.bytes, at, to };
            whole.into_iter().zip(places).map(job).collect()
        }
        Role::Packed { weight, .. } => {
            let (units, rest) = to.into_chunks::<UNIT>();
            debug_assert!(rest.is_empty() && at.is_multiple_of(UNIT));
            let mut units = units.into_iter().peekable();
            let mut by_number: BTreeMap<usize, Vec<_>> = BTreeMap::new();
            while units.peek().is_some() {
                let row = 4 * weight.row();
                let (end, number) = weight.piece(at / row);
                let to: Vec<_> = units.by_ref().take((end * row - at) / UNIT).collect();
                let next = at + to.len() * UNIT;
                by_number.entry(number).or_default().push((at, to));
                at = next;
            }
            by_number.into_values().map(|pieces| Job::Pack { weight, pieces }).collect()
        }
        _ => unreachable!("only weights are uploaded"),
    }
}

/// Tells the system that a weight will be read from its file soon.
pub(super) fn soon(plan: &Plan, upload: &Upload) {
    let Range { start, end } = upload.bytes;
    match &plan.buffers[upload.buffer].role {
        Role::Weight { tensor, .. } => {
            let [start, end] = [start, end].map(|byte| (byte as usize).min(tensor.bytes.len()));
            tensor.bytes.soon(start..end);
        }
        // Its rows are all over the file's.
        Role::Packed { weight, .. } if start == 0 => {
            let bytes = &weight.stored().bytes;
            bytes.soon(0..bytes.len());
        }
        _ => {}
    }
}

impl Room {
    pub fn new(gpu: &Gpu, plan: &Plan, loading: &Loading) -> Result<Room> {
        let host = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let usage = if plan.target.mappable { host | wgpu::BufferUsages::STORAGE } else { host };
        let staging = gpu.buffer("uploads", loading.lanes[0], usage)?;
        let mut lanes = Vec::new();
        for (i, &bytes) in loading.lanes.iter().enumerate() {
            lanes.push(match i {
                0 if plan.target.mappable => staging.clone(),
                _ => gpu.buffer(&format!("load {i}"), bytes, STORAGE)?,
            });
        }
        Ok(Room { staging, lanes })
    }

    /// The bytes of a buffer that passes through the room.
    pub fn binding(&self, plan: &Plan, part: &Part, id: BufferId) -> Option<wgpu::BufferBinding<'_>> {
        let (_, place) = part.passing.iter().find(|(passing, _)| *passing == id)?;
        let size = wgpu::BufferSize::new(plan.buffers[id].bytes);
        Some(wgpu::BufferBinding { buffer: &self.lanes[place.lane], offset: place.at, size })
    }

    /// Lets the host write what a part uploads. The device must be done with the part that had the room before.
    pub fn open(&self, gpu: &Gpu, part: &Part) -> Result<Option<wgpu::BufferViewMut>> {
        let Some(last) = part.uploads.last() else { return Ok(None) };
        let end = last.at + (last.bytes.end - last.bytes.start);
        let (done, mapped) = channel();
        let map = || {
            self.staging.map_async(wgpu::MapMode::Write, ..end, move |result| {
                let _ = done.send(result);
            });
        };
        gpu.checked(|| "mapping uploads".to_owned(), map)?;
        gpu.mapped(&mapped)?;
        Ok(Some(self.staging.get_mapped_range_mut(..end).map_err(|e| gpu.not_mapped(&e))?))
    }

    /// Gives the room to the device.
    pub fn close(&self, gpu: &Gpu, part: &Part) -> Result<()> {
        match part.uploads.is_empty() {
            true => Ok(()),
            false => gpu.checked(|| "uploads".to_owned(), || self.staging.unmap()),
        }
    }

    /// Records the way from where the host wrote on to where the buffers are.
    pub fn copy<'a>(
        &self,
        plan: &Plan,
        part: &Part,
        own: impl Fn(BufferId) -> &'a wgpu::Buffer,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        for upload in &part.uploads {
            let (id, at, bytes) = (upload.buffer, upload.at, upload.bytes.end - upload.bytes.start);
            match part.passing.iter().any(|(passing, _)| *passing == id) {
                true if plan.target.mappable => {}
                true => encoder.copy_buffer_to_buffer(&self.staging, at, &self.lanes[0], at, bytes),
                false => encoder.copy_buffer_to_buffer(&self.staging, at, own(id), upload.bytes.start, bytes),
            }
        }
    }
}

/// Writes what a part uploads into its open room, on all cores: most of the time goes into fetching pages of the file.
pub(super) fn write(plan: &Plan, part: &Part, view: Option<wgpu::BufferViewMut>) {
    let Some(mut view) = view else { return };
    let mut rest = view.slice(..);
    let mut written = 0;
    let mut all = Vec::new();
    for upload in &part.uploads {
        let (start, end) = (upload.bytes.start as usize, upload.bytes.end as usize);
        let (_, from) = rest.split_at(upload.at as usize - written);
        let (to, after) = from.split_at(end - start);
        (rest, written) = (after, upload.at as usize + end - start);
        all.extend(
            jobs(&plan.buffers[upload.buffer], start, to).into_iter().map(|job| Mutex::new(Some(job))),
        );
    }
    parallel::map(&all, |job| {
        let job = job.lock().unwrap_or_else(PoisonError::into_inner).take();
        job.expect("each is done once").write();
    });
}
