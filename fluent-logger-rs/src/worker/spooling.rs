//! The worker's dealings with the spool, and what becomes of the rest when it ends.
//!
//! Owns the order: what is spooled may be sent, what is at the disk may not yet, and what ends in neither goes back to
//! the application.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Worker, wait};
#[cfg(feature = "spool")]
use crate::error::BuildError;
use crate::error::{FlushError, SendError};
use crate::event::Event;
use crate::spool::Spool;

/// How long the end may wait for the disk to take what was not delivered.
const LAST_WRITES: Duration = Duration::from_secs(5);

impl Worker {
    /// Works with a spool, beginning with what lies in it.
    #[cfg(feature = "spool")]
    pub(crate) fn take_over(&mut self, mut opened: crate::spool::Opened) -> Result<(), BuildError> {
        let recovered = std::mem::take(&mut opened.recovered);
        let counters = &self.shared.counters;
        counters.spooled_chunks.store(recovered.len() as u64, Relaxed);
        for mut chunk in recovered {
            counters.recovered.fetch_add(chunk.events as u64, Relaxed);
            chunk.first = self.shared.lock().queue.adopt(chunk.events, chunk.cost);
            self.delivery.push(chunk);
        }
        self.spool = Some(opened.start(std::sync::Arc::clone(&self.shared))?);
        Ok(())
    }

    /// The logger ends: what was not delivered goes into the spool, and what was leaves it.
    pub(super) async fn save_rest(&mut self) {
        if self.spool.is_none() {
            return;
        }
        let mut rest = Vec::new();
        {
            let mut inner = self.shared.lock();
            while let Some(batch) = inner.queue.take_rest() {
                rest.push(batch);
            }
        }
        for batch in rest {
            self.seal(batch);
        }
        let until = Instant::now() + LAST_WRITES;
        while self.spool.as_ref().is_some_and(|spool| !spool.is_settled()) && Instant::now() < until {
            wait(&self.shared, Some(until)).await;
        }
        self.collect_spooled();
    }

    /// What the spool has done goes on its way.
    pub(super) fn collect_spooled(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let (chunks, errors) = spool.done();
        for chunk in chunks {
            self.delivery.push(chunk);
        }
        for error in errors {
            self.shared.lock().last_error = Some(error.to_string());
            if let Some(callback) = &self.callbacks.spool_error {
                self.guarded(|| callback(&error));
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut rest: Vec<Event> = Vec::new();
        let mut waiters = Vec::new();
        // Before anybody is told, so that the next logger finds the folder free.
        let unwritten = self.spool.take().map(Spool::end).unwrap_or_default();
        for chunk in self.delivery.take_all().into_iter().chain(unwritten) {
            // What is in the spool stays there: the next logger sends it.
            if chunk.file.is_none() {
                rest.extend(Event::of_chunk(&chunk));
            }
            waiters.extend(chunk.waiters);
        }
        let mut inner = self.shared.lock();
        inner.closed = true;
        inner.gone = true;
        while let Some(batch) = inner.queue.take_rest() {
            rest.extend(Event::of_batch(&batch));
            waiters.extend(batch.waiters.into_iter().map(|(_, waiter)| waiter));
        }
        let flushes = std::mem::take(&mut inner.flushes);
        let mut closers = inner.close.take().map(|close| close.done).unwrap_or_default();
        // The first to ask gets the events; the others learn that all is over.
        if let Some(first) = (!closers.is_empty()).then(|| closers.remove(0)) {
            if let Err(unclaimed) = first.send(rest) {
                inner.leftover = unclaimed;
            }
        } else {
            inner.leftover = rest;
        }
        drop(inner);
        for closer in closers {
            let _ = closer.send(Vec::new());
        }
        for flush in flushes {
            let _ = flush.done.send(Err(FlushError::Closed));
        }
        for waiter in waiters {
            waiter.tell(Err(SendError::Closed));
        }
        self.shared.counters.connected.store(false, Relaxed);
        self.shared.announce_room();
    }
}
