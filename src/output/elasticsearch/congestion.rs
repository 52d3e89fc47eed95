//! Congestion control of one cluster: concurrency limit by additive increase and multiplicative
//! decrease (AIMD), and pauses with jitter.
//!
//! Does not sleep or send.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{full_jitter, half_jitter};
use super::outcome::{RequestError, RetryReason};
use crate::config::ElasticsearchConfig;
use crate::memory::to_usize;

/// Pause before a retry of a document that other writers are changing.
const CONTENDED_PAUSE: Duration = Duration::from_millis(200);

/// Limits the concurrent requests to one cluster and the pace of retries.
#[derive(Debug)]
pub(crate) struct CongestionControl {
    base: Duration,
    cap: Duration,
    blocked_retry: Duration,
    max_limit: usize,
    limit: usize,
    successes: usize,
    /// Number of decreases so far; requests carry the epoch in which they were sent.
    epoch: u64,
    /// Consecutive failed requests.
    failures: u32,
    until: Option<Instant>,
    /// The last failure was a missing response, not throttling.
    no_response: bool,
}

impl CongestionControl {
    pub(crate) fn new(config: &ElasticsearchConfig) -> Self {
        let max_limit = to_usize(config.max_in_flight).max(1);
        Self {
            base: config.backoff_base,
            cap: config.retry_max_wait,
            blocked_retry: config.blocked_retry,
            max_limit,
            limit: max_limit.div_ceil(2),
            successes: 0,
            epoch: 0,
            failures: 0,
            until: None,
            no_response: false,
        }
    }

    /// The current limit of concurrent requests.
    pub(crate) fn limit(&self) -> usize {
        // After a failure one request at a time probes the cluster.
        if self.failures > 0 { 1 } else { self.limit }
    }

