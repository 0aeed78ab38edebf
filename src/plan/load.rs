//! In which parts weights go to the device, and what memory that takes.

use std::ops::Range;

use super::{BufferId, Fill, NetworkMemory, Plan};

/// Bindings may begin at multiples of this many bytes on every device.
const ALIGNMENT: u64 = 256;

/// Weights are cut at multiples of this many bytes: copies and mapped ranges are of whole words, rows that the host packs of
/// quads of input by quads of output channels.
pub(crate) const CUT: u64 = 64;

/// The load of a network: parts that take turns in two *rooms*, so that one is filled while the device works on the
/// other. A room has *lanes*, buffers of which the first takes what comes from the host.
pub(crate) struct Loading {
    pub parts: Vec<Part>,
    /// Bytes of each lane of a room.
    pub lanes: Vec<u64>,
}

/// What is done between two waits.
#[derive(Default)]
pub(crate) struct Part {
    /// Launches of [`Plan::load`].
    pub launches: Range<usize>,
    /// What comes from the host, in the first lane.
    pub uploads: Vec<Upload>,
    /// Buffers that only this part needs, and where in the room they are.
    pub passing: Vec<(BufferId, Place)>,
    /// Other buffers that no part before it has touched.
    pub made: Vec<BufferId>,
    /// Of those that only the load needs, the ones that no later part touches.
    pub dropped: Vec<BufferId>,
    /// Textures whose source is there when this part is done.
    pub fills: Vec<Fill>,
}

/// Bytes of a weight on their way: to stay in the room if the buffer is there, or else to go on to the buffer.
#[derive(Clone)]
pub(crate) struct Upload {
    pub buffer: BufferId,
    /// Which of its bytes.
    pub bytes: Range<u64>,
    /// Where in the first lane.
    pub at: u64,
}

/// A place in a room.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub lane: usize,
    pub at: u64,
}

impl Loading {
    /// One room is enough for one part.
    pub fn rooms(&self) -> usize {
        self.parts.len().min(2)
    }

    /// Puts a buffer, or some bytes of one, behind what is in a lane of the part.
    fn take(lanes: &mut Vec<u64>, lane: usize, bytes: u64) -> u64 {
        lanes.resize(lanes.len().max(lane + 1), 0);
        let at = lanes[lane];
        lanes[lane] = (at + bytes).next_multiple_of(ALIGNMENT);
        at
    }
}

impl Plan {
    /// The parts of the load: each uploads, makes and drops again at most [`Plan::load_chunk`] bytes,
    /// or what one launch takes, if that is more.
    pub(crate) fn loading(&self) -> Loading {
        let cuts = self.load_cuts();
        let mut touched: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (i, launches) in cuts.iter().enumerate() {
            for &id in self.load[launches.clone()].iter().flat_map(|d| &d.buffers) {
                touched[id].get_or_insert((i, i)).1 = i;
            }
        }
        let shown: Vec<BufferId> = self.load_fills.iter().map(|fill| fill.buffer).collect();
        let passes = |id: BufferId| {
            !self.buffers[id].resident()
                && match touched[id] {
                    Some((first, last)) => first == last,
                    None => shown.contains(&id),
                }
        };
        let mut parts: Vec<Part> = Vec::new();
        for (i, launches) in cuts.iter().enumerate() {
            let mut ids: Vec<BufferId> = Vec::new();
            for &id in self.load[launches.clone()].iter().flat_map(|d| &d.buffers) {
                if touched[id].is_some_and(|(first, _)| first == i) && !ids.contains(&id) {
                    ids.push(id);
                }
            }
            let (here, own): (Vec<_>, Vec<_>) = ids.into_iter().partition(|&id| passes(id));
            let before = parts.len();
            self.upload(&mut parts, before, &own, passes);
            let mut part = Part { launches: launches.clone(), ..Part::default() };
            part.uploads.extend(here.into_iter().filter_map(|id| self.whole(id)));
            // What stays is uploaded along with it if there is little of it.
            if parts.len() == before + 1
                && self.bytes_of(&parts[before]) + self.bytes_of(&part) <= self.load_chunk
            {
                part.uploads.extend(parts.remove(before).uploads);
            }
            parts.push(part);
        }
        // What no launch of the load touches: weights that are read, or shown, as they are in the file.
        let ports = self.ports();
        let read = |id: BufferId| self.buffers[id].resident() && !ports[id] || shown.contains(&id);
        let rest: Vec<BufferId> =
            (0..self.buffers.len()).filter(|&id| touched[id].is_none() && read(id)).collect();
        let from = parts.len();
        self.upload(&mut parts, from, &rest, passes);
        self.settle(parts, passes)
    }

