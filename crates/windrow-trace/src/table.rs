//! The open traces of one shard, and when they are sealed.
//!
//! Owns the order of use, the limits and the bookkeeping of bytes. Time is an argument; there is no I/O and no
//! thread. `H` is whatever must be held until what came together is written (the journal's hold on the chunk).
//!
//! There is one idle timeout, so the order of last use is the order of expiry, and a least-recently-used list is all
//! that is needed: no timer per trace. The list is kept a little behind, since to move a trace in it means to look at
//! three places in memory: traces expire up to a 64th of the timeout late. There is one linger as well: traces that are
//! complete wait in the order in which they became so, packed (`linger`), as long as not too many do (`budget`).

use std::collections::VecDeque;

use crate::document::state::SealReason;
use crate::lingering::budget::LingerBudget;
use crate::lingering::queue::LingerQueue;
use crate::open::buffer_pool::BufferPool;
use crate::open::lines::HEADER_BYTES;
use crate::open::slab::{Slab, SlotHint, SlotKey};
use crate::open::trace::{AddOutcome, IncomingRecord, OpenTrace};
use crate::sealed::SealedTrace;
use crate::source::{Source, SourceId, Sources};
use crate::trace_id::{TraceId, TraceIdHasher};

/// Traces are moved to the end of the list when they are used later than this part of the idle timeout after the last
/// time.
const PROMOTE_FRACTION: i64 = 64;
/// Open traces of so many bytes are more than the nearer caches of a processor hold.
const PREFETCH_THRESHOLD_BYTES: usize = 2 << 20;

/// So many complete traces ahead of the one at hand the processor fetches the next, and, nearer, its records.
const PREFETCH_SLOTS_AHEAD: usize = 8;
const PREFETCH_RECORDS_AHEAD: usize = 4;

/// When traces are sealed. All times in µs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a completed trace is_pending for stragglers from other connections.
    pub linger: i64,
    /// How long after its last record an incomplete trace is sealed.
    pub idle_timeout: i64,
    /// How long a trace may take records at the most.
    pub max_age: i64,
    /// Open traces in this shard.
    pub max_traces: usize,
    /// Bytes of all open traces of this shard.
    pub max_bytes: usize,
    /// Bytes of one trace's records; what is beyond goes to the dead letter.
    pub max_trace_bytes: usize,
}

/// The open traces of one shard.
#[derive(Debug)]
pub struct Table<H> {
    limits: Limits,
    hasher: TraceIdHasher,
    sources: Sources<H>,
    open: Slab,
    /// Those of the open ones that became complete since they were settled, and when.
    completed: Vec<(i64, SlotKey)>,
    /// Those of them that do not wait for stragglers, and when they became complete.
    ready: VecDeque<(i64, SlotKey)>,
    lingering: LingerQueue,
    /// How many of them may wait.
    budget: LingerBudget,
    /// How many were sealed before they were due since `take_sealed_early`.
    sealed_early: usize,
    buffers: BufferPool,
    /// The place of a trace that is complete with its first record, and never among the open ones.
    staging: OpenTrace,
    /// How many were settled since `take_completed`.
    newly_completed: usize,
    /// Those of the open ones that are too old, or complete without being among the lingering, as they are due.
    due: VecDeque<(i64, SealReason, SlotKey)>,
    /// Bytes of the open ones.
    bytes: usize,
    lines: u64,
}