    /// The epoch of a request that is sent now.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Consecutive failed requests.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Nothing may be sent before this time.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.until
    }

    /// A request succeeded and no document was throttled.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.until = None;
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit = (self.limit + 1).min(self.max_limit);
        }
    }

    /// A request succeeded, but single documents were throttled.
    pub(crate) fn throttled(&mut self, epoch: u64) {
        self.failures = 0;
        self.until = None;
        self.decrease(epoch);
    }

    /// The first request of a batch succeeded, whatever the following ones did: the count of
    /// consecutive failures restarts. Otherwise one failure per batch would let the pauses grow
    /// although every batch makes progress.
    pub(crate) fn answered(&mut self) {
        self.failures = 0;
    }

    /// A request failed as a whole.
    pub(crate) fn failed(&mut self, error: &RequestError, epoch: u64, now: Instant) {
        if matches!(error, RequestError::TooLarge(_)) {
            return; // The request is split; the cluster is not overloaded.
        }
        // Requests that were in flight together fail together: they count once.
        if epoch == self.epoch {
            self.failures = self.failures.saturating_add(1);
        }
        self.decrease(epoch);
        self.no_response = matches!(
            error,
            RequestError::Unreachable(_) | RequestError::Timeout(_) | RequestError::Broken(_)
        );
        // The content of one request may be the cause: another is tried soon.
        let mut pause = if error.needs_operator() && self.failures > 1 {
            half_jitter(self.blocked_retry)
        } else {
            full_jitter(self.base, self.cap, self.failures)
        };
        if let RequestError::Overloaded {
            retry_after: Some(wish),
            ..
        } = error
        {
            pause = pause.max(*wish);
        }
        let until = now + pause;
        self.until = Some(self.until.map_or(until, |old| old.max(until)));
    }

    /// A dead node is back: ends the pause, unless throttling caused it.
    pub(crate) fn revived(&mut self) {
        if self.no_response {
            self.until = None;
        }
    }

    /// When a document that was throttled `throttled` times is due again.
    pub(crate) fn due(&self, reason: RetryReason, throttled: u32, now: Instant) -> Instant {
        match reason {
            RetryReason::Throttled | RetryReason::Unavailable => {
                now + full_jitter(self.base, self.cap, throttled)
            }
            // As soon as anything may be sent; `paused_until` decides.
            RetryReason::NotAttempted => now,
            RetryReason::Contended => now + half_jitter(CONTENDED_PAUSE),
        }
    }

    /// When a document that waits for an operator is due again.
    pub(crate) fn due_slowly(&self, now: Instant) -> Instant {
        now + half_jitter(self.blocked_retry)
    }

    /// Halves the limit once for all requests that were in flight together.
    fn decrease(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.epoch += 1;
            self.limit = (self.limit / 2).max(1);
            self.successes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> CongestionControl {
        CongestionControl::new(&ElasticsearchConfig {
            max_in_flight: 8,
            ..Default::default()
        })
    }

    fn pressure(retry_after: Option<Duration>) -> RequestError {
        RequestError::Overloaded {
            status: 429,
            retry_after,
            reason: String::new(),
        }
    }

    #[test]
    fn grows_by_one_for_each_full_window_and_not_beyond_the_most() {
        let mut flow = flow();
        assert_eq!(flow.limit(), 4);
        for _ in 0..4 {
            flow.succeeded();
        }
        assert_eq!(flow.limit(), 5);
        for _ in 0..100 {
            flow.succeeded();
        }
        assert_eq!(flow.limit(), 8);
    }

    #[test]
    fn requests_that_fail_together_halve_once() {
        let mut flow = flow();
        let (now, epoch) = (Instant::now(), flow.epoch());
        for _ in 0..4 {
            flow.failed(&pressure(None), epoch, now);
        }
        assert_eq!((flow.failures(), flow.limit()), (1, 1));
        flow.succeeded();
        assert_eq!(flow.limit(), 2);
    }

    #[test]
    fn the_pause_grows_to_the_cap_and_obeys_the_server() {
        let mut flow = flow();
        let now = Instant::now();
        for _ in 0..40 {
            flow.failed(&RequestError::Unreachable(String::new()), flow.epoch(), now);
        }
        assert!(flow.paused_until().unwrap() <= now + Duration::from_secs(30));
        flow.succeeded();
        assert_eq!(flow.paused_until(), None);
        flow.failed(&pressure(Some(Duration::from_secs(77))), flow.epoch(), now);
        assert_eq!(flow.paused_until(), Some(now + Duration::from_secs(77)));
        flow.failed(&RequestError::Denied(String::new()), flow.epoch(), now);
        assert_eq!(
            flow.paused_until(),
            Some(now + Duration::from_secs(77)),
            "the longer wait counts"
        );
        flow.revived();
        assert_eq!(
            flow.paused_until(),
            Some(now + Duration::from_secs(77)),
            "it is there, but it asked for a pause"
        );
        flow.failed(&RequestError::Unreachable(String::new()), flow.epoch(), now);
        flow.revived();
        assert_eq!(flow.paused_until(), None);
    }

    #[test]
    fn only_what_was_throttled_waits_longer_each_time() {
        let (flow, now) = (flow(), Instant::now());
        for times in 0..40 {
            assert_eq!(flow.due(RetryReason::NotAttempted, times, now), now);
            assert!(flow.due(RetryReason::Contended, times, now) <= now + CONTENDED_PAUSE);
            assert!(flow.due(RetryReason::Throttled, times, now) <= now + Duration::from_secs(30));
        }
        let longest = (0..100).map(|_| flow.due(RetryReason::Throttled, 20, now)).max();
        assert!(longest.unwrap() > now + Duration::from_secs(5));
    }

    #[test]
    fn a_batch_that_gets_on_ends_a_row_of_failures() {
        let mut flow = flow();
        let now = Instant::now();
        for _ in 0..40 {
            flow.answered();
            flow.failed(&RequestError::Broken(String::new()), flow.epoch(), now);
            assert_eq!(flow.failures(), 1);
        }
    }
}
