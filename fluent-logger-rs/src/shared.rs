//! State shared by the logger handles and the worker: the queue behind its lock, wake-ups,
//! counters.
//!
//! A caller holds the lock only to copy an encoded event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::error::{FlushError, Rejected};
use crate::event::Event;
use crate::options::{OnFull, Options};
use crate::queue::{CallerChunk, Queue, Waiter};

/// A pending `flush` or `sync`.
pub(crate) struct PendingFlush {
    /// All events before this one must be settled.
    pub(crate) mark: u64,
    /// Waits for the spool, not for the server.
    pub(crate) spool_only: bool,
    /// Events lost before it began.
    pub(crate) lost_before: u64,
    pub(crate) done: oneshot::Sender<Result<(), FlushError>>,
}

/// A pending `close`.
pub(crate) struct PendingClose {
    pub(crate) deadline: Instant,
    pub(crate) done: Vec<oneshot::Sender<Vec<Event>>>,
}

pub(crate) struct LockedState {
    pub(crate) queue: Queue,
    pub(crate) flushes: Vec<PendingFlush>,
    pub(crate) close: Option<PendingClose>,
    /// Events dropped and not yet reported to the callback.
    pub(crate) dropped: HashMap<Arc<str>, u64>,
    /// No more events are taken.
    pub(crate) closed: bool,
    /// The last handle was dropped.
    pub(crate) abandoned: bool,
    /// The worker has ended.
    pub(crate) worker_ended: bool,
    /// Undelivered events of a worker whose runtime ended first; the next `close` returns them.
    pub(crate) undelivered: Vec<Event>,
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
    pub(crate) sampled_out: AtomicU64,
    pub(crate) suppressed: AtomicU64,
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
    state: Mutex<LockedState>,
    /// Wakes the worker.
    pub(crate) wake: Notify,
    /// Wakes futures that wait for room.
    pub(crate) room: Notify,
    room_blocking: Condvar,
    pub(crate) counters: Counters,
    pub(crate) options: Options,
    /// The thread of a current-thread runtime on which the worker runs: it must not block.
    runtime_thread: OnceLock<ThreadId>,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            state: Mutex::new(LockedState {
                queue: Queue::new(options.limits.clone()),
                flushes: Vec::new(),
                close: None,
                dropped: HashMap::new(),
                closed: false,
                abandoned: false,
                worker_ended: false,
                undelivered: Vec::new(),
                last_error: None,
                address: None,
            }),
            wake: Notify::new(),
            room: Notify::new(),
            room_blocking: Condvar::new(),
            counters: Counters::default(),
            options,
            runtime_thread: OnceLock::new(),
        }
    }

    /// The worker runs on the current-thread runtime of this thread.
    pub(crate) fn set_runtime_thread(&self) {
        // Set once, before the worker is spawned.
        let _ = self.runtime_thread.set(std::thread::current().id());
    }

    /// Whether blocking this thread stops the worker.
    pub(crate) fn would_block_worker(&self) -> bool {
        let here = std::thread::current().id();
        self.runtime_thread.get().is_some_and(|thread| *thread == here) && !self.lock().worker_ended
    }

    /// The queue is never left half changed by a panic: nothing inside the lock runs foreign code.
    pub(crate) fn lock(&self) -> MutexGuard<'_, LockedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Queues or refuses, never blocks; a full buffer returns the waiter.
    pub(crate) fn try_push(
        &self,
        tag: &str,
        entry: &[u8],
        waiter: Option<Waiter>,
    ) -> Result<(), (Rejected, Option<Waiter>)> {
        let mut state = self.lock();
        if state.closed {
            return Err((Rejected::Closed, None));
        }
        let pushed = self.push_locked(&mut state, tag, entry, waiter);
        drop(state);
        self.finish_push(pushed)
    }

    /// Queues a caller's chunk or refuses it, never blocks; a full buffer returns the chunk.
    pub(crate) fn try_push_caller_chunk(
        &self,
        chunk: CallerChunk,
    ) -> Result<(), (Rejected, Option<Box<CallerChunk>>)> {
        let mut state = self.lock();
        if state.closed {
            return Err((Rejected::Closed, None));
        }
        let pushed = state.queue.push_caller_chunk(Instant::now(), chunk);
        drop(state);
        pushed.map_err(|(full, chunk)| (full.into(), Some(chunk)))?;
        self.wake.notify_one();
        Ok(())
    }

    fn push_locked(
        &self,
        state: &mut LockedState,
        tag: &str,
        entry: &[u8],
        waiter: Option<Waiter>,
    ) -> Result<bool, (Rejected, Option<Waiter>)> {
        let make_room = self.options.on_full == OnFull::DropOldest;
        let now = Instant::now();
        match state.queue.push(now, tag, entry, waiter, make_room) {
            Ok(pushed) => {
                let mut wake = pushed.wake;
                if !pushed.dropped.is_empty() {
                    wake |= state.dropped.is_empty();
                    for tag in pushed.dropped {
                        self.counters.dropped.fetch_add(1, Relaxed);
                        *state.dropped.entry(tag).or_default() += 1;
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
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(Rejected::Closed);
            }
            match self.push_locked(&mut state, tag, entry, waiter.take()) {
                Ok(wake) => {
                    drop(state);
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
                    state = self
                        .room_blocking
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
    }

    /// Whether there is a disk spool.
    pub(crate) fn spooled(&self) -> bool {
        self.options.limits.spooled
    }

    /// Wakes everybody who waits for room: there is room, or the logger closed.
    pub(crate) fn notify_room(&self) {
        self.room_blocking.notify_all();
        self.room.notify_waiters();
    }

    /// Events dropped or given up so far.
    pub(crate) fn lost(&self) -> u64 {
        self.counters.dropped.load(Relaxed) + self.counters.given_up.load(Relaxed)
    }

    /// Refuses events from here on; the worker delivers the rest until `deadline` and ends.
    pub(crate) fn begin_close(
        &self,
        deadline: Instant,
        done: Option<oneshot::Sender<Vec<Event>>>,
    ) -> Option<Vec<Event>> {
        let mut state = self.lock();
        state.closed = true;
        if state.worker_ended {
            return Some(std::mem::take(&mut state.undelivered));
        }
        let close = state.close.get_or_insert_with(|| PendingClose {
            deadline,
            done: Vec::new(),
        });
        // The deadline of an explicit `close` replaces that of a dropped handle.
        close.deadline = deadline;
        close.done.extend(done);
        drop(state);
        self.wake.notify_one();
        self.notify_room();
        None
    }
}
