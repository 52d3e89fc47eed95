//! What the callers of `log` and the worker share: the queue behind its lock, the wake-ups and the counters.
//!
//! Owns the rule that a caller holds the lock only to copy an encoded event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::error::{FlushError, Rejected};
use crate::event::Event;
use crate::options::{OnFull, Options};
use crate::queue::{Parcel, Queue, Waiter};

/// A `flush` that waits.
pub(crate) struct Flush {
    /// All events before this one must be settled.
    pub(crate) mark: u64,
    /// It waits for the spool, not for the server.
    pub(crate) spool_only: bool,
    /// Events lost before it began.
    pub(crate) lost_before: u64,
    pub(crate) done: oneshot::Sender<Result<(), FlushError>>,
}

/// A `close` that waits.
pub(crate) struct Close {
    pub(crate) deadline: Instant,
    pub(crate) done: Vec<oneshot::Sender<Vec<Event>>>,
}

pub(crate) struct Inner {
    pub(crate) queue: Queue,
    pub(crate) flushes: Vec<Flush>,
    pub(crate) close: Option<Close>,
    /// Events dropped and not yet reported to the callback.
    pub(crate) dropped: HashMap<Arc<str>, u64>,
    /// No more events are taken.
    pub(crate) closed: bool,
    /// The worker has ended.
    pub(crate) gone: bool,
    /// What the worker left when its runtime ended under it; the next `close` returns it.
    pub(crate) leftover: Vec<Event>,
    pub(crate) last_error: Option<String>,
    pub(crate) address: Option<String>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) delivered_events: AtomicU64,
    pub(crate) delivered_chunks: AtomicU64,
    pub(crate) resent_chunks: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) given_up: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) connection_losses: AtomicU64,
    pub(crate) in_flight_chunks: AtomicU64,
    pub(crate) callback_panics: AtomicU64,
    pub(crate) recovered: AtomicU64,
    pub(crate) spooled_chunks: AtomicU64,
    pub(crate) spool_failures: AtomicU64,
    pub(crate) connected: AtomicBool,
}

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Rung for the worker.
    pub(crate) wake: Notify,
    /// Rung for those who wait for room.
    pub(crate) room: Notify,
    room_blocking: Condvar,
    pub(crate) counters: Counters,
    pub(crate) options: Options,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            inner: Mutex::new(Inner {
                queue: Queue::new(options.limits.clone()),
                flushes: Vec::new(),
                close: None,
                dropped: HashMap::new(),
                closed: false,
                gone: false,
                leftover: Vec::new(),
                last_error: None,
                address: None,
            }),
            wake: Notify::new(),
            room: Notify::new(),
            room_blocking: Condvar::new(),
            counters: Counters::default(),
            options,
        }
    }

    /// The queue is never left half changed by a panic: nothing inside the lock runs foreign code.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues one encoded event as the policy says. Blocks only with [`OnFull::Wait`].
    pub(crate) fn push(&self, tag: &str, entry: &[u8], waiter: Option<Waiter>) -> Result<(), Rejected> {
        match self.try_push(tag, entry, waiter) {
            Ok(()) => Ok(()),
            Err((Rejected::Full { .. }, waiter)) if self.blocks().is_some() => {
                self.push_waiting(tag, entry, waiter, self.blocks().unwrap_or_default())
            }
            Err((rejected, _)) => Err(rejected),
        }
    }

    fn blocks(&self) -> Option<Duration> {
        match self.options.on_full {
            OnFull::Wait(limit) => Some(limit),
            _ => None,
        }
    }

    /// Queues or refuses, never blocks; a refusal for want of room gives the waiter back.
    pub(crate) fn try_push(
        &self,
        tag: &str,
        entry: &[u8],
        waiter: Option<Waiter>,
    ) -> Result<(), (Rejected, Option<Waiter>)> {
        let mut inner = self.lock();
        if inner.closed {
            return Err((Rejected::Closed, None));
        }
        let pushed = self.push_locked(&mut inner, tag, entry, waiter);
        drop(inner);
        self.finish_push(pushed)
    }

    /// Queues a caller's chunk or refuses it, never blocks; a refusal for want of room gives it back.
    pub(crate) fn try_push_parcel(&self, parcel: Parcel) -> Result<(), (Rejected, Option<Box<Parcel>>)> {
        let mut inner = self.lock();
        if inner.closed {
            return Err((Rejected::Closed, None));
        }
        let pushed = inner.queue.push_parcel(Instant::now(), parcel);
        drop(inner);
        pushed.map_err(|(full, parcel)| (full.into(), Some(parcel)))?;
        self.wake.notify_one();
        Ok(())
    }

    fn push_locked(
        &self,
        inner: &mut Inner,
        tag: &str,
        entry: &[u8],
        waiter: Option<Waiter>,
    ) -> Result<bool, (Rejected, Option<Waiter>)> {
        let make_room = self.options.on_full == OnFull::DropOldest;
        let now = Instant::now();
        match inner.queue.push(now, tag, entry, waiter, make_room) {
            Ok(pushed) => {
                let mut wake = pushed.wake;
                if !pushed.dropped.is_empty() {
                    wake |= inner.dropped.is_empty();
                    for tag in pushed.dropped {
                        self.counters.dropped.fetch_add(1, Relaxed);
                        *inner.dropped.entry(tag).or_default() += 1;
                    }
                }
                Ok(wake)
            }
            Err((full, waiter)) => Err((full.into(), waiter)),
        }
    }

    fn finish_push(
        &self,
        pushed: Result<bool, (Rejected, Option<Waiter>)>,
    ) -> Result<(), (Rejected, Option<Waiter>)> {
        if pushed? {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn push_waiting(
        &self,
        tag: &str,
        entry: &[u8],
        mut waiter: Option<Waiter>,
        limit: Duration,
    ) -> Result<(), Rejected> {
        let started = Instant::now();
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return Err(Rejected::Closed);
            }
            match self.push_locked(&mut inner, tag, entry, waiter.take()) {
                Ok(wake) => {
                    drop(inner);
                    if wake {
                        self.wake.notify_one();
                    }
                    return Ok(());
                }
                Err((rejected, back)) => {
                    waiter = back;
                    let Some(left) = limit
                        .checked_sub(started.elapsed())
                        .filter(|left| !left.is_zero())
                    else {
                        return Err(rejected);
                    };
                    inner = self
                        .room_blocking
                        .wait_timeout(inner, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
    }

    /// There is room again, or the logger closed.
    pub(crate) fn announce_room(&self) {
        self.room_blocking.notify_all();
        self.room.notify_waiters();
    }

    /// Events that will not be delivered, so far.
    pub(crate) fn lost(&self) -> u64 {
        self.counters.dropped.load(Relaxed) + self.counters.given_up.load(Relaxed)
    }

    /// No more events; the worker delivers what it has until `deadline` and ends.
    pub(crate) fn begin_close(
        &self,
        deadline: Instant,
        done: Option<oneshot::Sender<Vec<Event>>>,
    ) -> Option<Vec<Event>> {
        let mut inner = self.lock();
        inner.closed = true;
        if inner.gone {
            return Some(std::mem::take(&mut inner.leftover));
        }
        let close = inner.close.get_or_insert_with(|| Close {
            deadline,
            done: Vec::new(),
        });
        // An explicit close decides over the one that a dropped handle began.
        close.deadline = deadline;
        close.done.extend(done);
        drop(inner);
        self.wake.notify_one();
        self.announce_room();
        None
    }
}
