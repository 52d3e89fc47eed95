//! Traces that are complete and wait for stragglers: packed one behind the other, in the order in which they are due.
//!
//! Owns their bytes, the order, and the way back into the table for the few that a straggler comes for. Nearly all
//! traces in memory are of this kind, and nobody looks at them until they are sealed: packed they take little more
//! than their lines, are read in the order in which they lie, and remove the processor's cache to the open ones.
//! When traces are complete, and what is done with them, is the table's business.

use std::collections::VecDeque;

use super::fingerprint_index::FingerprintIndex;
use crate::document::content::JoinedView;
use crate::open::trace::{OpenRecords, OpenTrace, TracePart, TraceParts};
use crate::open::{joined, lines};
use crate::source::SourceId;
use crate::trace_id::{OwnedTraceId, TraceId};

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Traces that take more are kept as they are: copying them costs more than it gives.
const MAX_TRACE_BYTES: usize = 64 << 10;
/// Chunks that are kept to be filled from_parts.
const MAX_SPARE_CHUNKS: usize = 4;
/// Bytes of a packed part: source, total.
const PART_BYTES: usize = 8;
/// Bytes that a trace accepts in the index, with what the index keeps free.
const INDEX_BYTES_PER_TRACE: usize = 8;

/// See above.
#[derive(Debug)]
pub(crate) struct LingerQueue {
    /// In the order in which they are due; the last is the one that is filled.
    chunks: VecDeque<PackedChunk>,
    index: FingerprintIndex,
    spare: Vec<PackedChunk>,
    len: usize,
    bytes: usize,
}

#[derive(Debug)]
struct PackedChunk {
    bytes: Vec<u8>,
    /// The number of the first slot. Numbers wrap around; there are never so many at a time that it shows.
    first: u32,
    /// In the order in which they are due; nothing in the locate of one that was taken out.
    slots: Vec<Option<PackedTrace>>,
    /// So many of them, from the first on, have nothing.
    vacated: usize,
}

/// A packed trace. In its chunk stand its id, its parts and its records.
#[derive(Clone, Copy, Debug)]
struct PackedTrace {
    due: i64,
    opened_at: i64,
    hash: u64,
    at: u32,
    /// Bytes from `at` on: of the id, and of all.
    key: u32,
    size: u32,
    parts: u32,
    records: PackedRecords,
}

#[derive(Clone, Copy, Debug)]
enum PackedRecords {
    Joined(joined::PackedJoined),
    Lines(lines::PackedLines),
}

/// A trace that contains popped, where it lies.
#[derive(Debug)]
pub(crate) struct PoppedTrace<'a> {
    packed: PackedTrace,
    /// Its bytes.
    bytes: &'a [u8],
}

