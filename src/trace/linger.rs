//! Traces that are complete and wait for stragglers: packed one behind the other, in the order in which they are due.
//!
//! Owns their bytes, the order, and the way back into the table for the few that a straggler comes for. Nearly all
//! traces in memory are of this kind, and nobody looks at them until they are sealed: packed they take little more than
//! their lines, are read in the order in which they lie, and leave the processor's cache to the open ones. When traces
//! are complete, and what is done with them, is the table's business.

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

/// Bytes of a chunk of packed traces.
const CHUNK: usize = 1 << 20;
/// Traces that take more are not packed: copying them costs more than it gives.
const MOST: usize = 64 << 10;
/// Chunks that are kept to be filled again.
const SPARE: usize = 2;
/// Bytes of a packed part: id, reception, total.
const PART: usize = 24;
/// Bytes that a trace takes in the index, with what the index keeps free.
const INDEXED: usize = 8;

/// See above. `H` is what is held for each part.
#[derive(Debug)]
pub(super) struct Lingering<H> {
    /// In the order in which they are due.
    slots: VecDeque<Slot<H>>,
    /// The number of the first slot. Numbers wrap around; there are never so many at a time that it shows.
    first: u32,
    index: Index,
    hasher: foldhash::quality::RandomState,
    chunks: VecDeque<Vec<u8>>,
    /// The number of the first chunk.
    first_chunk: u32,
    spare: Vec<Vec<u8>>,
    len: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Slot<H> {
    cost: u32,
    chunk: u32,
    /// Nothing when it was taken back.
    waiting: Option<Waiting<H>>,
}

/// A packed trace. In its chunk stand its id, its parts (as many as it has holds) and its lines.
#[derive(Debug)]
struct Waiting<H> {
    hash: u64,
    due: i64,
    opened: i64,
    at: u32,
    key: u32,
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
            slots: VecDeque::new(),
            first: 0,
            index: Index::default(),
            hasher: foldhash::quality::RandomState::default(),
            chunks: VecDeque::new(),
            first_chunk: 0,
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
        let fits = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= size;
        if !self.chunks.back().is_some_and(fits) {
            let chunk = self.spare.pop();
            self.chunks
                .push_back(chunk.unwrap_or_else(|| Vec::with_capacity(CHUNK)));
        }
        let chunk = self.first_chunk.wrapping_add(self.chunks.len() as u32 - 1);
        let Some(bytes) = self.chunks.back_mut() else {
            return trace.lines;
        };
        let at = bytes.len() as u32;
        bytes.extend_from_slice(key);
        for part in &trace.parts {
            bytes.extend_from_slice(&part.id.0);
            bytes.extend_from_slice(&part.received.to_le_bytes());
            bytes.extend_from_slice(&part.total.to_le_bytes());
        }
        let lines = pack::pack(&trace.lines, bytes);
        let size = bytes.len() - at as usize;
        let hash = self.hasher.hash_one(key);
        // Smaller than `MOST` and a few headers.
        let cost = (size + size_of::<Slot<H>>() + INDEXED) as u32;
        let number = self.first.wrapping_add(self.slots.len() as u32);
        self.slots.push_back(Slot {
            cost,
            chunk,
            waiting: Some(Waiting {
                hash,
                due,
                opened: trace.opened,
                at,
                key: key.len() as u32,
                lines,
                holds: trace.holds,
                tags: trace.tags,
            }),
        });
        if self.index.insert(hash, number, self.first) {
            let slots = self.slots.iter().zip(0..);
            self.index.fill(
                self.first,
                self.slots.len(),
                slots.filter_map(|(slot, at)| {
                    let hash = slot.waiting.as_ref()?.hash;
                    Some((hash, self.first.wrapping_add(at)))
                }),
            );
        }
        self.len += 1;
        self.bytes += cost as usize;
        trace.lines
    }

    /// Takes the trace of this id out, if it is here: a straggler came. Gives when it is due, too.
    #[inline]
    pub(super) fn take(&mut self, key: &[u8]) -> Option<(i64, Trace<H>)> {
        if self.len == 0 {
            return None;
        }
        let first = self.first;
        let found = self.index.find(self.hasher.hash_one(key), first).find(|number| {
            let slot = self.slots.get(number.wrapping_sub(first) as usize);
            slot.and_then(|slot| slot.key(&self.chunks, self.first_chunk)) == Some(key)
        })?;
        let slot = self.slots.get_mut(found.wrapping_sub(first) as usize)?;
        self.len -= 1;
        let left = slot.leave(&self.chunks, self.first_chunk)?;
        Some((left.waiting.due, left.unpack()?))
    }

