//! The slab of open traces, with a hash index and an intrusive LRU list.
//!
//! A trace keeps its slot while it is open. Index, list links and slots are separate arrays,
//! because of many open traces few are in the CPU cache: a lookup or a move in the list touches few
//! cache lines. Every access can be prefetched; prefetching never changes a result. Does not decide
//! when a trace is promoted or taken.

mod hash_index;
#[cfg(test)]
mod tests;

use prefetch_index::prefetch_index;

use self::hash_index::HashIndex;
use super::cache_line::CACHE_LINE_BYTES;
use super::trace::OpenTrace;
use crate::trace_id::{OwnedTraceId, TraceId};

/// Slots of a chunk.
const SLOTS_PER_CHUNK: usize = 256;
/// No slot.
const NONE: u32 = u32::MAX;

/// The slab.
#[derive(Debug)]
pub(crate) struct Slab {
    index: HashIndex,
    chunks: Vec<SlotChunk>,
    /// One bit per chunk with a vacant slot. New traces take the first vacant slot, so that the
    /// last chunks become empty.
    has_vacancy: Vec<u64>,
    /// Number of chunks with memory.
    allocated: usize,
    /// Candidates to free: chunks that became empty.
    emptied: Vec<usize>,
    oldest: u32,
    newest: u32,
    /// Bytes of the ids of traces that are not stored inline.
    id_bytes: usize,
    /// The slot that was taken last, if its id is not.
    taken: u32,
    /// Generation of the newest trace.
    generation: u64,
}

#[derive(Debug, Default)]
struct SlotChunk {
    slots: Vec<TraceSlot>,
    links: Vec<ListLink>,
    /// Head of the list of vacant slots, which are linked by `after`.
    vacant: Option<u8>,
    used: usize,
}

/// A slot. Aligned to a cache line. The generation comes first, as `prefetch` requires.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct TraceSlot {
    /// `VACANT_GENERATION` while the slot is vacant.
    generation: u64,
    id: OwnedTraceId,
    pub(crate) trace: OpenTrace,
}

impl TraceSlot {
    /// The id of the trace.
    #[inline]
    pub(crate) fn id(&self) -> TraceId<'_> {
        self.id.as_id()
    }

    /// The trace with its id.
    #[inline]
    pub(crate) fn id_and_trace(&mut self) -> (TraceId<'_>, &mut OpenTrace) {
        (self.id.as_id(), &mut self.trace)
    }
}

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = size_of::<TraceSlot>();
const SLOT_CACHE_LINES: usize = SLOT_BYTES / CACHE_LINE_BYTES;

/// The generation of a vacant slot.
const VACANT_GENERATION: u64 = 0;

#[derive(Clone, Copy, Debug)]
struct ListLink {
    before: u32,
    after: u32,
}

