//! Queue of the output: new documents and retries, grouped into bulk requests.
//!
//! Owns the order and the size of requests. Time is an argument; sends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::bulk;
use super::congestion::CongestionControl;
use super::delivery::{BulkContent, PendingDocument};
use super::outcome::{RequestError, RetryReason};
use crate::output::Batch;

/// A request that broke the connection this many times is split: some proxies and servers close the
/// connection instead of answering 413.
const DISCONNECTS_BEFORE_SPLIT: u32 = 3;
/// A request that breaks the connection is not split below this size.
const MIN_SPLIT_BYTES: usize = 64 << 10;

/// Lower bound of the request size, which a 413 halves.
const MIN_BULK_BYTES: usize = 64 << 10;

/// A rendered batch of at least this size is sent at once and without a copy. Smaller ones wait and
/// are copied into a common request.
const SEND_AS_RENDERED_BYTES: usize = 512 << 10;

/// Documents to be sent again.
struct RetryBatch {
    documents: Vec<PendingDocument>,
    due: Instant,
    /// `Some`: sent as one request, alone; the number of connections that it broke.
    alone: Option<u32>,
}

/// New documents and retries.
pub(super) struct BulkQueue {
    /// New batches to be sent as they were rendered.
    rendered: VecDeque<Batch>,
    /// New documents of smaller batches.
    fresh: VecDeque<PendingDocument>,
    fresh_bytes: usize,
    /// When the oldest of `fresh` was queued.
    fresh_since: Option<Instant>,
    retries: Vec<RetryBatch>,
    /// Size of one request; a 413 lowers it.
    bulk_bytes: usize,
    bulk_delay: Duration,
}

impl BulkQueue {
    pub(super) fn new(bulk_bytes: usize, bulk_delay: Duration) -> Self {
        Self {
            rendered: VecDeque::new(),
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            fresh_since: None,
            retries: Vec::new(),
            bulk_bytes: bulk_bytes.max(1),
            bulk_delay,
        }
    }

    /// Queues new documents and returns their bytes.
    pub(super) fn push(&mut self, batch: Batch) -> usize {
        let bytes = batch.framed().map_or(0, Bytes::len);
        if (SEND_AS_RENDERED_BYTES.min(self.bulk_bytes)..=self.bulk_bytes).contains(&bytes) {
            self.rendered.push_back(batch);
            return bytes;
        }
        self.push_documents(&batch)
    }

    fn push_documents(&mut self, batch: &Batch) -> usize {
        let mut taken = 0;
        for sealed in batch.documents() {
            let document = PendingDocument::new(sealed);
            taken += bulk::cost(&document);
            self.fresh.push_back(document);
        }
        self.fresh_bytes += taken;
        if self.fresh_since.is_none() && !self.fresh.is_empty() {
            self.fresh_since = Some(Instant::now());
        }
        taken
    }

