//! Generations: the indices behind a rollover alias or a data stream, and which of them can hold a
//! part of a trace.
//!
//! Generations are to a stream what days are to a daily index: new documents go to the newest, and a
//! part of the same trace may be in an older one. A node of the store that does not know of a
//! rollover yet still writes to the generation before; how long that may take is
//! `elasticsearch.rollover_settle`.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Clocks of shippers and of the cluster may differ by this much.
const CLOCK_MARGIN_MS: i64 = 60_000;

/// One index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) index: Box<str>,
    /// When it was created, Unix ms, or 0 if the store does not say it; then the one before it was
    /// rolled over.
    pub(crate) created_ms: i64,
}

/// The indices behind one name, the oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Generations {
    all: Vec<Generation>,
    settle: Duration,
    /// Until then a document may be created in an older generation than the newest.
    unsettled_until: Option<Instant>,
}

impl Generations {
    /// `before`: what was known of the name in this process.
    pub(crate) fn new(all: Vec<Generation>, before: Option<&Self>, settle: Duration, now: Instant) -> Self {
        let mut made = Self {
            all,
            settle,
            unsettled_until: None,
        };
        made.unsettled_until = match before {
            Some(before) if before.newest() == made.newest() => before.unsettled_until,
            Some(_) => Some(now + settle),
            None if made.all.len() < 2 => None,
            None => {
                let settle_ms = millis(settle).saturating_add(CLOCK_MARGIN_MS);
                let created_ms = made.all.last().map_or(0, |newest| newest.created_ms);
                let is_recent = created_ms.saturating_add(settle_ms) > Timestamp::now().as_millisecond();
                is_recent.then(|| now + settle)
            }
        };
        if settle.is_zero() {
            made.unsettled_until = None;
        }
        made
    }

    /// The same, after `before` was known of the name.
    pub(crate) fn after(&self, before: &Self, now: Instant) -> Self {
        Self::new(self.all.clone(), Some(before), self.settle, now)
    }

    /// The index that takes new documents.
    pub(crate) fn newest(&self) -> Option<&str> {
        self.all.last().map(|generation| &*generation.index)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether an index is one of them.
    pub(crate) fn contains(&self, index: &str) -> bool {
        self.all.iter().any(|generation| *generation.index == *index)
    }

    /// Whether both have the same indices.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.all == other.all
    }

    /// The generations that can hold a part of a trace whose part in hand begins at `first_ns`: the
    /// one that was the newest when the trace may have begun, and all after it.
    ///
    /// A time ahead of the clock says nothing of when other parts were written.
    pub(crate) fn candidates(&self, first_ns: i64, life: Duration) -> Vec<&str> {
        let first_ms = (first_ns / 1_000_000).min(Timestamp::now().as_millisecond());
        let begin_ms = first_ms
            .saturating_sub(millis(life))
            .saturating_sub(CLOCK_MARGIN_MS);
        // A generation takes documents until the next one is created.
        let is_over = |next: &Generation| (1..=begin_ms).contains(&next.created_ms);
        let start = self.all.iter().skip(1).take_while(|next| is_over(next)).count();
        let candidates = self.all.iter().skip(start);
        candidates.map(|generation| &*generation.index).collect()
    }

    /// Until when a document that is in `index` may get a sibling in an older generation that was
    /// looked at already.
    pub(crate) fn unsettled_until(&self, index: &str, now: Instant) -> Option<Instant> {
        if self.newest() == Some(index) {
            return self.unsettled_until.filter(|until| *until > now);
        }
        // A rollover that the store does not show yet.
        (!self.contains(index) && !self.settle.is_zero()).then(|| now + self.settle)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const SETTLE: Duration = Duration::from_secs(120);

    fn every_ten_hours(from_ms: i64, count: i64) -> Vec<Generation> {
        let one = |n: i64| Generation {
            index: format!("g{n}").into(),
            created_ms: from_ms + n * 10 * HOUR_MS,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_trace_can_be_in_the_generation_of_its_begin_and_in_all_after_it() {
        let all = Generations::new(every_ten_hours(0, 4), None, SETTLE, Instant::now());
        let life = Duration::from_secs(3600);
        let at = |hours: i64| all.candidates(hours * HOUR_MS * 1_000_000, life);
        assert_eq!(at(45), ["g3"]);
        assert_eq!(at(31), ["g2", "g3"], "within a trace's life of the rollover");
        assert_eq!(at(15), ["g1", "g2", "g3"], "a late line");
        assert_eq!(at(0), ["g0", "g1", "g2", "g3"]);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_hide_the_generation_before() {
        let now = Timestamp::now().as_millisecond();
        let all = Generations::new(
            every_ten_hours(now - 10 * HOUR_MS, 2),
            None,
            SETTLE,
            Instant::now(),
        );
        let ahead = (now + 5 * HOUR_MS) * 1_000_000;
        assert_eq!(all.candidates(ahead, SETTLE), ["g0", "g1"]);
    }

    #[test]
    fn what_is_written_soon_after_a_rollover_is_not_settled() {
        let (now_ms, now) = (Timestamp::now().as_millisecond(), Instant::now());
        let old = every_ten_hours(now_ms - 30 * HOUR_MS, 3);
        let first = Generations::new(old.clone(), None, SETTLE, now);
        assert_eq!(
            first.unsettled_until("g2", now),
            None,
            "the rollover was long ago"
        );
        let mut rolled = old;
        rolled.push(Generation {
            index: "g3".into(),
            created_ms: now_ms,
        });
        for before in [Some(&first), None] {
            let until = now + SETTLE;
            let second = Generations::new(rolled.clone(), before, SETTLE, now);
            assert_eq!(second.unsettled_until("g3", now), Some(until));
            assert_eq!(second.unsettled_until("g2", now), None);
            assert_eq!(second.unsettled_until("g4", now), Some(until), "not known yet");
            let later = now + SETTLE / 4;
            let again = second.after(&second, later);
            assert_eq!(again.unsettled_until("g3", later), Some(until));
            assert_eq!(again.unsettled_until("g3", until), None);
        }
        let never = Generations::new(rolled, Some(&first), Duration::ZERO, now);
        assert_eq!(never.unsettled_until("g3", now), None);
        assert_eq!(never.unsettled_until("g4", now), None);
        let alone = Generations::new(every_ten_hours(now_ms, 1), None, SETTLE, now);
        assert_eq!(alone.unsettled_until("g0", now), None, "nothing is older");
    }
}
