//! Append queue: appends that wait for the writer thread, and the futures that wait for their
//! receipts.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Condvar, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::Receipt;
use crate::error::AppendError;
use crate::format::{MAX_PAYLOAD_BYTES, RECORD_HEADER_BYTES};
use crate::storage::BLOCK_BYTES;
use crate::sync::lock;

/// Block-aligned payloads of this size or more are written without a copy; that is worth the half
/// block of padding which it costs on average.
pub(crate) const MIN_ALIGNED_PAYLOAD_BYTES: usize = 16 * BLOCK_BYTES;

/// Payloads of up to this size may use the reserve below the limit.
pub(crate) const SHORT_PAYLOAD_BYTES: usize = 64 << 10;

/// A record that is not written yet.
pub(crate) struct PendingAppend {
    /// Whose share of the reserve it may use.
    pub(crate) source: u64,
    pub(crate) kind: u8,
    pub(crate) payload: Bytes,
    /// Computed by the caller's thread, where the payload still is in the processor's cache.
    pub(crate) payload_crc: u32,
    reply: Reply,
}

/// Sending end of an [`Append`].
pub(crate) struct Reply(oneshot::Sender<Result<Receipt, AppendError>>);

impl Reply {
    pub(crate) fn send(self, result: Result<Receipt, AppendError>) {
        // The caller may have dropped its future; the record stays durable.
        let _ = self.0.send(result);
    }
}

impl PendingAppend {
    pub(crate) fn new(source: u64, kind: u8, payload: Bytes) -> (Self, Append) {
        let (sender, receiver) = oneshot::channel();
        (
            Self {
                source,
                kind,
                payload_crc: crc32fast::hash(&payload),
                payload,
                reply: Reply(sender),
            },
            Append {
                state: AppendState::Waiting(receiver),
            },
        )
    }

    pub(crate) fn into_parts(self) -> (u8, Bytes, Reply) {
        (self.kind, self.payload, self.reply)
    }

    /// Upper bound of the bytes that the record takes in a segment.
    pub(crate) fn max_bytes(&self) -> u64 {
        let padding = if self.is_block_aligned() {
            BLOCK_BYTES as u64 - 1
        } else {
            0
        };
        RECORD_HEADER_BYTES + padding + self.payload.len() as u64
    }

    /// The payload is block-aligned in memory, and large enough to be written without a copy.
    pub(crate) fn is_block_aligned(&self) -> bool {
        self.payload.len() >= MIN_ALIGNED_PAYLOAD_BYTES
            && self.payload.as_ptr().align_offset(BLOCK_BYTES) == 0
    }

    /// It may use the reserve below the limit.
    pub(crate) fn is_short(&self) -> bool {
        self.payload.len() <= SHORT_PAYLOAD_BYTES
    }

    /// The payload's length as the record header has it.
    pub(crate) fn len_field(&self) -> u32 {
        // `append` refuses payloads that are too large for the format.
        u32::try_from(self.payload.len().min(MAX_PAYLOAD_BYTES as usize)).unwrap_or(u32::MAX)
    }

    /// The caller dropped its future: the record need not be written.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.0.is_closed()
    }

    pub(crate) fn reply(self, result: Result<Receipt, AppendError>) {
        self.reply.send(result);
    }
}

/// Future of [`Journal::append`](crate::Journal::append): resolves when the record is durable.
///
/// It needs no async runtime. [`Append::wait`] blocks a thread instead.
#[must_use = "nothing may be acknowledged before this has resolved"]
#[derive(Debug)]
pub struct Append {
    state: AppendState,
}

#[derive(Debug)]
enum AppendState {
    Waiting(oneshot::Receiver<Result<Receipt, AppendError>>),
    Refused(AppendError),
}

impl Append {
    pub(crate) fn refused(error: AppendError) -> Self {
        Self {
            state: AppendState::Refused(error),
        }
    }

    /// Blocks this thread until the record is durable. Panics within an async runtime; await it
    /// there.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn wait(self) -> Result<Receipt, AppendError> {
        match self.state {
            AppendState::Waiting(receiver) => receiver.blocking_recv().unwrap_or(Err(AppendError::Closed)),
            AppendState::Refused(error) => Err(error),
        }
    }
}

impl Future for Append {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            AppendState::Waiting(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|result| result.unwrap_or(Err(AppendError::Closed))),
            AppendState::Refused(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

/// Queue between [`Journal::append`](crate::Journal::append) and the writer thread.
#[derive(Default)]
pub(crate) struct AppendQueue {
    pub(crate) state: Mutex<QueueState>,
    /// Wakes the writer thread.
    pub(crate) changed: Condvar,
}

#[derive(Default)]
pub(crate) struct QueueState {
    pub(crate) appends: VecDeque<PendingAppend>,
    /// Appends that the writer took and has not written yet.
    pub(crate) held_by_writer: usize,
    pub(crate) closed: bool,
    /// Queue length at which the sleeping writer is woken; 0 while it is awake.
    pub(crate) wake_at_len: usize,
    /// A blocked writer is to check again whether it can write.
    pub(crate) recheck: bool,
    /// The next short append wakes a writer that is blocked for long ones only.
    pub(crate) wake_for_short: bool,
}

impl AppendQueue {
    /// False if the queue is closed.
    pub(crate) fn push(&self, pending: PendingAppend) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        let short = state.wake_for_short && pending.is_short();
        state.appends.push_back(pending);
        let mut wake = (1..=state.appends.len()).contains(&state.wake_at_len);
        if wake {
            state.wake_at_len = 0;
        }
        if short {
            (state.wake_for_short, state.recheck, wake) = (false, true, true);
        }
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        true
    }

    /// Appends that are not durable yet.
    pub(crate) fn waiting(&self) -> usize {
        let state = lock(&self.state);
        state.appends.len() + state.held_by_writer
    }

    /// Lets a blocked writer check again whether it can write.
    pub(crate) fn recheck(&self) {
        lock(&self.state).recheck = true;
        self.changed.notify_one();
    }

    /// Refuses further appends. The writer writes those that are queued, then ends.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_one();
    }

    /// Closes the queue and answers the appends in it with [`AppendError::Closed`].
    pub(crate) fn close_and_refuse(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let refused = std::mem::take(&mut state.appends);
        drop(state);
        for pending in refused {
            pending.reply(Err(AppendError::Closed));
        }
    }
}
