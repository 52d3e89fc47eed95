//! Traces that are complete and wait for stragglers: packed one behind the other, in the order in which they are due.
//!
//! Owns their bytes, the order, and the way back into the table for the few that a straggler comes for. Nearly all
//! traces in memory are of this kind, and nobody looks at them until they are sealed: packed they take little more
//! than their lines, are read in the order in which they lie, and leave the processor's cache to the open ones.
//! When traces are complete, and what is done with them, is the table's business.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use smallvec::SmallVec;

use super::document::PartInfo;
use super::index::Index;
use super::lines::{Line, Lines};
use super::open::{Holds, Key, Trace};
use super::pack::{self, Packed};
use super::part::PartId;

/// Bytes of a chunk.
const CHUNK: usize = 1 << 20;
/// Traces that take more are kept as they are: copying them costs more than it gives.
const MOST: usize = 64 << 10;
/// Chunks that are kept to be filled again.
const SPARE: usize = 4;
/// Bytes of a packed part: id, reception, total.
const PART: usize = 24;
/// Bytes that a trace takes in the index, with what the index keeps free.
const INDEXED: usize = 8;

/// See above. `H` is what is held for each part.
#[derive(Debug)]
pub(super) struct Lingering<H> {
    /// In the order in which they are due; the last is the one that is filled.
    chunks: VecDeque<Chunk<H>>,
    index: Index,
    hasher: foldhash::quality::RandomState,
    spare: Vec<Chunk<H>>,
    len: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Chunk<H> {
    bytes: Vec<u8>,
    /// The number of the first slot. Numbers wrap around; there are never so many at a time that it shows.
    first: u32,
    /// In the order in which they are due; nothing in the place of one that was taken out.
    slots: Vec<Option<Waiting<H>>>,
    /// So many of them, from the first on, have nothing.
    gone: usize,
}

/// A packed trace. In its chunk stand its id, its parts (as many as it has holds) and its lines.
#[derive(Debug)]
struct Waiting<H> {
    due: i64,
    opened: i64,
    at: u32,
    key: u32,
    /// Bytes from `at` on.
    size: u32,
    lines: Packed,
    holds: Holds<H>,
    tags: SmallVec<[Arc<str>; 1]>,
}

/// A trace that has left, where it lies.
#[derive(Debug)]
pub(super) struct Left<'a, H> {
    waiting: Waiting<H>,
    /// Its bytes, and what follows them.
    bytes: &'a [u8],
}

impl<H> Lingering<H> {
    pub(super) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            index: Index::default(),
            hasher: foldhash::quality::RandomState::default(),
            spare: Vec::new(),
            len: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this trace is one for here: larger ones better stay where they are.
    pub(super) fn takes(key: &[u8], trace: &Trace<H>) -> bool {
        Self::size(key, trace) <= MOST
    }

    fn size(key: &[u8], trace: &Trace<H>) -> usize {
        key.len() + trace.parts.len() * PART + trace.lines.buffer().len()
    }

    /// Takes a trace in, and gives the space of its lines back. `due` is not before that of the one before.
    pub(super) fn push(&mut self, key: &[u8], trace: Trace<H>, due: i64) -> Lines {
        let size = Self::size(key, &trace);
        let chunk = self.chunk(size);
        let at = chunk.bytes.len() as u32;
        chunk.bytes.extend_from_slice(key);
        for part in &trace.parts {
            chunk.bytes.extend_from_slice(&part.id.0);
            chunk.bytes.extend_from_slice(&part.received.to_le_bytes());
            chunk.bytes.extend_from_slice(&part.total.to_le_bytes());
        }
        let lines = pack::pack(&trace.lines, &mut chunk.bytes);
        let waiting = Waiting {
            due,
            opened: trace.opened,
            at,
            key: key.len() as u32,
            size: chunk.bytes.len() as u32 - at,
            lines,
            holds: trace.holds,
            tags: trace.tags,
        };
        let (number, cost) = (chunk.end(), waiting.cost());
        chunk.slots.push(Some(waiting));
        self.len += 1;
        self.bytes += cost;
        self.note(key, number);
        trace.lines
    }

