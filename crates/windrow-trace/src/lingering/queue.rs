//! The queue of lingering traces: completed traces that wait for stragglers, packed into large
//! chunks in the order in which they are due.
//!
//! Owns their bytes, the order, and unpacking the few that a straggler comes for. Nearly all traces
//! in memory are lingering and are not touched until they are sealed. Packed they need little more
//! than their records, are read sequentially, and leave the CPU cache to the open traces.

use std::collections::VecDeque;

use super::fingerprint_index::FingerprintIndex;
use crate::document::content::JoinedView;
use crate::open::joined::PackedJoined;
use crate::open::lines::PackedLines;
use crate::open::trace::{OpenRecords, OpenTrace, TracePart, TraceParts};
use crate::source::SourceId;
use crate::trace_id::{OwnedTraceId, TraceId};

/// Size of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Larger traces are not packed: copying them costs more than it saves.
const MAX_TRACE_BYTES: usize = 64 << 10;
/// Number of empty chunks kept for reuse.
const MAX_SPARE_CHUNKS: usize = 4;
/// Bytes of a packed part: source and total, a `u32` each.
const PART_BYTES: usize = 8;
/// Bytes per trace in the index, with its vacant entries.
const INDEX_BYTES_PER_TRACE: usize = 8;

/// FIFO queue of packed traces.
#[derive(Debug)]
pub(crate) struct LingerQueue {
    /// In the order in which their traces are due. The last one is being filled.
    chunks: VecDeque<PackedChunk>,
    index: FingerprintIndex,
    spare: Vec<PackedChunk>,
    len: usize,
    bytes: usize,
}

#[derive(Debug)]
struct PackedChunk {
    bytes: Vec<u8>,
    /// Sequence number of the first trace. Numbers wrap around.
    first: u32,
    /// In the order in which they are due. `None` where a trace was removed.
    slots: Vec<Option<PackedTrace>>,
    /// The first this many of `slots` are `None`.
    vacated: usize,
}

/// A packed trace. Its chunk holds its id, parts and records.
#[derive(Clone, Copy, Debug)]
struct PackedTrace {
    due: i64,
    opened_at: i64,
    hash: u64,
    at: u32,
    /// Lengths of the id and of all bytes, from `at` on.
    id_bytes: u32,
    bytes: u32,
    parts: u32,
    records: PackedRecords,
}

#[derive(Clone, Copy, Debug)]
enum PackedRecords {
    Joined(PackedJoined),
    Lines(PackedLines),
}

/// A trace in its chunk: removed from the queue, or only looked at.
#[derive(Debug)]
pub(crate) struct PoppedTrace<'a> {
    packed: PackedTrace,
    /// Its bytes in the chunk.
    bytes: &'a [u8],
}

