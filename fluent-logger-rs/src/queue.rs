//! What waits to be sent: events gathered into one batch per tag, bounded in events and in bytes.
//!
//! Owns the bounds, the gathering, the choice of what is due and of what is dropped. It is a plain value: no
//! locks, no clock, no sockets; [`crate::shared`] puts it behind a lock and [`crate::worker`] empties it.
//!
//! The bounds cover everything that the logger holds: what waits here and what was taken for sending and is
//! not yet settled (`held`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forward_protocol::encode::ChunkId;
use tokio::sync::oneshot;

use crate::error::SendError;

/// Tells one `send` how its event fared.
#[derive(Debug)]
pub(crate) struct Waiter {
    done: oneshot::Sender<Result<(), SendError>>,
    /// The event shall not linger for company.
    urgent: bool,
}

impl Waiter {
    pub(crate) fn new(urgent: bool) -> (Self, oneshot::Receiver<Result<(), SendError>>) {
        let (done, receiver) = oneshot::channel();
        (Self { done, urgent }, receiver)
    }

    pub(crate) fn tell(self, result: Result<(), SendError>) {
        // Whoever asked may be gone; then nobody wants to know.
        let _ = self.done.send(result);
    }
}

/// Bytes that a message has besides its tag and its entries, at most: headers, chunk id, size, compression.
const FRAME: usize = 80;

/// Bytes that an event costs besides its own: its place in the table of ends and its share of the rest.
pub(crate) const OVERHEAD: usize = 8;

/// The bounds, legal by construction (see `options.rs`).
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) batch_events: usize,
    /// Of the message that a batch becomes, before compression.
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    /// Everything that is due is taken at once, to be spooled; else only half of the bounds may be in flight.
    pub(crate) spooled: bool,
}

/// Events of one tag, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Number of its first event, counted over the life of the logger.
    pub(crate) first: u64,
    pub(crate) tag: Arc<str>,
    /// Entries, one after the other.
    pub(crate) entries: Vec<u8>,
    /// Where each entry ends in `entries`.
    pub(crate) ends: Vec<u32>,
    /// Events at the front that were dropped; they are still in `entries`, which a batch bounds.
    pub(crate) dropped: usize,
    /// (event, who waits for it), in order.
    pub(crate) waiters: VecDeque<(usize, Waiter)>,
    /// It is a chunk of the caller's, with the caller's id: nothing is added to it and nothing dropped from it.
    pub(crate) id: Option<ChunkId>,
    due: Instant,
    urgent: bool,
}

impl Batch {
    /// Events that are still wanted.
    pub(crate) fn events(&self) -> usize {
        self.ends.len() - self.dropped
    }

    /// Where the wanted entries start.
    pub(crate) fn start(&self) -> usize {
        self.dropped
            .checked_sub(1)
            .and_then(|last| self.ends.get(last))
            .map_or(0, |end| *end as usize)
    }

    /// What it counts against the byte bound.
    pub(crate) fn cost(&self) -> usize {
        self.entries.len() - self.start() + self.events() * OVERHEAD
    }
}

/// Events of a caller's own chunk, encoded.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) id: ChunkId,
    pub(crate) tag: String,
    pub(crate) entries: Vec<u8>,
    pub(crate) ends: Vec<u32>,
    pub(crate) waiter: Waiter,
}

