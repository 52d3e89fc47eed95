//! Delays a commit briefly so that clients that send in turns share one sync.
//!
//! A client that waits for each acknowledgement sends again when it has got one. Two such clients
//! fall into alternating commits, and the disk syncs twice as often as necessary. The next commit
//! therefore waits for as many appends as the last commit answered plus those that arrived while it
//! ran. A single client never waits, and a client that does not return is not expected a second
//! time.

use std::time::Duration;

/// A commit of this size or more is never delayed: its bytes cost more than its sync.
const MAX_DELAYED_COMMIT_BYTES: u64 = 1 << 20;
/// Upper bound of the delay, which otherwise is half the duration of the last commit.
const MAX_DELAY: Duration = Duration::from_micros(500);

#[derive(Debug, Default)]
pub(crate) struct CommitCoalescer {
    /// Appends answered since the last call of [`CommitCoalescer::delay`].
    answered: usize,
    last_commit_duration: Duration,
}

impl CommitCoalescer {
    pub(crate) fn record_commit(&mut self, answered: usize, duration: Duration) {
        self.answered += answered;
        self.last_commit_duration = duration;
    }

    /// The queue length to wait for and the longest time to wait, if a delay pays.
    ///
    /// `arrived` appends were queued during the last commit; `queued` appends of `bytes` are queued
    /// at this moment.
    pub(crate) fn delay(
        &mut self,
        arrived: usize,
        queued: usize,
        bytes: impl FnOnce() -> u64,
    ) -> Option<(usize, Duration)> {
        let expected = std::mem::take(&mut self.answered) + arrived;
        (queued > 0 && queued < expected && bytes() < MAX_DELAYED_COMMIT_BYTES)
            .then(|| (expected, MAX_DELAY.min(self.last_commit_duration / 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_comes_in_turns_is_waited_for_and_who_does_not_come_is_not() {
        let mut coalescer = CommitCoalescer::default();
        assert_eq!(coalescer.delay(0, 1, || 10), None, "no client is known");
        coalescer.record_commit(1, MS / 2);
        assert_eq!(coalescer.delay(0, 1, || 10), None, "a single client");
        coalescer.record_commit(1, MS / 2);
        assert_eq!(coalescer.delay(1, 1, || 10), Some((2, MS / 4)), "two in turns");
        coalescer.record_commit(2, 10 * MS);
        assert_eq!(coalescer.delay(0, 1, || 10), Some((2, MAX_DELAY)));
        coalescer.record_commit(1, MS);
        assert_eq!(coalescer.delay(0, 1, || 10), None, "the other has not returned");
        coalescer.record_commit(2, MS);
        assert_eq!(coalescer.delay(1, 3, || 10), None, "all are queued");
        coalescer.record_commit(2, MS);
        assert_eq!(
            coalescer.delay(1, 1, || MAX_DELAYED_COMMIT_BYTES),
            None,
            "the commit is large enough"
        );
        coalescer.record_commit(2, MS);
        assert_eq!(coalescer.delay(1, 0, || 0), None, "nothing is queued");
    }
}
