//! What waits to be sent: new documents, and those that must be sent again. Owns batches and their order; knows the
//! time only as an argument and sends nothing.

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

/// A batch whose connection broke this many times without an answer is halved: some proxies and servers close the
/// connection instead of answering 413. Not below this many bytes.
const DISCONNECTS_BEFORE_SPLIT: u32 = 3;
const MIN_SPLIT_BYTES: usize = 64 << 10;

/// After a 413 batches are not made longer than half of what was refused, down to this.
const MIN_BULK_BYTES: usize = 64 << 10;

/// A batch as it was rendered is sent at once, and as it is, if it is this long: others wait for company, and a request is
/// built of them by copying.
const SEND_AS_RENDERED_BYTES: usize = 512 << 10;

/// Documents that wait to be sent again.
struct RetryBatch {
    items: Vec<PendingDocument>,
    due: Instant,
    /// `Some`: this batch is sent as it is; so often its connection broke.
    exact: Option<u32>,
}

pub(super) struct BulkQueue {
    /// New batches that are sent as they were rendered.
    ready: VecDeque<Batch>,
    /// New documents of others.
    fresh: VecDeque<PendingDocument>,
    fresh_bytes: usize,
    /// When the oldest of `fresh` came.
    fresh_since: Option<Instant>,
    waiting: Vec<RetryBatch>,
    /// Of one batch; less after a 413.
    bulk_bytes: usize,
    bulk_delay: Duration,
}

impl BulkQueue {
    pub(super) fn new(bulk_bytes: usize, bulk_delay: Duration) -> Self {
        Self {
            ready: VecDeque::new(),
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            fresh_since: None,
            waiting: Vec::new(),
            bulk_bytes: bulk_bytes.max(1),
            bulk_delay,
        }
    }

    /// Takes new documents; says how many bytes they are.
    pub(super) fn take(&mut self, batch: Batch) -> usize {
        let bytes = batch.framed().map_or(0, Bytes::len);
        if (SEND_AS_RENDERED_BYTES.min(self.bulk_bytes)..=self.bulk_bytes).contains(&bytes) {
            self.ready.push_back(batch);
            return bytes;
        }
        self.take_apart(&batch)
    }

    fn take_apart(&mut self, batch: &Batch) -> usize {
        let mut taken = 0;
        for sealed in batch.documents() {
            let item = PendingDocument::new(sealed);
            taken += bulk::cost(&item);
            self.fresh.push_back(item);
        }
        self.fresh_bytes += taken;
        if self.fresh_since.is_none() && !self.fresh.is_empty() {
            self.fresh_since = Some(Instant::now());
        }
        taken
    }

    /// When the next batch is due, as far as the documents go.
    pub(super) fn due(&self) -> Option<Instant> {
        let fresh = self.fresh_since.map(|since| since + self.bulk_delay);
        self.waiting.iter().map(|waiting| waiting.due).chain(fresh).min()
    }

    /// The next batch that is due, older troubles first, and how often its connection broke. `last`: nothing more
    /// comes, so nothing new needs to wait for company.
    pub(super) fn next(&mut self, now: Instant, last: bool) -> Option<(BulkContent, u32)> {
        if let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.exact.is_some() && waiting.due <= now)
        {
            let waiting = self.waiting.remove(at);
            return Some((
                BulkContent::Documents(Arc::new(waiting.items)),
                waiting.exact.unwrap_or(0),
            ));
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut at = 0;
        while at < self.waiting.len() && bytes < self.bulk_bytes {
            if self.waiting[at].due > now {
                at += 1;
                continue;
            }
            let all = &mut self.waiting[at].items;
            let fits = prefix(all.iter(), self.bulk_bytes - bytes, items.is_empty());
            if fits == 0 {
                break;
            }
            bytes += all[..fits].iter().map(bulk::cost).sum::<usize>();
            items.extend(all.drain(..fits));
            if all.is_empty() {
                self.waiting.remove(at);
            } else {
                break;
            }
        }
        let old_enough = self
            .fresh_since
            .is_some_and(|since| since + self.bulk_delay <= now);
        while items.is_empty()
            && !old_enough
            && let Some(batch) = self.ready.pop_front()
        {
            // Something was refused for its length since it came.
            if batch.framed().is_some_and(|text| text.len() > self.bulk_bytes) {
                self.take_apart(&batch);
                continue;
            }
            return Some((BulkContent::Rendered(batch), 0));
        }
        if !self.fresh.is_empty() && (self.fresh_bytes >= self.bulk_bytes || old_enough || last) {
            let fits = prefix(
                self.fresh.iter(),
                self.bulk_bytes.saturating_sub(bytes),
                items.is_empty(),
            );
            items.extend(self.take_fresh(fits, now));
        }
        (!items.is_empty()).then(|| (BulkContent::Documents(Arc::new(items)), 0))
    }

    fn take_fresh(&mut self, count: usize, now: Instant) -> Vec<PendingDocument> {
        let items: Vec<PendingDocument> = self.fresh.drain(..count).collect();
        self.fresh_bytes -= items.iter().map(bulk::cost).sum::<usize>();
        self.fresh_since = match self.fresh_since {
            _ if self.fresh.is_empty() => None,
            since if count == 0 => since,
            _ => Some(now),
        };
        items
    }

