//! How fast to send: additive increase, multiplicative decrease, and backoff with full jitter.
//! Owns the numbers of one cluster; sleeps and sends nothing itself.

use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Again;
use super::config::ElasticsearchConfig;
use super::outcome::Problem;

/// Pause before a document that other writers keep changing is tried again; they are done with it sooner than this.
const CONTENDED: Duration = Duration::from_millis(200);

/// One controller for each cluster.
#[derive(Debug)]
pub(crate) struct Flow {
    base: Duration,
    cap: Duration,
    slow: Duration,
    most: usize,
    limit: usize,
    successes: usize,
    /// Counts decreases; a request knows the one under which it was sent.
    epoch: u64,
    /// Whole requests that failed one after another.
    failures: u32,
    until: Option<Instant>,
    /// The last failure was that nobody answered, not that somebody asked for less.
    absent: bool,
}

impl Flow {
    pub(crate) fn new(config: &ElasticsearchConfig) -> Self {
        let most = config.max_in_flight.max(1);
        Self {
            base: config.backoff_base,
            cap: config.backoff_cap,
            slow: config.slow_retry,
            most,
            limit: most.div_ceil(2),
            successes: 0,
            epoch: 0,
            failures: 0,
            until: None,
            absent: false,
        }
    }

    /// How many requests may be under way now.
    pub(crate) fn limit(&self) -> usize {
        // After a failure one request at a time finds out whether the cluster is back.
        if self.failures > 0 { 1 } else { self.limit }
    }

    /// Goes with each request, and comes back with its result.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whole requests that failed one after another.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Nothing may be sent before this.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.until
    }

    /// A request was answered and nothing in the answer asks for less.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.until = None;
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit = (self.limit + 1).min(self.most);
        }
    }

    /// A request was answered, but single documents were turned away for lack of room.
    pub(crate) fn crowded(&mut self, epoch: u64) {
        self.failures = 0;
        self.until = None;
        self.decrease(epoch);
    }

    /// The first request of a batch was answered, whatever became of the ones that followed: the cluster is there, and
    /// a failure now is the first one again. Otherwise, when every batch meets one failure on its way, the pauses
    /// grow without end although every batch gets on.
    pub(crate) fn answered(&mut self) {
        self.failures = 0;
    }

    /// A request failed as a whole.
    pub(crate) fn failed(&mut self, problem: &Problem, epoch: u64, now: Instant) {
        if matches!(problem, Problem::TooLarge(_)) {
            return; // the body's fault, not the cluster's: it is halved
        }
        // Requests that were under way together fail together: they count once.
        if epoch == self.epoch {
            self.failures = self.failures.saturating_add(1);
        }
        self.decrease(epoch);
        self.absent = matches!(
            problem,
            Problem::Unreachable(_) | Problem::Timeout(_) | Problem::Broken(_)
        );
        let mut pause = if problem.needs_operator() {
            half_jitter(self.slow)
        } else {
            full_jitter(self.base, self.cap, self.failures)
        };
        if let Problem::Pressure {
            retry_after: Some(wish),
            ..
        } = problem
        {
            pause = pause.max(*wish);
        }
        let until = now + pause;
        self.until = Some(self.until.map_or(until, |old| old.max(until)));
    }

    /// A dead node is back: no reason to wait longer, unless a node that answers asked for a pause.
    pub(crate) fn revived(&mut self) {
        if self.absent {
            self.until = None;
        }
    }

    /// When a document that was turned away so many times is due again.
    pub(crate) fn due(&self, again: Again, turned_away: u32, now: Instant) -> Instant {
        match again {
            Again::TurnedAway => now + full_jitter(self.base, self.cap, turned_away),
            // As soon as anything may be sent: see `paused_until`.
            Again::NotReached => now,
            Again::Contended => now + half_jitter(CONTENDED),
        }
    }

    /// When a document that waits for an operator is due again.
    pub(crate) fn due_slowly(&self, now: Instant) -> Instant {
        now + half_jitter(self.slow)
    }

    /// Halves once for all requests that were under way together.
    fn decrease(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.epoch += 1;
            self.limit = (self.limit / 2).max(1);
            self.successes = 0;
        }
    }
}

/// A random time up to `base * 2^n`, at most `cap`; never so short that it makes a busy loop.
pub(crate) fn full_jitter(base: Duration, cap: Duration, n: u32) -> Duration {
    let most = base.saturating_mul(1_u32 << n.min(20)).min(cap);
    most.mul_f64(random()).max(base / 10)
}

/// A random time between half of `time` and all of it.
fn half_jitter(time: Duration) -> Duration {
    time.mul_f64(0.5 + random() / 2.0)
}

/// From 0 to 1. Not for secrets: when the system gives no random bytes, the middle will do.
fn random() -> f64 {
    let value = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(value) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow::new(&ElasticsearchConfig {
            max_in_flight: 8,
            ..Default::default()
        })
    }

    fn pressure(retry_after: Option<Duration>) -> Problem {
        Problem::Pressure {
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
            flow.failed(&Problem::Unreachable(String::new()), flow.epoch(), now);
        }
        assert!(flow.paused_until().unwrap() <= now + Duration::from_secs(30));
        flow.succeeded();
        assert_eq!(flow.paused_until(), None);
        flow.failed(&pressure(Some(Duration::from_secs(77))), flow.epoch(), now);
        assert_eq!(flow.paused_until(), Some(now + Duration::from_secs(77)));
        flow.failed(&Problem::Denied(String::new()), flow.epoch(), now);
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
        flow.failed(&Problem::Unreachable(String::new()), flow.epoch(), now);
        flow.revived();
        assert_eq!(flow.paused_until(), None);
    }

    #[test]
    fn only_what_was_turned_away_waits_longer_each_time() {
        let (flow, now) = (flow(), Instant::now());
        for times in 0..40 {
            assert_eq!(flow.due(Again::NotReached, times, now), now);
            assert!(flow.due(Again::Contended, times, now) <= now + CONTENDED);
            assert!(flow.due(Again::TurnedAway, times, now) <= now + Duration::from_secs(30));
        }
        let longest = (0..100).map(|_| flow.due(Again::TurnedAway, 20, now)).max();
        assert!(longest.unwrap() > now + Duration::from_secs(5));
    }

    #[test]
    fn a_batch_that_gets_on_ends_a_row_of_failures() {
        let mut flow = flow();
        let now = Instant::now();
        for _ in 0..40 {
            flow.answered();
            flow.failed(&Problem::Broken(String::new()), flow.epoch(), now);
            assert_eq!(flow.failures(), 1);
        }
    }

    #[test]
    fn jitter_stays_in_its_bounds() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(2));
        for n in 0..64 {
            let time = full_jitter(base, cap, n);
            assert!(time >= base / 10 && time <= cap, "{n}: {time:?}");
        }
    }
}