impl<H: Clone> Table<H> {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            budget: LingerBudget::new(limits.max_bytes),
            limits,
            hasher: TraceIdHasher::default(),
            sources: Sources::new(),
            open: Slab::new(),
            completed: Vec::new(),
            ready: VecDeque::new(),
            lingering: LingerQueue::new(),
            sealed_early: 0,
            buffers: BufferPool::new(),
            staging: OpenTrace::vacant(),
            newly_completed: 0,
            due: VecDeque::new(),
            bytes: 0,
            lines: 0,
        }
    }

    /// Traces in it.
    pub fn len(&self) -> usize {
        self.open.len() + self.lingering.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all traces, with what they memory_bytes beyond their records.
    pub fn bytes(&self) -> usize {
        self.bytes + self.lingering.bytes()
    }

    /// Whether there are more traces, or more bytes of them, than there may be.
    pub fn is_too_full(&self) -> bool {
        self.len() > self.limits.max_traces || self.bytes() > self.limits.max_bytes
    }

    /// Records in all traces.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Records from this source come now; [`Self::end_source`] says that there are no more of them.
    pub fn begin_source(&mut self, source: Source<H>) -> SourceId {
        self.sources.begin(source)
    }

    /// No more records come from the source. Gives what it holds when no trace contains any.
    pub fn end_source(&mut self, source: SourceId) -> Option<H> {
        self.sources.end(source)
    }

    /// An id, for [`IncomingRecord`].
    #[inline]
    pub fn trace_id<'a>(&self, id: &'a [u8]) -> TraceId<'a> {
        self.hasher.id(id)
    }

    /// Puts a record into its trace, opening it if need be; one that is too long opens none.
    // Always: in the loop over a message's records its arguments stay in registers.
    #[inline(always)]
    pub fn add(&mut self, now: i64, incoming: &IncomingRecord<'_>) -> AddOutcome {
        let max_bytes = self.limits.max_trace_bytes;
        let Some((key, trace)) = self.open.find(incoming.id) else {
            return self.add_new(now, incoming);
        };
        let stale = now.saturating_sub(trace.promoted_at) > self.limits.idle_timeout / PROMOTE_FRACTION;
        if stale {
            trace.promoted_at = now;
        }
        let before = trace.memory_bytes();
        let added = trace.add(now, incoming, &mut self.sources, max_bytes);
        let memory_bytes = trace.memory_bytes();
        self.lines += u64::from(added == AddOutcome::Added);
        self.bytes = self.bytes + memory_bytes - before;
        let was_queued = trace.has_deadline;
        if !was_queued {
            let too_old = now.saturating_sub(trace.opened_at) >= self.limits.max_age;
            trace.has_deadline = incoming.completes || too_old;
            if incoming.completes {
                self.complete(now, key);
            } else if too_old {
                self.due.push_front((now, SealReason::MaxAge, key));
            }
        }
        if stale {
            self.open.promote(key);
        }
        added
    }

    /// Puts a record into a trace that is not among the open ones.
    #[inline]
    fn add_new(&mut self, now: i64, incoming: &IncomingRecord<'_>) -> AddOutcome {
        let max_bytes = self.limits.max_trace_bytes;
        let id = incoming.id;
        if let Some((due, mut trace)) = self.lingering.take(id) {
            self.budget.straggler_in_time();
            let added = trace.add(now, incoming, &mut self.sources, max_bytes);
            trace.promoted_at = now;
            self.lines += u64::from(added == AddOutcome::Added);
            self.bytes += trace.memory_bytes();
            let (key, slot) = self.open.open(id);
            *slot = trace;
            self.set_deadline(due, key);
            return added;
        }
        let size = HEADER_BYTES + incoming.record.len() + incoming.metadata.len();
        if size > max_bytes {
            return AddOutcome::TooLong;
        }
        self.budget.trace_opened(now, id.hash());
        self.lines += 1;
        let buffer = self.buffers.take(size);
        if incoming.completes && self.limits.linger > 0 {
            let trace = &mut self.staging;
            trace.begin(now, incoming, &mut self.sources, buffer);
            if LingerQueue::accepts(id, trace) {
                self.newly_completed += 1;
                let due = now.saturating_add(self.limits.linger);
                move_to_lingering(&mut self.lingering, &mut self.buffers, id, trace, due);
                return AddOutcome::Added;
            }
            self.bytes += trace.memory_bytes();
            let (key, place) = self.open.open(id);
            std::mem::swap(trace, place);
            place.has_deadline = true;
            self.complete(now, key);
            return AddOutcome::Added;
        }
        let (key, trace) = self.open.open(id);
        trace.begin(now, incoming, &mut self.sources, buffer);
        trace.has_deadline = incoming.completes;
        self.bytes += trace.memory_bytes();
        if incoming.completes {
            self.complete(now, key);
        }
        AddOutcome::Added
    }

    /// Whether it is worth it to prefetch_trace what is needed soon: there is more than the processor's nearer caches hold.
    #[inline]
    pub fn exceeds_cache(&self) -> bool {
        self.bytes > PREFETCH_THRESHOLD_BYTES
    }

    /// The processor fetches what is needed to find the trace of a record that comes soon.
    #[inline]
    pub fn prefetch_index_entry(&self, id: TraceId<'_>) {
        self.open.prefetch_index_entry(id.hash());
    }

    /// Where the trace of a record that comes soon may be, without a look at it: the processor fetches it.
    #[inline]
    pub fn prefetch_trace(&self, id: TraceId<'_>) -> Option<SlotHint> {
        let hint = self.open.hint(id.hash())?;
        self.open.prefetch(hint);
        Some(hint)
    }

    /// The processor fetches the records of a trace that it was asked to prefetch_trace a while ago.
    #[inline]
    pub fn prefetch_records(&self, hint: SlotHint) {
        self.open.prefetch_records(hint);
    }

    /// Notes that an open trace is complete.
    fn complete(&mut self, now: i64, key: SlotKey) {
        if self.limits.linger > 0 {
            self.completed.push((now, key));
        } else {
            self.newly_completed += 1;
            self.set_deadline(now, key);
        }
    }

    /// Gives memory back that is only kept to be used reopened, when there is nothing to do.
    pub fn shrink(&mut self) {
        self.lingering.shrink();
        self.open.shrink();
        self.buffers.shrink();
    }

    /// Lays the traces that have become complete where they wait for stragglers, if they do. Better once for all records that came
    /// together than after each: a trace that is open reopened costs more than one that still is.
    pub fn move_completed(&mut self) {
        let mut completed = std::mem::take(&mut self.completed);
        self.newly_completed += completed.len();
        let exceeds_cache = self.exceeds_cache();
        for (number, &(since, key)) in completed.iter().enumerate() {
            let budget = self.budget.bytes(since);
            if exceeds_cache && let Some((_, ahead)) = completed.get(number + PREFETCH_SLOTS_AHEAD) {
                self.open.prefetch_slot(*ahead);
            }
            if exceeds_cache
                && budget > 0
                && let Some((_, ahead)) = completed.get(number + PREFETCH_RECORDS_AHEAD)
            {
                self.open.prefetch_all(*ahead);
            }
            // One that was sealed for want of budget_bytes in the meantime is not there any more.
            let Some((id, trace)) = self.open.get_mut(key) else {
                continue;
            };
            let due = since.saturating_add(self.limits.linger);
            if budget == 0 {
                self.ready.push_back((since, key));
            } else if LingerQueue::accepts(id, trace) {
                self.bytes -= trace.memory_bytes();
                if let Some(slot) = self.open.take(key) {
                    let (id, trace) = slot.id_and_trace();
                    move_to_lingering(&mut self.lingering, &mut self.buffers, id, trace, due);
                }
            } else {
                self.set_deadline(due, key);
            }
        }
        completed.clear();
        self.completed = completed;
    }

    /// How many traces became complete since this was asked last.
    pub fn take_completed(&mut self) -> usize {
        std::mem::take(&mut self.newly_completed)
    }

    /// How many complete traces were sealed before they were due since this was asked last.
    pub fn take_sealed_early(&mut self) -> usize {
        std::mem::take(&mut self.sealed_early)
    }

    /// Remembers when a complete trace among the open ones is due.
    fn set_deadline(&mut self, due: i64, key: SlotKey) {
        let at = self.due.partition_point(|(other, ..)| *other <= due);
        self.due.insert(at, (due, SealReason::Completed, key));
    }

    /// The next trace that must be sealed by now: complete or too old, idle, or in the way of newer ones.
    /// Call it until it gives `None`, after each chunk and at each tick.
    pub fn next_sealed(&mut self, now: i64) -> Option<SealedTrace<'_, H>> {
        self.move_completed();
        while let Some((since, key)) = self.ready.pop_front() {
            if let Some((_, ahead)) = self
                .ready
                .get(PREFETCH_RECORDS_AHEAD)
                .filter(|_| self.exceeds_cache())
            {
                self.open.prefetch_all(*ahead);
            }
            if let Some((id, trace)) = self.open.get_mut(key) {
                let due = since.saturating_add(self.limits.linger);
                if due > now {
                    self.sealed_early += 1;
                    self.budget
                        .sealed_early(now, id.hash(), due, trace.record_bytes());
                }
                return self.seal_slot(key, SealReason::Completed);
            }
        }
        let is_pending = |due: i64| due > now && due - now <= self.limits.linger;
        // Of a clock that was set back nobody is_pending for the old time to come reopened.
        if self.lingering.first_due().is_some_and(|due| !is_pending(due))
            || self.lingering.bytes() > self.budget.bytes(now)
        {
            return self.seal_lingering(now);
        }
        while self.due.front().is_some_and(|(due, ..)| !is_pending(*due)) {
            let Some((_, reason, key)) = self.due.pop_front() else {
                break;
            };
            // One that was sealed for want of budget_bytes in the meantime is not there any more.
            if self.open.get_mut(key).is_some() {
                return self.seal_slot(key, reason);
            }
        }
        if self.is_too_full() {
            // Those that are complete go first: most likely nothing of them is to come.
            if self.lingering.len() == 0 {
                self.promote_used(now);
            }
            return self.seal_any(now, SealReason::Evicted);
        }
        let (_, oldest) = self.open.oldest()?;
        let idle = now.saturating_sub(oldest.last_seen) >= self.limits.idle_timeout;
        if idle && !oldest.has_deadline {
            return self.seal_oldest(SealReason::Idle);
        }
        None
    }

    /// Moves those to the end of the list that were used since they were moved there last, until the first is the one that
    /// was used least recently.
    fn promote_used(&mut self, now: i64) {
        while let Some((key, oldest)) = self.open.oldest()
            && oldest.last_seen > oldest.promoted_at
        {
            oldest.promoted_at = now;
            // By a clock that was set back it would never have been.
            oldest.last_seen = oldest.last_seen.min(now);
            self.open.promote(key);
        }
    }

    /// Closes a trace, whatever its age: the one that contains been complete for the longest, or else the one that was used
    /// least recently, for this reason.
    pub fn seal_any(&mut self, now: i64, reason: SealReason) -> Option<SealedTrace<'_, H>> {
        if self.lingering.len() > 0 {
            self.seal_lingering(now)
        } else {
            self.seal_oldest(reason)
        }
    }

    /// The ids of all traces of which `pinned` says so of what one of their sources holds.
    pub fn ids_holding(&self, pinned: impl FnMut(&H) -> bool) -> Vec<Vec<u8>> {
        let sources = self.sources.flags_by_hold(pinned);
        let pinned = |source: SourceId| sources.get(source.0 as usize).is_some_and(|pinned| *pinned);
        let mut ids = self.lingering.ids_with(pinned);
        let has = |trace: &OpenTrace| trace.parts.iter().any(|part| pinned(part.source));
        let open = self.open.iter().filter(|(_, trace)| has(trace));
        ids.extend(open.map(|(id, _)| id.bytes().to_vec()));
        ids
    }

    /// Closes the trace of this id before it is due.
    pub fn seal(&mut self, id: &[u8]) -> Option<SealedTrace<'_, H>> {
        let id = self.trace_id(id);
        if self.lingering.contains(id) {
            let (_, trace) = self.lingering.take(id)?;
            self.lines -= u64::from(trace.count());
            let (sources, buffers) = (&mut self.sources, &mut self.buffers);
            return Some(SealedTrace::reopened(id.into(), trace, sources, buffers));
        }
        let (key, _) = self.open.find(id)?;
        self.seal_slot(key, SealReason::Evicted)
    }

    fn seal_oldest(&mut self, reason: SealReason) -> Option<SealedTrace<'_, H>> {
        let (key, _) = self.open.oldest()?;
        self.seal_slot(key, reason)
    }

    fn seal_lingering(&mut self, now: i64) -> Option<SealedTrace<'_, H>> {
        let popped = self.lingering.pop()?;
        if popped.due() > now {
            self.sealed_early += 1;
            self.budget
                .sealed_early(now, popped.hash(), popped.due(), popped.bytes());
        }
        self.lines -= u64::from(popped.count());
        Some(SealedTrace::lingered(
            popped,
            &mut self.sources,
            &mut self.buffers,
        ))
    }

    fn seal_slot(&mut self, key: SlotKey, reason: SealReason) -> Option<SealedTrace<'_, H>> {
        let slot = self.open.take(key)?;
        self.bytes -= slot.trace.memory_bytes();
        self.lines -= u64::from(slot.trace.count());
        self.buffers.observe(slot.trace.record_bytes());
        // That it is complete says more than why it had to go.
        let reason = if slot.trace.is_complete {
            SealReason::Completed
        } else {
            reason
        };
        let (sources, buffers) = (&mut self.sources, &mut self.buffers);
        Some(SealedTrace::open(reason, slot, sources, buffers))
    }
}

/// Lays a trace that is complete where it is_pending for stragglers.
#[inline]
fn move_to_lingering(
    lingering: &mut LingerQueue,
    buffers: &mut BufferPool,
    id: TraceId<'_>,
    trace: &mut OpenTrace,
    due: i64,
) {
    buffers.observe(trace.record_bytes());
    buffers.put(lingering.push(id, trace, due));
}
