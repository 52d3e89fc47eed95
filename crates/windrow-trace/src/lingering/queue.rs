//! Traces that are complete and wait for stragglers: packed one behind the other, in the order in which they are due.
//!
//! Owns their bytes, the order, and the way back into the table for the few that a straggler comes for. Nearly all
//! traces in memory are of this kind, and nobody looks at them until they are sealed: packed they take little more
//! than their lines, are read in the order in which they lie, and leave the processor's cache to the open ones.
//! When traces are complete, and what is done with them, is the table's business.

use std::collections::VecDeque;

use super::fingerprint_index::Index;
use crate::document::content::View;
use crate::open::trace::{Part, Parts, Records, Trace};
use crate::open::{joined, lines};
use crate::source::SourceId;
use crate::trace_id::{Id, Key};

/// Bytes of a chunk.
const CHUNK: usize = 1 << 20;
/// Traces that take more are kept as they are: copying them costs more than it gives.
const MOST: usize = 64 << 10;
/// Chunks that are kept to be filled again.
const SPARE: usize = 4;
/// Bytes of a packed part: source, total.
const PART: usize = 8;
/// Bytes that a trace takes in the index, with what the index keeps free.
const INDEXED: usize = 8;

/// See above.
#[derive(Debug)]
pub(crate) struct Lingering {
    /// In the order in which they are due; the last is the one that is filled.
    chunks: VecDeque<Chunk>,
    index: Index,
    spare: Vec<Chunk>,
    len: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// The number of the first slot. Numbers wrap around; there are never so many at a time that it shows.
    first: u32,
    /// In the order in which they are due; nothing in the place of one that was taken out.
    slots: Vec<Option<Waiting>>,
    /// So many of them, from the first on, have nothing.
    gone: usize,
}

/// A packed trace. In its chunk stand its id, its parts and its records.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: i64,
    opened: i64,
    hash: u64,
    at: u32,
    /// Bytes from `at` on: of the id, and of all.
    key: u32,
    size: u32,
    parts: u32,
    records: Packed,
}

#[derive(Clone, Copy, Debug)]
enum Packed {
    Joined(joined::Packed),
    Lines(lines::Packed),
}

/// A trace that has left, where it lies.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    waiting: Waiting,
    /// Its bytes.
    bytes: &'a [u8],
}