    /// When the next request is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let fresh = self.fresh_since.map(|since| since + self.bulk_delay);
        self.retries.iter().map(|retry| retry.due).chain(fresh).min()
    }

    /// The next request that is due, retries first, and how many connections it broke. `last`: no
    /// more documents will be queued, so a small request need not wait.
    pub(super) fn next(&mut self, now: Instant, last: bool) -> Option<(BulkContent, u32)> {
        if let Some(at) = self
            .retries
            .iter()
            .position(|retry| retry.alone.is_some() && retry.due <= now)
        {
            let retry = self.retries.remove(at);
            return Some((
                BulkContent::Documents(Arc::new(retry.documents)),
                retry.alone.unwrap_or(0),
            ));
        }
        let mut documents = Vec::new();
        let mut bytes = 0;
        let mut at = 0;
        while at < self.retries.len() && bytes < self.bulk_bytes {
            if self.retries[at].due > now {
                at += 1;
                continue;
            }
            let all = &mut self.retries[at].documents;
            let count = prefix(all.iter(), self.bulk_bytes - bytes, documents.is_empty());
            if count == 0 {
                break;
            }
            bytes += all[..count].iter().map(bulk::cost).sum::<usize>();
            documents.extend(all.drain(..count));
            if all.is_empty() {
                self.retries.remove(at);
            } else {
                break;
            }
        }
        let old_enough = self
            .fresh_since
            .is_some_and(|since| since + self.bulk_delay <= now);
        while documents.is_empty()
            && !old_enough
            && let Some(batch) = self.rendered.pop_front()
        {
            // A 413 has lowered the size since it was queued.
            if batch.framed().is_some_and(|text| text.len() > self.bulk_bytes) {
                self.push_documents(&batch);
                continue;
            }
            return Some((BulkContent::Rendered(batch), 0));
        }
        if !self.fresh.is_empty() && (self.fresh_bytes >= self.bulk_bytes || old_enough || last) {
            let count = prefix(
                self.fresh.iter(),
                self.bulk_bytes.saturating_sub(bytes),
                documents.is_empty(),
            );
            documents.extend(self.take_fresh(count, now));
        }
        (!documents.is_empty()).then(|| (BulkContent::Documents(Arc::new(documents)), 0))
    }

    fn take_fresh(&mut self, count: usize, now: Instant) -> Vec<PendingDocument> {
        let documents: Vec<PendingDocument> = self.fresh.drain(..count).collect();
        self.fresh_bytes -= documents.iter().map(bulk::cost).sum::<usize>();
        self.fresh_since = match self.fresh_since {
            _ if self.fresh.is_empty() => None,
            since if count == 0 => since,
            _ => Some(now),
        };
        documents
    }

    /// Queues documents to be sent again.
    pub(super) fn retry(
        &mut self,
        from: &[PendingDocument],
        retries: &[(usize, RetryReason)],
        congestion: &CongestionControl,
        now: Instant,
    ) {
        // Grouped by backoff: a document that was throttled often must not delay the others.
        let mut groups: BTreeMap<(RetryReason, u32), Vec<PendingDocument>> = BTreeMap::new();
        for &(at, why) in retries {
            let mut document = from[at].clone();
            document.sent = true;
            document.blocked = false;
            let times = if why == RetryReason::Throttled {
                document.throttled = document.throttled.saturating_add(1);
                document.throttled
            } else {
                0
            };
            groups.entry((why, times)).or_default().push(document);
        }
        for ((why, times), documents) in groups {
            self.retries.push(RetryBatch {
                documents,
                due: congestion.due(why, times, now),
                alone: None,
            });
        }
    }

    /// Queues documents that wait for an operator.
    pub(super) fn blocked(
        &mut self,
        from: &[PendingDocument],
        blocked: &[usize],
        congestion: &CongestionControl,
        now: Instant,
    ) {
        if blocked.is_empty() {
            return;
        }
        let documents = blocked.iter().map(|&at| PendingDocument {
            sent: true,
            blocked: true,
            ..from[at].clone()
        });
        self.retries.push(RetryBatch {
            documents: documents.collect(),
            due: congestion.due_slowly(now),
            alone: None,
        });
    }

    /// Queues a request that failed as a whole: as it was, or split when its size may be the cause.
    pub(super) fn retry_request(
        &mut self,
        documents: Arc<Vec<PendingDocument>>,
        error: &RequestError,
        disconnects: u32,
        now: Instant,
    ) {
        let mut documents = Arc::unwrap_or_clone(documents);
        for document in &mut documents {
            document.sent = true;
        }
        let bytes: usize = documents.iter().map(bulk::cost).sum();
        let disconnects = if matches!(error, RequestError::Broken(_)) {
            disconnects + 1
        } else {
            0
        };
        let split = match error {
            RequestError::TooLarge(_) => {
                self.bulk_bytes = self.bulk_bytes.min((bytes / 2).max(MIN_BULK_BYTES));
                true
            }
            // One document may be malformed; splitting isolates it.
            RequestError::Malformed(_) => true,
            RequestError::Broken(_) => {
                disconnects >= DISCONNECTS_BEFORE_SPLIT && bytes / 2 >= MIN_SPLIT_BYTES
            }
            _ => false,
        };
        if split && documents.len() > 1 {
            let second = documents.split_off(documents.len() / 2);
            tracing::debug!(
                documents = documents.len() + second.len(),
                bytes,
                kind = error.label(),
                "bulk request split"
            );
            self.retries.push(RetryBatch {
                documents,
                due: now,
                alone: Some(0),
            });
            self.retries.push(RetryBatch {
                documents: second,
                due: now,
                alone: Some(0),
            });
        } else {
            self.retries.push(RetryBatch {
                documents,
                due: now,
                alone: Some(disconnects),
            });
        }
    }
}

/// How many of `documents` fit into `room` bytes; at least one when the request is empty.
fn prefix<'a>(documents: impl Iterator<Item = &'a PendingDocument>, room: usize, empty: bool) -> usize {
    let mut bytes = 0;
    let fitting = documents.take_while(|document| {
        bytes += bulk::cost(*document);
        bytes <= room
    });
    fitting.count().max(usize::from(empty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{BatchBuffer, DocumentMeta, DocumentSpan, MemoryCharge};

    /// A batch of documents of 1 KiB each.
    fn text(documents: usize) -> Batch {
        let bytes = Bytes::from(vec![b'x'; documents << 10]);
        let row = |at: usize| {
            let place = DocumentSpan::new(at << 10, (at << 10) + 50, (at + 1) << 10);
            DocumentMeta::new(0..2, true, 0, 1, place)
        };
        let rows = (0..documents).map(row).collect();
        let charge = MemoryCharge::new(0, &Arc::default());
        let buffer = BatchBuffer::new(bytes, "id".into(), rows);
        Batch::new(buffer, true, Vec::new(), charge, &Arc::default(), 1)
    }

    /// The number of documents of each request that is due.
    fn requests(queue: &mut BulkQueue, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| Some(queue.next(now, false)?.0.len())).collect()
    }

    #[test]
    fn batches_that_are_long_enough_are_sent_as_they_came() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        for documents in [1000, 600, 1000] {
            queue.push(text(documents));
        }
        assert_eq!(requests(&mut queue, Instant::now()), [1000, 600, 1000]);
    }

    #[test]
    fn a_small_batch_waits_and_delays_no_other() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        queue.push(text(100));
        queue.push(text(100));
        let now = Instant::now();
        assert!(requests(&mut queue, now).is_empty());
        queue.push(text(1000));
        queue.push(text(1000));
        assert_eq!(requests(&mut queue, now), [1000, 1000]);
        queue.push(text(1000));
        // Once due, it precedes all others.
        let later = queue.due().unwrap();
        assert_eq!(requests(&mut queue, later), [200, 1000]);
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn after_a_refusal_for_its_length_no_batch_is_longer() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        assert_eq!(queue.push(text(1000)), 1000 << 10);
        let now = Instant::now();
        let (load, _) = queue.next(now, false).unwrap();
        assert_eq!((load.len(), load.cost()), (1000, 1000 << 10));
        queue.push(text(1000));
        queue.retry_request(load.documents(), &RequestError::TooLarge("413".into()), 0, now);
        assert_eq!(requests(&mut queue, now), [500, 500, 500, 500]);
    }
}
