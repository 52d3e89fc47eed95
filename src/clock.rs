//! Clock of the server: Unix time that never goes back while the process lives.
//!
//! Owns the only reads of the system clocks on the data path; stages take the time as an argument.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix time in microseconds: the wall clock at the first call plus the monotonic time since then,
/// so that a step of the wall clock neither seals all open traces nor keeps them open for ever.
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
