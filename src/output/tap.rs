//! Tap: sealed batches for people who watch them.
//!
//! Never waits and never holds up an output: a batch is offered only while somebody watches, and is
//! skipped when the watcher is busy with those before it. A tapped batch keeps its memory until it
//! is looked at, so few are queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Batch;

/// Batches that wait to be looked at.
const QUEUE_BATCHES: usize = 4;

/// Offers batches to a watcher.
#[derive(Debug)]
pub struct BatchTap {
    watchers: AtomicUsize,
    /// Documents of batches that were skipped.
    skipped: AtomicU64,
    sender: SyncSender<Batch>,
}

/// Keeps the tap open until it is dropped.
#[derive(Debug)]
pub struct Watching(Arc<BatchTap>);

impl BatchTap {
    /// A tap that nobody watches, and the queue of its batches.
    pub fn new() -> (Arc<Self>, Receiver<Batch>) {
        let (sender, receiver) = sync_channel(QUEUE_BATCHES);
        let tap = Self {
            watchers: AtomicUsize::new(0),
            skipped: AtomicU64::new(0),
            sender,
        };
        (Arc::new(tap), receiver)
    }

    /// Offers a batch.
    #[inline]
    pub fn offer(&self, batch: &Batch) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.queue(batch);
        }
    }

    #[cold]
    fn queue(&self, batch: &Batch) {
        if self.sender.try_send(batch.clone()).is_err() {
            self.skipped.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }

    /// Opens the tap.
    pub fn watch(self: &Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }

    /// Number of documents that were skipped since the last call.
    pub fn take_skipped(&self) -> u64 {
        self.skipped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_taken_only_while_somebody_watches_and_never_waited_for() {
        let (tap, batches) = BatchTap::new();
        tap.offer(&Batch::of_documents(&["{}"]));
        assert!(batches.try_recv().is_err());
        let watching = tap.watch();
        for _ in 0..QUEUE_BATCHES + 3 {
            tap.offer(&Batch::of_documents(&["{}"]));
        }
        assert_eq!(batches.try_iter().count(), QUEUE_BATCHES);
        assert_eq!((tap.take_skipped(), tap.take_skipped()), (3, 0));
        drop(watching);
        tap.offer(&Batch::of_documents(&["{}"]));
        assert!(batches.try_recv().is_err());
    }
}
