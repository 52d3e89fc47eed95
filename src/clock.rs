//! Clock of the server: Unix time that never goes back while the process lives.
//!
//! Owns the only reads of the system clocks on the data path, the journal's included; stages take
//! the time as an argument. Steps of the wall clock are logged, not followed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the wall clock is compared.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A smaller difference is the work of a time daemon, or of a busy machine.
const MIN_STEP_US: i64 = 1_000_000;

/// Unix time in microseconds: the wall clock at the first call plus the monotonic time since then,
/// so that a step of the wall clock neither seals all open traces nor keeps them open for ever.
pub fn unix_us() -> i64 {
    static START: OnceLock<(i64, Instant)> = OnceLock::new();
    let (wall, monotonic) = START.get_or_init(|| (wall_us(), Instant::now()));
    let elapsed = monotonic.elapsed().as_micros() as i64;
    wall.saturating_add(elapsed)
        .saturating_add(ADVANCE_US.load(Ordering::Relaxed))
}

/// How much the clock was advanced.
static ADVANCE_US: AtomicI64 = AtomicI64::new(0);

/// Advances the clock to at least this time: the newest time of reception of the previous run, after
/// which the wall clock may have been set back. Called once, before any stage starts.
pub fn advance_to(newest_us: i64) {
    let behind = newest_us.saturating_sub(unix_us());
    if behind <= 0 {
        return;
    }
    ADVANCE_US.fetch_add(behind, Ordering::Relaxed);
    if behind >= MIN_STEP_US {
        tracing::warn!(
            seconds = behind as f64 / 1e6,
            "the system clock is behind the newest record of the journal: Windrow's times of reception continue \
             after that record"
        );
    }
}

/// Logs steps of the wall clock; never returns.
pub async fn watch_steps() {
    let mut detector = StepDetector {
        ahead_us: wall_us().saturating_sub(unix_us()),
    };
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if let Some(step_us) = detector.step(unix_us(), wall_us()) {
            tracing::warn!(
                step_seconds = step_us as f64 / 1e6,
                ahead_seconds = detector.ahead_us as f64 / 1e6,
                "the system clock was stepped: Windrow's times of reception continue without the step until it \
                 is restarted"
            );
        }
    }
}

/// Compares the wall clock with the clock of the server.
#[derive(Debug, Default)]
struct StepDetector {
    /// How far the wall clock was ahead after the last step.
    ahead_us: i64,
}

impl StepDetector {
    /// The step since the last one that was noticed, in microseconds.
    fn step(&mut self, clock_us: i64, wall_us: i64) -> Option<i64> {
        let ahead = wall_us.saturating_sub(clock_us);
        let step = ahead.saturating_sub(self.ahead_us);
        (step.abs() >= MIN_STEP_US).then(|| {
            self.ahead_us = ahead;
            step
        })
    }
}

fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_noticed_once() {
        let mut detector = StepDetector::default();
        let steps: Vec<_> = [
            (10_000_000, 10_000_100),
            // Three days ahead, and back again.
            (20_000_000, 259_220_000_000),
            (30_000_000, 259_230_000_000),
            (40_000_000, 40_000_100),
        ]
        .map(|(clock, wall)| detector.step(clock, wall))
        .into();
        assert_eq!(steps, [None, Some(259_200_000_000), None, Some(-259_199_999_900)]);
    }
}
