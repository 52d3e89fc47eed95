//! The open traces: found by id, and listed in the order of last use.
//!
//! Owns where they lie. A trace stays in one allocate while it is open. The way to it is laid out for many of them, of which
//! the processor's cache has few: what tells them apart while one is sought lies close together (`index`), and so do the links
//! of the list. What is needed soon can be fetched: then the processor gets it from memory while something else is done. To
//! fetch is never wrong, and never needed. When a trace is moved in the list, and what it is, is the table's business.

mod hash_index;
#[cfg(test)]
mod tests;

use prefetch_index::prefetch_index;

use self::hash_index::HashIndex;
use super::cache_line::CACHE_LINE_BYTES;
use super::trace::OpenTrace;
use crate::trace_id::{OwnedTraceId, TraceId};

/// Places of a chunk.
const SLOTS_PER_CHUNK: usize = 256;
/// No allocate.
const NONE: u32 = u32::MAX;

/// See above.
#[derive(Debug)]
pub(crate) struct Slab {
    index: HashIndex,
    chunks: Vec<SlotChunk>,
    /// A bit for each chunk that has a vacant allocate: new traces take the first, so that the last chunks become empty.
    has_vacancy: Vec<u64>,
    /// Chunks that have memory.
    allocated: usize,
    /// Of those the numbers of some that had become empty.
    emptied: Vec<usize>,
    oldest: u32,
    newest: u32,
    /// Traces that were ever put in.
    generation: u64,
}

#[derive(Debug, Default)]
struct SlotChunk {
    slots: Vec<TraceSlot>,
    links: Vec<ListLink>,
    /// Of the vacant ones among the slots, which are linked by `after`, the first.
    vacant: Option<u8>,
    used: usize,
}

// Begins with a line of the cache, and with its generation.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct TraceSlot {
    /// None while it is vacant.
    generation: u64,
    key: OwnedTraceId,
    pub(crate) trace: OpenTrace,
}

impl TraceSlot {
    /// The id of the trace.
    #[inline]
    pub(crate) fn id(&self) -> TraceId<'_> {
        self.key.as_id()
    }

    /// The trace with its id.
    #[inline]
    pub(crate) fn id_and_trace(&mut self) -> (TraceId<'_>, &mut OpenTrace) {
        (self.key.as_id(), &mut self.trace)
    }
}

const SLOT_CACHE_LINES: usize = size_of::<TraceSlot>() / CACHE_LINE_BYTES;

/// The generation of what is vacant.
const VACANT_GENERATION: u64 = 0;

#[derive(Clone, Copy, Debug)]
struct ListLink {
    before: u32,
    after: u32,
}

/// Where a trace lies, for as long as it is there: of one that has gone it leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotKey {
    at: u32,
    generation: u64,
}

