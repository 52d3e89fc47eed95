//! What waits to be written, and the two ends of waiting.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::blocks::BLOCK;
use super::error::AppendError;
use super::format::RECORD_HEADER_BYTES;
use super::{Receipt, format};

/// Payloads of so many bytes that begin at a [`BLOCK`] in memory are written from where they are: it is worth the half block
/// that is lost before them.
pub(super) const AT_BLOCK_FROM: usize = 16 * BLOCK;

/// A record on its way to the disk.
pub(super) struct Pending {
    pub(super) kind: u8,
    pub(super) payload: Bytes,
    /// Computed where the payload is still in the processor's cache.
    pub(super) payload_crc: u32,
    reply: Reply,
}

/// Where the answer goes.
pub(super) struct Reply(oneshot::Sender<Result<Receipt, AppendError>>);

impl Reply {
    pub(super) fn answer(self, answer: Result<Receipt, AppendError>) {
        // The one who asked may have gone; the record is durable all the same.
        let _ = self.0.send(answer);
    }
}

impl Pending {
    pub(super) fn new(kind: u8, payload: Bytes) -> (Self, Append) {
        let (reply, answer) = oneshot::channel();
        (
            Self {
                kind,
                payload_crc: crc32fast::hash(&payload),
                payload,
                reply: Reply(reply),
            },
            Append {
                state: State::Waiting(answer),
            },
        )
    }

    pub(super) fn into_parts(self) -> (u8, Bytes, Reply) {
        (self.kind, self.payload, self.reply)
    }

    /// The most bytes that it takes in a segment.
    pub(super) fn size(&self) -> u64 {
        let room_before = if self.is_at_block() { BLOCK as u64 - 1 } else { 0 };
        RECORD_HEADER_BYTES + room_before + self.payload.len() as u64
    }

    /// Whether its payload can be written from where it is, and is large enough for a block more or less.
    pub(super) fn is_at_block(&self) -> bool {
        self.payload.len() >= AT_BLOCK_FROM && self.payload.as_ptr().align_offset(BLOCK) == 0
    }

    pub(super) fn len_field(&self) -> u32 {
        // `append` refuses what is larger than the format takes.
        u32::try_from(self.payload.len().min(format::MAX_PAYLOAD as usize)).unwrap_or(u32::MAX)
    }

    /// Nobody waits for it any more: it need not be written.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.0.is_closed()
    }

    pub(super) fn answer(self, answer: Result<Receipt, AppendError>) {
        self.reply.answer(answer);
    }
}

/// What [`append`](super::Journal::append) gives: resolves when the record is durable.
#[must_use = "nothing may be acknowledged before this has resolved"]
#[derive(Debug)]
pub struct Append {
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(oneshot::Receiver<Result<Receipt, AppendError>>),
    Refused(AppendError),
}

impl Append {
    pub(super) fn refused(why: AppendError) -> Self {
        Self {
            state: State::Refused(why),
        }
    }

    /// Blocks this thread until the record is durable. Not for async code.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Receipt, AppendError> {
        match self.state {
            State::Waiting(answer) => answer.blocking_recv().unwrap_or(Err(AppendError::Closed)),
            State::Refused(why) => Err(why),
        }
    }
}

impl Future for Append {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Waiting(answer) => Pin::new(answer)
                .poll(context)
                .map(|answer| answer.unwrap_or(Err(AppendError::Closed))),
            State::Refused(why) => Poll::Ready(Err(why.clone())),
        }
    }
}

/// The queue between `append` and the writer thread.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Pending>,
    /// Records that the writer took and could not write yet.
    pub(super) held_by_writer: usize,
    pub(super) closed: bool,
    /// The writer sleeps until so many are there; 0 while it is awake.
    pub(super) writer_wants: usize,
    /// Something may have changed for a writer that is blocked.
    pub(super) kick: bool,
}
