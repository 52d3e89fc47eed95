//! Late lines: a line for a trace that was sealed is sealed after the linger time. And which
//! complete traces linger.

use super::table::{Fixture, SECOND, limits};
use super::*;
use crate::{AddOutcome, Limits};

const LATE: SealReason = SealReason::Idle;

fn late(key: &str, lines: u32) -> Vec<(String, SealReason, u32)> {
    vec![(key.to_owned(), LATE, lines)]
}

#[test]
fn late_lines_wait_for_the_linger_time_only() {
    let mut f = Fixture::new(limits());
    assert_eq!(f.add(0, "a", 1, true), AddOutcome::Added);
    assert_eq!(f.add(0, "b", 1, false), AddOutcome::Added);
    assert_eq!(f.sealed(SECOND), [("a".into(), SealReason::Completed, 1)]);
    assert_eq!(f.sealed(30 * SECOND), late("b", 1), "idle");

    // A new trace beside them waits as ever.
    assert_eq!(f.add(30 * SECOND, "new", 2, false), AddOutcome::Added);
    assert_eq!(f.add(30 * SECOND, "a", 2, false), AddOutcome::Added);
    assert_eq!(f.add(30 * SECOND + 1, "b", 2, false), AddOutcome::Added);
    assert_eq!(f.sealed(31 * SECOND - 1), []);
    assert_eq!(f.sealed(31 * SECOND), late("a", 1));
    assert_eq!(f.sealed(31 * SECOND + 1), late("b", 1));

    // Long afterwards it is a new trace.
    let then = 100 * SECOND;
    assert_eq!(f.sealed(then), late("new", 1));
    assert_eq!(f.add(then, "a", 3, false), AddOutcome::Added);
    assert_eq!(f.sealed(then + 2 * SECOND), []);
    assert_eq!(f.sealed(then + 30 * SECOND), late("a", 1));
    f.is_even();
}

#[test]
fn late_lines_that_keep_coming_are_sealed_together() {
    let mut f = Fixture::new(limits());
    assert_eq!(f.add(0, "a", 1, true), AddOutcome::Added);
    assert_eq!(f.sealed(SECOND).len(), 1);
    // One each half second: they are sealed when none came for a second, ...
    let half = SECOND / 2;
    for n in 4..8 {
        assert_eq!(f.add(n * half, "a", 2, false), AddOutcome::Added);
        assert_eq!(f.sealed(n * half), []);
    }
    assert_eq!(f.sealed(9 * half - 1), []);
    assert_eq!(f.sealed(9 * half), late("a", 4));
    // ... or at the idle timeout, if they do not stop.
    let mut sealed = Vec::new();
    for n in 10..90 {
        assert_eq!(f.add(n * half, "a", 3, false), AddOutcome::Added);
        sealed.extend(f.sealed(n * half).into_iter().map(|(.., lines)| (n, lines)));
    }
    assert_eq!(sealed, [(70, 61)]);
    assert_eq!(f.sealed(92 * half), late("a", 19));
    f.is_even();
}

#[test]
fn late_lines_wait_no_longer_than_the_idle_timeout() {
    let mut f = Fixture::new(Limits {
        linger: 300 * SECOND,
        ..limits()
    });
    assert_eq!(f.add(0, "a", 1, false), AddOutcome::Added);
    assert_eq!(f.sealed(30 * SECOND), late("a", 1), "idle");
    assert_eq!(f.add(31 * SECOND, "a", 2, false), AddOutcome::Added);
    assert_eq!(f.sealed(61 * SECOND - 1), []);
    assert_eq!(f.sealed(61 * SECOND), late("a", 1));
    f.is_even();
}

#[test]
fn a_completion_record_is_not_late_twice() {
    let mut f = Fixture::new(limits());
    assert_eq!(f.add(0, "a", 1, false), AddOutcome::Added);
    assert_eq!(f.sealed(30 * SECOND), late("a", 1));
    assert_eq!(f.add(31 * SECOND, "a", 2, false), AddOutcome::Added);
    assert_eq!(f.add(31 * SECOND + 1, "a", 2, true), AddOutcome::Added);
    assert_eq!(f.sealed(32 * SECOND), []);
    assert_eq!(
        f.sealed(32 * SECOND + 1),
        [("a".into(), SealReason::Completed, 2)]
    );
    f.is_even();
}

/// A trace that is sealed for its age goes on. Were its next lines late ones, its document would be
/// merged each second.
#[test]
fn a_trace_that_is_too_old_goes_on() {
    let mut f = Fixture::new(Limits {
        max_age: 10 * SECOND,
        ..limits()
    });
    for now in 0..=10 {
        assert_eq!(f.add(now * SECOND, "a", 1, false), AddOutcome::Added);
    }
    assert_eq!(f.sealed(10 * SECOND), [("a".into(), SealReason::MaxAge, 11)]);
    assert_eq!(f.add(11 * SECOND, "a", 1, false), AddOutcome::Added);
    assert_eq!(f.sealed(20 * SECOND), []);
    assert_eq!(f.sealed(41 * SECOND), late("a", 1));
    f.is_even();
}

#[test]
fn a_large_trace_waits_too_and_one_without_linger_does_not() {
    let mut f = Fixture::new(limits());
    for now in 0..1000 {
        assert_eq!(f.add(now, "a", 1, now == 999), AddOutcome::Added);
    }
    assert_eq!(f.sealed(SECOND), []);
    assert_eq!(f.sealed(2 * SECOND), [("a".into(), SealReason::Completed, 1000)]);
    let mut f = Fixture::new(Limits {
        linger: 0,
        ..limits()
    });
    assert_eq!(f.add(5, "a", 1, true), AddOutcome::Added);
    assert_eq!(f.sealed(5), [("a".into(), SealReason::Completed, 1)]);
}