    fn whole(&self, id: BufferId) -> Option<Upload> {
        let buffer = &self.buffers[id];
        buffer.is_weight().then_some(Upload { buffer: id, bytes: 0..buffer.bytes, at: 0 })
    }

    fn bytes_of(&self, part: &Part) -> u64 {
        part.uploads.iter().map(|upload| upload.bytes.end - upload.bytes.start).sum()
    }

    /// Adds weights to the parts from `from` on, which only upload: in pieces, but for those that stay in the room.
    fn upload(
        &self,
        parts: &mut Vec<Part>,
        from: usize,
        ids: &[BufferId],
        passes: impl Fn(BufferId) -> bool,
    ) {
        let words = |bytes: u64| bytes / CUT * CUT;
        let most = words(self.load_chunk).max(CUT);
        for mut rest in ids.iter().filter_map(|&id| self.whole(id)) {
            while !rest.bytes.is_empty() {
                let left = rest.bytes.end - rest.bytes.start;
                let whole = passes(rest.buffer);
                let used = parts[from..].last().map_or(most, |part| self.bytes_of(part));
                let mut room = words(most.saturating_sub(used));
                if room == 0 || whole && left > room {
                    let at = parts.last().map_or(0, |part| part.launches.end);
                    parts.push(Part { launches: at..at, ..Part::default() });
                    room = most;
                }
                let end = if whole { rest.bytes.end } else { rest.bytes.start + left.min(room) };
                let bytes = std::mem::replace(&mut rest.bytes.start, end)..end;
                let part = parts.last_mut().expect("one was added if there was none");
                part.uploads.push(Upload { bytes, ..rest.clone() });
            }
        }
    }

    /// Gives everything its place, and finds when buffers come and go and textures can be filled.
    fn settle(&self, mut parts: Vec<Part>, passes: impl Fn(BufferId) -> bool) -> Loading {
        let mut lanes = vec![0];
        let mut last = vec![None; self.buffers.len()];
        let mut made = self.ports();
        for (i, part) in parts.iter_mut().enumerate() {
            let mut used = vec![0];
            let mut lane_of: Vec<(BufferId, usize)> = Vec::new();
            for upload in &mut part.uploads {
                upload.at = Loading::take(&mut used, 0, upload.bytes.end - upload.bytes.start);
                if passes(upload.buffer) {
                    part.passing.push((upload.buffer, Place { lane: 0, at: upload.at }));
                    lane_of.push((upload.buffer, 0));
                }
            }
            for launch in &self.load[part.launches.clone()] {
                for &id in &launch.buffers {
                    if !passes(id) || lane_of.iter().any(|(known, _)| *known == id) {
                        continue;
                    }
                    // A buffer cannot be read and written by the same launch.
                    let beside = |lane: usize| {
                        let with = |d: &&super::Dispatch| d.buffers.contains(&id);
                        let mut others =
                            self.load[part.launches.clone()].iter().filter(with).flat_map(|d| &d.buffers);
                        others.any(|other| lane_of.contains(&(*other, lane)))
                    };
                    let lane = (1..).find(|&lane| !beside(lane)).expect("there are more lanes than buffers");
                    let at = Loading::take(&mut used, lane, self.buffers[id].bytes);
                    part.passing.push((id, Place { lane, at }));
                    lane_of.push((id, lane));
                }
            }
            let launched = self.load[part.launches.clone()].iter().flat_map(|d| &d.buffers).copied();
            for id in part.uploads.iter().map(|upload| upload.buffer).chain(launched) {
                last[id] = Some(i);
                if !passes(id) && !std::mem::replace(&mut made[id], true) {
                    part.made.push(id);
                }
            }
            lanes.resize(lanes.len().max(used.len()), 0);
            lanes.iter_mut().zip(used).for_each(|(lane, used)| *lane = used.max(*lane));
        }
        for &fill in &self.load_fills {
            parts[last[fill.buffer].expect("made by the load")].fills.push(fill);
        }
        for (id, buffer) in self.buffers.iter().enumerate() {
            if let Some(last) = last[id].filter(|_| !buffer.resident() && !passes(id)) {
                parts[last].dropped.push(id);
            }
        }
        Loading { parts, lanes }
    }

