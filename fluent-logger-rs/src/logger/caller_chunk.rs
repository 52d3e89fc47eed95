//! Chunks with an id of the caller: the caller can send exactly the same chunk again.
//!
//! Owns the encoding of such a chunk and its checks. Behind the queue it is a chunk like all
//! others.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use forward_protocol::encode::ChunkId;
use serde::Serialize;

use super::{Logger, SendState, Sending, with_tag};
use crate::error::{Rejected, SendError};
use crate::options::OnFull;
use crate::queue::{CallerChunk, EVENT_OVERHEAD_BYTES, Waiter};
use crate::record;
use crate::shared::Shared;

/// Most bytes of events in one chunk, as with `chunk_limit_bytes`.
const MAX_CHUNK_BYTES: usize = 64 * 1024 * 1024;

impl Logger {
    /// Sends these events as one chunk of their own under the caller's id, and gives a future that
    /// resolves when the server has acknowledged it. Queued at once, as with [`send`](Self::send);
    /// dropping the future does not take it back.
    ///
    /// The same id, tag and events always make the same bytes: a server that knows chunks (Windrow)
    /// recognises a repetition, also one that comes from another process after a crash. So whoever
    /// notes the id and where the events come from before the call, and sends the same again until
    /// it was acknowledged, has each event stored exactly once. This holds for one version of this
    /// crate and the same [`mode`](crate::Builder::mode),
    /// [`sub_second_precision`](crate::Builder::sub_second_precision) and
    /// [`tag_prefix`](crate::Builder::tag_prefix), and for records that are serialised in the same
    /// order.
    ///
    /// The chunk is one message, whatever
    /// [`chunk_limit_events`](crate::Builder::chunk_limit_events) and
    /// [`chunk_limit_bytes`](crate::Builder::chunk_limit_bytes) say; with
    /// [`Mode::Message`](crate::Mode::Message) it goes as [`Mode::Forward`](crate::Mode::Forward).
    /// It is queued whole or not at all, and never dropped for newcomers; nor does it make room for
    /// itself ([`OnFull::DropOldest`]). With [`OnFull::Wait`] and a full buffer it is queued when
    /// the future is awaited and there is room.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::SystemTime;
    /// let events = [(SystemTime::now(), serde_json::json!({ "line": "GET /" }))];
    /// logger.send_chunk("access.log:0-5", "access", events).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future gives [`SendError`]. Refused ([`SendError::Rejected`]) are: an id that is empty
    /// or longer than 64 bytes, no events, more than the buffer can ever hold or than 64 MiB, a
    /// logger without [`request_ack`](crate::Builder::request_ack), and events that
    /// [`log`](Self::log) would refuse.
    pub fn send_chunk<T: Serialize>(
        &self,
        id: &str,
        tag: &str,
        events: impl IntoIterator<Item = (SystemTime, T)>,
    ) -> Sending {
        let shared = self.shared();
        let (waiter, receiver) = Waiter::new(true);
        let chunk = match self.count(encode(shared, id, tag, events, waiter)) {
            Ok(chunk) => chunk,
            Err(rejected) => return Sending(SendState::Refused(Some(rejected))),
        };
        let may_wait = matches!(shared.options.on_full, OnFull::Wait(_));
        match shared.try_push_caller_chunk(chunk) {
            Ok(()) => Sending(SendState::Queued(receiver)),
            Err((Rejected::Full { .. }, Some(chunk))) if may_wait => {
                let shared = Arc::clone(shared);
                Sending(SendState::Waiting(Box::pin(async move {
                    push_when_room(&shared, chunk).await?;
                    receiver.await.unwrap_or(Err(SendError::Closed))
                })))
            }
            Err((rejected, _)) => {
                let refused = self.count::<()>(Err(rejected)).err();
                Sending(SendState::Refused(refused))
            }
        }
    }
}

fn encode<T: Serialize>(
    shared: &Shared,
    id: &str,
    tag: &str,
    events: impl IntoIterator<Item = (SystemTime, T)>,
    waiter: Waiter,
) -> Result<CallerChunk, Rejected> {
    let no_chunk = |reason| Rejected::NoChunk { reason };
    let options = &shared.options;
    if !options.policy.request_ack {
        return Err(no_chunk("without request_ack no id is sent"));
    }
    let id = ChunkId::from_text(id).ok_or_else(|| no_chunk("an id has 1 to 64 bytes"))?;
    let limit = options.limits.bytes.min(MAX_CHUNK_BYTES);
    let tag = with_tag(&options.tag_prefix, tag, |tag| Ok(tag.to_owned()))?;
    let (mut entries, mut ends) = (Vec::new(), Vec::new());
    for (time, event) in events {
        record::with_entry(time, &options.entry, &event, |entry| {
            entries.extend_from_slice(entry);
            Ok(())
        })?;
        // Below 2^32: `limit` is checked right after, and one event has at most 64 MiB.
        ends.push(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        let bytes = entries.len() + ends.len() * EVENT_OVERHEAD_BYTES;
        if bytes > limit {
            return Err(Rejected::TooLarge { bytes, limit });
        }
        if ends.len() > options.limits.events {
            return Err(no_chunk("it has more events than buffer_limit"));
        }
    }
    if ends.is_empty() {
        return Err(no_chunk("it has no events"));
    }
    Ok(CallerChunk {
        id,
        tag,
        entries,
        ends,
        waiter,
    })
}

async fn push_when_room(shared: &Shared, chunk: Box<CallerChunk>) -> Result<(), SendError> {
    let mut chunk = *chunk;
    loop {
        let mut room = pin!(shared.room.notified());
        // Registered before the attempt, so that room made in between is not missed.
        room.as_mut().enable();
        match shared.try_push_caller_chunk(chunk) {
            Ok(()) => return Ok(()),
            Err((Rejected::Full { .. }, Some(back))) => chunk = *back,
            Err((rejected, _)) => {
                shared
                    .counters
                    .rejected
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return Err(SendError::Rejected(rejected));
            }
        }
        room.await;
    }
}
