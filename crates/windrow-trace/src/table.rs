//! The trace table of one shard: all traces in memory, and when each is sealed.
//!
//! Owns the limits, the LRU order, the deadlines and the count of bytes. Does no I/O, reads no
//! clock (time is an argument) and starts no threads. `H` is a guard that must live until every
//! document made of a source is written (in the server, the guard on a journal segment).
//!
//! There is one idle timeout, so an LRU list orders the traces by expiry and no trace needs a
//! timer. A trace moves in the list at most once in a 64th of the idle timeout, because a move
//! touches three cache lines; a trace may thus expire that much late. There is also one linger
//! time, so completed traces are due in the order in which they completed.

mod repeats;
mod sealing;
mod silent;

use std::collections::VecDeque;

use crate::document::shape::ShapeRegistry;
use crate::document::state::SealReason;
use crate::lingering::budget::LingerBudget;
use crate::lingering::queue::{LingerQueue, PoppedTrace};
use crate::lingering::recently_sealed::RecentlySealed;
use crate::open::buffer_pool::BufferPool;
use crate::open::slab::{Slab, SlotHint, SlotKey};
use crate::open::trace::{AddOutcome, IncomingRecord, OpenTrace, record_cost};
use crate::source::{Source, SourceId, Sources};
use crate::trace_id::{TraceId, TraceIdHasher};

pub use self::silent::SilentTrace;

/// A trace is promoted in the LRU list at most once in this fraction of the idle timeout.
const PROMOTE_FRACTION: i64 = 64;
/// Open traces of more bytes than this exceed the private caches of a core: prefetching pays.
const PREFETCH_THRESHOLD_BYTES: usize = 2 << 20;

/// How many completed traces ahead to prefetch the slot, and, one step later, the records.
const PREFETCH_SLOTS_AHEAD: usize = 8;
const PREFETCH_RECORDS_AHEAD: usize = 4;

/// When traces are sealed. All times in µs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a completed trace waits for stragglers: records that come over other connections.
    pub linger: i64,
    /// How long after its last record an incomplete trace is sealed.
    pub idle_timeout: i64,
    /// Maximum time for which a trace accepts records.
    pub max_age: i64,
    /// Maximum number of traces in the shard.
    pub max_traces: usize,
    /// Maximum bytes of all traces in the shard.
    pub max_bytes: usize,
    /// Maximum bytes of the records of one trace; a single record may be longer. A part beyond it
    /// is not added ([`AddOutcome::TraceFull`]).
    pub max_trace_bytes: usize,
}

/// The trace table of one shard.
#[derive(Debug)]
pub struct Table<H> {
    limits: Limits,
    hasher: TraceIdHasher,
    sources: Sources<H>,
    open: Slab,
    /// Open traces that completed since `move_completed`, with the time at which they did.
    completed: Vec<(i64, SlotKey)>,
    /// Completed traces to seal at once, because the linger budget is zero.
    ready: VecDeque<(i64, SlotKey)>,
    lingering: LingerQueue,
    /// Bytes of traces that may linger.
    budget: LingerBudget,
    /// Traces that were sealed within the idle timeout and are not expected to get more lines.
    recently_sealed: RecentlySealed,
    /// Traces sealed before their linger time passed, since `take_sealed_early`.
    sealed_early: usize,
    buffers: BufferPool,
    /// Where a trace is built whose first record completes it: it is packed without being open.
    staging: OpenTrace,
    /// Traces that completed since `take_completed`.
    newly_completed: usize,
    /// Deadlines of open traces: those that are too old, completed ones too large to pack, and
    /// (with the reason `Idle`) those of late lines.
    deadlines: VecDeque<(i64, SealReason, SlotKey)>,
    /// Bytes of the open traces.
    bytes: usize,
    lines: u64,
    /// Where the next search for silent traces goes on.
    silent_from: Option<SlotKey>,
}

