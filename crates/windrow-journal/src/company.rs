//! Whether a commit waits a moment for others to come along.
//!
//! Owns that decision. Clients that wait for acknowledgements send again when they have got one; two of them fall into
//! turns, where each commit has what one of them sent, and the disk syncs twice as often as it would have to. Who got
//! an answer in the last commit, and who came while it ran, is expected again. Nothing else is waited for: a client that
//! is alone never waits, and who does not come is not expected the next time.

use std::time::Duration;

/// A commit of so many bytes is worth its sync.
const WORTH: u64 = 1 << 20;
/// The longest wait; otherwise half of what the last commit took.
const LONGEST: Duration = Duration::from_micros(500);

/// See above.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Answered since the last look.
    answered: usize,
    /// How long the last commit took.
    took: Duration,
}

impl Company {
    /// So many were answered, in a commit that took so long.
    pub(super) fn committed(&mut self, count: usize, took: Duration) {
        self.answered += count;
        self.took = took;
    }

    /// How many are worth waiting for, and how long. `came` had come while the last commit ran, `there` wait now, and
    /// take `bytes`.
    pub(super) fn expected(
        &mut self,
        came: usize,
        there: usize,
        bytes: impl FnOnce() -> u64,
    ) -> Option<(usize, Duration)> {
        let count = std::mem::take(&mut self.answered) + came;
        (there > 0 && there < count && bytes() < WORTH).then(|| (count, LONGEST.min(self.took / 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_comes_in_turns_is_waited_for_and_who_does_not_come_is_not() {
        let mut company = Company::default();
        assert_eq!(company.expected(0, 1, || 10), None, "nobody is known");
        company.committed(1, MS / 2);
        assert_eq!(company.expected(0, 1, || 10), None, "one alone");
        company.committed(1, MS / 2);
        assert_eq!(company.expected(1, 1, || 10), Some((2, MS / 4)), "two in turns");
        company.committed(2, 10 * MS);
        assert_eq!(company.expected(0, 1, || 10), Some((2, LONGEST)));
        company.committed(1, MS);
        assert_eq!(company.expected(0, 1, || 10), None, "the other has not come");
        company.committed(2, MS);
        assert_eq!(company.expected(1, 3, || 10), None, "all are there");
        company.committed(2, MS);
        assert_eq!(company.expected(1, 1, || WORTH), None, "it is enough as it is");
        company.committed(2, MS);
        assert_eq!(company.expected(1, 0, || 0), None, "there is nothing to write");
    }
}
