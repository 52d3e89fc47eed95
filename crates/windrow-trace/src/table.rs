//! The open traces of one shard, and when they are sealed.
//!
//! Owns the order of use, the limits and the bookkeeping of bytes. Time is an argument; there is no I/O and no
//! thread. `H` is whatever must be held until what came together is written (the journal's hold on the chunk).
//!
//! There is one idle timeout, so the order of last use is the order of expiry, and a least-recently-used list is all
//! that is needed: no timer per trace. The list is kept a little behind, since to move a trace in it means to look at
//! three places in memory: traces expire up to a 64th of the timeout late. There is one linger as well: traces that are
//! complete wait in the order in which they became so, packed (`linger`), as long as not too many do (`patience`).

use std::collections::VecDeque;

use crate::document::state::Reason;
use crate::lingering::budget::Patience;
use crate::lingering::queue::Lingering;
use crate::open::buffer_pool::Spaces;
use crate::open::lines::HEADER;
use crate::open::slab::{Guess, Slab, Ticket};
use crate::open::trace::{Added, Incoming, Trace};
use crate::sealed::Closed;
use crate::source::{Source, SourceId, Sources};
use crate::trace_id::{Id, Keys};

/// Traces are moved to the end of the list when they are used later than this part of the idle timeout after the last
/// time.
const BEHIND: i64 = 64;
/// Open traces of so many bytes are more than the nearer caches of a processor hold.
const SPREAD: usize = 2 << 20;

/// So many complete traces ahead of the one at hand the processor fetches the next, and, nearer, its records.
const FETCH_TRACE: usize = 8;
const FETCH_RECORDS: usize = 4;

/// When traces are sealed. All times in µs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a completed trace waits for stragglers from other connections.
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
    keys: Keys,
    sources: Sources<H>,
    open: Slab,
    /// Those of the open ones that became complete since they were settled, and when.
    completed: Vec<(i64, Ticket)>,
    /// Those of them that do not wait for stragglers, and when they became complete.
    ready: VecDeque<(i64, Ticket)>,
    lingering: Lingering,
    /// How many of them may wait.
    patience: Patience,
    /// How many were sealed before they were due since `take_hurried`.
    hurried: usize,
    spaces: Spaces,
    /// The place of a trace that is complete with its first record, and never among the open ones.
    passing: Trace,
    /// How many were settled since `take_completed`.
    newly_completed: usize,
    /// Those of the open ones that are too old, or complete without being among the lingering, as they are due.
    due: VecDeque<(i64, Reason, Ticket)>,
    /// Bytes of the open ones.
    bytes: usize,
    lines: u64,
}

impl<H: Clone> Table<H> {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            patience: Patience::new(limits.max_bytes),
            limits,
            keys: Keys::default(),
            sources: Sources::new(),
            open: Slab::new(),
            completed: Vec::new(),
            ready: VecDeque::new(),
            lingering: Lingering::new(),
            hurried: 0,
            spaces: Spaces::new(),
            passing: Trace::vacant(),
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

    /// Bytes of all traces, with what they cost beyond their records.
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

    /// Records from this source come now; [`Self::end`] says that there are no more of them.
    pub fn begin(&mut self, source: Source<H>) -> SourceId {
        self.sources.begin(source)
    }

    /// No more records come from the source. Gives what it holds when no trace has any.
    pub fn end(&mut self, source: SourceId) -> Option<H> {
        self.sources.end(source)
    }

