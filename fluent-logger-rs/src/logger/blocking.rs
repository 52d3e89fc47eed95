//! Blocking forms of the calls, for threads without an async runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Logger;
use crate::error::{CloseError, FlushError, SendError};
use crate::event::Event;

/// How long after the deadline of `close` the answer of the worker may come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Logger {
    /// [`send`](Self::send) for threads without an async runtime: blocks until the event is
    /// delivered.
    ///
    /// ```no_run
    /// # fn example(logger: fluent_logger::Logger) -> Result<(), fluent_logger::SendError> {
    /// logger.blocking_send("sale", &std::collections::HashMap::from([("item", "hat")]))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendError::RuntimeBlocked`].
    pub fn blocking_send<T: Serialize + ?Sized>(&self, tag: &str, record: &T) -> Result<(), SendError> {
        if self.shared().would_block_worker() {
            return Err(SendError::RuntimeBlocked);
        }
        block_on(self.send(tag, record), None).unwrap_or(Err(SendError::Closed))
    }

    /// [`flush`](Self::flush) for threads without an async runtime: blocks at most `timeout`.
    ///
    /// ```no_run
    /// # fn example(logger: fluent_logger::Logger) -> Result<(), fluent_logger::FlushError> {
    /// logger.blocking_flush(std::time::Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`flush`](Self::flush), [`FlushError::TimedOut`] and [`FlushError::RuntimeBlocked`].
    pub fn blocking_flush(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.shared().would_block_worker() {
            return Err(FlushError::RuntimeBlocked);
        }
        block_on(self.flush(), Instant::now().checked_add(timeout)).unwrap_or(Err(FlushError::TimedOut))
    }

    /// [`close`](Self::close) for threads without an async runtime: blocks until everything is
    /// delivered or `timeout` is over, and returns the events that were not delivered.
    ///
    /// ```no_run
    /// # fn example(logger: fluent_logger::Logger) -> Result<(), fluent_logger::CloseError> {
    /// for event in logger.blocking_close(std::time::Duration::from_secs(5))? {
    ///     eprintln!("not delivered: {event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CloseError`] if the logger runs on a runtime that does not run
    /// ([`own_thread(false)`](crate::Builder::own_thread)).
    pub fn blocking_close(&self, timeout: Duration) -> Result<Vec<Event>, CloseError> {
        let buffered = || self.shared().lock().queue.events();
        if self.shared().would_block_worker() {
            return Err(CloseError::RuntimeBlocked { buffered: buffered() });
        }
        // The worker keeps the deadline; the extra time is for a worker that cannot run.
        let limit = Instant::now().checked_add(timeout.saturating_add(ANSWER_TIMEOUT));
        block_on(self.close(timeout), limit).ok_or_else(|| CloseError::NoAnswer { buffered: buffered() })
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread by parking it. `None`: the deadline came first.
pub(super) fn block_on<T>(future: impl Future<Output = T>, deadline: Option<Instant>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Some(result);
        }
        match deadline {
            None => std::thread::park(),
            Some(deadline) => {
                let left = deadline.checked_duration_since(Instant::now())?;
                std::thread::park_timeout(left);
            }
        }
    }
}