/// The records of one that has left.
pub(crate) enum LeftRecords<'a> {
    Joined(View<'a>),
    /// A buffer of lines.
    Lines(&'a [u8]),
}

impl Lingering {
    pub(crate) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            index: Index::default(),
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
    pub(crate) fn takes(id: Id<'_>, trace: &Trace) -> bool {
        Self::size(id, trace) <= MOST
    }

    #[inline]
    fn size(id: Id<'_>, trace: &Trace) -> usize {
        id.bytes().len() + trace.parts.len() * PART + trace.bytes()
    }

    /// Takes a trace in, and gives the space of its records back. `due` is not before that of the one before.
    pub(crate) fn push(&mut self, id: Id<'_>, trace: &mut Trace, due: i64) -> Vec<u8> {
        let size = Self::size(id, trace);
        let chunk = self.chunk(size);
        let out = &mut chunk.bytes;
        let at = out.len();
        out.extend_from_slice(id.bytes());
        for part in &trace.parts {
            let mut bytes = [0; PART];
            bytes[..4].copy_from_slice(&part.source.0.to_le_bytes());
            bytes[4..].copy_from_slice(&part.total.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        let (records, space) = match &mut trace.records {
            Records::Joined(joined) => {
                let (packed, space) = joined.pack(out);
                (Packed::Joined(packed), space)
            }
            Records::Lines(lines) => {
                let (packed, space) = lines.pack(out);
                (Packed::Lines(packed), space)
            }
        };
        let waiting = Waiting {
            due,
            opened: trace.opened,
            hash: id.hash(),
            at: at as u32,
            key: id.bytes().len() as u32,
            size: (out.len() - at) as u32,
            parts: trace.parts.len() as u32,
            records,
        };
        let (number, cost) = (chunk.end(), waiting.cost());
        chunk.slots.push(Some(waiting));
        self.len += 1;
        self.bytes += cost;
        self.note(id.hash(), number);
        space
    }

    /// The chunk to be filled, with room for so many bytes.
    fn chunk(&mut self, size: usize) -> &mut Chunk {
        if let Some(rested) = self.chunks.back_mut().filter(|chunk| chunk.bytes.capacity() == 0) {
            rested.bytes.reserve_exact(CHUNK);
        }
        let fits = |chunk: &Chunk| chunk.bytes.capacity() - chunk.bytes.len() >= size;
        if !self.chunks.back().is_some_and(fits) {
            let first = self.chunks.back().map_or(0, Chunk::end);
            let mut chunk = self.spare.pop().unwrap_or_else(|| Chunk {
                bytes: Vec::with_capacity(CHUNK),
                first,
                slots: Vec::with_capacity(self.chunks.back().map_or(0, |last| last.slots.len() + 16)),
                gone: 0,
            });
            chunk.first = first;
            self.chunks.push_back(chunk);
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    /// Notes in the index where the trace of this hash is.
    fn note(&mut self, hash: u64, number: u32) {
        let Some(front) = self.chunks.front() else { return };
        let first = front.first;
        if self.index.insert(hash, number, first) {
            let count = number.wrapping_sub(first) as usize + 1;
            let all = self.chunks.iter().flat_map(|chunk| {
                let slots = chunk.slots.iter().zip(0..);
                slots.filter_map(|(slot, at)| Some((slot.as_ref()?.hash, chunk.first.wrapping_add(at))))
            });
            self.index.fill(first, count, all);
        }
    }

    /// Whether the trace of this id is here.
    pub(crate) fn has(&self, id: Id<'_>) -> bool {
        self.place(id).is_some()
    }

    /// Takes the trace of this id out, if it is here: a straggler came. Gives when it is due, too.
    #[inline]
    pub(crate) fn take(&mut self, id: Id<'_>) -> Option<(i64, Trace)> {
        let (at, slot) = self.place(id)?;
        let chunk = self.chunks.get_mut(at)?;
        let left = chunk.leave(slot)?;
        self.len -= 1;
        self.bytes -= left.waiting.cost();
        Some((left.waiting.due, left.unpack().1))
    }

    /// In which chunk it is, and where there.
    #[inline]
    fn place(&self, id: Id<'_>) -> Option<(usize, usize)> {
        if self.len == 0 {
            return None;
        }
        let first = self.chunks.front()?.first;
        self.index.find(id.hash()).find_map(|number| {
            // One that has gone has a number before the first, which counts as far behind the last.
            let number = number.wrapping_sub(first);
            let before = self
                .chunks
                .partition_point(|chunk| chunk.first.wrapping_sub(first) <= number);
            let at = before.checked_sub(1)?;
            let chunk = self.chunks.get(at)?;
            let slot = number.wrapping_sub(chunk.first.wrapping_sub(first)) as usize;
            let waiting = chunk.slots.get(slot)?.as_ref()?;
            (waiting.hash == id.hash() && waiting.id(&chunk.bytes)? == id.bytes()).then_some((at, slot))
        })
    }

    /// When the first is due.
    pub(crate) fn first_due(&mut self) -> Option<i64> {
        self.drop_gone();
        let chunk = self.chunks.front()?;
        Some(chunk.slots.get(chunk.gone)?.as_ref()?.due)
    }

    /// Takes out the first that is due.
    pub(crate) fn pop(&mut self) -> Option<Left<'_>> {
        self.drop_gone();
        let chunk = self.chunks.front_mut()?;
        let left = chunk.leave(chunk.gone)?;
        self.len -= 1;
        self.bytes -= left.waiting.cost();
        Some(left)
    }

    /// The ids of all that have a part from one of the sources of which `pinned` says so.
    pub(crate) fn ids_with(&self, mut pinned: impl FnMut(SourceId) -> bool) -> Vec<Vec<u8>> {
        let chunks = self.chunks.iter();
        let all = chunks.flat_map(|chunk| chunk.slots.iter().flatten().map(move |waiting| (chunk, *waiting)));
        let all = all.filter_map(|(chunk, waiting)| {
            let bytes = chunk.bytes.get(waiting.place())?;
            Some(Left { waiting, bytes })
        });
        let with = all.filter(|left| left.parts().any(|part| pinned(part.source)));
        with.map(|left| left.id().to_vec()).collect()
    }

    /// Drops what is empty at the front.
    fn drop_gone(&mut self) {
        while let Some(front) = self.chunks.front_mut() {
            while front.slots.get(front.gone).is_some_and(Option::is_none) {
                front.gone += 1;
            }
            if front.gone < front.slots.len() {
                return;
            }
            let only = self.chunks.len() == 1;
            let Some(mut chunk) = self.chunks.pop_front() else {
                return;
            };
            let end = chunk.end();
            chunk.bytes.clear();
            chunk.slots.clear();
            (chunk.first, chunk.gone) = (end, 0);
            if only {
                // The numbers go on.
                self.chunks.push_back(chunk);
                self.index.forget();
                return;
            }
            if self.spare.len() < SPARE {
                self.spare.push(chunk);
            }
        }
    }

    /// Gives memory back that is only kept to be used again.
    pub(crate) fn rest(&mut self) {
        if self.len == 0 {
            self.drop_gone();
            self.spare = Vec::new();
            for chunk in &mut self.chunks {
                chunk.bytes = Vec::new();
                chunk.slots = Vec::new();
            }
        }
    }
}

impl Chunk {
    /// The number of the slot behind the last.
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// Empties a slot.
    fn leave(&mut self, slot: usize) -> Option<Left<'_>> {
        let waiting = self.slots.get_mut(slot)?.take()?;
        let bytes = self.bytes.get(waiting.place())?;
        Some(Left { waiting, bytes })
    }
}

impl Waiting {
    fn place(&self) -> std::ops::Range<usize> {
        let at = self.at as usize;
        at..at + self.size as usize
    }

    fn id<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.at as usize;
        bytes.get(at..at + self.key as usize)
    }

    /// Bytes that it takes.
    fn cost(&self) -> usize {
        self.size as usize + size_of::<Option<Self>>() + INDEXED
    }
}

impl<'a> Left<'a> {
    /// Its id.
    pub(crate) fn id(&self) -> &'a [u8] {
        self.bytes.get(..self.waiting.key as usize).unwrap_or_default()
    }

    /// The hash of its id.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.waiting.hash
    }

    /// When it is due.
    #[inline]
    pub(crate) fn due(&self) -> i64 {
        self.waiting.due
    }

    /// Bytes that it takes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many records it has.
    pub(crate) fn count(&self) -> u32 {
        match &self.waiting.records {
            Packed::Joined(packed) => packed.count(),
            Packed::Lines(packed) => packed.count(),
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> + use<'a> {
        let parts = self
            .content()
            .chunks_exact(PART)
            .take(self.waiting.parts as usize);
        parts.filter_map(|part| {
            let (source, total) = part.split_first_chunk()?;
            Some(Part {
                source: SourceId(u32::from_le_bytes(*source)),
                total: u32::from_le_bytes(*total.first_chunk()?),
            })
        })
    }

    pub(crate) fn records(&self) -> LeftRecords<'_> {
        match &self.waiting.records {
            Packed::Joined(packed) => LeftRecords::Joined(packed.view(self.packed_records())),
            Packed::Lines(_) => LeftRecords::Lines(self.packed_records()),
        }
    }

    /// What follows its id.
    fn content(&self) -> &'a [u8] {
        self.bytes.get(self.waiting.key as usize..).unwrap_or_default()
    }

    fn packed_records(&self) -> &'a [u8] {
        let before = self.waiting.parts as usize * PART;
        self.content().get(before..).unwrap_or_default()
    }

    /// Makes it a trace again.
    pub(crate) fn unpack(&self) -> (Key, Trace) {
        let bytes = self.packed_records();
        let trace = Trace {
            parts: self.parts().collect::<Parts>(),
            records: match &self.waiting.records {
                Packed::Joined(packed) => Records::Joined(packed.unpack(bytes)),
                Packed::Lines(packed) => Records::Lines(packed.unpack(bytes)),
            },
            opened: self.waiting.opened,
            last_seen: self.waiting.due,
            placed: self.waiting.due,
            completed: true,
            queued: true,
        };
        (Key::again(self.id(), self.waiting.hash), trace)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::open::trace::Incoming;
    use crate::part::PartId;
    use crate::source::{Source, Sources};
    use crate::trace_id::Keys;

    fn push(lingering: &mut Lingering, sources: &mut Sources<()>, number: u32) {
        let id = number.to_string();
        let id = Keys::default().id(id.as_bytes());
        let source = sources.begin(Source {
            part: PartId([1; 12]),
            received: 1,
            tag: Arc::from("app"),
            hold: (),
        });
        let incoming = Incoming {
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
        let mut trace = Trace::vacant();
        trace.begin(0, &incoming, sources, Vec::new());
        lingering.push(id, &mut trace, i64::from(number));
    }

    #[test]
    fn chunks_are_filled_also_after_a_rest() {
        let (mut lingering, mut sources) = (Lingering::new(), Sources::new());
        for round in 0..4 {
            for number in 0..5000 {
                push(&mut lingering, &mut sources, number);
            }
            // About 350 bytes each: their text, a short header, the part and the id.
            assert_eq!(lingering.len(), 5000);
            let sizes: Vec<usize> = lingering.chunks.iter().map(|chunk| chunk.bytes.len()).collect();
            let (_, full) = sizes.split_last().unwrap();
            let is_full = |size: &usize| (CHUNK - 1000..=CHUNK).contains(size);
            assert!(
                !full.is_empty() && full.iter().all(is_full),
                "{sizes:?} in round {round}"
            );
            let content: usize = lingering.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            let slots = 5000 * (size_of::<Option<Waiting>>() + INDEXED);
            assert_eq!(lingering.bytes(), content + slots);
            while let Some(left) = lingering.pop() {
                assert_eq!(left.count(), 1);
            }
            assert_eq!((lingering.len(), lingering.bytes()), (0, 0));
            lingering.rest();
            assert!(lingering.spare.is_empty());
            assert!(lingering.chunks.iter().all(|chunk| chunk.bytes.capacity() == 0));
        }
    }
}
