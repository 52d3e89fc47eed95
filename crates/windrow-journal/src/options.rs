//! Options of a journal.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Folder and size of a journal.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The journal's folder. It is created if it does not exist.
    pub dir: PathBuf,
    /// Size of a segment file in bytes, from 4 KiB to an eighth of `limit_bytes` (values outside
    /// are clamped): space is freed by whole segments, so there must be several. A record larger
    /// than this gets a segment of its own.
    pub segment_bytes: u64,
    /// Upper bound of the bytes in all segments. Appends wait when it is reached; those of more than
    /// 64 KiB wait before it, so that the last 16th, and at least two segments, is left for short
    /// ones. On disk there is
    /// up to one segment more (preallocated or spare files), and the small logs of released
    /// records and of segments.
    pub limit_bytes: u64,
    /// Clock of the received times, Unix microseconds: the clock that later stages compare them with.
    pub clock: fn() -> i64,
}

impl JournalOptions {
    /// Segments of 64 MiB, 10 GiB in all, and the wall clock.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            limit_bytes: 10 << 30,
            clock: wall_clock_us,
        }
    }
}

fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