    /// When the first is due.
    pub(super) fn first_due(&mut self) -> Option<i64> {
        self.drop_taken();
        Some(self.slots.front()?.waiting.as_ref()?.due)
    }

    /// Takes out the first that is due.
    pub(super) fn pop(&mut self) -> Option<Left<'_, H>> {
        self.drop_taken();
        let left = self.slots.front_mut()?.leave(&self.chunks, self.first_chunk)?;
        self.len -= 1;
        Some(left)
    }

    /// Takes out all of which `pinned` says so of one of their holds.
    pub(super) fn take_holding(&mut self, pinned: &mut impl FnMut(&H) -> bool) -> Vec<(Key, Trace<H>)> {
        let keys: Vec<Key> = self
            .slots
            .iter()
            .filter(|slot| {
                slot.waiting
                    .as_ref()
                    .is_some_and(|waiting| waiting.holds.iter().any(&mut *pinned))
            })
            .filter_map(|slot| slot.key(&self.chunks, self.first_chunk).map(Key::from_slice))
            .collect();
        let taken = keys.into_iter().filter_map(|key| {
            let (_, trace) = self.take(&key)?;
            Some((key, trace))
        });
        taken.collect()
    }

    /// Drops what is empty at the front, and the chunks that nobody needs any more.
    fn drop_taken(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.waiting.is_none()) {
            self.first = self.first.wrapping_add(1);
            self.bytes -= self.slots.pop_front().map_or(0, |slot| slot.cost as usize);
        }
        let needed = match self.slots.front() {
            Some(slot) => slot.chunk.wrapping_sub(self.first_chunk) as usize,
            None => {
                self.index.forget();
                self.chunks.len()
            }
        };
        for mut chunk in self.chunks.drain(..needed) {
            self.first_chunk = self.first_chunk.wrapping_add(1);
            if self.spare.len() < SPARE {
                chunk.clear();
                self.spare.push(chunk);
            }
        }
    }
}

impl<H> Slot<H> {
    fn key<'a>(&self, chunks: &'a VecDeque<Vec<u8>>, first_chunk: u32) -> Option<&'a [u8]> {
        let chunk = chunks.get(self.chunk.wrapping_sub(first_chunk) as usize)?;
        let waiting = self.waiting.as_ref()?;
        let at = waiting.at as usize;
        chunk.get(at..at + waiting.key as usize)
    }

    /// Empties it.
    fn leave<'a>(&mut self, chunks: &'a VecDeque<Vec<u8>>, first_chunk: u32) -> Option<Left<'a, H>> {
        let chunk = chunks.get(self.chunk.wrapping_sub(first_chunk) as usize)?;
        let waiting = self.waiting.take()?;
        let bytes = chunk.get(waiting.at as usize..)?;
        Some(Left { waiting, bytes })
    }
}

impl<H> Left<'_, H> {
    /// Its id.
    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..self.waiting.key as usize).unwrap_or_default()
    }

    /// Bytes of its lines in their usual form.
    pub(super) fn line_bytes(&self) -> usize {
        self.waiting.lines.bytes()
    }

    /// How many lines it has.
    pub(super) fn lines(&self) -> u32 {
        self.waiting.lines.len()
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

    fn parts(&self) -> impl Iterator<Item = PartInfo> {
        let bytes = self.bytes.get(self.waiting.key as usize..).unwrap_or_default();
        let parts = bytes.chunks_exact(PART).take(self.waiting.holds.len());
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
        let before = self.waiting.key as usize + self.waiting.holds.len() * PART;
        self.bytes.get(before..).unwrap_or_default()
    }

    /// Makes it a trace again.
    fn unpack(self) -> Option<Trace<H>> {
        let (parts, lines) = (self.parts().collect(), self.packed_lines());
        let lines = pack::unpack(&self.waiting.lines, lines)?;
        Some(Trace {
            parts,
            lines,
            holds: self.waiting.holds,
            tags: self.waiting.tags,
            opened: self.waiting.opened,
            last_seen: self.waiting.due,
            placed: self.waiting.due,
            completed: true,
            queued: true,
        })
    }
}
