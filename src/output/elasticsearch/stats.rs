//! Counters and health of the output. Owns the numbers; the admin side reads them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::cluster::{Done, Rejection};
use super::outcome::Problem;
use crate::metrics::{
    DeadLetterSource, Direction, DocumentResult, Dropped, Metrics, Output, OutputError, OutputMetrics,
};

/// Counters since start. All are monotonic except `in_flight`, `limit` and `outstanding_bytes`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Bulk requests that were answered with per-item results.
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
    /// Bytes of bulk bodies sent, before compression.
    pub bytes: AtomicU64,
    /// Bulk requests under way.
    pub in_flight: AtomicU64,
    /// How many may be under way at present.
    pub limit: AtomicU64,
    /// Bytes of documents taken and not yet confirmed.
    pub outstanding_bytes: AtomicU64,
    /// Sum of the time that answered bulk requests took, microseconds; divide by `requests_ok`.
    pub latency_us: AtomicU64,
    /// The same, for the admin side.
    metrics: OnceLock<Arc<Metrics>>,
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }

    /// From now on everything is counted in `metrics` too.
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
    pub(crate) fn confirmed(&self, done: Done, documents: u64, lines: u64) {
        self.documents.fetch_add(documents, Relaxed);
        self.lines.fetch_add(lines, Relaxed);
        if let Some(output) = self.output() {
            let result = match done {
                Done::Created => DocumentResult::Created,
                Done::Merged => DocumentResult::Merged,
                Done::Unchanged => DocumentResult::Unchanged,
            };
            output.documents[result].inc_by(documents);
            output.proc_records.inc_by(lines);
        }
    }

    /// A batch goes again with `documents` that were sent before, `lines` in them.
    pub(crate) fn retried(&self, documents: u64, lines: u64) {
        self.retries.fetch_add(1, Relaxed);
        self.retried_documents.fetch_add(documents, Relaxed);
        if let Some(output) = self.output() {
            output.retries.inc();
            output.retried_records.inc_by(lines);
        }
    }

    /// A document with `lines` is in the dead letter.
    pub(crate) fn buried(&self, rejection: &Rejection, lines: u64) {
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

    /// A request goes out.
    pub(crate) fn sending(&self, plain: usize, sent: usize) {
        Self::add(&self.bytes, plain);
        if let Some(output) = self.output() {
            output.bytes[Direction::Plain].inc_by(plain as u64);
            output.bytes[Direction::Sent].inc_by(sent as u64);
        }
    }

    /// A request was answered with per-item results.
    pub(crate) fn answered(&self, took: Duration) {
        Self::add(&self.requests_ok, 1);
        self.latency(took);
        if let Some(output) = self.output() {
            output.latency_seconds.observe(took.as_secs_f64());
        }
    }

    /// A request failed as a whole.
    pub(crate) fn failed(&self, problem: &Problem) {
        let throttled = matches!(problem, Problem::Pressure { status: 429, .. });
        Self::add(
            if throttled {
                &self.requests_throttled
            } else {
                &self.requests_failed
            },
            1,
        );
        self.error(match problem {
            Problem::Pressure { status: 429, .. } => OutputError::Throttled,
            Problem::Pressure { .. } => OutputError::Server,
            Problem::Unreachable(_) | Problem::Broken(_) => OutputError::Connection,
            Problem::Timeout(_) => OutputError::Timeout,
            Problem::TooLarge(_) => OutputError::TooLarge,
            Problem::Malformed(_) => OutputError::Rejected,
            Problem::Denied(_) => OutputError::Auth,
            Problem::Unexpected(_) => OutputError::Response,
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

    /// How many requests are under way.
    pub(crate) fn under_way(&self, requests: usize, limit: usize, outstanding: usize) {
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

/// What can hold up the output; the order is the order of importance for `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No request succeeds: nodes unreachable, failing, throttling or refusing the credentials.
    Cluster,
    /// The index template is not installed yet.
    Template,
    /// Single documents wait for an operator: read-only index, disk watermark, missing privilege, too many shards.
    Blocked,
    /// The dead letter is full or cannot be written.
    DeadLetter,
}

/// Whether the output gets on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Documents are being written, or there are none.
    Ok,
    /// Documents wait; nothing is lost.
    Waiting {
        /// Why, for the operator.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

/// Health of the output, shared with the admin side.
#[derive(Debug, Default)]
pub struct Health {
    waiting: Mutex<BTreeMap<Cause, (String, SystemTime)>>,
}

impl Health {
    /// The most important reason for waiting, if there is any.
    pub fn state(&self) -> State {
        match self.lock().values().next() {
            None => State::Ok,
            Some((reason, since)) => State::Waiting {
                reason: reason.clone(),
                since: *since,
            },
        }
    }

    /// All reasons, the most important first.
    pub fn reasons(&self) -> Vec<(Cause, String, SystemTime)> {
        self.lock()
            .iter()
            .map(|(cause, (reason, since))| (*cause, reason.clone(), *since))
            .collect()
    }

    /// Notes a reason; said in the log when it is new or of another kind than before.
    pub(crate) fn set(&self, cause: Cause, reason: impl Into<String>) {
        let reason = reason.into();
        let mut waiting = self.lock();
        match waiting.get_mut(&cause) {
            Some(known) => known.0 = reason,
            None => {
                tracing::warn!(?cause, %reason, "Elasticsearch output waits; nothing is lost, it goes on trying");
                waiting.insert(cause, (reason, SystemTime::now()));
            }
        }
    }

    /// The cause is gone.
    pub(crate) fn clear(&self, cause: Cause) {
        let gone = self.lock().remove(&cause);
        if let Some((reason, since)) = gone {
            let seconds = since.elapsed().map_or(0.0, |d| d.as_secs_f64());
            tracing::info!(?cause, was = %reason, seconds, "Elasticsearch output goes on");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Cause, (String, SystemTime)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