    /// The chunk to be filled, with room for so many bytes.
    fn chunk(&mut self, size: usize) -> &mut Chunk<H> {
        if let Some(rested) = self.chunks.back_mut().filter(|chunk| chunk.bytes.capacity() == 0) {
            rested.bytes.reserve_exact(CHUNK);
        }
        let fits = |chunk: &Chunk<H>| chunk.bytes.capacity() - chunk.bytes.len() >= size;
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

    /// Notes in the index where the trace of this id is.
    fn note(&mut self, key: &[u8], number: u32) {
        let Some(front) = self.chunks.front() else { return };
        let first = front.first;
        let hash = self.hasher.hash_one(key);
        if self.index.insert(hash, number, first) {
            let count = number.wrapping_sub(first) as usize + 1;
            let hasher = &self.hasher;
            let all = self.chunks.iter().flat_map(|chunk| {
                let slots = chunk.slots.iter().zip(0..);
                slots.filter_map(|(slot, at)| {
                    let key = slot.as_ref()?.key(&chunk.bytes)?;
                    Some((hasher.hash_one(key), chunk.first.wrapping_add(at)))
                })
            });
            self.index.fill(first, count, all);
        }
    }

    /// Takes the trace of this id out, if it is here: a straggler came. Gives when it is due, too.
    #[inline]
    pub(super) fn take(&mut self, key: &[u8]) -> Option<(i64, Trace<H>)> {
        if self.len == 0 {
            return None;
        }
        let first = self.chunks.front()?.first;
        let chunks = &self.chunks;
        let place = |number: u32| {
            let number = number.wrapping_sub(first);
            let before = chunks.partition_point(|chunk| chunk.first.wrapping_sub(first) <= number);
            let at = before.checked_sub(1)?;
            let chunk = chunks.get(at)?;
            let slot = number.wrapping_sub(chunk.first.wrapping_sub(first)) as usize;
            let waiting = chunk.slots.get(slot)?.as_ref()?;
            (waiting.key(&chunk.bytes)? == key).then_some((at, slot))
        };
        let (at, slot) = self
            .index
            .find(self.hasher.hash_one(key), first)
            .find_map(place)?;
        let chunk = self.chunks.get_mut(at)?;
        let left = chunk.leave(slot)?;
        self.len -= 1;
        self.bytes -= left.waiting.cost();
        Some((left.waiting.due, left.unpack()?))
    }

    /// When the first is due.
    pub(super) fn first_due(&mut self) -> Option<i64> {
        self.drop_gone();
        let chunk = self.chunks.front()?;
        Some(chunk.slots.get(chunk.gone)?.as_ref()?.due)
    }

    /// Takes out the first that is due.
    pub(super) fn pop(&mut self) -> Option<Left<'_, H>> {
        self.drop_gone();
        let chunk = self.chunks.front_mut()?;
        let left = chunk.leave(chunk.gone)?;
        self.len -= 1;
        self.bytes -= left.waiting.cost();
        Some(left)
    }

