//! The linger budget: how many bytes of completed traces may wait for stragglers at a time.
//!
//! Weighs two costs. Traces beyond what fits in the CPU cache cost memory, and are read from there
//! when they are sealed, a third of all work for a trace. A straggler whose trace was sealed
//! already costs the outputs a read and a second write, as much as some dozens of lingering traces.
//! Stragglers are usually rare, so the budget is small until sampling shows that traces sealed
//! early were missed, and zero while more traces complete than fit into it and hardly any of them
//! gets a straggler.
//!
//! Does not decide when a trace is due. Sealing early never loses a record.

use std::collections::{HashSet, VecDeque};

use crate::trace_id::PrehashedState;

/// The budget while no stragglers are missed: some thousands of traces, about what stays cached.
const MIN_BUDGET_BYTES: usize = 4 << 20;
/// Stragglers are evaluated after this many traces sealed early.
const EVALUATION_TRACES: u32 = 1 << 13;
/// The budget before the first evaluation, and after how many traces sealed early that comes.
/// Small, because lingering traces take memory that was never touched before, the most expensive
/// kind.
const INITIAL_BUDGET_BYTES: usize = 512 << 10;
const FIRST_EVALUATION_TRACES: u32 = 1 << 10;
/// One in this many of the traces sealed early is sampled.
const SAMPLE_INTERVAL: u64 = 64;
/// Maximum number of samples.
const MAX_SAMPLES: usize = 1 << 14;
/// The budget grows when at least this many samples were missed, and at least one in
/// [`MISS_RATIO_TO_GROW`].
const MIN_MISSED: u32 = 4;
const MISS_RATIO_TO_GROW: u32 = 64;
/// The budget does not shrink while one in this many samples is missed.
const MISS_RATIO_TO_SHRINK: u32 = 512;
/// Samples after which counting starts over.
const WINDOW_SAMPLES: u32 = 1024;
/// After this time, in µs, without misses the budget is halved.
const HALVING_INTERVAL_US: i64 = 60_000_000;

/// Tracks how traces sealed early were missed, and adjusts the budget. Times in µs.
#[derive(Debug)]
pub(crate) struct LingerBudget {
    min_bytes: usize,
    max_bytes: usize,
    bytes: usize,
    /// Stragglers were never evaluated so far.
    is_first_evaluation: bool,
    /// When each sampled trace would have been due, and its hash; in order of the former.
    samples: VecDeque<(i64, u64)>,
    /// Hashes of the samples that are not missed yet.
    not_missed: HashSet<u64, PrehashedState>,
    /// Traces sampled and samples missed since counting started.
    sampled: u32,
    missed: u32,
    /// When the current budget was last found to be needed.
    needed_at: i64,
    /// Traces sealed early, and stragglers that came in time, since the last evaluation.
    early: u32,
    in_time: u32,
    /// With a budget of zero: bytes sealed early since `sealed_since`.
    sealed_bytes: usize,
    sealed_since: i64,
}

