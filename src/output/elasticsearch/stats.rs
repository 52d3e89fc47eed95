//! Counters and health of the output. Owns the numbers; the admin side reads them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }

    pub(crate) fn latency(&self, took: Duration) {
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
