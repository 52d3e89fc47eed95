//! `/api/v1/tail`: traces as they are sealed, as server-sent events.
//!
//! ```text
//! event: traces
//! data: {"traces":[…summaries…],"lost":12}
//! ```
//!
//! A thread of low priority looks at sealed batches while somebody watches, and at a bounded number
//! of documents of each. What it does not look at, and what a slow reader has no room for, is lost
//! for the reader, who is told how many.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use windrow_query::{Document, Names, Query};

use super::AdminShared;
use super::api::ApiError;
use super::guard::parameter;
use crate::clock;
use crate::output::{Batch, BatchTap, Watching};
use crate::runtime;
use crate::search::TraceSummary;

/// Readers at the same time.
const MAX_READERS: usize = 64;
/// Niceness of the thread: people who watch do not slow down what they watch.
const NICENESS: i32 = 10;
/// Documents of a batch that are looked at, and of all batches between two events: 8,000/s, many
/// more than anybody reads. A reader is told of the others.
const MAX_DOCUMENTS_PER_BATCH: usize = 200;
const MAX_DOCUMENTS_PER_INTERVAL: usize = 2_000;
/// Summaries of one event, and about their bytes: ids and tags can be long.
const MAX_TRACES_PER_EVENT: usize = 100;
const MAX_EVENT_BYTES: usize = 128 << 10;
/// Shortest time between two events of one reader.
const EVENT_INTERVAL: Duration = Duration::from_millis(250);
/// Events that wait for a slow reader.
const QUEUE_EVENTS: usize = 4;
/// A comment is sent after this time without an event, so that a lost connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The readers of the tail.
#[derive(Debug)]
pub struct TailHub {
    tap: Arc<BatchTap>,
    /// Readers that the thread has not taken over yet. Its lock is held for moments only: the thread
    /// has a low priority, and those who subscribe serve sockets.
    joining: Mutex<Vec<Reader>>,
    readers: AtomicUsize,
}

/// A reader, as the thread knows it.
#[derive(Debug)]
struct Reader {
    query: Query,
    events: mpsc::Sender<Bytes>,
    pending: Vec<TraceSummary>,
    pending_bytes: usize,
    /// Traces that it will not see.
    lost: u64,
}

impl Reader {
    fn is_full(&self) -> bool {
        self.pending.len() >= MAX_TRACES_PER_EVENT
    }

    fn has_news(&self) -> bool {
        !self.pending.is_empty() || self.lost > 0
    }
}

/// The events of a reader; it leaves when this is dropped.
#[derive(Debug)]
struct Subscription {
    events: mpsc::Receiver<Bytes>,
    hub: Arc<TailHub>,
    _watching: Watching,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The data of one event.
#[derive(Serialize)]
struct Event<'a> {
    traces: &'a [TraceSummary],
    lost: u64,
}

impl TailHub {
    /// Starts the thread that looks at `batches` until the process ends.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(tap: Arc<BatchTap>, batches: Receiver<Batch>, names: Names) -> std::io::Result<Arc<Self>> {
        let hub = Arc::new(Self {
            tap,
            joining: Mutex::default(),
            readers: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&hub);
        std::thread::Builder::new().name("tail".into()).spawn(move || {
            runtime::lower_priority(NICENESS);
            shared.run(&batches, &names);
        })?;
        Ok(hub)
    }

