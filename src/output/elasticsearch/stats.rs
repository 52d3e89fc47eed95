//! Counters of the output, for tests and for the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::outcome::{Rejection, RequestError, StoreResult};
use crate::metrics::{
    DeadLetterSource, Direction, DocumentResult, Dropped, Metrics, Output, OutputError, OutputMetrics,
};

/// Counters since start. All are monotonic except `in_flight`, `limit` and `outstanding_bytes`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bulk requests with per-item results.
    pub requests_ok: AtomicU64,
    /// Bulk requests refused with 429.
    pub requests_throttled: AtomicU64,
    /// Bulk requests that failed otherwise.
    pub requests_failed: AtomicU64,
    /// Batches sent again, whole or in part.
    pub retries: AtomicU64,
    /// Documents sent again.
    pub retried_documents: AtomicU64,
    /// Documents confirmed.
    pub documents: AtomicU64,
    /// Log lines in the confirmed documents.
    pub lines: AtomicU64,
    /// Documents that existed already when they were to be created.
    pub conflicts: AtomicU64,
    /// Documents written as the union of an existing one and ours.
    pub merges: AtomicU64,
    /// Documents joined across the boundary of two days.
    pub day_joins: AtomicU64,
    /// Documents sent to the dead letter.
    pub dead_letters: AtomicU64,
    /// Documents stored with refused fields in `windrow.unmapped`.
    pub healed_documents: AtomicU64,
    /// Bytes of bulk bodies sent, before compression.
    pub bytes: AtomicU64,
    /// Bulk requests in flight.
    pub in_flight: AtomicU64,
    /// Current limit of bulk requests in flight.
    pub limit: AtomicU64,
    /// Bytes of documents received and not confirmed.
    pub outstanding_bytes: AtomicU64,
    /// Sum of the latencies of successful bulk requests, microseconds; divide by `requests_ok`.
    pub latency_us: AtomicU64,
    /// The metrics of the process, which count the same.
    metrics: OnceLock<Arc<Metrics>>,
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }

    /// Counts in `metrics` too from this call on.
    pub(crate) fn report_to(&self, metrics: Arc<Metrics>) {
        // A second call changes nothing: one output has one set of metrics.
        let _ = self.metrics.set(metrics);
    }

    fn output(&self) -> Option<&OutputMetrics> {
        self.metrics
            .get()
            .map(|metrics| metrics.output(Output::Elasticsearch))
    }

    /// `documents` with `lines` in them are confirmed.
    pub(crate) fn confirmed(&self, done: StoreResult, documents: u64, lines: u64) {
        self.documents.fetch_add(documents, Relaxed);
        self.lines.fetch_add(lines, Relaxed);
        if let Some(output) = self.output() {
            let result = match done {
                StoreResult::Created => DocumentResult::Created,
                StoreResult::Merged => DocumentResult::Merged,
                StoreResult::Unchanged => DocumentResult::Unchanged,
            };
            output.documents[result].inc_by(documents);
            output.proc_records.inc_by(lines);
        }
    }

    /// A request contains `documents` documents with `lines` lines that were sent before.
    pub(crate) fn retried(&self, documents: u64, lines: u64) {
        self.retries.fetch_add(1, Relaxed);
        self.retried_documents.fetch_add(documents, Relaxed);
        if let Some(output) = self.output() {
            output.retries.inc();
            output.retried_records.inc_by(lines);
        }
    }

    /// A document was stored with refused fields in `windrow.unmapped`.
    pub(crate) fn healed(&self) {
        self.healed_documents.fetch_add(1, Relaxed);
        if let Some(metrics) = self.metrics.get() {
            metrics.output_healed_documents.inc();
        }
    }

    /// Documents that wait on disk.
    pub(crate) fn set_deferred(&self, documents: u64, bytes: u64) {
        if let Some(metrics) = self.metrics.get() {
            let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            metrics.output_deferred_documents.set(gauge(documents));
            metrics.output_deferred_bytes.set(gauge(bytes));
        }
    }

    /// A document with `lines` lines is in the dead letter.
    pub(crate) fn dead_lettered(&self, rejection: &Rejection, lines: u64) {
        self.dead_letters.fetch_add(1, Relaxed);
        let Some(metrics) = self.metrics.get() else { return };
        metrics.dead_letter_documents[DeadLetterSource::Elasticsearch].inc();
        metrics.output(Output::Elasticsearch).documents[DocumentResult::Rejected].inc();
        let reason = match rejection {
            Rejection { status: 413, .. } => Dropped::TooLarge,
            Rejection { status: 409, .. } => Dropped::NotOurs,
            Rejection { status: 400, .. } => Dropped::Mapping,
            Rejection { .. } => Dropped::Rejected,
        };
        metrics.output_dropped_records[reason].inc_by(lines);
    }

    /// A request is sent: bytes before and after compression.
    pub(crate) fn sending(&self, plain: usize, sent: usize) {
        Self::add(&self.bytes, plain);
        if let Some(output) = self.output() {
            output.bytes[Direction::Plain].inc_by(plain as u64);
            output.bytes[Direction::Sent].inc_by(sent as u64);
        }
    }

    /// A request returned per-item results.
    pub(crate) fn answered(&self, took: Duration) {
        Self::add(&self.requests_ok, 1);
        self.latency(took);
        if let Some(output) = self.output() {
            output.latency_seconds.observe(took.as_secs_f64());
        }
    }

    /// A request failed as a whole.
    pub(crate) fn failed(&self, problem: &RequestError) {
        let throttled = matches!(problem, RequestError::Overloaded { status: 429, .. });
        Self::add(
            if throttled {
                &self.requests_throttled
            } else {
                &self.requests_failed
            },
            1,
        );
        self.error(match problem {
            RequestError::Overloaded { status: 429, .. } => OutputError::Throttled,
            RequestError::Overloaded { .. } => OutputError::Server,
            RequestError::Unreachable(_) | RequestError::Broken(_) => OutputError::Connection,
            RequestError::Timeout(_) => OutputError::Timeout,
            RequestError::TooLarge(_) => OutputError::TooLarge,
            RequestError::Malformed(_) => OutputError::Rejected,
            RequestError::Denied(_) => OutputError::Auth,
            RequestError::Unexpected(_) => OutputError::Response,
        });
    }

    /// An item of a bulk was not written.
    pub(crate) fn item_failed(&self, status: u16, kind: &str) {
        self.error(match (status, kind) {
            (_, "cluster_block_exception") => OutputError::ReadOnly,
            (409, _) => OutputError::Conflict,
            (429, _) => OutputError::Throttled,
            (401 | 403, _) => OutputError::Auth,
            (413, _) => OutputError::TooLarge,
            (400..=499, _) => OutputError::Rejected,
            _ => OutputError::Server,
        });
    }

    fn error(&self, reason: OutputError) {
        if let Some(output) = self.output() {
            output.errors[reason].inc();
        }
    }

    /// Sets the gauges of the scheduler.
    pub(crate) fn set_in_flight(&self, requests: usize, limit: usize, outstanding: usize) {
        self.in_flight.store(requests as u64, Relaxed);
        self.limit.store(limit as u64, Relaxed);
        self.outstanding_bytes.store(outstanding as u64, Relaxed);
        if let Some(output) = self.output() {
            output.in_flight.set(i64::try_from(requests).unwrap_or(i64::MAX));
        }
    }

    fn latency(&self, took: Duration) {
        self.latency_us
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
