//! A room: where weights lie on their way to the device, see [`Loading`].

use std::ops::Range;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};

use super::load::STORAGE;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops::packed_weight::PackedWeight;
use crate::parallel;
use crate::plan::{Buffer, BufferId, Loading, Part, Plan, Role, Upload};

/// Buffers that parts of the load take in turns.
pub(super) struct Room {
    /// Written by the host; the first lane itself where the device lets it.
    staging: wgpu::Buffer,
    lanes: Vec<wgpu::Buffer>,
}

/// Bytes that a thread writes at a time.
const PIECE: usize = 1 << 16;

/// What a buffer gets from the host.
#[derive(Clone, Copy)]
enum Contents<'a> {
    /// These bytes, and zeros up to the size of the buffer.
    Plain(&'a [u8]),
    Packed(&'a PackedWeight),
}

impl<'a> Contents<'a> {
    fn of(buffer: &'a Buffer) -> Self {
        match &buffer.role {
            Role::Weight { tensor, .. } => Contents::Plain(&tensor.bytes),
            Role::Packed { weight, .. } => Contents::Packed(weight),
            _ => unreachable!("only weights are uploaded"),
        }
    }

    fn write(self, bytes: Range<usize>, mut to: wgpu::WriteOnly<[u8]>) {
        match self {
            Contents::Plain(all) => {
                let [start, end] = [bytes.start, bytes.end].map(|byte| byte.min(all.len()));
                to.slice(..end - start).copy_from_slice(&all[start..end]);
                to.slice(end - start..).fill(0);
            }
            Contents::Packed(weight) => {
                let row = 4 * weight.row();
                let rows = bytes.start / row..bytes.end.div_ceil(row);
                let from = bytes.start - rows.start * row;
                let packed = weight.pack(rows);
                to.copy_from_slice(&bytemuck::cast_slice(&packed)[from..from + bytes.len()]);
            }
        }
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
    let mut pieces = Vec::new();
    for upload in &part.uploads {
        let contents = Contents::of(&plan.buffers[upload.buffer]);
        let (start, end) = (upload.bytes.start as usize, upload.bytes.end as usize);
        let (_, from) = rest.split_at(upload.at as usize - written);
        let (to, after) = from.split_at(end - start);
        (rest, written) = (after, upload.at as usize + end - start);
        let (whole, last) = to.into_chunks::<PIECE>();
        let left = end - last.len();
        let starts = (start..).step_by(PIECE);
        pieces.extend(whole.into_iter().zip(starts).map(|(to, at)| (Mutex::new(Some(to)), at, contents)));
        contents.write(left..end, last);
    }
    parallel::map(&pieces, |(to, at, contents)| {
        let to = to.lock().unwrap_or_else(PoisonError::into_inner).take().expect("each is written once");
        contents.write(*at..at + PIECE, to.into());
    });
}