impl LingerBudget {
    /// A budget that never exceeds `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let min_bytes = MIN_BUDGET_BYTES.min(max_bytes);
        Self {
            min_bytes,
            max_bytes,
            bytes: INITIAL_BUDGET_BYTES.min(min_bytes),
            is_first_evaluation: true,
            samples: VecDeque::new(),
            not_missed: HashSet::default(),
            sampled: 0,
            missed: 0,
            needed_at: -HALVING_INTERVAL_US,
            early: 0,
            in_time: 0,
            sealed_bytes: 0,
            sealed_since: 0,
        }
    }

    /// The current budget.
    #[inline]
    pub(crate) fn bytes(&mut self, now: i64) -> usize {
        if self.bytes > self.min_bytes && !(0..HALVING_INTERVAL_US).contains(&(now - self.needed_at)) {
            self.bytes = (self.bytes / 2).max(self.min_bytes);
            self.needed_at = now;
        }
        self.bytes
    }

    /// Records that a trace of this many bytes is sealed at `now`, before it is due.
    #[inline]
    pub(crate) fn sealed_early(&mut self, now: i64, hash: u64, due: i64, bytes: usize) {
        if self.bytes == 0 {
            self.sealed_bytes += bytes;
            let linger = due - now;
            if !(0..linger).contains(&(now - self.sealed_since)) {
                self.evaluate_rate(now, linger);
            }
        } else {
            self.early += 1;
            let interval = if self.is_first_evaluation {
                FIRST_EVALUATION_TRACES
            } else {
                EVALUATION_TRACES
            };
            if self.early >= interval {
                self.evaluate_stragglers(now);
            }
        }
        if hash.is_multiple_of(SAMPLE_INTERVAL) {
            self.sample(now, hash, due);
        }
    }

    /// Records that a straggler came for a lingering trace.
    #[inline]
    pub(crate) fn straggler_in_time(&mut self) {
        self.in_time += 1;
    }

    /// Sets the budget to zero if hardly any lingering trace got a straggler. Not soon after
    /// misses: stragglers may come so late that the few traces which linger were sealed long
    /// before.
    #[cold]
    fn evaluate_stragglers(&mut self, now: i64) {
        let no_stragglers = self.in_time.saturating_mul(MISS_RATIO_TO_SHRINK) < self.early;
        let missed = (0..HALVING_INTERVAL_US).contains(&(now - self.needed_at))
            || self.missed.saturating_mul(MISS_RATIO_TO_SHRINK) > self.sampled;
        if no_stragglers && !missed && self.bytes <= self.min_bytes {
            self.bytes = 0;
            (self.sealed_bytes, self.sealed_since) = (0, now);
        } else {
            self.bytes = self.bytes.max(self.min_bytes);
        }
        self.is_first_evaluation = false;
        (self.early, self.in_time) = (0, 0);
    }

    /// Ends a budget of zero if the traces sealed at the current rate would fit into the usual one.
    #[cold]
    fn evaluate_rate(&mut self, now: i64, linger: i64) {
        let lingering_bytes =
            self.sealed_bytes as i128 * i128::from(linger) / i128::from((now - self.sealed_since).max(1));
        if lingering_bytes < self.min_bytes as i128 {
            self.bytes = self.min_bytes;
        }
        (self.sealed_bytes, self.sealed_since) = (0, now);
    }

    /// Records that a trace starts which is not lingering. If it was sampled, it was missed.
    #[inline]
    pub(crate) fn trace_opened(&mut self, now: i64, hash: u64) {
        if hash.is_multiple_of(SAMPLE_INTERVAL) && self.not_missed.remove(&hash) {
            self.missed_one(now);
        }
    }

    fn sample(&mut self, now: i64, hash: u64, due: i64) {
        while let Some((due, hash)) = self.samples.front()
            && *due <= now
        {
            self.not_missed.remove(hash);
            self.samples.pop_front();
        }
        if self.samples.len() >= MAX_SAMPLES {
            return;
        }
        if self.sampled >= WINDOW_SAMPLES {
            if self.missed.saturating_mul(MISS_RATIO_TO_SHRINK) >= self.sampled {
                self.needed_at = now;
            }
            (self.sampled, self.missed) = (0, 0);
        }
        if self.not_missed.insert(hash) {
            self.sampled += 1;
            self.samples.push_back((due, hash));
        }
    }

    #[cold]
    fn missed_one(&mut self, now: i64) {
        self.missed += 1;
        if self.missed < MIN_MISSED || self.missed.saturating_mul(MISS_RATIO_TO_GROW) < self.sampled {
            return;
        }
        self.bytes = self.bytes.saturating_mul(2).clamp(self.min_bytes, self.max_bytes);
        self.needed_at = now;
        // Misses count from here on only if the larger budget does not prevent them.
        self.samples.clear();
        self.not_missed.clear();
        (self.sampled, self.missed) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Seals `count` traces early, of which one in `each` is missed a moment later.
    fn seal(budget: &mut LingerBudget, now: i64, count: u64, each: Option<u64>) {
        for number in 0..count {
            // Each round has other hashes.
            let hash = (now as u64).wrapping_mul(0x9e37_79b9) << 24 | number;
            budget.sealed_early(now, hash, now + SECOND, 800);
            if each.is_some_and(|each| (number / SAMPLE_INTERVAL).is_multiple_of(each)) {
                budget.trace_opened(now, hash);
            }
        }
    }

    #[test]
    fn more_may_wait_while_some_are_missed() {
        let mut budget = LingerBudget::new(100 << 20);
        assert_eq!(budget.bytes(0), INITIAL_BUDGET_BYTES);
        seal(&mut budget, 1, 1000, None);
        assert_eq!(
            budget.bytes(1),
            INITIAL_BUDGET_BYTES,
            "no_stragglers came, of few"
        );
        seal(&mut budget, 2 * SECOND, 100_000, Some(500));
        assert!(
            budget.bytes(2 * SECOND) <= MIN_BUDGET_BYTES,
            "one in five hundred is cheap"
        );
        seal(&mut budget, 4 * SECOND, 20_000, Some(20));
        assert!(budget.bytes(4 * SECOND) > MIN_BUDGET_BYTES);
        for round in 3..20 {
            seal(&mut budget, 2 * round * SECOND, 20_000, Some(20));
        }
        assert_eq!(budget.bytes(40 * SECOND), 100 << 20, "no more than there is");
    }

    #[test]
    fn what_nobody_needs_is_given_up_again() {
        let mut budget = LingerBudget::new(16 << 20);
        for round in 1..4 {
            seal(&mut budget, 2 * round * SECOND, 20_000, Some(20));
        }
        assert_eq!(budget.bytes(10 * SECOND), 16 << 20);
        // Some are missed: too few to grow, but the budget is needed.
        for round in 5..40 {
            seal(&mut budget, 2 * round * SECOND, 3 * 65_536, Some(200));
            assert_eq!(budget.bytes(2 * round * SECOND), 16 << 20);
        }
        for round in 40..130 {
            seal(&mut budget, 2 * round * SECOND, 65_536, None);
            budget.bytes(2 * round * SECOND);
        }
        assert_eq!(budget.bytes(260 * SECOND), 0);
        // Also when the clock is set back.
        for round in 1..3 {
            seal(&mut budget, (400 + 2 * round) * SECOND, 20_000, Some(20));
        }
        assert!(budget.bytes(404 * SECOND) > MIN_BUDGET_BYTES);
        budget.bytes(0);
        assert!(budget.bytes(HALVING_INTERVAL_US) <= MIN_BUDGET_BYTES);
    }

    #[test]
    fn nothing_waits_while_nobody_comes_and_there_is_too_much_of_it() {
        let mut budget = LingerBudget::new(100 << 20);
        // One in a hundred comes in time.
        (0..FIRST_EVALUATION_TRACES / 100).for_each(|_| budget.straggler_in_time());
        seal(&mut budget, 1, u64::from(FIRST_EVALUATION_TRACES), None);
        for _ in 0..10 {
            assert_eq!(budget.bytes(SECOND), MIN_BUDGET_BYTES);
            (0..EVALUATION_TRACES / 100).for_each(|_| budget.straggler_in_time());
            seal(&mut budget, SECOND, u64::from(EVALUATION_TRACES), None);
        }
        assert_eq!(budget.bytes(SECOND), MIN_BUDGET_BYTES);
        // Hardly any comes in time.
        seal(&mut budget, 2 * SECOND, 2 * u64::from(EVALUATION_TRACES), None);
        budget.straggler_in_time();
        seal(&mut budget, 2 * SECOND, u64::from(EVALUATION_TRACES), None);
        assert_eq!(budget.bytes(2 * SECOND), 0);
        // While there are as many.
        for second in 3..10 {
            seal(&mut budget, second * SECOND, 10_000, None);
            assert_eq!(budget.bytes(second * SECOND), 0);
        }
        seal(&mut budget, 11 * SECOND, 1000, None);
        seal(&mut budget, 12 * SECOND, 1000, None);
        assert_eq!(budget.bytes(12 * SECOND), MIN_BUDGET_BYTES, "these have bytes");
        seal(&mut budget, 13 * SECOND, 3 * u64::from(EVALUATION_TRACES), None);
        assert_eq!(budget.bytes(13 * SECOND), 0);
        // A single one long after the last.
        seal(&mut budget, 1000 * SECOND, 1, None);
        assert_eq!(budget.bytes(1000 * SECOND), MIN_BUDGET_BYTES);
        seal(&mut budget, 1001 * SECOND, 3 * u64::from(EVALUATION_TRACES), None);
        assert_eq!(budget.bytes(1001 * SECOND), 0);
        // Until some are missed.
        seal(&mut budget, 1002 * SECOND, 20_000, Some(20));
        assert!(budget.bytes(1002 * SECOND) >= MIN_BUDGET_BYTES);
        seal(&mut budget, 1003 * SECOND, 20_000, Some(20));
        assert!(budget.bytes(1003 * SECOND) > MIN_BUDGET_BYTES);
    }

    #[test]
    fn that_nobody_comes_shows_soon_in_the_beginning() {
        let mut budget = LingerBudget::new(100 << 20);
        seal(&mut budget, 1, u64::from(FIRST_EVALUATION_TRACES) - 1, None);
        assert_eq!(budget.bytes(1), INITIAL_BUDGET_BYTES);
        seal(&mut budget, 2, 1, None);
        assert_eq!(budget.bytes(2), 0);
        // Later evaluations come at the usual interval.
        seal(&mut budget, 10 * SECOND, 1, None);
        assert_eq!(
            budget.bytes(10 * SECOND),
            MIN_BUDGET_BYTES,
            "few came sealed_since"
        );
        seal(&mut budget, 11 * SECOND, u64::from(EVALUATION_TRACES) - 1, None);
        assert_eq!(budget.bytes(11 * SECOND), MIN_BUDGET_BYTES);
        seal(&mut budget, 12 * SECOND, 1, None);
        assert_eq!(budget.bytes(12 * SECOND), 0);
    }

    #[test]
    fn stragglers_that_come_later_are_waited_for_in_the_end() {
        let mut budget = LingerBudget::new(100 << 20);
        // 100,000 traces per second, each with a straggler half a second later.
        let hash = |number: i64| (number + 100_000) as u64;
        for number in 0..1_000_000 {
            let now = number * 10;
            budget.sealed_early(now, hash(number), now + SECOND, 800);
            budget.trace_opened(now, hash(number - 50_000));
        }
        assert!(
            budget.bytes(10 * SECOND) > 16 * MIN_BUDGET_BYTES,
            "{}",
            budget.bytes
        );
    }

    #[test]
    fn it_remembers_a_bounded_number_until_they_are_due() {
        let mut budget = LingerBudget::new(1 << 30);
        for number in 0..10 * MAX_SAMPLES as u64 {
            budget.sealed_early(0, number * SAMPLE_INTERVAL, 3600 * SECOND, 800);
        }
        assert_eq!(
            (budget.samples.len(), budget.not_missed.len()),
            (MAX_SAMPLES, MAX_SAMPLES)
        );
        // A sample that was due before its trace came again was not missed.
        for number in 0..MAX_SAMPLES as u64 {
            budget.sealed_early(
                3600 * SECOND,
                (1 << 40 | number) * SAMPLE_INTERVAL,
                3601 * SECOND,
                800,
            );
            budget.trace_opened(3600 * SECOND, number * SAMPLE_INTERVAL);
        }
        assert!(budget.bytes(3600 * SECOND) <= MIN_BUDGET_BYTES);
        assert!(budget.not_missed.len() <= MAX_SAMPLES);
    }

    #[test]
    fn never_more_than_all_there_is() {
        assert_eq!(LingerBudget::new(1000).bytes(0), 1000);
    }
}