    /// Launches of the load such that what each range uploads, or makes and drops again, is within the limit.
    fn load_cuts(&self) -> Vec<Range<usize>> {
        let mut cuts = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        let mut counted = vec![usize::MAX; self.buffers.len()];
        let mut more = |i: usize, start: usize| -> u64 {
            let mut sum = 0;
            for &id in &self.load[i].buffers {
                if counted[id] != start && (self.buffers[id].is_weight() || !self.buffers[id].resident()) {
                    counted[id] = start;
                    sum += self.buffers[id].bytes;
                }
            }
            sum
        };
        for i in 0..self.load.len() {
            let passing = more(i, start);
            if bytes + passing > self.load_chunk && i > start {
                cuts.push(start..i);
                (start, bytes) = (i, more(i, i));
            } else {
                bytes += passing;
            }
        }
        if start < self.load.len() {
            cuts.push(start..self.load.len());
        }
        cuts
    }

    /// Bytes of one room, see [`Loading`].
    fn room_bytes(&self, loading: &Loading) -> u64 {
        // Where the host cannot write into the first lane, it writes into another buffer, from which that is copied.
        let staging = if self.target.mappable { 0 } else { loading.lanes[0] };
        loading.lanes.iter().sum::<u64>() + staging
    }

    /// The most bytes that the network ever holds: while loading, two parts of the weights lie as
    /// they are in the file beside what is made of them.
    pub fn peak_bytes(&self) -> u64 {
        let peak = self.peak_from(self.texture_bytes() + self.port_bytes(), |_| true);
        peak.max(self.resident_bytes())
    }

    /// The most bytes that are held while loading, where so many are held already and buffers that are not `new` are
    /// among them.
    pub(super) fn peak_from(&self, mut held: u64, new: impl Fn(BufferId) -> bool) -> u64 {
        let loading = self.loading();
        let bytes = |ids: &[BufferId]| {
            ids.iter().filter(|id| new(**id)).map(|&id| self.buffers[id].bytes).sum::<u64>()
        };
        let uniforms = |part: &Part| self.uniform_bytes(&self.load[part.launches.clone()]);
        held += loading.rooms() as u64 * self.room_bytes(&loading);
        let mut peak = held;
        for (i, part) in loading.parts.iter().enumerate() {
            if let Some(done) = i.checked_sub(2).map(|i| &loading.parts[i]) {
                held -= bytes(&done.dropped) + uniforms(done);
            }
            held += bytes(&part.made) + uniforms(part);
            peak = peak.max(held);
        }
        peak
    }

    /// What the network will take, in one.
    pub fn memory(&self) -> NetworkMemory {
        NetworkMemory { held: self.resident_bytes(), peak: self.peak_bytes(), ports: self.port_bytes() }
    }
}