/// A generational key: it finds its trace while that is in the slab, and nothing afterwards.
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
            id_bytes: 0,
            taken: NONE,
            generation: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of the ids of traces beyond the slots.
    #[inline]
    pub(crate) fn id_bytes(&self) -> usize {
        self.id_bytes
    }

    /// The trace with this id.
    #[inline]
    pub(crate) fn find(&mut self, id: TraceId<'_>) -> Option<(SlotKey, &mut OpenTrace)> {
        let is = |at: u32| self.slot(at).is_some_and(|slot| slot.id.is(id));
        let at = self.index.find(id.hash(), is)?;
        self.at(at)
    }

    /// Prefetches the index entry of a hash.
    #[inline]
    pub(crate) fn prefetch_index_entry(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The slot that a trace with this hash may have, without looking at it.
    #[inline]
    pub(crate) fn hint(&self, hash: u64) -> Option<SlotHint> {
        self.index.find(hash, |_| true).map(SlotHint)
    }

    /// Prefetches a slot.
    #[inline]
    pub(crate) fn prefetch(&self, hint: SlotHint) {
        if let Some(slot) = self.slot(hint.0) {
            // The generation is the first word of the slot.
            let words = std::slice::from_ref(&slot.generation);
            for line in 0..SLOT_CACHE_LINES {
                prefetch_index(words, line * (CACHE_LINE_BYTES / size_of::<u64>()));
            }
        }
    }

    /// Prefetches where the next record of the trace will be written.
    #[inline]
    pub(crate) fn prefetch_records(&self, hint: SlotHint) {
        if let Some(slot) = self.slot(hint.0) {
            slot.trace.prefetch();
        }
    }

    /// Prefetches what [`Self::take`] needs, first step: slot and link.
    #[inline]
    pub(crate) fn prefetch_slot(&self, key: SlotKey) {
        self.prefetch(SlotHint(key.at));
        if let Some(chunk) = self.chunks.get(key.at as usize / SLOTS_PER_CHUNK) {
            prefetch_index(&chunk.links, key.at as usize % SLOTS_PER_CHUNK);
        }
    }

    /// Second step, when those are cached: index entry, records and neighbours in the list.
    #[inline]
    pub(crate) fn prefetch_all(&self, key: SlotKey) {
        if let (Some(slot), Some(link)) = (self.slot(key.at), self.link(key.at)) {
            self.index.prefetch(slot.id.hash());
            slot.trace.prefetch_all();
            for at in [link.before, link.after] {
                if let Some(chunk) = self.chunks.get(at as usize / SLOTS_PER_CHUNK) {
                    prefetch_index(&chunk.links, at as usize % SLOTS_PER_CHUNK);
                }
            }
        }
    }

    /// The trace of a key, with its id.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: SlotKey) -> Option<(TraceId<'_>, &mut OpenTrace)> {
        let slot = self.slot_mut(key.at)?;
        (slot.generation == key.generation).then_some((slot.id.as_id(), &mut slot.trace))
    }

    /// Inserts a trace with this new id at the end of the LRU list. The caller fills it.
    #[inline]
    pub(crate) fn open(&mut self, id: TraceId<'_>) -> (SlotKey, &mut OpenTrace) {
        self.generation += 1;
        self.id_bytes += id.heap_bytes();
        if self.taken != NONE {
            self.free_taken_id();
        }
        let (at, generation) = (self.allocate(), self.generation);
        self.push_back(at);
        self.index.insert(id.hash(), at);
        let Some(slot) = self.slot_mut(at) else {
            unreachable!("a slot was just allocated");
        };
        slot.generation = generation;
        slot.id = id.into();
        (SlotKey { at, generation }, &mut slot.trace)
    }

    /// Frees the id of the slot that was taken last, which nobody needs any more.
    #[cold]
    fn free_taken_id(&mut self) {
        let taken = std::mem::replace(&mut self.taken, NONE);
        if let Some(slot) = self.slot_mut(taken) {
            slot.id = OwnedTraceId::EMPTY;
        }
    }

    /// Moves a trace to the end of the LRU list.
    pub(crate) fn promote(&mut self, key: SlotKey) {
        if key.at != self.newest && self.get_mut(key).is_some() {
            self.unlink(key.at);
            self.push_back(key.at);
        }
    }

    /// The least recently used trace.
    #[inline]
    pub(crate) fn oldest(&mut self) -> Option<(SlotKey, &mut OpenTrace)> {
        self.at(self.oldest)
    }

    /// The trace after this one in the LRU list.
    pub(crate) fn after(&self, key: SlotKey) -> Option<SlotKey> {
        self.slot(key.at)
            .filter(|slot| slot.generation == key.generation)?;
        let at = self.link(key.at)?.after;
        let generation = self.slot(at)?.generation;
        Some(SlotKey { at, generation })
    }

    /// Removes a trace. Its slot is vacant, but keeps its content until the next change of the
    /// slab.
    #[inline]
    pub(crate) fn take(&mut self, key: SlotKey) -> Option<&mut TraceSlot> {
        if self.taken != NONE {
            self.free_taken_id();
        }
        let at = key.at;
        let slot = self
            .slot_mut(at)
            .filter(|slot| slot.generation == key.generation)?;
        slot.generation = VACANT_GENERATION;
        let (hash, id_bytes) = (slot.id.hash(), slot.id.as_id().heap_bytes());
        if id_bytes > 0 {
            self.id_bytes -= id_bytes;
            self.taken = at;
        }
        self.index.remove(hash, at);
        self.unlink(at);
        self.release(at);
        self.slot_mut(at)
    }

    /// All traces.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TraceId<'_>, &OpenTrace)> {
        let slots = self.chunks.iter().flat_map(|chunk| &chunk.slots);
        let occupied = slots.filter(|slot| slot.generation != VACANT_GENERATION);
        occupied.map(|slot| (slot.id.as_id(), &slot.trace))
    }

    /// All traces, the least recently promoted first.
    pub(crate) fn iter_oldest_first(&self) -> impl Iterator<Item = (TraceId<'_>, &OpenTrace)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(at)?;
            at = self.link(at)?.after;
            Some((slot.id.as_id(), &slot.trace))
        })
    }

    /// Frees all memory, if there are no traces.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 && self.allocated > 1 {
            let generation = self.generation;
            *self = Self {
                generation,
                ..Self::new()
            };
        }
    }

    /// The trace of a slot.
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

    /// Takes the first vacant slot.
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
            unreachable!("the chunks in the bitmap exist");
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
                    id: OwnedTraceId::EMPTY,
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

    /// Makes a slot vacant.
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

    /// Frees empty chunks while far more are allocated than needed. Not the chunk `last`, which has
    /// just become empty: the removed trace is still in it.
    #[cold]
    fn free_empty_chunks(&mut self, last: usize) {
        while self.allocated * SLOTS_PER_CHUNK > 2 * self.len() + 4 * SLOTS_PER_CHUNK {
            let Some(number) = self.emptied.pop() else {
                return;
            };
            // It may be in use again, or freed already.
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

/// A slot that may have another trace than the one looked for.
#[derive(Clone, Copy, Debug)]
pub struct SlotHint(u32);