impl Slab {
    pub(crate) fn new() -> Self {
        Self {
            index: HashIndex::new(),
            chunks: Vec::new(),
            has_vacancy: Vec::new(),
            allocated: 0,
            emptied: Vec::new(),
            oldest: NONE,
            newest: NONE,
            generation: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The trace of this id.
    #[inline]
    pub(crate) fn find(&mut self, id: TraceId<'_>) -> Option<(SlotKey, &mut OpenTrace)> {
        let is = |at: u32| self.slot(at).is_some_and(|slot| slot.key.is(id));
        let at = self.index.find(id.hash(), is)?;
        self.at(at)
    }

    /// Has the processor fetch what is needed to find the trace of this hash.
    #[inline]
    pub(crate) fn prefetch_index_entry(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Where the trace of this hash may be, without a look at it.
    #[inline]
    pub(crate) fn hint(&self, hash: u64) -> Option<SlotHint> {
        self.index.find(hash, |_| true).map(SlotHint)
    }

    /// Has the processor fetch what is needed to find the records of this trace.
    #[inline]
    pub(crate) fn prefetch(&self, hint: SlotHint) {
        if let Some(slot) = self.slot(hint.0) {
            // Its generation stands first.
            let words = std::slice::from_ref(&slot.generation);
            for line in 0..SLOT_CACHE_LINES {
                prefetch_index(words, line * (CACHE_LINE_BYTES / size_of::<u64>()));
            }
        }
    }

    /// Has the processor fetch the places where the next record of this trace goes.
    #[inline]
    pub(crate) fn prefetch_records(&self, hint: SlotHint) {
        if let Some(slot) = self.slot(hint.0) {
            slot.trace.prefetch();
        }
    }

    /// Has the processor fetch what is needed to take a trace out later on: first what leads to all the shrink.
    #[inline]
    pub(crate) fn prefetch_slot(&self, key: SlotKey) {
        self.prefetch(SlotHint(key.at));
        if let Some(chunk) = self.chunks.get(key.at as usize / SLOTS_PER_CHUNK) {
            prefetch_index(&chunk.links, key.at as usize % SLOTS_PER_CHUNK);
        }
    }

    /// And then the shrink.
    #[inline]
    pub(crate) fn prefetch_all(&self, key: SlotKey) {
        if let (Some(slot), Some(link)) = (self.slot(key.at), self.link(key.at)) {
            self.index.prefetch(slot.key.hash());
            slot.trace.prefetch_all();
            for at in [link.before, link.after] {
                if let Some(chunk) = self.chunks.get(at as usize / SLOTS_PER_CHUNK) {
                    prefetch_index(&chunk.links, at as usize % SLOTS_PER_CHUNK);
                }
            }
        }
    }

    /// The trace of this key, with its id.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: SlotKey) -> Option<(TraceId<'_>, &mut OpenTrace)> {
        let slot = self.slot_mut(key.at)?;
        (slot.generation == key.generation).then_some((slot.key.as_id(), &mut slot.trace))
    }

    /// Gives this id, which is not there, a vacant allocate at the end of the list.
    #[inline]
    pub(crate) fn open(&mut self, id: TraceId<'_>) -> (SlotKey, &mut OpenTrace) {
        self.generation += 1;
        let (at, generation) = (self.allocate(), self.generation);
        self.push_back(at);
        self.index.insert(id.hash(), at);
        let Some(slot) = self.slot_mut(at) else {
            unreachable!("a allocate has just been found");
        };
        slot.generation = generation;
        slot.key = id.into();
        (SlotKey { at, generation }, &mut slot.trace)
    }

    /// Moves it to the end of the list.
    pub(crate) fn promote(&mut self, key: SlotKey) {
        if key.at != self.newest && self.get_mut(key).is_some() {
            self.unlink(key.at);
            self.push_back(key.at);
        }
    }

    /// The first of the list.
    #[inline]
    pub(crate) fn oldest(&mut self) -> Option<(SlotKey, &mut OpenTrace)> {
        self.at(self.oldest)
    }

    /// Takes a trace out: its allocate is vacant, and what lies there is the caller's for as long as nothing else is done here.
    #[inline]
    pub(crate) fn take(&mut self, key: SlotKey) -> Option<&mut TraceSlot> {
        let at = key.at;
        let slot = self
            .slot_mut(at)
            .filter(|slot| slot.generation == key.generation)?;
        slot.generation = VACANT_GENERATION;
        let hash = slot.key.hash();
        self.index.remove(hash, at);
        self.unlink(at);
        self.release(at);
        self.slot_mut(at)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TraceId<'_>, &OpenTrace)> {
        let slots = self.chunks.iter().flat_map(|chunk| &chunk.slots);
        let there = slots.filter(|slot| slot.generation != VACANT_GENERATION);
        there.map(|slot| (slot.key.as_id(), &slot.trace))
    }

    /// Gives memory back, when there is none.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 && self.allocated > 1 {
            let generation = self.generation;
            *self = Self {
                generation,
                ..Self::new()
            };
        }
    }

    /// The trace that lies there.
    #[inline]
    fn at(&mut self, at: u32) -> Option<(SlotKey, &mut OpenTrace)> {
        let slot = self.slot_mut(at)?;
        let generation = slot.generation;
        Some((SlotKey { at, generation }, &mut slot.trace))
    }

    #[inline]
    fn slot(&self, at: u32) -> Option<&TraceSlot> {
        self.chunks
            .get(at as usize / SLOTS_PER_CHUNK)?
            .slots
            .get(at as usize % SLOTS_PER_CHUNK)
    }

    #[inline]
    fn slot_mut(&mut self, at: u32) -> Option<&mut TraceSlot> {
        let chunk = self.chunks.get_mut(at as usize / SLOTS_PER_CHUNK)?;
        chunk.slots.get_mut(at as usize % SLOTS_PER_CHUNK)
    }

    #[inline]
    fn link(&self, at: u32) -> Option<ListLink> {
        let chunk = self.chunks.get(at as usize / SLOTS_PER_CHUNK)?;
        chunk.links.get(at as usize % SLOTS_PER_CHUNK).copied()
    }