    /// Takes out all of which `pinned` says so of one of their holds.
    pub(super) fn take_holding(&mut self, pinned: &mut impl FnMut(&H) -> bool) -> Vec<(Key, Trace<H>)> {
        let mut taken = Vec::new();
        for chunk in &mut self.chunks {
            for number in 0..chunk.slots.len() {
                let held = |waiting: &Waiting<H>| waiting.holds.iter().any(&mut *pinned);
                if !chunk.slots[number].as_ref().is_some_and(held) {
                    continue;
                }
                let Some(left) = chunk.leave(number) else { continue };
                self.len -= 1;
                self.bytes -= left.waiting.cost();
                let key = Key::from_slice(left.key());
                taken.extend(left.unpack().map(|trace| (key, trace)));
            }
        }
        taken
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
    pub(super) fn rest(&mut self) {
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

impl<H> Chunk<H> {
    /// The number of the slot behind the last.
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// Empties a slot.
    fn leave(&mut self, slot: usize) -> Option<Left<'_, H>> {
        let waiting = self.slots.get_mut(slot)?.take()?;
        let bytes = self.bytes.get(waiting.at as usize..)?;
        Some(Left { waiting, bytes })
    }
}

impl<H> Waiting<H> {
    fn key<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.at as usize;
        bytes.get(at..at + self.key as usize)
    }

    /// Bytes that it takes.
    fn cost(&self) -> usize {
        self.size as usize + size_of::<Option<Self>>() + INDEXED
    }
}

impl<H> Left<'_, H> {
    /// Its id.
    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..self.waiting.key as usize).unwrap_or_default()
    }

    /// How many lines it has.
    pub(super) fn lines(&self) -> u32 {
        self.waiting.lines.len()
    }

    /// Bytes of its lines in their usual form.
    pub(super) fn line_bytes(&self) -> usize {
        self.waiting.lines.bytes()
    }

    pub(super) fn into_holds(self) -> Holds<H> {
        self.waiting.holds
    }

    /// Its tags.
    pub(super) fn tags(&self) -> &[Arc<str>] {
        &self.waiting.tags
    }

    pub(super) fn sort_tags(&mut self) {
        self.waiting.tags.sort_unstable();
    }

    /// Lists its parts and its lines; what these say lies in the bytes that are returned.
    pub(super) fn list(&self, parts: &mut Vec<PartInfo>, lines: &mut Vec<Line>) -> &[u8] {
        parts.extend(self.parts());
        let bytes = self.packed_lines();
        lines.extend(pack::lines(&self.waiting.lines, bytes).map(|(head, body)| Line::of(&head, body)));
        bytes
    }

    /// What follows its id.
    fn content(&self) -> &[u8] {
        self.bytes.get(self.waiting.key as usize..).unwrap_or_default()
    }

    fn parts(&self) -> impl Iterator<Item = PartInfo> {
        let parts = self.content().chunks_exact(PART).take(self.waiting.holds.len());
        parts.filter_map(|part| {
            let (id, rest) = part.split_first_chunk()?;
            let (received, rest) = rest.split_first_chunk()?;
            Some(PartInfo {
                id: PartId(*id),
                received: i64::from_le_bytes(*received),
                total: u32::from_le_bytes(*rest.first_chunk()?),
            })
        })
    }

    fn packed_lines(&self) -> &[u8] {
        let before = self.waiting.holds.len() * PART;
        self.content().get(before..).unwrap_or_default()
    }

    /// Makes it a trace again.
    fn unpack(self) -> Option<Trace<H>> {
        Some(Trace {
            parts: self.parts().collect(),
            lines: pack::unpack(&self.waiting.lines, self.packed_lines())?,
            opened: self.waiting.opened,
            last_seen: self.waiting.due,
            placed: self.waiting.due,
            completed: true,
            queued: true,
            holds: self.waiting.holds,
            tags: self.waiting.tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::Incoming;
    use super::*;

    fn push(lingering: &mut Lingering<()>, number: u32) {
        let key = Key::from_slice(number.to_string().as_bytes());
        let mut trace = Trace::new(0, Lines::new(400, 0));
        let incoming = Incoming {
            key: &key,
            time: 1,
            part: PartId([1; 12]),
            received: 1,
            position: 0,
            record: &[b'x'; 300],
            metadata: b"",
            tag: &Arc::from("app"),
            completes: true,
            shape: None,
            text: None,
        };
        let _added = trace.add(0, &incoming, || (), usize::MAX, 336);
        lingering.push(&key, trace, i64::from(number));
    }

    #[test]
    fn chunks_are_filled_also_after_a_rest() {
        let mut lingering = Lingering::new();
        for round in 0..4 {
            for number in 0..5000 {
                push(&mut lingering, number);
            }
            // About 400 bytes each: their text, a short header, the part and the id.
            assert_eq!(lingering.len(), 5000);
            let sizes: Vec<usize> = lingering.chunks.iter().map(|chunk| chunk.bytes.len()).collect();
            let (_, full) = sizes.split_last().unwrap();
            let is_full = |size: &usize| (CHUNK - 1000..=CHUNK).contains(size);
            assert!(
                !full.is_empty() && full.iter().all(is_full),
                "{sizes:?} in round {round}"
            );
            let content: usize = lingering.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            let slots = 5000 * (size_of::<Option<Waiting<()>>>() + INDEXED);
            assert_eq!(lingering.bytes(), content + slots);
            while let Some(left) = lingering.pop() {
                assert_eq!(left.lines(), 1);
            }
            assert_eq!((lingering.len(), lingering.bytes()), (0, 0));
            lingering.rest();
            assert!(lingering.spare.is_empty());
            assert!(lingering.chunks.iter().all(|chunk| chunk.bytes.capacity() == 0));
        }
    }
}
