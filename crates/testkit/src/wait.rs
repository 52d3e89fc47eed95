//! Bounded waits for conditions, so that no test sleeps for a guessed time.

use std::time::{Duration, Instant};

/// Time between two polls of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `look` until it returns a value; after `limit` panics with `what` and the last error of
/// `look`.
///
/// # Panics
/// When `limit` has passed.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if began.elapsed() >= limit => {
                panic!("waited {} s for {what}; at last: {last}", limit.as_secs_f64())
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// [`until`] for a condition that is only true or false.
///
/// # Panics
/// When `limit` has passed.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || {
        if look() { Ok(()) } else { Err("not yet".to_owned()) }
    });
}

/// Calls `count` until it has given the same number throughout `quiet`; gives that number.
/// For "and no more than that": a bounded look at whether something still moves.
///
/// # Panics
/// When the number still changes after `limit`.
#[track_caller]
pub fn settled(what: &str, quiet: Duration, limit: Duration, mut count: impl FnMut() -> u64) -> u64 {
    let began = Instant::now();
    let (mut last, mut since) = (count(), Instant::now());
    while since.elapsed() < quiet {
        assert!(
            began.elapsed() < limit,
            "{what} still moves after {} s: {last}",
            limit.as_secs_f64()
        );
        std::thread::sleep(POLL_INTERVAL);
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}
