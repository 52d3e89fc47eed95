//! Traces that are complete and wait for stragglers: packed one behind the other, in the order in which they are due.
//!
//! Owns their bytes, the order, and the way back into the table for the few that a straggler comes for. Nearly all
//! traces in memory are of this kind, and nobody looks at them until they are sealed: packed they take little more than
//! their lines, are read in the order in which they lie, and leave the processor's cache to the open ones. When traces
//! are complete, and what is done with them, is the table's business.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::document::PartInfo;
use super::pack::{self, Packed};
use super::part::PartId;
use super::table::{Holds, Key, Trace};

/// Bytes of a chunk of packed traces.
const CHUNK: usize = 256 << 10;
/// Traces that take more are not packed: copying them costs more than it gives.
const MOST: usize = 64 << 10;
/// Chunks that are kept to be filled again.
const SPARE: usize = 2;
/// Bytes of a packed part: id, reception, total.
const PART: usize = 24;
/// Bytes of a slot in the index, with what the index keeps free.
const INDEXED: usize = 16;

/// See above. `H` is what is held for each part.
#[derive(Debug)]
pub(super) struct Lingering<H> {
    /// In the order in which they are due.
    slots: VecDeque<Slot<H>>,
    /// The number of the first slot. Numbers wrap around; there are never so many at a time that it shows.
    first: u32,
    index: HashTable<Place>,
    hasher: foldhash::quality::RandomState,
    chunks: VecDeque<Vec<u8>>,
    /// The number of the first chunk.
    first_chunk: u32,
    spare: Vec<Vec<u8>>,
    len: usize,
    bytes: usize,
}

/// Where a trace is found.
#[derive(Debug)]
struct Place {
    /// Half of the hash, so that others are told apart without looking at them.
    tag: u32,
    slot: u32,
}

#[derive(Debug)]
struct Slot<H> {
    cost: usize,
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

/// A trace that has left.
pub(super) struct Left<H> {
    pub(super) key: Key,
    pub(super) due: i64,
    pub(super) trace: Trace<H>,
}

impl<H> Lingering<H> {
    pub(super) fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            index: HashTable::new(),
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

    /// Takes a trace in. `due` is not before that of the one before.
    pub(super) fn push(&mut self, key: &[u8], trace: Trace<H>, due: i64) {
        let size = Self::size(key, &trace);
        let fits = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= size;
        if !self.chunks.back().is_some_and(fits) {
            let chunk = self.spare.pop();
            self.chunks
                .push_back(chunk.unwrap_or_else(|| Vec::with_capacity(CHUNK)));
        }
        let chunk = self.first_chunk.wrapping_add(self.chunks.len() as u32 - 1);
        let Some(bytes) = self.chunks.back_mut() else {
            return;
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
        let cost = size + size_of::<Slot<H>>() + INDEXED;
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
        let (first, slots) = (self.first, &self.slots);
        // What is in the index is in its slot, so that this is never asked in vain.
        let hash_of = |place: &Place| {
            let slot = slots.get(place.slot.wrapping_sub(first) as usize);
            slot.and_then(|slot| slot.waiting.as_ref())
                .map_or(0, |waiting| waiting.hash)
        };
        let place = Place {
            tag: tag(hash),
            slot: number,
        };
        self.index.insert_unique(hash, place, hash_of);
        self.len += 1;
        self.bytes += cost;
    }

    /// Takes the trace of this id out, if it is here: a straggler came.
    #[inline]
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Left<H>> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let (first, slots, chunks, first_chunk) = (self.first, &self.slots, &self.chunks, self.first_chunk);
        let is_it = |place: &Place| {
            place.tag == tag(hash)
                && slots
                    .get(place.slot.wrapping_sub(first) as usize)
                    .is_some_and(|slot| {
                        let chunk = chunks.get(slot.chunk.wrapping_sub(first_chunk) as usize);
                        let bytes = chunk.and_then(|chunk| slot.waiting.as_ref()?.key_in(chunk));
                        bytes == Some(key)
                    })
        };
        let (place, _) = self.index.find_entry(hash, is_it).ok()?.remove();
        let slot = self.slots.get_mut(place.slot.wrapping_sub(first) as usize)?;
        let waiting = slot.waiting.take()?;
        let chunk = self.chunks.get(slot.chunk.wrapping_sub(first_chunk) as usize)?;
        let left = waiting.unpack(chunk);
        self.len -= 1;
        self.drop_taken();
        left
    }

    /// When the first is due.
    pub(super) fn first_due(&self) -> Option<i64> {
        // Slots at the front are never empty.
        Some(self.slots.front()?.waiting.as_ref()?.due)
    }

    /// Takes out the first that is due.
    pub(super) fn pop(&mut self) -> Option<Left<H>> {
        let number = self.first;
        let slot = self.slots.front_mut()?;
        let waiting = slot.waiting.take()?;
        if let Ok(entry) = self.index.find_entry(waiting.hash, |place| place.slot == number) {
            entry.remove();
        }
        let chunk = self
            .chunks
            .get(slot.chunk.wrapping_sub(self.first_chunk) as usize)?;
        let left = waiting.unpack(chunk);
        self.len -= 1;
        self.drop_taken();
        left
    }

    /// Takes out all of which `pinned` says so of one of their holds.
    pub(super) fn take_holding(&mut self, pinned: &mut impl FnMut(&H) -> bool) -> Vec<Left<H>> {
        let keys: Vec<Vec<u8>> = self
            .slots
            .iter()
            .filter_map(|slot| {
                let waiting = slot.waiting.as_ref()?;
                let chunk = self
                    .chunks
                    .get(slot.chunk.wrapping_sub(self.first_chunk) as usize)?;
                let is_pinned = waiting.holds.iter().any(&mut *pinned);
                is_pinned.then(|| waiting.key_in(chunk).map(<[u8]>::to_vec))?
            })
            .collect();
        keys.iter().filter_map(|key| self.take(key)).collect()
    }

    /// Drops what is empty at the front, and the chunks that nobody needs any more.
    fn drop_taken(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.waiting.is_none()) {
            self.first = self.first.wrapping_add(1);
            self.bytes -= self.slots.pop_front().map_or(0, |slot| slot.cost);
        }
        let needed = match self.slots.front() {
            Some(slot) => slot.chunk.wrapping_sub(self.first_chunk) as usize,
            None => self.chunks.len(),
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

impl<H> Waiting<H> {
    fn key_in<'a>(&self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.at as usize;
        chunk.get(at..at + self.key as usize)
    }

    fn unpack(self, chunk: &[u8]) -> Option<Left<H>> {
        let key = self.key_in(chunk)?;
        let mut at = self.at as usize + key.len();
        let mut parts = SmallVec::with_capacity(self.holds.len());
        for _ in 0..self.holds.len() {
            let (id, rest) = chunk.get(at..at + PART)?.split_first_chunk()?;
            let (received, rest) = rest.split_first_chunk()?;
            parts.push(PartInfo {
                id: PartId(*id),
                received: i64::from_le_bytes(*received),
                total: u32::from_le_bytes(*rest.first_chunk()?),
            });
            at += PART;
        }
        let lines = pack::unpack(&self.lines, chunk.get(at..)?)?;
        Some(Left {
            key: Key::from_slice(key),
            due: self.due,
            trace: Trace {
                parts,
                holds: self.holds,
                lines,
                tags: self.tags,
                opened: self.opened,
                last_seen: self.due,
                completed: true,
                queued: true,
            },
        })
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 16) as u32
}
