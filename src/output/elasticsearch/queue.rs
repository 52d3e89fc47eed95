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
use crate::output::{Batch, OutputId};

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

/// Failures in a row, without a request that passed between them, after which nothing can be
/// concluded about the content of requests: the cluster is at fault.
const MAX_SUSPECTS_IN_A_ROW: u32 = 6;

/// Documents to be sent again.
struct RetryBatch {
    documents: Vec<PendingDocument>,
    due: Instant,
    /// `Some`: sent as one request, alone.
    alone: Option<Failures>,
}

/// How a request failed as a whole before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failures {
    /// Connections that it broke.
    disconnects: u32,
    /// Number of requests that had passed when it failed with an error that its content may have
    /// caused.
    failed_at: Option<u64>,
    /// Others passed after it had failed: something in it is at fault. It is halved until that
    /// stands alone.
    pub(super) suspect: bool,
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
    output: OutputId,
    /// Requests that passed.
    passed: u64,
    /// Requests that failed as a whole since one passed.
    failed_in_a_row: u32,
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
            output: OutputId(0),
            passed: 0,
            failed_in_a_row: 0,
        }
    }

    /// The queue of this output.
    pub(super) fn of(mut self, output: OutputId) -> Self {
        self.output = output;
        self
    }

    /// A request did not fail as a whole.
    pub(super) fn passed(&mut self) {
        self.passed += 1;
        self.failed_in_a_row = 0;
    }

    /// A request failed as a whole.
    pub(super) fn failed(&mut self) {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
    }

    /// Whether the failure of a suspect request says something about its content, not about the
    /// cluster.
    pub(super) fn suspects_content(&self) -> bool {
        self.failed_in_a_row < MAX_SUSPECTS_IN_A_ROW
    }

    /// Documents that have waited for at least `age`.
    pub(super) fn waiting_for(&self, age: Duration) -> impl Iterator<Item = &PendingDocument> {
        let documents = self.retries.iter().flat_map(|retry| &retry.documents);
        documents.filter(move |document| document.since.is_some_and(|since| since.elapsed() >= age))
    }

    /// Queues new documents and returns their bytes.
    pub(super) fn push(&mut self, batch: Batch) -> usize {
        let bytes = batch.framed().map_or(0, Bytes::len);
        if !batch.is_partial()
            && (SEND_AS_RENDERED_BYTES.min(self.bulk_bytes)..=self.bulk_bytes).contains(&bytes)
        {
            self.rendered.push_back(batch);
            return bytes;
        }
        self.push_documents(&batch)
    }

    fn push_documents(&mut self, batch: &Batch) -> usize {
        let mut taken = 0;
        for sealed in batch.documents_for(self.output) {
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

    /// The next request that is due, and how it failed before. Retries come first, but after a
    /// failure another request is tried. `last`: no more documents will be queued, so a small
    /// request need not wait.
    pub(super) fn next(&mut self, now: Instant, last: bool) -> Option<(BulkContent, Failures)> {
        if self.failed_in_a_row > 0
            && let Some(other) = self.next_other(now, true)
        {
            return Some(other);
        }
        self.next_alone(now).or_else(|| self.next_other(now, last))
    }

    /// A request that failed as a whole.
    fn next_alone(&mut self, now: Instant) -> Option<(BulkContent, Failures)> {
        let at = self
            .retries
            .iter()
            .position(|retry| retry.alone.is_some() && retry.due <= now)?;
        let mut retry = self.retries.remove(at);
        let mut failures = retry.alone.unwrap_or_default();
        if failures.failed_at.is_some_and(|passed| passed < self.passed) && !failures.suspect {
            failures.suspect = true;
            if retry.documents.len() > 1 {
                let second = retry.documents.split_off(retry.documents.len() / 2);
                self.retries.insert(
                    at,
                    RetryBatch {
                        documents: second,
                        due: now,
                        alone: Some(failures),
                    },
                );
            }
        }
        Some((BulkContent::Documents(Arc::new(retry.documents)), failures))
    }

    /// Any request but one that failed as a whole.
    fn next_other(&mut self, now: Instant, last: bool) -> Option<(BulkContent, Failures)> {
        let mut documents = Vec::new();
        let mut bytes = 0;
        let mut at = 0;
        while at < self.retries.len() && bytes < self.bulk_bytes {
            if self.retries[at].due > now || self.retries[at].alone.is_some() {
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
            return Some((BulkContent::Rendered(batch), Failures::default()));
        }
        if !self.fresh.is_empty() && (self.fresh_bytes >= self.bulk_bytes || old_enough || last) {
            let count = prefix(
                self.fresh.iter(),
                self.bulk_bytes.saturating_sub(bytes),
                documents.is_empty(),
            );
            documents.extend(self.take_fresh(count, now));
        }
        (!documents.is_empty()).then(|| (BulkContent::Documents(Arc::new(documents)), Failures::default()))
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
            document.since.get_or_insert(now);
            let times = if matches!(why, RetryReason::Throttled | RetryReason::Unavailable) {
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
            since: from[at].since.or(Some(now)),
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
        before: Failures,
        now: Instant,
    ) {
        self.failed();
        let mut documents = Arc::unwrap_or_clone(documents);
        for document in &mut documents {
            document.sent = true;
            document.since.get_or_insert(now);
        }
        let bytes: usize = documents.iter().map(bulk::cost).sum();
        let mut failures = before;
        failures.disconnects = match error {
            RequestError::Broken(_) => failures.disconnects + 1,
            _ => 0,
        };
        if error.may_be_content() {
            failures.failed_at = Some(self.passed);
        } else {
            failures = Failures::default();
        }
        let split = match error {
            RequestError::TooLarge(_) => {
                self.bulk_bytes = self.bulk_bytes.min((bytes / 2).max(MIN_BULK_BYTES));
                true
            }
            // One document may be malformed; splitting isolates it.
            RequestError::Malformed(_) => true,
            _ if failures.suspect => true,
            RequestError::Broken(_) => {
                failures.disconnects >= DISCONNECTS_BEFORE_SPLIT && bytes / 2 >= MIN_SPLIT_BYTES
            }
            _ => false,
        };
        let second = (split && documents.len() > 1).then(|| {
            tracing::debug!(
                documents = documents.len(),
                bytes,
                kind = error.label(),
                "bulk request split"
            );
            failures.disconnects = 0;
            documents.split_off(documents.len() / 2)
        });
        for documents in std::iter::once(documents).chain(second) {
            self.retries.push(RetryBatch {
                documents,
                due: now,
                alone: Some(failures),
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
        queue.retry_request(
            load.documents(),
            &RequestError::TooLarge("413".into()),
            Failures::default(),
            now,
        );
        assert_eq!(requests(&mut queue, now), [500, 500, 500, 500]);
    }

    #[test]
    fn a_request_that_fails_while_others_pass_is_halved_until_one_document_is_left() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        queue.push(text(1000));
        queue.push(text(600));
        let now = Instant::now();
        let denied = RequestError::Denied("status 403: firewall".into());
        let (first, failures) = queue.next(now, false).unwrap();
        queue.retry_request(first.documents(), &denied, failures, now);
        let (second, _) = queue.next(now, false).unwrap();
        assert_eq!(second.len(), 600, "another one is tried");
        queue.passed();
        let mut sizes = Vec::new();
        while let Some((content, failures)) = queue.next(now, false) {
            assert!(failures.suspect);
            sizes.push(content.len());
            // The first document of all is at fault.
            if content.documents()[0].sealed.key() == first.documents()[0].sealed.key() {
                if content.len() == 1 {
                    break;
                }
                queue.retry_request(content.documents(), &denied, failures, now);
            } else {
                queue.passed();
            }
        }
        assert_eq!(sizes[..2], [500, 500]);
        assert!(sizes.len() < 25 && sizes.contains(&1), "{sizes:?}");
    }

    #[test]
    fn when_the_cluster_is_away_no_request_is_halved() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        queue.push(text(1000));
        queue.push(text(600));
        let now = Instant::now();
        let away = RequestError::Unreachable("refused".into());
        for _ in 0..10 {
            let (content, failures) = queue.next(now, false).unwrap();
            assert!(!failures.suspect && content.len() >= 600);
            queue.retry_request(content.documents(), &away, failures, now);
        }
    }
}