    #[inline]
    fn link_mut(&mut self, at: u32) -> Option<&mut ListLink> {
        let chunk = self.chunks.get_mut(at as usize / SLOTS_PER_CHUNK)?;
        chunk.links.get_mut(at as usize % SLOTS_PER_CHUNK)
    }

    /// The first vacant allocate, which is not vacant any more.
    #[inline]
    fn allocate(&mut self) -> u32 {
        let number = match self.has_vacancy.iter().position(|word| *word != 0) {
            Some(word) => word * 64 + self.has_vacancy[word].trailing_zeros() as usize,
            None => {
                self.chunks.push(SlotChunk::default());
                self.chunks.len() - 1
            }
        };
        self.set_has_vacancy(number, true);
        let Some(chunk) = self.chunks.get_mut(number) else {
            unreachable!("a chunk that has room is there");
        };
        chunk.used += 1;
        let at = match chunk.vacant {
            Some(vacant) => {
                let at = usize::from(vacant);
                let next = chunk.links[at].after;
                chunk.vacant = (next != NONE).then_some(next as u8);
                at
            }
            None => {
                if chunk.slots.capacity() == 0 {
                    chunk.slots.reserve_exact(SLOTS_PER_CHUNK);
                    chunk.links.reserve_exact(SLOTS_PER_CHUNK);
                    self.allocated += 1;
                }
                chunk.slots.push(TraceSlot {
                    generation: VACANT_GENERATION,
                    key: OwnedTraceId::EMPTY,
                    trace: OpenTrace::vacant(),
                });
                chunk.links.push(ListLink {
                    before: NONE,
                    after: NONE,
                });
                chunk.slots.len() - 1
            }
        };
        if chunk.used == SLOTS_PER_CHUNK {
            self.set_has_vacancy(number, false);
        }
        (number * SLOTS_PER_CHUNK + at) as u32
    }

    /// Notes that nothing is in this allocate any more.
    #[inline]
    fn release(&mut self, at: u32) {
        let (number, at) = (at as usize / SLOTS_PER_CHUNK, at as usize % SLOTS_PER_CHUNK);
        let Some(chunk) = self.chunks.get_mut(number) else {
            return;
        };
        chunk.links[at].after = chunk.vacant.map_or(NONE, u32::from);
        chunk.vacant = Some(at as u8);
        chunk.used -= 1;
        if chunk.used == 0 {
            self.free_empty_chunks(number);
            self.emptied.push(number);
        }
        self.set_has_vacancy(number, true);
    }

    /// Gives the memory of empty chunks back while there are many more chunks than are needed; but for the one that has just
    /// become empty, where what was taken out still lies.
    #[cold]
    fn free_empty_chunks(&mut self, last: usize) {
        while self.allocated * SLOTS_PER_CHUNK > 2 * self.len() + 4 * SLOTS_PER_CHUNK {
            let Some(number) = self.emptied.pop() else {
                return;
            };
            // It may be in use again, or have been given back.
            if let Some(chunk) = self.chunks.get_mut(number)
                && number != last
                && chunk.used == 0
                && chunk.slots.capacity() > 0
            {
                *chunk = SlotChunk::default();
                self.allocated -= 1;
            }
        }
    }

    #[inline]
    fn set_has_vacancy(&mut self, chunk: usize, has_vacancy: bool) {
        if self.has_vacancy.len() <= chunk / 64 {
            self.has_vacancy.push(0);
        }
        if let Some(word) = self.has_vacancy.get_mut(chunk / 64) {
            let bit = 1 << (chunk % 64);
            *word = if has_vacancy { *word | bit } else { *word & !bit };
        }
    }

    #[inline]
    fn push_back(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        if let Some(link) = self.link_mut(at) {
            *link = ListLink { before, after: NONE };
        }
        match self.link_mut(before) {
            Some(link) => link.after = at,
            None => self.oldest = at,
        }
    }

    #[inline]
    fn unlink(&mut self, at: u32) {
        let Some(&mut ListLink { before, after }) = self.link_mut(at) else {
            return;
        };
        match self.link_mut(before) {
            Some(link) => link.after = after,
            None => self.oldest = after,
        }
        match self.link_mut(after) {
            Some(link) => link.before = before,
            None => self.newest = before,
        }
    }
}

/// The allocate of a trace that may be another one.
#[derive(Clone, Copy, Debug)]
pub struct SlotHint(u32);