impl<H: Clone> Table<H> {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            budget: LingerBudget::new(limits.max_bytes),
            recently_sealed: RecentlySealed::new(limits.idle_timeout, limits.max_bytes),
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
            deadlines: VecDeque::new(),
            bytes: 0,
            lines: 0,
            silent_from: None,
        }
    }

    /// Number of traces.
    pub fn len(&self) -> usize {
        self.open.len() + self.lingering.len()
    }

    /// Whether there are no traces.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all traces, with their overhead.
    pub fn bytes(&self) -> usize {
        self.bytes + self.open.id_bytes() + self.sources.tag_bytes() + self.lingering.bytes()
    }

    /// Whether `max_traces` or `max_bytes` is exceeded.
    pub fn is_too_full(&self) -> bool {
        let bytes = self.bytes() + self.recently_sealed.bytes();
        self.len() > self.limits.max_traces || bytes > self.limits.max_bytes
    }

    /// Number of records in all traces.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Registers a source of records. [`Self::end_source`] ends it.
    pub fn begin_source(&mut self, source: Source<H>) -> SourceId {
        self.sources.begin(source)
    }

    /// Ends a source: no more records come from it. Returns its guard if no trace has records of
    /// it.
    pub fn end_source(&mut self, source: SourceId) -> Option<H> {
        self.sources.end(source)
    }

    /// Hashes a trace id for this table.
    #[inline]
    pub fn trace_id<'a>(&self, id: &'a [u8]) -> TraceId<'a> {
        self.hasher.id(id)
    }

    /// Adds a record to its trace, which is opened if need be. `shapes`: the registry of its shape.
    // Always inlined: in the loop over the records of a message the arguments stay in registers.
    #[inline(always)]
    pub fn add(&mut self, now: i64, incoming: &IncomingRecord<'_>, shapes: &ShapeRegistry) -> AddOutcome {
        let max_bytes = self.limits.max_trace_bytes;
        let Some((key, trace)) = self.open.find(incoming.id) else {
            return self.add_new(now, incoming, shapes);
        };
        let stale = now.saturating_sub(trace.promoted_at) > self.limits.idle_timeout / PROMOTE_FRACTION;
        if stale {
            trace.promoted_at = now;
        }
        let Some(grown) = trace.add(now, incoming, &mut self.sources, shapes, max_bytes) else {
            return AddOutcome::TraceFull;
        };
        self.lines += 1;
        self.bytes = self.bytes.wrapping_add_signed(grown);
        let had_deadline = trace.has_deadline;
        if !had_deadline {
            let too_old = now.saturating_sub(trace.opened_at) >= self.limits.max_age;
            trace.has_deadline = incoming.completes || too_old;
            if incoming.completes {
                self.complete(now, key);
            } else if too_old {
                self.deadlines.push_front((now, SealReason::MaxAge, key));
            }
        }
        if stale {
            self.open.promote(key);
        }
        AddOutcome::Added
    }

    /// Adds a record to a trace that is not open: a straggler, or the first record of a trace.
    #[inline]
    fn add_new(&mut self, now: i64, incoming: &IncomingRecord<'_>, shapes: &ShapeRegistry) -> AddOutcome {
        let max_bytes = self.limits.max_trace_bytes;
        let id = incoming.id;
        self.recently_sealed.prefetch(id.hash());
        if let Some((due, mut trace)) = self.lingering.take(id) {
            self.budget.straggler_in_time();
            let added = trace.add(now, incoming, &mut self.sources, shapes, max_bytes);
            trace.promoted_at = now;
            self.lines += u64::from(added.is_some());
            self.bytes += trace.memory_bytes();
            let (key, slot) = self.open.open(id);
            *slot = trace;
            self.set_deadline(due, SealReason::Completed, key);
            return match added {
                Some(_) => AddOutcome::Added,
                None => AddOutcome::TraceFull,
            };
        }
        let size = record_cost(incoming.record, incoming.metadata);
        self.budget.trace_opened(now, id.hash());
        self.lines += 1;
        let buffer = self.buffers.take(size);
        // A line that completes its trace waits for the linger time anyway.
        if !incoming.completes && self.recently_sealed.contains(id.hash(), now) {
            return self.add_late(now, incoming, buffer);
        }
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
            let (key, slot) = self.open.open(id);
            std::mem::swap(trace, slot);
            slot.has_deadline = true;
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

    /// Opens a trace for a late line: its document exists, and only few lines are still missing.
    #[cold]
    fn add_late(&mut self, now: i64, incoming: &IncomingRecord<'_>, buffer: Vec<u8>) -> AddOutcome {
        let (key, trace) = self.open.open(incoming.id);
        trace.begin(now, incoming, &mut self.sources, buffer);
        trace.has_deadline = true;
        self.bytes += trace.memory_bytes();
        let wait = self.limits.linger.min(self.limits.idle_timeout);
        self.set_deadline(now.saturating_add(wait), SealReason::Idle, key);
        AddOutcome::Added
    }

    /// Whether the table is large enough for prefetching to pay.
    #[inline]
    pub fn exceeds_cache(&self) -> bool {
        self.bytes > PREFETCH_THRESHOLD_BYTES
    }

    /// Prefetches the index entry of a trace.
    #[inline]
    pub fn prefetch_index_entry(&self, id: TraceId<'_>) {
        self.open.prefetch_index_entry(id.hash());
    }

    /// Looks up a trace by hash alone, and prefetches its slot.
    #[inline]
    pub fn prefetch_trace(&self, id: TraceId<'_>) -> Option<SlotHint> {
        let hint = self.open.hint(id.hash())?;
        self.open.prefetch(hint);
        Some(hint)
    }

    /// Prefetches the records of a trace whose slot was prefetched a while ago.
    #[inline]
    pub fn prefetch_records(&self, hint: SlotHint) {
        self.open.prefetch_records(hint);
    }

    /// Notes that an open trace completed.
    fn complete(&mut self, now: i64, key: SlotKey) {
        if self.limits.linger > 0 {
            self.completed.push((now, key));
        } else {
            self.newly_completed += 1;
            self.set_deadline(now, SealReason::Completed, key);
        }
    }

    /// Frees memory that is kept for reuse. For idle times.
    pub fn shrink(&mut self) {
        self.lingering.shrink();
        self.open.shrink();
        self.buffers.shrink();
        self.sources.shrink();
        if self.is_empty() {
            (self.completed, self.ready) = (Vec::new(), VecDeque::new());
            (self.deadlines, self.staging) = (VecDeque::new(), OpenTrace::vacant());
        }
    }

    /// Moves completed traces to the linger queue. Cheaper once per chunk than after each record:
    /// reopening a lingering trace costs more than adding to an open one.
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
            // It may have been sealed for lack of memory since.
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
                self.set_deadline(due, SealReason::Completed, key);
            }
        }
        completed.clear();
        self.completed = completed;
    }

    /// Number of traces that completed since the last call.
    pub fn take_completed(&mut self) -> usize {
        std::mem::take(&mut self.newly_completed)
    }

    /// Number of completed traces sealed before their linger time passed, since the last call.
    pub fn take_sealed_early(&mut self) -> usize {
        std::mem::take(&mut self.sealed_early)
    }

    /// Sets the deadline of a trace that stays open.
    fn set_deadline(&mut self, due: i64, reason: SealReason, key: SlotKey) {
        let at = self.deadlines.partition_point(|(other, ..)| *other <= due);
        self.deadlines.insert(at, (due, reason, key));
    }

    /// The open traces, the least recently promoted first.
    pub(crate) fn open_traces(&self) -> impl Iterator<Item = (TraceId<'_>, &OpenTrace)> {
        self.open.iter_oldest_first()
    }

    /// The lingering traces, in the order in which they are due.
    pub(crate) fn lingering_traces(&self) -> impl Iterator<Item = PoppedTrace<'_>> {
        self.lingering.iter()
    }
}

/// Packs a completed trace into the linger queue.
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
