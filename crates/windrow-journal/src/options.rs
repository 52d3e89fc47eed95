//! Options of a journal.

use std::path::PathBuf;

/// Folder and size of a journal.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The journal's folder. It is created if it does not exist.
    pub dir: PathBuf,
    /// Size of a segment file in bytes, from 4 KiB to an eighth of `limit_bytes` (values outside
    /// are clamped): space is freed by whole segments, so there must be several. A record larger
    /// than this gets a segment of its own.
    pub segment_bytes: u64,
    /// Upper bound of the bytes in all segments. Appends wait when it is reached. On disk there is
    /// up to one segment more (preallocated or spare files), and the small logs of released
    /// records and of segments.
    pub limit_bytes: u64,
}

impl JournalOptions {
    /// Segments of 64 MiB, 10 GiB in all.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            limit_bytes: 10 << 30,
        }
    }
}