impl Parcel {
    /// What it counts against the byte bound.
    pub(crate) fn cost(&self) -> usize {
        self.entries.len() + self.ends.len() * OVERHEAD
    }
}

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The worker has to look: something became due earlier than it knows.
    pub(crate) wake: bool,
    /// Tags of the events dropped to make room, one each.
    pub(crate) dropped: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    /// Batches by age; taken ones leave a hole until they reach the front.
    batches: VecDeque<Option<Batch>>,
    /// How many batches left the front so far: the number of `batches[0]`.
    base: u64,
    /// The batch of each tag that still takes events, by number.
    open: HashMap<Arc<str>, u64>,
    /// The batch used last: most callers log to one tag.
    recent: Option<(Arc<str>, u64)>,
    events: usize,
    bytes: usize,
    held_events: usize,
    held_bytes: usize,
    /// Of what waits: callers' chunks, which are never dropped.
    fixed_events: usize,
    fixed_bytes: usize,
    next: u64,
    /// Batches that begin before this event are due at once.
    flushed_to: u64,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            base: 0,
            open: HashMap::new(),
            recent: None,
            events: 0,
            bytes: 0,
            held_events: 0,
            held_bytes: 0,
            fixed_events: 0,
            fixed_bytes: 0,
            next: 0,
            flushed_to: 0,
        }
    }

    /// Events that wait or are taken and not settled.
    pub(crate) fn events(&self) -> usize {
        self.events + self.held_events
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.held_bytes
    }

    /// Number that the next event gets.
    pub(crate) fn next_event(&self) -> u64 {
        self.next
    }

    fn fits(&self, cost: usize) -> bool {
        self.events() < self.limits.events && self.bytes().saturating_add(cost) <= self.limits.bytes
    }

    /// Adds an event to the batch of its tag. With `make_room`, older events go until it fits; what is in
    /// flight never goes.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        tag: &str,
        entry: &[u8],
        waiter: Option<Waiter>,
        make_room: bool,
    ) -> Result<Pushed, (Full, Option<Waiter>)> {
        let cost = entry.len() + OVERHEAD;
        let mut dropped = Vec::new();
        // What is in flight never goes, nor does a caller's chunk: if that leaves no room, dropping the rest
        // would be in vain.
        let make_room = make_room
            && self.held_events + self.fixed_events < self.limits.events
            && self.held_bytes + self.fixed_bytes + cost <= self.limits.bytes;
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
        // Under pressure nothing lingers: what waits for company would only use up the buffer.
        let pressed = self.pressing().0 == self.limits.events / 2 + 1;
        Ok(Pushed {
            wake: wake || pressed,
            dropped,
        })
    }

    /// Adds a caller's chunk, due at once: all of it, or nothing. What came before it under its tag stays before
    /// it. It drops nothing to make room.
    pub(crate) fn push_parcel(&mut self, now: Instant, parcel: Parcel) -> Result<(), (Full, Box<Parcel>)> {
        let (events, cost) = (parcel.ends.len(), parcel.cost());
        if self.events() + events > self.limits.events || self.bytes() + cost > self.limits.bytes {
            let full = Full {
                events: self.events(),
                bytes: self.bytes(),
            };
            return Err((full, Box::new(parcel)));
        }
        self.open.remove(&*parcel.tag);
        self.recent = None;
        self.batches.push_back(Some(Batch {
            first: self.next,
            tag: Arc::from(parcel.tag),
            entries: parcel.entries,
            ends: parcel.ends,
            dropped: 0,
            waiters: VecDeque::from([(0, parcel.waiter)]),
            id: Some(parcel.id),
            due: now,
            urgent: true,
        }));
        self.next += events as u64;
        self.events += events;
        self.bytes += cost;
        self.fixed_events += events;
        self.fixed_bytes += cost;
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
        if batch.entries.len() + len + tag.len() + FRAME > self.limits.batch_bytes {
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

    /// Drops the first event of the oldest batch that waits and returns its tag. `None`: nothing waits that may go.
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
                waiter.tell(Err(SendError::Dropped));
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
            self.fixed_events -= batch.events();
            self.fixed_bytes -= batch.cost();
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

    /// What makes batches due early by its size: with a spool only what waits, since all the rest is no longer here.
    fn pressing(&self) -> (usize, usize) {
        if self.limits.spooled {
            (self.events, self.bytes)
        } else {
            (self.events(), self.bytes())
        }
    }

    fn is_due(&self, index: usize, batch: &Batch, now: Instant) -> bool {
        let (events, bytes) = self.pressing();
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

    /// Takes the oldest due batch, if what is held stays below half of the bounds with it: the other half
    /// must stay droppable and free for newcomers. A batch is always taken when nothing is held, and when it is to
    /// be spooled.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Batch> {
        let index =
            self.batches.iter().enumerate().position(|(index, batch)| {
                batch.as_ref().is_some_and(|batch| self.is_due(index, batch, now))
            })?;
        let batch = self.batches.get(index)?.as_ref()?;
        let room = (self.held_events + batch.events()) * 2 <= self.limits.events
            && (self.held_bytes + batch.cost()) * 2 <= self.limits.bytes;
        if self.held_events > 0 && !room && !self.limits.spooled {
            return None;
        }
        let batch = self.remove(index)?;
        self.events -= batch.events();
        self.bytes -= batch.cost();
        self.held_events += batch.events();
        self.held_bytes += batch.cost();
        Some(batch)
    }

    /// Takes whatever is left, oldest first: the logger closes.
    pub(crate) fn take_rest(&mut self) -> Option<Batch> {
        let index = self.batches.iter().position(Option::is_some)?;
        let batch = self.remove(index)?;
        self.events -= batch.events();
        self.bytes -= batch.cost();
        Some(batch)
    }

    /// Takes over what an earlier process left in the spool, as if it had been pushed and taken. Gives the number of
    /// its first event.
    #[cfg(feature = "spool")]
    pub(crate) fn adopt(&mut self, events: usize, cost: usize) -> u64 {
        let first = self.next;
        self.next += events as u64;
        self.held_events += events;
        self.held_bytes += cost;
        first
    }

    /// What was taken is settled: delivered, given up or returned.
    pub(crate) fn settle(&mut self, events: usize, cost: usize) {
        self.held_events = self.held_events.saturating_sub(events);
        self.held_bytes = self.held_bytes.saturating_sub(cost);
    }

    /// Makes all that waits due at once; returns the number of the first event that is not concerned.
    pub(crate) fn flush(&mut self) -> u64 {
        self.flushed_to = self.next;
        self.next
    }

    /// Number of the oldest event that waits.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.batches.iter().flatten().next().map(|batch| batch.first)
    }
}

/// When the worker has something to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
    Never,
}

#[cfg(test)]
mod tests;
