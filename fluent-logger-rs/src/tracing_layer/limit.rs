//! Sampling per target and a rate limit for repeated lines.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_core::{Level, Metadata};

use crate::trace_id::random_share;

/// Most different lines whose repetitions are counted at a time.
const MAX_LINES: usize = 4096;

/// Shares of the events that are sent, per prefix of the target.
#[derive(Clone, Default)]
pub(super) struct Sampling {
    shares: Vec<(String, f64)>,
}

impl Sampling {
    pub(super) fn set(&mut self, target: String, share: f64) {
        self.shares.push((target, share));
        // The longest prefix decides.
        self.shares
            .sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
    }

    /// Whether to send an event. Warnings and errors always are.
    pub(super) fn keeps(&self, metadata: &Metadata<'_>) -> bool {
        if self.shares.is_empty() || *metadata.level() <= Level::WARN {
            return true;
        }
        let share = self
            .shares
            .iter()
            .find(|(prefix, _)| is_within(metadata.target(), prefix))
            .map(|(_, share)| *share);
        share.is_none_or(|share| random_share() < share)
    }
}

/// `hyper` covers `hyper` and `hyper::client`, not `hyperion`.
fn is_within(target: &str, prefix: &str) -> bool {
    target
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Limits how often the same line is sent within an interval.
#[derive(Clone)]
pub(super) struct RepeatLimit {
    max: u32,
    interval: Duration,
    hasher: RandomState,
    lines: Arc<Mutex<HashMap<u64, Window>>>,
}

struct Window {
    began: Instant,
    sent: u32,
    suppressed: u64,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent, and says how many equal lines were suppressed before it.
    Send {
        suppressed: u64,
    },
    Suppress,
}

impl RepeatLimit {
    pub(super) fn new(max: u32, interval: Duration) -> Self {
        Self {
            max: max.max(1),
            interval,
            hasher: RandomState::new(),
            lines: Arc::default(),
        }
    }

    /// Decides for a line of this target and text.
    pub(super) fn check(&self, target: &str, text: &[u8], now: Instant) -> Verdict {
        let line = self.hasher.hash_one((target, text));
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= MAX_LINES && !lines.contains_key(&line) {
            let interval = self.interval;
            lines.retain(|_, window| now.duration_since(window.began) < interval);
            if lines.len() >= MAX_LINES {
                return Verdict::Send { suppressed: 0 };
            }
        }
        let window = lines.entry(line).or_insert(Window {
            began: now,
            sent: 0,
            suppressed: 0,
        });
        if now.duration_since(window.began) >= self.interval {
            let suppressed = window.suppressed;
            *window = Window {
                began: now,
                sent: 1,
                suppressed: 0,
            };
            return Verdict::Send { suppressed };
        }
        if window.sent < self.max {
            window.sent += 1;
            return Verdict::Send { suppressed: 0 };
        }
        window.suppressed += 1;
        Verdict::Suppress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_module() {
        assert!(is_within("hyper", "hyper") && is_within("hyper::client", "hyper"));
        assert!(!is_within("hyperion", "hyper"));
    }

    #[test]
    fn repetitions_are_suppressed_and_counted_until_the_interval_is_over() {
        let limit = RepeatLimit::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(limit.check("a", b"x", at(0)), Verdict::Send { suppressed: 0 });
        assert_eq!(limit.check("a", b"x", at(1)), Verdict::Send { suppressed: 0 });
        assert_eq!(limit.check("a", b"x", at(2)), Verdict::Suppress);
        assert_eq!(limit.check("a", b"x", at(3)), Verdict::Suppress);
        assert_eq!(limit.check("a", b"y", at(4)), Verdict::Send { suppressed: 0 });
        assert_eq!(limit.check("b", b"x", at(5)), Verdict::Send { suppressed: 0 });
        assert_eq!(limit.check("a", b"x", at(1000)), Verdict::Send { suppressed: 2 });
        assert_eq!(limit.check("a", b"x", at(1001)), Verdict::Send { suppressed: 0 });
        assert_eq!(limit.check("a", b"x", at(1002)), Verdict::Suppress);
    }

    #[test]
    fn the_table_of_lines_is_bounded() {
        let limit = RepeatLimit::new(1, Duration::from_secs(1));
        let now = Instant::now();
        for n in 0..2 * MAX_LINES {
            limit.check("a", n.to_string().as_bytes(), now);
        }
        assert_eq!(limit.lines.lock().unwrap().len(), MAX_LINES);
        let later = now + Duration::from_secs(2);
        limit.check("a", b"new", later);
        assert_eq!(limit.lines.lock().unwrap().len(), 1);
    }
}
