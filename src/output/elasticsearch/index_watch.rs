//! Watch of the indices: when each last accepted a document, and why it last did not.
//!
//! Answers two questions: whether a refusal is about the document or about its index, and why
//! documents wait.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

/// Indices that are remembered; imports of old records touch many, but few at a time.
const MAX_INDICES: usize = 512;

/// After a shard was unavailable, requests wait for shards only briefly for this long.
const UNAVAILABLE_MEMORY: Duration = Duration::from_secs(60);

/// What is known of the indices.
#[derive(Debug, Default)]
pub(crate) struct IndexWatch(Mutex<WatchState>);

#[derive(Debug, Default)]
struct WatchState {
    indices: HashMap<Box<str>, Seen>,
    unavailable: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seen {
    accepted: Option<Instant>,
    failure: Option<String>,
}

impl IndexWatch {
    /// The index accepted a document.
    pub(crate) fn accepted(&self, index: &str) {
        self.with(index, |seen| seen.accepted = Some(Instant::now()));
    }

    /// A document of the index was not written; `reason` is for the operator.
    pub(crate) fn failed(&self, index: &str, reason: String) {
        self.with(index, |seen| seen.failure = Some(reason));
    }

    /// A shard was unavailable.
    pub(crate) fn shard_unavailable(&self) {
        self.lock().unavailable = Some(Instant::now());
    }

    /// Whether a shard was unavailable recently.
    pub(crate) fn is_shard_unavailable(&self) -> bool {
        self.lock()
            .unavailable
            .is_some_and(|at| at.elapsed() < UNAVAILABLE_MEMORY)
    }

    /// Whether the index has accepted a document since a time.
    pub(crate) fn accepted_since(&self, index: &str, since: Instant) -> bool {
        let state = self.lock();
        let seen = state.indices.get(index);
        seen.and_then(|seen| seen.accepted).is_some_and(|at| at >= since)
    }

    /// Why a document of the index was last not written.
    pub(crate) fn reason(&self, index: &str) -> Option<String> {
        self.lock().indices.get(index)?.failure.clone()
    }

    fn with(&self, index: &str, change: impl FnOnce(&mut Seen)) {
        let mut state = self.lock();
        if let Some(seen) = state.indices.get_mut(index) {
            return change(seen);
        }
        if state.indices.len() >= MAX_INDICES {
            state.indices.clear();
        }
        change(state.indices.entry(index.into()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, WatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
