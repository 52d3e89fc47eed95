//! Return of freed memory to the system while a thread is idle.
//!
//! The program's allocator, mimalloc, gives memory back from within calls of the thread that owns
//! it, some time after it was freed. An idle thread makes no such calls, and would keep what its
//! last load needed. Its function for this is not reachable from safe code, so a thread makes the calls.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Time without work after which a thread collects for the first time.
const FIRST_COLLECTION: Duration = Duration::from_millis(500);
/// Time without work from which on nothing is collected.
const LAST_COLLECTION: Duration = Duration::from_secs(300);
/// Calls after which mimalloc visits all pages of a thread (`generic_collect`).
const CALLS: usize = 10_000;
/// Smallest size that is counted as such a call is a little above 1 KiB.
const COUNTED_BYTES: usize = 2 << 10;
/// Freeing a block of this size lets mimalloc purge what has been free for long enough.
const PURGING_BYTES: usize = 1 << 20;

/// Makes the allocator look at the pages of this thread, and give back what has been free for long
/// enough. Takes up to a millisecond.
pub(crate) fn collect() {
    for _ in 0..CALLS {
        drop(black_box(Vec::<u8>::with_capacity(COUNTED_BYTES)));
    }
    drop(black_box(Vec::<u8>::with_capacity(PURGING_BYTES)));
}

/// When a thread collects: half a second after its last work, a second after it, two, four, … What
/// other threads free later is found as well, and a thread that stays idle soon does nothing.
#[derive(Debug, Default)]
pub(crate) struct IdleCollector {
    idle: Option<Idle>,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    next: Duration,
}

impl IdleCollector {
    /// The thread has work.
    pub(crate) fn busy(&mut self) {
        self.idle = None;
    }

    /// The thread has no work; whether a collection is due, which then counts as made.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let idle = self.idle.get_or_insert(Idle {
            since: now,
            next: FIRST_COLLECTION,
        });
        let due = now.duration_since(idle.since) >= idle.next && idle.next < LAST_COLLECTION;
        if due {
            idle.next *= 2;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_of_an_idle_thread_become_rare_and_end() {
        let start = Instant::now();
        let mut collector = IdleCollector::default();
        let at = |collector: &mut IdleCollector, ms| collector.is_due(start + Duration::from_millis(ms));
        let due = |collector: &mut IdleCollector, range: std::ops::Range<u64>| {
            range.filter(|s| at(collector, s * 500)).count()
        };
        assert!(!at(&mut collector, 0) && !at(&mut collector, 499));
        assert!(at(&mut collector, 500) && !at(&mut collector, 501) && at(&mut collector, 1000));
        assert_eq!(due(&mut collector, 3..10_000), 8);
        collector.busy();
        assert!(!at(&mut collector, 6_000_000) && at(&mut collector, 6_000_500));
    }
}
