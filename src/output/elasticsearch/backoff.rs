//! Exponential backoff with jitter.

use std::time::Duration;

const CONTENTION_BASE: Duration = Duration::from_millis(10);
const CONTENTION_CAP: Duration = Duration::from_millis(200);

/// A random time up to `base * 2^attempt`, at most `cap`. At least a tenth of `base`, against busy
/// loops.
pub(crate) fn full_jitter(base: Duration, cap: Duration, attempt: u32) -> Duration {
    let longest = base.saturating_mul(1_u32 << attempt.min(20)).min(cap);
    longest.mul_f64(random()).max(base / 10)
}

/// A random time between half of `time` and all of it.
pub(crate) fn half_jitter(time: Duration) -> Duration {
    time.mul_f64(0.5 + random() / 2.0)
}

/// Pause before another compare-and-set round, 1 ms to 200 ms: other writers change the same
/// document.
pub(crate) fn contention_pause(round: u32) -> Duration {
    full_jitter(CONTENTION_BASE, CONTENTION_CAP, round)
}

/// From 0 to 1. Not for secrets: 0.5 when the system has no random bytes.
fn random() -> f64 {
    let value = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(value) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_bounds() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(2));
        for n in 0..64 {
            let time = full_jitter(base, cap, n);
            assert!(time >= base / 10 && time <= cap, "{n}: {time:?}");
        }
    }
}
