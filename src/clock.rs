//! The clock of the server: Unix time that never goes back while the process lives.
//!
//! Owns the only calls to the system's clocks on the data path; the stages take time as an argument.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix microseconds: the wall clock at the first call, carried on by the monotonic clock, so that a step of the wall
/// clock neither seals every open trace nor keeps them for ever.
pub fn unix_us() -> i64 {
    static START: OnceLock<(i64, Instant)> = OnceLock::new();
    let (wall, monotonic) = START.get_or_init(|| {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        (wall, Instant::now())
    });
    wall.saturating_add(monotonic.elapsed().as_micros() as i64)
}
