//! Answers with documents: one memory budget for all of them, and a body that is sent piece by
//! piece.
//!
//! A client that reads slowly keeps its documents in memory. It has [`READ_TIMEOUT`] for the whole
//! answer; while such clients hold the budget, others are refused.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Documents of one answer, bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Documents of all answers, bytes.
const BUDGET_BYTES: usize = 64 << 20;
/// Time in which an answer must be read.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a request waits for the budget.
const BUDGET_TIMEOUT: Duration = if cfg!(test) {
    Duration::from_millis(200)
} else {
    Duration::from_secs(5)
};
/// Bytes that are given to the connection at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Bytes of one permit.
const PERMIT_BYTES: usize = 1 << 10;

/// The memory for the documents of all answers.
#[derive(Clone)]
pub(super) struct AnswerBudget(Arc<Semaphore>);

impl AnswerBudget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES / PERMIT_BYTES)))
    }

    /// Reserves memory for the largest answer; `None` when other answers hold the budget.
    pub(super) async fn reserve(&self) -> Option<Reservation> {
        self.reserve_bytes(MAX_ANSWER_BYTES).await
    }

    /// Reserves memory for an answer of at most `bytes`, as [`reserve`](Self::reserve).
    pub(super) async fn reserve_bytes(&self, bytes: usize) -> Option<Reservation> {
        let permits = bytes.min(MAX_ANSWER_BYTES).div_ceil(PERMIT_BYTES) as u32;
        let acquired = Arc::clone(&self.0).acquire_many_owned(permits);
        // The semaphore is never closed.
        let permit = tokio::time::timeout(BUDGET_TIMEOUT, acquired).await.ok()?.ok()?;
        Some(Reservation(permit))
    }
}

/// Reserved memory; given back when it is dropped.
pub(super) struct Reservation(OwnedSemaphorePermit);

impl Reservation {
    /// Gives back what `bytes` do not need.
    fn shrink(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(bytes.div_ceil(PERMIT_BYTES));
        drop(self.0.split(spare));
    }
}

/// Documents and the memory that is reserved for them.
pub(super) struct Answer {
    pub(super) documents: Vec<Box<RawValue>>,
    /// Documents beyond the size of an answer.
    pub(super) omitted: usize,
    reservation: Reservation,
}

impl Answer {
    /// Keeps the first documents that fit into [`MAX_ANSWER_BYTES`]; `omitted` more were found.
    pub(super) fn new(
        mut documents: Vec<Box<RawValue>>,
        mut omitted: usize,
        mut reservation: Reservation,
    ) -> Self {
        let (mut fit, mut bytes) = (0, 0);
        for document in &documents {
            if bytes + document.get().len() > MAX_ANSWER_BYTES {
                break;
            }
            bytes += document.get().len();
            fit += 1;
        }
        omitted += documents.len() - fit;
        documents.truncate(fit);
        reservation.shrink(bytes);
        Self {
            documents,
            omitted,
            reservation,
        }
    }

    /// The documents as a JSON array.
    pub(super) fn into_body(self) -> PartsBody {
        let mut parts = VecDeque::with_capacity(2 * self.documents.len() + 2);
        parts.push_back(Part::Text("["));
        for (n, document) in self.documents.into_iter().enumerate() {
            parts.push_back(Part::Text(if n == 0 { "\n" } else { ",\n" }));
            parts.push_back(Part::Document(document));
        }
        parts.push_back(Part::Text("\n]\n"));
        PartsBody::new(parts, self.reservation)
    }
}

/// A body of these pieces of JSON.
pub(super) fn json_body(parts: Vec<Box<str>>, mut reservation: Reservation) -> PartsBody {
    reservation.shrink(parts.iter().map(|part| part.len()).sum());
    PartsBody::new(parts.into_iter().map(Part::Owned).collect(), reservation)
}

enum Part {
    Text(&'static str),
    Owned(Box<str>),
    Document(Box<RawValue>),
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Owned(text) => text,
            Self::Document(document) => document.get(),
        }
    }
}

/// JSON in parts, each freed when it is sent.
pub(super) struct PartsBody {
    parts: VecDeque<Part>,
    /// Bytes of the first part that are sent.
    sent: usize,
    remaining: u64,
    deadline: Pin<Box<Sleep>>,
    reservation: Reservation,
}

impl PartsBody {
    fn new(parts: VecDeque<Part>, reservation: Reservation) -> Self {
        Self {
            remaining: parts.iter().map(|part| part.text().len() as u64).sum(),
            parts,
            sent: 0,
            deadline: Box::pin(tokio::time::sleep(READ_TIMEOUT)),
            reservation,
        }
    }

    fn next_piece(&mut self) -> Bytes {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES
            && let Some(part) = self.parts.front()
        {
            let rest = part.text().as_bytes().get(self.sent..).unwrap_or_default();
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - piece.len()));
            piece.extend_from_slice(now);
            self.sent += now.len();
            if later.is_empty() {
                self.parts.pop_front();
                self.sent = 0;
            }
        }
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        piece.into()
    }
}

impl HttpBody for PartsBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            self.parts.clear();
            self.remaining = 0;
            self.reservation.shrink(0);
            return Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client reads the answer too slowly",
            ))));
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
