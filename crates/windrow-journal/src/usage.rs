//! State and counters of a journal, for metrics, readiness checks and back-pressure.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

/// Upper bounds of the histogram [`Usage::sync_buckets`]: from a disk in memory to a failing one.
pub const SYNC_BUCKETS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(300),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// State of a journal at one moment, and counters since it was opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes written in all segment files.
    pub bytes: u64,
    /// Upper bound of `bytes`: appends wait when it is reached.
    pub limit_bytes: u64,
    /// Number of segment files.
    pub segments: usize,
    /// The oldest segment with an unreleased record.
    pub oldest_segment: Option<OldestSegment>,
    /// Records that are not released yet.
    pub unreleased_records: u64,
    /// Lower bound of the next record's lsn; all records below it are durable.
    pub next_lsn: u64,
    /// Appends that are not durable yet.
    pub waiting: usize,
    /// Why appends wait, unless for a sync only.
    pub blocked: Option<Blocked>,
    /// How long the journal has been [`Blocked::Failing`].
    pub failing: Option<Duration>,
    /// The thread of the journal that has panicked, `"writer"` or `"maintenance"`: the program must
    /// be restarted.
    pub panicked_thread: Option<&'static str>,
    /// Records made durable.
    pub records: u64,
    /// Bytes made durable: headers, payloads and the padding before payloads.
    pub record_bytes: u64,
    /// Syncs that made records durable.
    pub syncs: u64,
    /// Time of these commits: write and sync.
    pub sync_time: Duration,
    /// Histogram of that time: commits that took at most the bound in [`SYNC_BUCKETS`] and more
    /// than the one before it. The last element counts those above all bounds.
    pub sync_buckets: [u64; SYNC_BUCKETS.len() + 1],
    /// Failed writes, syncs and creations of segments, except for lack of space.
    pub disk_errors: u64,
    /// Segments in which damage was found.
    pub quarantined_segments: u64,
    /// Unreleased records that damage made unreadable, or whose segment file is missing.
    pub lost_records: u64,
    /// Segments whose file is missing or has no readable record. If the journal was not closed, the
    /// number of records in the newest of them is unknown and not part of `lost_records`.
    pub lost_segments: u64,
}

impl Usage {
    /// More than half of the limit is in use. Callers should release the records of
    /// [`Usage::oldest_segment`] soon.
    pub fn past_soft_limit(&self) -> bool {
        self.bytes > self.limit_bytes / 2
    }
}

/// The oldest segment with an unreleased record. Its space cannot be freed until that record is
/// released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldestSegment {
    /// Segment number, as in [`Record::segment`](crate::Record::segment).
    pub number: u64,
    /// The first unreleased record.
    pub first_unreleased_lsn: u64,
    /// Number of unreleased records.
    pub unreleased: u64,
}

/// Why nothing can be written. Appends wait; nothing is lost, and no receipt is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The segments take [`Usage::limit_bytes`], until some are released.
    Limit,
    /// The disk has no space for the next segment.
    NoSpace,
    /// Writes fail with this error and are tried again.
    Failing(Arc<str>),
}

impl Blocked {
    /// Logs that writing is blocked, or no longer is.
    pub(crate) fn log(blocked: Option<&Self>) {
        match blocked {
            None => info!("the journal accepts records again"),
            Some(Self::Failing(text)) => {
                error!(
                    error = &**text,
                    "the journal's disk fails: nothing is acknowledged until it works again"
                );
            }
            Some(reason) => warn!("{reason}: records wait, nothing is acknowledged until there is space"),
        }
    }
}

impl std::fmt::Display for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limit => f.write_str("the journal is at its limit"),
            Self::NoSpace => f.write_str("the disk has no space for the next journal segment"),
            Self::Failing(error) => write!(f, "the disk fails: {error}"),
        }
    }
}