    /// An id, for [`Incoming`].
    #[inline]
    pub fn id<'a>(&self, id: &'a [u8]) -> Id<'a> {
        self.keys.id(id)
    }

    /// Puts a record into its trace, opening it if need be; one that is too long opens none.
    // Always: in the loop over a message's records its arguments stay in registers.
    #[inline(always)]
    pub fn add(&mut self, now: i64, incoming: &Incoming<'_>) -> Added {
        let max_bytes = self.limits.max_trace_bytes;
        let Some((ticket, trace)) = self.open.find(incoming.id) else {
            return self.add_new(now, incoming);
        };
        let displaced = now.saturating_sub(trace.placed) > self.limits.idle_timeout / BEHIND;
        if displaced {
            trace.placed = now;
        }
        let before = trace.cost();
        let added = trace.add(now, incoming, &mut self.sources, max_bytes);
        let cost = trace.cost();
        self.lines += u64::from(added == Added::Kept);
        self.bytes = self.bytes + cost - before;
        let was_queued = trace.queued;
        if !was_queued {
            let too_old = now.saturating_sub(trace.opened) >= self.limits.max_age;
            trace.queued = incoming.completes || too_old;
            if incoming.completes {
                self.complete(now, ticket);
            } else if too_old {
                self.due.push_front((now, Reason::MaxAge, ticket));
            }
        }
        if displaced {
            self.open.promote(ticket);
        }
        added
    }

    /// Puts a record into a trace that is not among the open ones.
    #[inline]
    fn add_new(&mut self, now: i64, incoming: &Incoming<'_>) -> Added {
        let max_bytes = self.limits.max_trace_bytes;
        let id = incoming.id;
        if let Some((due, mut left)) = self.lingering.take(id) {
            self.patience.came_in_time();
            let added = left.add(now, incoming, &mut self.sources, max_bytes);
            left.placed = now;
            self.lines += u64::from(added == Added::Kept);
            self.bytes += left.cost();
            let (ticket, trace) = self.open.open(id);
            *trace = left;
            self.put_due(due, ticket);
            return added;
        }
        let size = HEADER + incoming.record.len() + incoming.metadata.len();
        if size > max_bytes {
            return Added::TooLong;
        }
        self.patience.begins(now, id.hash());
        self.lines += 1;
        let space = self.spaces.take(size);
        if incoming.completes && self.limits.linger > 0 {
            let trace = &mut self.passing;
            trace.begin(now, incoming, &mut self.sources, space);
            if Lingering::takes(id, trace) {
                self.newly_completed += 1;
                let due = now.saturating_add(self.limits.linger);
                lay(&mut self.lingering, &mut self.spaces, id, trace, due);
                return Added::Kept;
            }
            self.bytes += trace.cost();
            let (ticket, place) = self.open.open(id);
            std::mem::swap(trace, place);
            place.queued = true;
            self.complete(now, ticket);
            return Added::Kept;
        }
        let (ticket, trace) = self.open.open(id);
        trace.begin(now, incoming, &mut self.sources, space);
        trace.queued = incoming.completes;
        self.bytes += trace.cost();
        if incoming.completes {
            self.complete(now, ticket);
        }
        Added::Kept
    }

    /// Whether it is worth it to fetch what is needed soon: there is more than the processor's nearer caches hold.
    #[inline]
    pub fn is_spread(&self) -> bool {
        self.bytes > SPREAD
    }

    /// The processor fetches what is needed to find the trace of a record that comes soon.
    #[inline]
    pub fn fetch_place(&self, id: Id<'_>) {
        self.open.fetch_place(id.hash());
    }

    /// Where the trace of a record that comes soon may be, without a look at it: the processor fetches it.
    #[inline]
    pub fn fetch(&self, id: Id<'_>) -> Option<Guess> {
        let guess = self.open.guess(id.hash())?;
        self.open.fetch(guess);
        Some(guess)
    }

    /// The processor fetches the records of a trace that it was asked to fetch a while ago.
    #[inline]
    pub fn fetch_records(&self, guess: Guess) {
        self.open.fetch_records(guess);
    }

    /// Notes that an open trace is complete.
    fn complete(&mut self, now: i64, ticket: Ticket) {
        if self.limits.linger > 0 {
            self.completed.push((now, ticket));
        } else {
            self.newly_completed += 1;
            self.put_due(now, ticket);
        }
    }

    /// Gives memory back that is only kept to be used again, when there is nothing to do.
    pub fn rest(&mut self) {
        self.lingering.rest();
        self.open.rest();
        self.spaces.rest();
    }

    /// Lays the traces that have become complete where they wait for stragglers, if they do. Better once for all records that came
    /// together than after each: a trace that is open again costs more than one that still is.
    pub fn settle(&mut self) {
        let mut completed = std::mem::take(&mut self.completed);
        self.newly_completed += completed.len();
        let is_spread = self.is_spread();
        for (number, &(since, ticket)) in completed.iter().enumerate() {
            let room = self.patience.room(since);
            if is_spread && let Some((_, ahead)) = completed.get(number + FETCH_TRACE) {
                self.open.fetch_ticket(*ahead);
            }
            if is_spread
                && room > 0
                && let Some((_, ahead)) = completed.get(number + FETCH_RECORDS)
            {
                self.open.fetch_whole(*ahead);
            }
            // One that was sealed for want of room in the meantime is not there any more.
            let Some((id, trace)) = self.open.get_mut(ticket) else {
                continue;
            };
            let due = since.saturating_add(self.limits.linger);
            if room == 0 {
                self.ready.push_back((since, ticket));
            } else if Lingering::takes(id, trace) {
                self.bytes -= trace.cost();
                if let Some(node) = self.open.take(ticket) {
                    let (id, trace) = node.both();
                    lay(&mut self.lingering, &mut self.spaces, id, trace, due);
                }
            } else {
                self.put_due(due, ticket);
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
    pub fn take_hurried(&mut self) -> usize {
        std::mem::take(&mut self.hurried)
    }

    /// Remembers when a complete trace among the open ones is due.
    fn put_due(&mut self, due: i64, ticket: Ticket) {
        let at = self.due.partition_point(|(other, ..)| *other <= due);
        self.due.insert(at, (due, Reason::Completed, ticket));
    }

    /// The next trace that must be sealed by now: complete or too old, idle, or in the way of newer ones.
    /// Call it until it gives `None`, after each chunk and at each tick.
    pub fn next_closed(&mut self, now: i64) -> Option<Closed<'_, H>> {
        self.settle();
        while let Some((since, ticket)) = self.ready.pop_front() {
            if let Some((_, ahead)) = self.ready.get(FETCH_RECORDS).filter(|_| self.is_spread()) {
                self.open.fetch_whole(*ahead);
            }
            if let Some((id, trace)) = self.open.get_mut(ticket) {
                let due = since.saturating_add(self.limits.linger);
                if due > now {
                    self.hurried += 1;
                    self.patience.hurried(now, id.hash(), due, trace.bytes());
                }
                return self.close_ticket(ticket, Reason::Completed);
            }
        }
        let waits = |due: i64| due > now && due - now <= self.limits.linger;
        // Of a clock that was set back nobody waits for the old time to come again.
        if self.lingering.first_due().is_some_and(|due| !waits(due))
            || self.lingering.bytes() > self.patience.room(now)
        {
            return self.close_lingering(now);
        }
        while self.due.front().is_some_and(|(due, ..)| !waits(*due)) {
            let Some((_, reason, ticket)) = self.due.pop_front() else {
                break;
            };
            // One that was sealed for want of room in the meantime is not there any more.
            if self.open.get_mut(ticket).is_some() {
                return self.close_ticket(ticket, reason);
            }
        }
        if self.is_too_full() {
            // Those that are complete go first: most likely nothing of them is to come.
            if self.lingering.len() == 0 {
                self.place_oldest(now);
            }
            return self.close_any(now, Reason::Evicted);
        }
        let (_, oldest) = self.open.oldest()?;
        let idle = now.saturating_sub(oldest.last_seen) >= self.limits.idle_timeout;
        if idle && !oldest.queued {
            return self.close_open(Reason::Idle);
        }
        None
    }

    /// Moves those to the end of the list that were used since they were moved there last, until the first is the one that
    /// was used least recently.
    fn place_oldest(&mut self, now: i64) {
        while let Some((ticket, oldest)) = self.open.oldest()
            && oldest.last_seen > oldest.placed
        {
            oldest.placed = now;
            // By a clock that was set back it would never have been.
            oldest.last_seen = oldest.last_seen.min(now);
            self.open.promote(ticket);
        }
    }

    /// Closes a trace, whatever its age: the one that has been complete for the longest, or else the one that was used
    /// least recently, for this reason.
    pub fn close_any(&mut self, now: i64, reason: Reason) -> Option<Closed<'_, H>> {
        if self.lingering.len() > 0 {
            self.close_lingering(now)
        } else {
            self.close_open(reason)
        }
    }

    /// The ids of all traces of which `pinned` says so of what one of their sources holds.
    pub fn holding(&self, pinned: impl FnMut(&H) -> bool) -> Vec<Vec<u8>> {
        let sources = self.sources.holding(pinned);
        let pinned = |source: SourceId| sources.get(source.0 as usize).is_some_and(|pinned| *pinned);
        let mut ids = self.lingering.ids_with(pinned);
        let has = |trace: &Trace| trace.parts.iter().any(|part| pinned(part.source));
        let open = self.open.iter().filter(|(_, trace)| has(trace));
        ids.extend(open.map(|(id, _)| id.bytes().to_vec()));
        ids
    }

    /// Closes the trace of this id before it is due.
    pub fn close(&mut self, id: &[u8]) -> Option<Closed<'_, H>> {
        let id = self.id(id);
        if self.lingering.has(id) {
            let (_, trace) = self.lingering.take(id)?;
            self.lines -= u64::from(trace.count());
            let (sources, spaces) = (&mut self.sources, &mut self.spaces);
            return Some(Closed::again(id.into(), trace, sources, spaces));
        }
        let (ticket, _) = self.open.find(id)?;
        self.close_ticket(ticket, Reason::Evicted)
    }

    fn close_open(&mut self, reason: Reason) -> Option<Closed<'_, H>> {
        let (ticket, _) = self.open.oldest()?;
        self.close_ticket(ticket, reason)
    }

    fn close_lingering(&mut self, now: i64) -> Option<Closed<'_, H>> {
        let left = self.lingering.pop()?;
        if left.due() > now {
            self.hurried += 1;
            self.patience.hurried(now, left.hash(), left.due(), left.bytes());
        }
        self.lines -= u64::from(left.count());
        Some(Closed::lingered(left, &mut self.sources, &mut self.spaces))
    }

    fn close_ticket(&mut self, ticket: Ticket, reason: Reason) -> Option<Closed<'_, H>> {
        let node = self.open.take(ticket)?;
        self.bytes -= node.trace.cost();
        self.lines -= u64::from(node.trace.count());
        self.spaces.note(node.trace.bytes());
        // That it is complete says more than why it had to go.
        let reason = if node.trace.completed {
            Reason::Completed
        } else {
            reason
        };
        let (sources, spaces) = (&mut self.sources, &mut self.spaces);
        Some(Closed::open(reason, node, sources, spaces))
    }
}

/// Lays a trace that is complete where it waits for stragglers.
#[inline]
fn lay(lingering: &mut Lingering, spaces: &mut Spaces, id: Id<'_>, trace: &mut Trace, due: i64) {
    spaces.note(trace.bytes());
    spaces.put(lingering.push(id, trace, due));
}