    fn run(&self, batches: &Receiver<Batch>, names: &Names) {
        let mut readers: Vec<Reader> = Vec::new();
        let mut next_event = Instant::now();
        let mut left = MAX_DOCUMENTS_PER_INTERVAL;
        loop {
            let received = if readers.iter().any(Reader::has_news) {
                batches.recv_timeout(next_event.saturating_duration_since(Instant::now()))
            } else {
                batches.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            readers.append(&mut self.joining());
            readers.retain(|reader| !reader.events.is_closed());
            match received {
                Ok(batch) => self.look_at(&batch, names, &mut readers, &mut left),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= next_event {
                next_event = now + EVENT_INTERVAL;
                left = MAX_DOCUMENTS_PER_INTERVAL;
                readers
                    .iter_mut()
                    .filter(|reader| reader.has_news())
                    .for_each(send_event);
            }
        }
    }

    /// Looks at no more than `left` documents, and counts them off.
    fn look_at(&self, batch: &Batch, names: &Names, readers: &mut [Reader], left: &mut usize) {
        let mut looked_at = 0;
        for document in batch.documents().take(MAX_DOCUMENTS_PER_BATCH.min(*left)) {
            // Nobody has room for it, whatever it says.
            if readers.iter().all(Reader::is_full) {
                break;
            }
            looked_at += 1;
            let Some(parsed) = Document::parse(document.id(), document.json(), names) else {
                continue;
            };
            for reader in readers.iter_mut().filter(|reader| reader.query.matches(&parsed)) {
                let summary = (!reader.is_full())
                    .then(|| TraceSummary::of(&parsed, None, &reader.query))
                    .filter(|summary| reader.pending_bytes + summary.text_bytes() <= MAX_EVENT_BYTES);
                match summary {
                    Some(summary) => {
                        reader.pending_bytes += summary.text_bytes();
                        reader.pending.push(summary);
                    }
                    None => reader.lost += 1,
                }
            }
        }
        *left -= looked_at;
        let unseen = batch.len().saturating_sub(looked_at) as u64 + self.tap.take_skipped();
        for reader in readers.iter_mut() {
            reader.lost += unseen;
        }
    }

    /// The events of a new reader; `None` when there are too many readers.
    fn subscribe(self: &Arc<Self>, query: Query) -> Option<Subscription> {
        let one_more = |readers: usize| (readers < MAX_READERS).then_some(readers + 1);
        self.readers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        let (sender, events) = mpsc::channel(QUEUE_EVENTS);
        let subscription = Subscription {
            events,
            hub: Arc::clone(self),
            _watching: self.tap.watch(),
        };
        let mut joining = self.joining();
        joining.retain(|reader| !reader.events.is_closed());
        joining.push(Reader {
            query,
            events: sender,
            pending: Vec::new(),
            pending_bytes: 0,
            lost: 0,
        });
        Some(subscription)
    }

    fn joining(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_event(reader: &mut Reader) {
    let data = Event {
        traces: &reader.pending,
        lost: reader.lost,
    };
    // Serialising text and numbers cannot fail.
    let data = serde_json::to_string(&data).unwrap_or_default();
    let event = Bytes::from(format!("event: traces\ndata: {data}\n\n"));
    let count = reader.pending.len() as u64;
    reader.pending.clear();
    reader.pending_bytes = 0;
    match reader.events.try_send(event) {
        Ok(()) => reader.lost = 0,
        Err(mpsc::error::TrySendError::Full(_)) => reader.lost += count,
        // It is forgotten before the next batch.
        Err(mpsc::error::TrySendError::Closed(_)) => reader.lost = 0,
    }
}

/// Answers with the events of traces that match `q`.
pub(super) async fn tail(State(shared): State<AdminShared>, uri: Uri) -> Response {
    let Some(hub) = &shared.state.tail else {
        return ApiError::new(StatusCode::NOT_IMPLEMENTED, "nothing is gathered here").into_response();
    };
    let text = parameter(&uri, "q").unwrap_or_default();
    let query = match Query::parse(&text, clock::unix_us().saturating_mul(1000)) {
        Ok(query) => query,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let Some(subscription) = hub.subscribe(query) else {
        let what = format!("{MAX_READERS} readers follow the tail already");
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).into_response();
    };
    let body = EventBody {
        ready: VecDeque::from([Bytes::from_static(b"retry: 2000\n\n")]),
        subscription,
        keep_alive: Box::pin(tokio::time::sleep(KEEP_ALIVE)),
        stop: Box::pin(shared.stop.clone().cancelled_owned()),
    };
    let media_type = [(header::CONTENT_TYPE, "text/event-stream")];
    (media_type, Body::new(body)).into_response()
}

/// Events as the body of a response, which ends when the server stops.
struct EventBody {
    ready: VecDeque<Bytes>,
    subscription: Subscription,
    keep_alive: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(event) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let event = match self.subscription.events.poll_recv(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(event)) => event,
            Poll::Pending if self.keep_alive.as_mut().poll(cx).is_ready() => Bytes::from_static(b":\n\n"),
            Poll::Pending => return Poll::Pending,
        };
        let next = tokio::time::Instant::now() + KEEP_ALIVE;
        self.keep_alive.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(event: &Bytes) -> serde_json::Value {
        let text = std::str::from_utf8(event).unwrap();
        let text = text.strip_prefix("event: traces\ndata: ").unwrap();
        serde_json::from_str(text.trim_end()).unwrap()
    }

    fn hub() -> (Arc<TailHub>, Arc<BatchTap>) {
        let (tap, batches) = BatchTap::new();
        let hub = TailHub::start(Arc::clone(&tap), batches, Names::default()).unwrap();
        (hub, tap)
    }

    #[tokio::test]
    async fn readers_get_the_traces_that_match_their_query() {
        let (hub, tap) = hub();
        let mut all = hub.subscribe(Query::parse("", 0).unwrap()).unwrap();
        let mut errors = hub.subscribe(Query::parse("boom", 0).unwrap()).unwrap();
        tap.offer(&Batch::of_documents(&[
            r#"{"@timestamp":"2026-11-21T09:20:00Z","traceId":"a","message":"fine"}"#,
            r#"{"@timestamp":"2026-11-21T09:20:01Z","traceId":"b","message":"boom"}"#,
            "no document",
        ]));
        let event = data(&all.events.recv().await.unwrap());
        assert_eq!(event["traces"].as_array().unwrap().len(), 2);
        assert_eq!(event["lost"], 0);
        let event = data(&errors.events.recv().await.unwrap());
        assert_eq!(event["traces"][0]["id"], "b");
        assert_eq!(event["traces"][0]["highlights"], serde_json::json!([[0, 4]]));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_lost() {
        let (hub, tap) = hub();
        let mut slow = hub.subscribe(Query::parse("", 0).unwrap()).unwrap();
        let document = r#"{"@timestamp":"2026-11-21T09:20:00Z","traceId":"a","message":"x"}"#;
        let many = vec![document; MAX_DOCUMENTS_PER_BATCH + 50];
        let mut offered = 0;
        // More than the queue of events holds.
        for _ in 0..QUEUE_EVENTS + 3 {
            tap.offer(&Batch::of_documents(&many));
            offered += many.len();
            tokio::time::sleep(EVENT_INTERVAL + Duration::from_millis(30)).await;
        }
        let (mut seen, mut lost) = (0, 0);
        while let Ok(Some(event)) = tokio::time::timeout(4 * EVENT_INTERVAL, slow.events.recv()).await {
            let event = data(&event);
            seen += event["traces"].as_array().unwrap().len();
            lost += event["lost"].as_u64().unwrap() as usize;
        }
        assert_eq!(seen + lost, offered);
        assert!(lost > 0 && seen > 0, "{seen} seen, {lost} lost");
    }

    #[test]
    fn readers_are_bounded_and_leave_room_when_they_go() {
        let (hub, _tap) = hub();
        let subscribe = || hub.subscribe(Query::parse("", 0).unwrap());
        let readers: Vec<_> = (0..MAX_READERS).map(|_| subscribe().unwrap()).collect();
        assert!(subscribe().is_none());
        drop(readers);
        // Nothing is sealed meanwhile, so that the thread does not notice.
        for _ in 0..3 * MAX_READERS {
            assert!(subscribe().is_some());
        }
        assert!(hub.joining().len() <= 1);
    }
}
