//! Watchdog of a writer: whether it makes progress, and why not; for `/ready`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A write that takes longer than this is reported.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of one writer. It is never locked during I/O.
#[derive(Debug, Default)]
pub struct Watchdog(Mutex<WatchdogState>);

#[derive(Debug, Default)]
struct WatchdogState {
    /// When the write in progress began, with all its attempts.
    since: Option<Instant>,
    /// Why the last attempt failed.
    failure: Option<String>,
}

impl Watchdog {
    /// A write begins, or is attempted again.
    pub fn begin(&self) {
        self.lock().since.get_or_insert_with(Instant::now);
    }

    /// An attempt failed.
    pub fn fail(&self, reason: &impl ToString) {
        self.lock().failure = Some(reason.to_string());
    }

    /// The write is done.
    pub fn succeed(&self) {
        *self.lock() = WatchdogState::default();
    }

    /// Why the writer makes no progress, if that is so.
    pub fn wait_reason(&self) -> Option<String> {
        let state = self.lock();
        if let Some(failure) = &state.failure {
            return Some(failure.clone());
        }
        let waited = state.since?.elapsed();
        (waited >= STALL_TIMEOUT).then(|| format!("a write has not ended for {} s", waited.as_secs()))
    }

    fn lock(&self) -> MutexGuard<'_, WatchdogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
