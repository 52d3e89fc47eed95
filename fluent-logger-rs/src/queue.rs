//! Bounded queue: events gathered into one open batch per tag.
//!
//! Owns the bounds in events and bytes, the batching, which batch is due and which event is
//! dropped. A plain value: no locks, no clock, no sockets; [`crate::shared`] puts it behind a lock
//! and [`crate::worker`] empties it.
//!
//! The bounds cover everything that the logger holds: waiting events and events in flight, that is
//! taken for sending and not yet settled.

mod batch;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Rejected, SendError};
use crate::options::QueueLimits;
pub(crate) use batch::{Batch, CallerChunk, EVENT_OVERHEAD_BYTES, Waiter};

/// Most bytes that a message has besides its tag and entries: headers, chunk id, size, compression.
const MAX_FRAME_BYTES: usize = 80;

/// Fill level of a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl From<Full> for Rejected {
    fn from(full: Full) -> Self {
        Self::Full {
            events: full.events,
            bytes: full.bytes,
        }
    }
}

/// Result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Wake the worker: something became due earlier than it knows.
    pub(crate) wake: bool,
    /// Tags of the events dropped to make room, one each.
    pub(crate) dropped: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    /// Batches by age; a taken batch leaves `None` until it reaches the front.
    batches: VecDeque<Option<Batch>>,
    /// Number of `batches[0]`: batches removed from the front so far.
    base: u64,
    /// The open batch of each tag, by number.
    open: HashMap<Arc<str>, u64>,
    /// The batch used last: most callers log to one tag.
    recent: Option<(Arc<str>, u64)>,
    events: usize,
    bytes: usize,
    in_flight_events: usize,
    in_flight_bytes: usize,
    /// Waiting events of callers' chunks, which are never dropped.
    caller_chunk_events: usize,
    caller_chunk_bytes: usize,
    next: u64,
    /// Batches that begin before this event are due at once.
    flushed_to: u64,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            base: 0,
            open: HashMap::new(),
            recent: None,
            events: 0,
            bytes: 0,
            in_flight_events: 0,
            in_flight_bytes: 0,
            caller_chunk_events: 0,
            caller_chunk_bytes: 0,
            next: 0,
            flushed_to: 0,
        }
    }

    /// Events that wait or are taken and not settled.
    pub(crate) fn events(&self) -> usize {
        self.events + self.in_flight_events
    }

    /// Events that wait and are not taken.
    pub(crate) fn waiting_events(&self) -> usize {
        self.events
    }

    /// Bytes that wait or are taken and not settled.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.in_flight_bytes
    }

    /// Number that the next event gets.
    pub(crate) fn next_event(&self) -> u64 {
        self.next
    }

    fn fits(&self, cost: usize) -> bool {
        self.events() < self.limits.events && self.bytes().saturating_add(cost) <= self.limits.bytes
    }

    /// Adds an event to the batch of its tag. With `make_room`, older events are dropped until it
    /// fits; events in flight are never dropped.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        tag: &str,
        entry: &[u8],
        waiter: Option<Waiter>,
        make_room: bool,
    ) -> Result<Pushed, (Full, Option<Waiter>)> {
        let cost = entry.len() + EVENT_OVERHEAD_BYTES;
        let mut dropped = Vec::new();
        // Neither events in flight nor a caller's chunk are ever dropped: if these leave no room,
        // dropping the rest would not help.
        let make_room = make_room
            && self.in_flight_events + self.caller_chunk_events < self.limits.events
            && self.in_flight_bytes + self.caller_chunk_bytes + cost <= self.limits.bytes;
        while !self.fits(cost) {
            match make_room.then(|| self.drop_oldest()).flatten() {
                Some(tag) => dropped.push(tag),
                None => {
                    return Err((
                        Full {
                            events: self.events(),
                            bytes: self.bytes(),
                        },
                        waiter,
                    ));
                }
            }
        }
        let mut wake = false;
        let number = match self.open_batch(tag, entry.len()) {
            Some(number) => number,
            None => {
                wake = true;
                self.start_batch(now, tag)
            }
        };
        let limits = (self.limits.batch_events, self.limits.batch_bytes);
        let index = usize::try_from(number - self.base).unwrap_or(usize::MAX);
        if let Some(Some(batch)) = self.batches.get_mut(index) {
            batch.entries.extend_from_slice(entry);
            // `batch_bytes` is at most 1 GiB by construction.
            batch
                .ends
                .push(u32::try_from(batch.entries.len()).unwrap_or(u32::MAX));
            if let Some(waiter) = waiter {
                wake |= waiter.urgent && !batch.urgent;
                batch.urgent |= waiter.urgent;
                batch.waiters.push_back((batch.ends.len() - 1, waiter));
            }
            if batch.ends.len() >= limits.0 || batch.entries.len() >= limits.1 {
                self.open.remove(tag);
                self.recent = None;
                wake = true;
            }
        }
        self.next += 1;
        self.events += 1;
        self.bytes += cost;
        // Above half of the bounds nothing lingers, since it would only fill the buffer.
        let under_pressure = self.pressure().0 == self.limits.events / 2 + 1;
        Ok(Pushed {
            wake: wake || under_pressure,
            dropped,
        })
    }

    /// Adds a caller's chunk completely or not at all, due at once. Earlier events of its tag stay
    /// before it. Drops nothing to make room.
    pub(crate) fn push_caller_chunk(
        &mut self,
        now: Instant,
        chunk: CallerChunk,
    ) -> Result<(), (Full, Box<CallerChunk>)> {
        let (events, cost) = (chunk.ends.len(), chunk.cost());
        if self.events() + events > self.limits.events || self.bytes() + cost > self.limits.bytes {
            let full = Full {
                events: self.events(),
                bytes: self.bytes(),
            };
            return Err((full, Box::new(chunk)));
        }
        self.open.remove(&*chunk.tag);
        self.recent = None;
        self.batches.push_back(Some(Batch {
            first: self.next,
            tag: Arc::from(chunk.tag),
            entries: chunk.entries,
            ends: chunk.ends,
            dropped: 0,
            waiters: VecDeque::from([(0, chunk.waiter)]),
            id: Some(chunk.id),
            due: now,
            urgent: true,
        }));
        self.next += events as u64;
        self.events += events;
        self.bytes += cost;
        self.caller_chunk_events += events;
        self.caller_chunk_bytes += cost;
        Ok(())
    }

    /// The batch of `tag` if it can take `len` bytes more.
    fn open_batch(&mut self, tag: &str, len: usize) -> Option<u64> {
        let number = match &self.recent {
            Some((recent, number)) if **recent == *tag => *number,
            _ => *self.open.get(tag)?,
        };
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let batch = self.batches.get(index)?.as_ref()?;
        if batch.entries.len() + len + tag.len() + MAX_FRAME_BYTES > self.limits.batch_bytes {
            self.open.remove(tag);
            self.recent = None;
            return None;
        }
        if self.recent.as_ref().is_none_or(|(_, recent)| *recent != number) {
            self.recent = Some((Arc::clone(&batch.tag), number));
        }
        Some(number)
    }

    fn start_batch(&mut self, now: Instant, tag: &str) -> u64 {
        let number = self.base + self.batches.len() as u64;
        let tag: Arc<str> = Arc::from(tag);
        self.batches.push_back(Some(Batch {
            first: self.next,
            tag: Arc::clone(&tag),
            entries: Vec::new(),
            ends: Vec::new(),
            dropped: 0,
            waiters: VecDeque::new(),
            id: None,
            due: now.checked_add(self.limits.linger).unwrap_or(now),
            urgent: false,
        }));
        self.open.insert(Arc::clone(&tag), number);
        self.recent = Some((tag, number));
        number
    }

    /// Drops the first event of the oldest batch that waits and returns its tag. `None`: nothing
    /// waits that may go.
    fn drop_oldest(&mut self) -> Option<Arc<str>> {
        let index = self
            .batches
            .iter()
            .position(|batch| batch.as_ref().is_some_and(|batch| batch.id.is_none()))?;
        let batch = self.batches.get_mut(index)?.as_mut()?;
        let tag = Arc::clone(&batch.tag);
        let before = batch.cost();
        let event = batch.dropped;
        batch.dropped += 1;
        self.bytes -= before - batch.cost();
        self.events -= 1;
        while batch
            .waiters
            .front()
            .is_some_and(|(waits_for, _)| *waits_for <= event)
        {
            if let Some((_, waiter)) = batch.waiters.pop_front() {
                waiter.complete(Err(SendError::Dropped));
            }
        }
        if batch.events() == 0 {
            self.remove(index);
        }
        Some(tag)
    }

    fn remove(&mut self, index: usize) -> Option<Batch> {
        let batch = self.batches.get_mut(index)?.take()?;
        let number = self.base + index as u64;
        if self.open.get(&batch.tag) == Some(&number) {
            self.open.remove(&batch.tag);
        }
        if self.recent.as_ref().is_some_and(|(_, recent)| *recent == number) {
            self.recent = None;
        }
        if batch.id.is_some() {
            self.caller_chunk_events -= batch.events();
            self.caller_chunk_bytes -= batch.cost();
        }
        while matches!(self.batches.front(), Some(None)) {
            self.batches.pop_front();
            self.base += 1;
        }
        Some(batch)
    }

    fn is_full_batch(&self, index: usize, batch: &Batch) -> bool {
        self.open.get(&batch.tag) != Some(&(self.base + index as u64))
    }

    /// Events and bytes that make batches due early: all that is held, with a spool only what
    /// waits.
    fn pressure(&self) -> (usize, usize) {
        if self.limits.spooled {
            (self.events, self.bytes)
        } else {
            (self.events(), self.bytes())
        }
    }

    fn is_due(&self, index: usize, batch: &Batch, now: Instant) -> bool {
        let (events, bytes) = self.pressure();
        batch.urgent
            || batch.due <= now
            || batch.first < self.flushed_to
            || events * 2 > self.limits.events
            || bytes * 2 > self.limits.bytes
            || self.is_full_batch(index, batch)
    }

    /// Whether a batch is due now; if none is, when the first will be.
    pub(crate) fn due(&self, now: Instant) -> Due {
        let mut first: Option<Instant> = None;
        for (index, batch) in self.batches.iter().enumerate() {
            let Some(batch) = batch else { continue };
            if self.is_due(index, batch, now) {
                return Due::Now;
            }
            first = Some(first.map_or(batch.due, |first| first.min(batch.due)));
        }
        first.map_or(Due::Never, Due::At)
    }

    /// Takes the oldest due batch, if what is held stays below half of the bounds with it: the
    /// other half must stay droppable and free for newcomers. A batch is always taken when nothing
    /// is held, and when it is to be spooled.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Batch> {
        let index =
            self.batches.iter().enumerate().position(|(index, batch)| {
                batch.as_ref().is_some_and(|batch| self.is_due(index, batch, now))
            })?;
        let batch = self.batches.get(index)?.as_ref()?;
        let room = (self.in_flight_events + batch.events()) * 2 <= self.limits.events
            && (self.in_flight_bytes + batch.cost()) * 2 <= self.limits.bytes;
        if self.in_flight_events > 0 && !room && !self.limits.spooled {
            return None;
        }
        let batch = self.remove(index)?;
        self.events -= batch.events();
        self.bytes -= batch.cost();
        self.in_flight_events += batch.events();
        self.in_flight_bytes += batch.cost();
        Some(batch)
    }

    /// Takes the oldest batch, due or not: the logger closes.
    pub(crate) fn take_any(&mut self) -> Option<Batch> {
        let index = self.batches.iter().position(Option::is_some)?;
        let batch = self.remove(index)?;
        self.events -= batch.events();
        self.bytes -= batch.cost();
        Some(batch)
    }

    /// Counts events recovered from the spool as in flight. Returns the number of the first.
    #[cfg(feature = "spool")]
    pub(crate) fn adopt_recovered(&mut self, events: usize, cost: usize) -> u64 {
        let first = self.next;
        self.next += events as u64;
        self.in_flight_events += events;
        self.in_flight_bytes += cost;
        first
    }

    /// Releases events in flight: delivered, given up or returned.
    pub(crate) fn settle(&mut self, events: usize, cost: usize) {
        self.in_flight_events = self.in_flight_events.saturating_sub(events);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(cost);
    }

    /// Makes all waiting events due at once; returns the number of the next event.
    pub(crate) fn flush(&mut self) -> u64 {
        self.flushed_to = self.next;
        self.next
    }

    /// Number of the oldest event that waits.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.batches.iter().flatten().next().map(|batch| batch.first)
    }
}

/// When the next batch is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
    Never,
}

#[cfg(test)]
mod tests;
