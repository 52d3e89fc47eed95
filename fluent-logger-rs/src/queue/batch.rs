//! Contents of the queue: batches of events, chunks of the caller, and waiters for their delivery.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use forward_protocol::encode::ChunkId;
use tokio::sync::oneshot;

use crate::error::SendError;

/// Bytes that an event costs besides its encoding: its entry in the table of ends and its share of
/// the batch.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = 8;

/// Completes the future of one `send`.
#[derive(Debug)]
pub(crate) struct Waiter {
    done: oneshot::Sender<Result<(), SendError>>,
    /// The event is due at once.
    pub(super) urgent: bool,
}

impl Waiter {
    pub(crate) fn new(urgent: bool) -> (Self, oneshot::Receiver<Result<(), SendError>>) {
        let (done, receiver) = oneshot::channel();
        (Self { done, urgent }, receiver)
    }

    pub(crate) fn complete(self, result: Result<(), SendError>) {
        // The future may have been dropped.
        let _ = self.done.send(result);
    }
}

/// Events of one tag, in order of arrival.
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
    /// (index of the event, its waiter), in order.
    pub(crate) waiters: VecDeque<(usize, Waiter)>,
    /// Id of a caller's chunk: nothing is added to it and nothing dropped from it.
    pub(crate) id: Option<ChunkId>,
    pub(super) due: Instant,
    pub(super) urgent: bool,
}

impl Batch {
    /// Events that were not dropped.
    pub(crate) fn events(&self) -> usize {
        self.ends.len() - self.dropped
    }

    /// Offset of the first entry that was not dropped.
    pub(crate) fn start(&self) -> usize {
        self.dropped
            .checked_sub(1)
            .and_then(|last| self.ends.get(last))
            .map_or(0, |end| *end as usize)
    }

    /// Bytes counted against the bound.
    pub(crate) fn cost(&self) -> usize {
        self.entries.len() - self.start() + self.events() * EVENT_OVERHEAD_BYTES
    }
}

/// Encoded events that a caller sends as one chunk with its own id.
#[derive(Debug)]
pub(crate) struct CallerChunk {
    pub(crate) id: ChunkId,
    pub(crate) tag: String,
    pub(crate) entries: Vec<u8>,
    pub(crate) ends: Vec<u32>,
    pub(crate) waiter: Waiter,
}

impl CallerChunk {
    /// Bytes counted against the bound.
    pub(crate) fn cost(&self) -> usize {
        self.entries.len() + self.ends.len() * EVENT_OVERHEAD_BYTES
    }
}