    /// Documents of an answered batch that are not written yet.
    pub(super) fn again(
        &mut self,
        from: &[PendingDocument],
        again: &[(usize, RetryReason)],
        flow: &CongestionControl,
        now: Instant,
    ) {
        // Together only what waits equally long: one that was turned away often must not keep the others.
        let mut groups: BTreeMap<(RetryReason, u32), Vec<PendingDocument>> = BTreeMap::new();
        for &(at, why) in again {
            let mut item = from[at].clone();
            item.sent = true;
            item.blocked = false;
            let times = if why == RetryReason::Throttled {
                item.turned_away = item.turned_away.saturating_add(1);
                item.turned_away
            } else {
                0
            };
            groups.entry((why, times)).or_default().push(item);
        }
        for ((why, times), items) in groups {
            self.waiting.push(RetryBatch {
                items,
                due: flow.due(why, times, now),
                exact: None,
            });
        }
    }

    /// Documents that wait for an operator.
    pub(super) fn blocked(
        &mut self,
        from: &[PendingDocument],
        blocked: &[usize],
        flow: &CongestionControl,
        now: Instant,
    ) {
        if blocked.is_empty() {
            return;
        }
        let items = blocked.iter().map(|&at| PendingDocument {
            sent: true,
            blocked: true,
            ..from[at].clone()
        });
        self.waiting.push(RetryBatch {
            items: items.collect(),
            due: flow.due_slowly(now),
            exact: None,
        });
    }

    /// A batch of which nothing is known goes again as it is, or in halves when its length may be what is wrong.
    pub(super) fn again_whole(
        &mut self,
        items: Arc<Vec<PendingDocument>>,
        problem: &RequestError,
        broken: u32,
        now: Instant,
    ) {
        let mut items = Arc::unwrap_or_clone(items);
        for item in &mut items {
            item.sent = true;
        }
        let bytes: usize = items.iter().map(bulk::cost).sum();
        let broken = if matches!(problem, RequestError::Broken(_)) {
            broken + 1
        } else {
            0
        };
        let halve = match problem {
            RequestError::TooLarge(_) => {
                self.bulk_bytes = self.bulk_bytes.min((bytes / 2).max(MIN_BULK_BYTES));
                true
            }
            // Something in the batch may be what the server does not understand; halving finds it.
            RequestError::Malformed(_) => true,
            RequestError::Broken(_) => broken >= DISCONNECTS_BEFORE_SPLIT && bytes / 2 >= MIN_SPLIT_BYTES,
            _ => false,
        };
        if halve && items.len() > 1 {
            let second = items.split_off(items.len() / 2);
            tracing::debug!(
                documents = items.len() + second.len(),
                bytes,
                kind = problem.label(),
                "batch halved"
            );
            self.waiting.push(RetryBatch {
                items,
                due: now,
                exact: Some(0),
            });
            self.waiting.push(RetryBatch {
                items: second,
                due: now,
                exact: Some(0),
            });
        } else {
            self.waiting.push(RetryBatch {
                items,
                due: now,
                exact: Some(broken),
            });
        }
    }
}

/// How many of `items` fit into `room` bytes; one at least when nothing is in the batch yet.
fn prefix<'a>(items: impl Iterator<Item = &'a PendingDocument>, room: usize, empty: bool) -> usize {
    let mut bytes = 0;
    let fits = items.take_while(|item| {
        bytes += bulk::cost(*item);
        bytes <= room
    });
    fits.count().max(usize::from(empty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{BatchBuffer, DocumentMeta, DocumentSpan, MemoryCharge};

    /// A text of so many documents of 1 KiB.
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

    /// How many documents each request has.
    fn requests(queue: &mut BulkQueue, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| Some(queue.next(now, false)?.0.len())).collect()
    }

    #[test]
    fn batches_that_are_long_enough_are_sent_as_they_came() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        for documents in [1000, 600, 1000] {
            queue.take(text(documents));
        }
        assert_eq!(requests(&mut queue, Instant::now()), [1000, 600, 1000]);
    }

    #[test]
    fn a_short_one_waits_for_company_and_holds_nothing_up() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        queue.take(text(100));
        queue.take(text(100));
        let now = Instant::now();
        assert!(requests(&mut queue, now).is_empty());
        queue.take(text(1000));
        queue.take(text(1000));
        assert_eq!(requests(&mut queue, now), [1000, 1000]);
        queue.take(text(1000));
        // When it has waited long enough it goes before all others.
        let later = queue.due().unwrap();
        assert_eq!(requests(&mut queue, later), [200, 1000]);
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn after_a_refusal_for_its_length_no_batch_is_longer() {
        let mut queue = BulkQueue::new(8 << 20, Duration::from_secs(1));
        assert_eq!(queue.take(text(1000)), 1000 << 10);
        let now = Instant::now();
        let (load, _) = queue.next(now, false).unwrap();
        assert_eq!((load.len(), load.cost()), (1000, 1000 << 10));
        queue.take(text(1000));
        queue.again_whole(load.documents(), &RequestError::TooLarge("413".into()), 0, now);
        assert_eq!(requests(&mut queue, now), [500, 500, 500, 500]);
    }
}
