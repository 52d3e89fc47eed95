//! Worker and spool, and the end of the worker.
//!
//! Owns the order: a spooled chunk may be sent, a chunk that is being written may not, and a chunk
//! that is neither spooled nor delivered at the end returns to the application.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Worker, wait};
#[cfg(feature = "spool")]
use crate::error::BuildError;
use crate::error::{FlushError, SendError};
use crate::event::Event;
use crate::loss_report::report;
use crate::spool::Spool;

/// How long the end waits for the disk to write undelivered chunks.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

impl Worker {
    /// Starts the spool and queues the chunks recovered from it.
    #[cfg(feature = "spool")]
    pub(crate) fn take_over(&mut self, mut opened: crate::spool::Opened) -> Result<(), BuildError> {
        let recovered = std::mem::take(&mut opened.recovered);
        let counters = &self.shared.counters;
        counters.spooled_chunks.store(recovered.len() as u64, Relaxed);
        for mut chunk in recovered {
            counters.recovered.fetch_add(chunk.events as u64, Relaxed);
            chunk.first = self.shared.lock().queue.adopt_recovered(chunk.events, chunk.cost);
            self.delivery.push(chunk);
        }
        self.spool = Some(opened.start(std::sync::Arc::clone(&self.shared))?);
        Ok(())
    }

    /// At the end: spools undelivered events and removes the files of delivered ones.
    pub(super) async fn spool_rest(&mut self) {
        if self.spool.is_none() {
            return;
        }
        let mut rest = Vec::new();
        {
            let mut inner = self.shared.lock();
            while let Some(batch) = inner.queue.take_any() {
                rest.push(batch);
            }
        }
        for batch in rest {
            self.seal(batch);
        }
        let until = Instant::now() + FINAL_WRITE_TIMEOUT;
        while self.spool.as_ref().is_some_and(|spool| !spool.is_settled()) && Instant::now() < until {
            wait(&self.shared, Some(until)).await;
        }
        self.collect_spooled();
    }

    /// Takes spooled chunks and errors from the spool.
    pub(super) fn collect_spooled(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let (chunks, errors) = spool.done();
        for chunk in chunks {
            self.delivery.push(chunk);
        }
        for error in errors {
            self.shared.lock().last_error = Some(error.to_string());
            if let Some(callback) = &self.callbacks.spool_error {
                self.run_callback(|| callback(&error));
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut rest: Vec<Event> = Vec::new();
        let mut waiters = Vec::new();
        // Before `close` returns, so that the next logger finds the folder unlocked.
        let unwritten = self.spool.take().map(Spool::shut_down).unwrap_or_default();
        for chunk in self.delivery.take_all().into_iter().chain(unwritten) {
            // A spooled chunk stays in the spool: the next logger sends it.
            if chunk.file.is_none() {
                rest.extend(Event::of_chunk(&chunk));
            }
            waiters.extend(chunk.waiters);
        }
        let mut inner = self.shared.lock();
        inner.closed = true;
        inner.worker_ended = true;
        while let Some(batch) = inner.queue.take_any() {
            rest.extend(Event::of_batch(&batch));
            waiters.extend(batch.waiters.into_iter().map(|(_, waiter)| waiter));
        }
        let flushes = std::mem::take(&mut inner.flushes);
        let mut closers = inner.close.take().map(|close| close.done).unwrap_or_default();
        // The first `close` gets the events, the others an empty answer.
        if let Some(first) = (!closers.is_empty()).then(|| closers.remove(0)) {
            if let Err(unclaimed) = first.send(rest) {
                inner.undelivered = unclaimed;
            }
        } else {
            inner.undelivered = rest;
        }
        let lost = if inner.abandoned {
            inner.undelivered.len()
        } else {
            0
        };
        drop(inner);
        if lost > 0 {
            report(&format!(
                "{lost} events are lost: not delivered within drop_timeout after the logger was dropped"
            ));
        }
        for closer in closers {
            let _ = closer.send(Vec::new());
        }
        for flush in flushes {
            let _ = flush.done.send(Err(FlushError::Closed));
        }
        for waiter in waiters {
            waiter.complete(Err(SendError::Closed));
        }
        self.shared.counters.connected.store(false, Relaxed);
        self.shared.notify_room();
    }
}
