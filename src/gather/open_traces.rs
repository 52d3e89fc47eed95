//! Look at the open traces: a request that the gathering thread answers between two journal
//! records.
//!
//! Only that thread can read the trace table. A request costs it one scan of a bounded number of
//! traces; without requests it reads one flag for each journal record.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use windrow_trace::TraceOverview;

/// Traces in an answer.
const MAX_TRACES: usize = 200;
/// Requests that wait for the same answer.
const MAX_WAITING: usize = 64;

/// The open traces at one time.
#[derive(Debug)]
pub struct OpenTraces {
    /// Number of all open and lingering traces.
    pub total: usize,
    /// Number of their records.
    pub lines: u64,
    /// When they were read (µs since the epoch).
    pub now: i64,
    /// At most 200 of them, the least recently updated first.
    pub traces: Vec<TraceOverview>,
}

/// Requests for the open traces. Cheap to share.
#[derive(Debug, Default)]
pub struct OpenTracesProbe {
    is_requested: AtomicBool,
    waiting: Mutex<Vec<oneshot::Sender<Arc<OpenTraces>>>>,
}

impl OpenTracesProbe {
    /// Requests the open traces; `None` when too many requests wait already. The sender is dropped
    /// when the server stops.
    pub fn request(&self) -> Option<oneshot::Receiver<Arc<OpenTraces>>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|sender| !sender.is_closed());
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push(sender);
        self.is_requested.store(true, Ordering::Release);
        Some(receiver)
    }

    /// Answers all requests, if there are some. `read` gets the largest number of traces to copy.
    #[inline]
    pub(super) fn answer(&self, read: impl FnOnce(usize) -> OpenTraces) {
        if self.is_requested.load(Ordering::Relaxed) {
            self.answer_requests(read);
        }
    }

    /// As [`Self::answer`], for tests of other modules.
    #[cfg(test)]
    pub(crate) fn answer_for_tests(&self, read: impl FnOnce() -> OpenTraces) {
        self.answer(|_| read());
    }

    #[cold]
    fn answer_requests(&self, read: impl FnOnce(usize) -> OpenTraces) {
        self.is_requested.store(false, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let open = Arc::new(read(MAX_TRACES));
        for sender in waiting {
            sender.send(Arc::clone(&open)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_share_an_answer_and_are_bounded() {
        let probe = OpenTracesProbe::default();
        probe.answer(|_| unreachable!("nobody asked"));
        let receivers: Vec<_> = (0..MAX_WAITING).map(|_| probe.request().unwrap()).collect();
        assert!(probe.request().is_none());
        probe.answer(|_| OpenTraces {
            total: 7,
            lines: 9,
            now: 1,
            traces: Vec::new(),
        });
        for mut receiver in receivers {
            assert_eq!(receiver.try_recv().unwrap().total, 7);
        }
        drop(probe.request().unwrap());
        assert!(probe.request().is_some(), "who has left does not count");
    }
}