/// The records of a removed trace.
pub(crate) enum PoppedRecords<'a> {
    Joined(JoinedView<'a>),
    /// A line buffer.
    Lines(&'a [u8]),
}

impl LingerQueue {
    pub(crate) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            index: FingerprintIndex::default(),
            spare: Vec::new(),
            len: 0,
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all traces, with their overhead.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the trace is small enough for the queue. A larger one stays open until it is due.
    #[inline]
    pub(crate) fn accepts(id: TraceId<'_>, trace: &OpenTrace) -> bool {
        Self::size(id, trace) <= MAX_TRACE_BYTES
    }

    #[inline]
    fn size(id: TraceId<'_>, trace: &OpenTrace) -> usize {
        id.bytes().len() + trace.parts.len() * PART_BYTES + trace.record_bytes()
    }

    /// Packs a trace, and returns its record buffer. `due` must not be before that of the last
    /// trace.
    pub(crate) fn push(&mut self, id: TraceId<'_>, trace: &mut OpenTrace, due: i64) -> Vec<u8> {
        let size = Self::size(id, trace);
        let chunk = self.chunk(size);
        let out = &mut chunk.bytes;
        let at = out.len();
        out.extend_from_slice(id.bytes());
        for part in &trace.parts {
            let mut bytes = [0; PART_BYTES];
            bytes[..4].copy_from_slice(&part.source.0.to_le_bytes());
            bytes[4..].copy_from_slice(&part.total.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        let (records, buffer) = match &mut trace.records {
            OpenRecords::Joined(joined) => {
                let (packed, buffer) = joined.pack(out);
                (PackedRecords::Joined(packed), buffer)
            }
            OpenRecords::Lines(lines) => {
                let (packed, buffer) = lines.pack(out);
                (PackedRecords::Lines(packed), buffer)
            }
        };
        let packed = PackedTrace {
            due,
            opened_at: trace.opened_at,
            hash: id.hash(),
            at: at as u32,
            id_bytes: id.bytes().len() as u32,
            bytes: (out.len() - at) as u32,
            parts: trace.parts.len() as u32,
            records,
        };
        let (number, memory_bytes) = (chunk.end(), packed.memory_bytes());
        chunk.slots.push(Some(packed));
        self.len += 1;
        self.bytes += memory_bytes;
        self.add_to_index(id.hash(), number);
        buffer
    }

    /// The chunk to fill, with space for `size` bytes.
    fn chunk(&mut self, size: usize) -> &mut PackedChunk {
        if let Some(shrunk) = self.chunks.back_mut().filter(|chunk| chunk.bytes.capacity() == 0) {
            shrunk.bytes.reserve_exact(CHUNK_BYTES);
        }
        let fits = |chunk: &PackedChunk| chunk.bytes.capacity() - chunk.bytes.len() >= size;
        if !self.chunks.back().is_some_and(fits) {
            let first = self.chunks.back().map_or(0, PackedChunk::end);
            let mut chunk = self.spare.pop().unwrap_or_else(|| PackedChunk {
                bytes: Vec::with_capacity(CHUNK_BYTES),
                first,
                slots: Vec::with_capacity(self.chunks.back().map_or(0, |last| last.slots.len() + 16)),
                vacated: 0,
            });
            chunk.first = first;
            self.chunks.push_back(chunk);
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    /// Adds a trace to the index.
    fn add_to_index(&mut self, hash: u64, number: u32) {
        let Some(front) = self.chunks.front() else { return };
        let first = front.first;
        if self.index.insert(hash, number, first) {
            let count = number.wrapping_sub(first) as usize + 1;
            let all = self.chunks.iter().flat_map(|chunk| {
                let slots = chunk.slots.iter().zip(0..);
                slots.filter_map(|(slot, at)| Some((slot.as_ref()?.hash, chunk.first.wrapping_add(at))))
            });
            self.index.rebuild(first, count, all);
        }
    }

    /// Whether the trace with this id is in the queue.
    pub(crate) fn contains(&self, id: TraceId<'_>) -> bool {
        self.locate(id).is_some()
    }

    /// Removes and unpacks the trace with this id, for a straggler. Also returns when it is due.
    #[inline]
    pub(crate) fn take(&mut self, id: TraceId<'_>) -> Option<(i64, OpenTrace)> {
        let (at, slot) = self.locate(id)?;
        let chunk = self.chunks.get_mut(at)?;
        let popped = chunk.remove(slot)?;
        self.len -= 1;
        self.bytes -= popped.packed.memory_bytes();
        Some((popped.packed.due, popped.unpack().1))
    }

    /// The chunk and the slot of the trace with this id.
    #[inline]
    fn locate(&self, id: TraceId<'_>) -> Option<(usize, usize)> {
        if self.len == 0 {
            return None;
        }
        let first = self.chunks.front()?.first;
        self.index.find(id.hash()).find_map(|number| {
            // A number before the first, of a trace that is gone, wraps around to behind the last.
            let number = number.wrapping_sub(first);
            let before = self
                .chunks
                .partition_point(|chunk| chunk.first.wrapping_sub(first) <= number);
            let at = before.checked_sub(1)?;
            let chunk = self.chunks.get(at)?;
            let slot = number.wrapping_sub(chunk.first.wrapping_sub(first)) as usize;
            let packed = chunk.slots.get(slot)?.as_ref()?;
            (packed.hash == id.hash() && packed.id(&chunk.bytes)? == id.bytes()).then_some((at, slot))
        })
    }

    /// When the first trace is due.
    pub(crate) fn first_due(&mut self) -> Option<i64> {
        self.drop_front();
        let chunk = self.chunks.front()?;
        Some(chunk.slots.get(chunk.vacated)?.as_ref()?.due)
    }

    /// Removes the first trace.
    pub(crate) fn pop(&mut self) -> Option<PoppedTrace<'_>> {
        self.drop_front();
        let chunk = self.chunks.front_mut()?;
        let popped = chunk.remove(chunk.vacated)?;
        self.len -= 1;
        self.bytes -= popped.packed.memory_bytes();
        Some(popped)
    }

    /// The ids and hashes of all traces with a part from a source that satisfies `predicate`.
    pub(crate) fn ids_with(&self, mut predicate: impl FnMut(SourceId) -> bool) -> Vec<(Vec<u8>, u64)> {
        let all = self.iter();
        let with = all.filter(|popped| popped.parts().any(|part| predicate(part.source)));
        with.map(|popped| (popped.id().to_vec(), popped.hash())).collect()
    }

    /// All traces, in the order in which they are due.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PoppedTrace<'_>> {
        let chunks = self.chunks.iter();
        let all = chunks.flat_map(|chunk| chunk.slots.iter().flatten().map(move |packed| (chunk, *packed)));
        all.filter_map(|(chunk, packed)| {
            let bytes = chunk.bytes.get(packed.range())?;
            Some(PoppedTrace { packed, bytes })
        })
    }

    /// Drops removed traces and empty chunks at the front.
    fn drop_front(&mut self) {
        while let Some(front) = self.chunks.front_mut() {
            while front.slots.get(front.vacated).is_some_and(Option::is_none) {
                front.vacated += 1;
            }
            if front.vacated < front.slots.len() {
                return;
            }
            let only = self.chunks.len() == 1;
            let Some(mut chunk) = self.chunks.pop_front() else {
                return;
            };
            let end = chunk.end();
            chunk.bytes.clear();
            chunk.slots.clear();
            (chunk.first, chunk.vacated) = (end, 0);
            if only {
                // Sequence numbers continue.
                self.chunks.push_back(chunk);
                self.index.clear();
                return;
            }
            if self.spare.len() < MAX_SPARE_CHUNKS {
                self.spare.push(chunk);
            }
        }
    }

    /// Frees memory that is kept for reuse, if the queue is empty.
    pub(crate) fn shrink(&mut self) {
        if self.len == 0 {
            self.drop_front();
            self.spare = Vec::new();
            for chunk in &mut self.chunks {
                chunk.bytes = Vec::new();
                chunk.slots = Vec::new();
            }
        }
    }
}

impl PackedChunk {
    /// The sequence number behind the last slot.
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// Removes the trace of a slot.
    fn remove(&mut self, slot: usize) -> Option<PoppedTrace<'_>> {
        let packed = self.slots.get_mut(slot)?.take()?;
        let bytes = self.bytes.get(packed.range())?;
        Some(PoppedTrace { packed, bytes })
    }
}

impl PackedTrace {
    fn range(&self) -> std::ops::Range<usize> {
        let at = self.at as usize;
        at..at + self.bytes as usize
    }

    fn id<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.at as usize;
        bytes.get(at..at + self.id_bytes as usize)
    }

    /// Bytes of the trace, with its overhead.
    fn memory_bytes(&self) -> usize {
        self.bytes as usize + size_of::<Option<Self>>() + INDEX_BYTES_PER_TRACE
    }
}

impl<'a> PoppedTrace<'a> {
    /// The trace id.
    pub(crate) fn id(&self) -> &'a [u8] {
        self.bytes
            .get(..self.packed.id_bytes as usize)
            .unwrap_or_default()
    }

    /// The hash of the trace id.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.packed.hash
    }

    /// When it is due.
    #[inline]
    pub(crate) fn due(&self) -> i64 {
        self.packed.due
    }

    /// Bytes of the packed trace.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records.
    pub(crate) fn count(&self) -> u32 {
        match &self.packed.records {
            PackedRecords::Joined(packed) => packed.count(),
            PackedRecords::Lines(packed) => packed.count(),
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = TracePart> + use<'a> {
        let parts = self
            .content()
            .chunks_exact(PART_BYTES)
            .take(self.packed.parts as usize);
        parts.filter_map(|part| {
            let (source, total) = part.split_first_chunk()?;
            Some(TracePart {
                source: SourceId(u32::from_le_bytes(*source)),
                total: u32::from_le_bytes(*total.first_chunk()?),
            })
        })
    }

    pub(crate) fn records(&self) -> PoppedRecords<'_> {
        match &self.packed.records {
            PackedRecords::Joined(packed) => PoppedRecords::Joined(packed.view(self.packed_records())),
            PackedRecords::Lines(_) => PoppedRecords::Lines(self.packed_records()),
        }
    }

    /// Its bytes behind the id.
    fn content(&self) -> &'a [u8] {
        self.bytes
            .get(self.packed.id_bytes as usize..)
            .unwrap_or_default()
    }

    fn packed_records(&self) -> &'a [u8] {
        let before = self.packed.parts as usize * PART_BYTES;
        self.content().get(before..).unwrap_or_default()
    }

    /// Makes it an open trace.
    pub(crate) fn unpack(&self) -> (OwnedTraceId, OpenTrace) {
        let bytes = self.packed_records();
        let trace = OpenTrace {
            parts: self.parts().collect::<TraceParts>(),
            records: match &self.packed.records {
                PackedRecords::Joined(packed) => OpenRecords::Joined(packed.unpack(bytes)),
                PackedRecords::Lines(packed) => OpenRecords::Lines(packed.unpack(bytes)),
            },
            opened_at: self.packed.opened_at,
            last_seen: self.packed.due,
            promoted_at: self.packed.due,
            is_complete: true,
            has_deadline: true,
            lookups: 0,
        };
        (OwnedTraceId::from_parts(self.id(), self.packed.hash), trace)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::open::trace::IncomingRecord;
    use crate::part::PartId;
    use crate::source::{Source, Sources};
    use crate::trace_id::TraceIdHasher;

    fn push(queue: &mut LingerQueue, sources: &mut Sources<()>, number: u32) {
        let id = number.to_string();
        let id = TraceIdHasher::default().id(id.as_bytes());
        let source = sources.begin(Source {
            part: PartId([1; 12]),
            received: 1,
            tag: Arc::from("app"),
            hold: (),
        });
        let incoming = IncomingRecord {
            id,
            time: 1,
            source,
            position: 0,
            record: &[b'x'; 300],
            metadata: b"",
            completes: true,
            shape: None,
            text: None,
            level: None,
            service: None,
        };
        let mut trace = OpenTrace::vacant();
        trace.begin(0, &incoming, sources, Vec::new());
        queue.push(id, &mut trace, i64::from(number));
    }

    #[test]
    fn chunks_are_filled_also_after_a_rest() {
        let (mut queue, mut sources) = (LingerQueue::new(), Sources::new());
        for round in 0..4 {
            for number in 0..5000 {
                push(&mut queue, &mut sources, number);
            }
            // About 400 bytes each: the record, its header, the part and the id.
            assert_eq!(queue.len(), 5000);
            let sizes: Vec<usize> = queue.chunks.iter().map(|chunk| chunk.bytes.len()).collect();
            let (_, full) = sizes.split_last().unwrap();
            let is_full = |size: &usize| (CHUNK_BYTES - 1000..=CHUNK_BYTES).contains(size);
            assert!(
                !full.is_empty() && full.iter().all(is_full),
                "{sizes:?} in round {round}"
            );
            let content: usize = queue.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            let slots = 5000 * (size_of::<Option<PackedTrace>>() + INDEX_BYTES_PER_TRACE);
            assert_eq!(queue.bytes(), content + slots);
            while let Some(popped) = queue.pop() {
                assert_eq!(popped.count(), 1);
            }
            assert_eq!((queue.len(), queue.bytes()), (0, 0));
            queue.shrink();
            assert!(queue.spare.is_empty());
            assert!(queue.chunks.iter().all(|chunk| chunk.bytes.capacity() == 0));
        }
    }
}