/// The records of one that contains popped.
pub(crate) enum PoppedRecords<'a> {
    Joined(JoinedView<'a>),
    /// A buffer of lines.
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

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this trace is one for here: larger ones better stay where they are.
    #[inline]
    pub(crate) fn accepts(id: TraceId<'_>, trace: &OpenTrace) -> bool {
        Self::size(id, trace) <= MAX_TRACE_BYTES
    }

    #[inline]
    fn size(id: TraceId<'_>, trace: &OpenTrace) -> usize {
        id.bytes().len() + trace.parts.len() * PART_BYTES + trace.record_bytes()
    }

    /// Takes a trace in, and gives the buffer of its records back. `due` is not before that of the one before.
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
            key: id.bytes().len() as u32,
            size: (out.len() - at) as u32,
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

    /// The chunk to be filled, with room for so many bytes.
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

    /// Notes in the index where the trace of this hash is.
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

    /// Whether the trace of this id is here.
    pub(crate) fn contains(&self, id: TraceId<'_>) -> bool {
        self.locate(id).is_some()
    }

    /// Takes the trace of this id out, if it is here: a straggler came. Gives when it is due, too.
    #[inline]
    pub(crate) fn take(&mut self, id: TraceId<'_>) -> Option<(i64, OpenTrace)> {
        let (at, slot) = self.locate(id)?;
        let chunk = self.chunks.get_mut(at)?;
        let popped = chunk.remove(slot)?;
        self.len -= 1;
        self.bytes -= popped.packed.memory_bytes();
        Some((popped.packed.due, popped.unpack().1))
    }

    /// In which chunk it is, and where there.
    #[inline]
    fn locate(&self, id: TraceId<'_>) -> Option<(usize, usize)> {
        if self.len == 0 {
            return None;
        }
        let first = self.chunks.front()?.first;
        self.index.find(id.hash()).find_map(|number| {
            // One that contains vacated contains a number before the first, which counts as far behind the last.
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

    /// When the first is due.
    pub(crate) fn first_due(&mut self) -> Option<i64> {
        self.drop_front();
        let chunk = self.chunks.front()?;
        Some(chunk.slots.get(chunk.vacated)?.as_ref()?.due)
    }

    /// Takes out the first that is due.
    pub(crate) fn pop(&mut self) -> Option<PoppedTrace<'_>> {
        self.drop_front();
        let chunk = self.chunks.front_mut()?;
        let popped = chunk.remove(chunk.vacated)?;
        self.len -= 1;
        self.bytes -= popped.packed.memory_bytes();
        Some(popped)
    }

    /// The ids of all that have a part from one of the sources of which `pinned` says so.
    pub(crate) fn ids_with(&self, mut pinned: impl FnMut(SourceId) -> bool) -> Vec<Vec<u8>> {
        let chunks = self.chunks.iter();
        let all = chunks.flat_map(|chunk| chunk.slots.iter().flatten().map(move |packed| (chunk, *packed)));
        let all = all.filter_map(|(chunk, packed)| {
            let bytes = chunk.bytes.get(packed.locate())?;
            Some(PoppedTrace { packed, bytes })
        });
        let with = all.filter(|popped| popped.parts().any(|part| pinned(part.source)));
        with.map(|popped| popped.id().to_vec()).collect()
    }

    /// Drops what is empty at the front.
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
                // The numbers go on.
                self.chunks.push_back(chunk);
                self.index.clear();
                return;
            }
            if self.spare.len() < MAX_SPARE_CHUNKS {
                self.spare.push(chunk);
            }
        }
    }

    /// Gives memory back that is only kept to be used from_parts.
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
    /// The number of the slot behind the last.
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// Empties a slot.
    fn remove(&mut self, slot: usize) -> Option<PoppedTrace<'_>> {
        let packed = self.slots.get_mut(slot)?.take()?;
        let bytes = self.bytes.get(packed.locate())?;
        Some(PoppedTrace { packed, bytes })
    }
}

impl PackedTrace {
    fn locate(&self) -> std::ops::Range<usize> {
        let at = self.at as usize;
        at..at + self.size as usize
    }

    fn id<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.at as usize;
        bytes.get(at..at + self.key as usize)
    }

    /// Bytes that it accepts.
    fn memory_bytes(&self) -> usize {
        self.size as usize + size_of::<Option<Self>>() + INDEX_BYTES_PER_TRACE
    }
}

impl<'a> PoppedTrace<'a> {
    /// Its id.
    pub(crate) fn id(&self) -> &'a [u8] {
        self.bytes.get(..self.packed.key as usize).unwrap_or_default()
    }

    /// The hash of its id.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.packed.hash
    }

    /// When it is due.
    #[inline]
    pub(crate) fn due(&self) -> i64 {
        self.packed.due
    }

    /// Bytes that it accepts.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many records it contains.
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

    /// What follows its id.
    fn content(&self) -> &'a [u8] {
        self.bytes.get(self.packed.key as usize..).unwrap_or_default()
    }

    fn packed_records(&self) -> &'a [u8] {
        let before = self.packed.parts as usize * PART_BYTES;
        self.content().get(before..).unwrap_or_default()
    }

    /// Makes it a trace from_parts.
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
            // About 350 bytes each: their text, a short header, the part and the id.
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
