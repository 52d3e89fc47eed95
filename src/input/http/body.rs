//! Body of a request: read within the budget of all receive buffers, and no slower than a Forward
//! message may be.

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::answer::Problem;
use crate::input::forward::{Context, Reservation};

/// Bytes that must come within each progress timeout.
const MIN_PROGRESS_BYTES: usize = 1 << 10;
/// Largest step in which a buffer grows: a claimed length takes no memory.
const MAX_GROWTH_BYTES: usize = 4 << 20;
/// What is read of a body that is refused, so that the client gets to read the answer: closing a
/// socket with unread data resets the connection.
const MAX_DISCARDED_BYTES: usize = 64 << 20;
const MAX_DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads a body of at most `limit` bytes. `memory` grows with it.
pub(super) async fn read(
    body: &mut Incoming,
    limit: usize,
    context: &Context,
    memory: &mut Reservation<'_>,
) -> Result<Bytes, Problem> {
    let too_large = Problem::TooLarge { what: "", limit };
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large);
    }
    let mut progress = Progress::new(context.progress_timeout);
    let Some(first) = next(body, &mut progress, context, memory).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_large);
    }
    grow(memory, first.len(), context).await?;
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::new();
    let mut piece = first;
    loop {
        let length = whole.len() + piece.len();
        if length > limit {
            return Err(too_large);
        }
        if whole.capacity() < length {
            // Up to the declared length, but never more than was received.
            let rest = declared.map_or(limit, |declared| declared as usize) - length.min(limit);
            let more = length.min(rest).min(MAX_GROWTH_BYTES);
            let capacity = length + more;
            grow(memory, capacity, context).await?;
            match context.buffer_pool.take(capacity) {
                Some(mut pooled) if whole.is_empty() => {
                    pooled.clear();
                    whole = pooled;
                }
                _ => whole.reserve(capacity - whole.len()),
            }
        }
        whole.extend_from_slice(&piece);
        match next(body, &mut progress, context, memory).await? {
            Some(more) => piece = more,
            None => return Ok(whole.freeze()),
        }
    }
}

/// Makes `memory` as large as `bytes`; waits in the order of all messages.
pub(super) async fn grow(
    memory: &mut Reservation<'_>,
    bytes: usize,
    context: &Context,
) -> Result<(), Problem> {
    if memory.try_grow_to(bytes) {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = memory.grow_to(bytes) => Ok(()),
        () = context.stop_timeout() => Err(stopping()),
    }
}

/// The next piece that is not empty.
async fn next(
    body: &mut Incoming,
    progress: &mut Progress,
    context: &Context,
    memory: &mut Reservation<'_>,
) -> Result<Option<Bytes>, Problem> {
    loop {
        let limit = memory.deadline(context.progress_timeout);
        let deadline = limit.into_iter().fold(progress.deadline, Instant::min);
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let frame = tokio::select! {
            biased;
            frame = timeout_at(deadline, frame) => frame,
            () = context.stop_timeout() => return Err(stopping()),
        };
        match frame {
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing.
                let Ok(data) = frame.into_data() else { continue };
                if !data.is_empty() {
                    progress.record_read(data.len());
                    memory.record_read(data.len());
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(error))) => return Err(Problem::Aborted(error.to_string())),
            Ok(None) => return Ok(None),
            Err(_) if deadline < progress.deadline => {
                if memory.is_too_slow() {
                    return Err(Problem::SlowWithMemory);
                }
            }
            Err(_) => return Err(Problem::Slow(context.progress_timeout)),
        }
    }
}

fn stopping() -> Problem {
    Problem::Unavailable("the server is stopping".into())
}

/// Reads what is left of a refused body, for a while.
pub(super) async fn discard(mut body: Incoming) {
    let reading = async {
        let mut left = MAX_DISCARDED_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    tokio::time::timeout(MAX_DISCARD_TIME, reading).await.ok();
}

/// Deadline for the next bytes of a body.
struct Progress {
    timeout: Duration,
    deadline: Instant,
    missing_bytes: usize,
}

impl Progress {
    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            deadline: Instant::now() + timeout,
            missing_bytes: MIN_PROGRESS_BYTES,
        }
    }

    fn record_read(&mut self, bytes: usize) {
        match self.missing_bytes.checked_sub(bytes) {
            Some(missing @ 1..) => self.missing_bytes = missing,
            _ => *self = Self::new(self.timeout),
        }
    }
}
