//! What the journal tells about itself: for metrics, readiness, back-pressure and early sealing.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{Shared, lock};

/// Upper bounds of [`Usage::sync_buckets`]: from a disk in memory to one that is in trouble.
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

/// How things stand at one moment. Counters count from the opening of the journal.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes written in all segment files that are there.
    pub bytes: u64,
    /// Appends wait when `bytes` would pass this.
    pub limit_bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// The oldest segment with an unreleased record.
    pub oldest_segment: Option<OldestSegment>,
    /// Records that wait to be released.
    pub unreleased_records: u64,
    /// The next record gets at least this lsn; all smaller ones are durable.
    pub next_lsn: u64,
    /// Appends that are queued and not durable yet.
    pub waiting: usize,
    /// Why appends wait for more than a sync, if they do.
    pub blocked: Option<Blocked>,
    /// For how long it has been [`Blocked::Failing`].
    pub failing: Option<Duration>,
    /// One of the journal's threads has panicked: only a new start of the program helps.
    pub ended: Option<&'static str>,
    /// Records made durable.
    pub records: u64,
    /// Bytes made durable, with record headers and what fills blocks up before payloads.
    pub record_bytes: u64,
    /// Syncs of segment files that made records durable.
    pub syncs: u64,
    /// Time that these took.
    pub sync_time: Duration,
    /// How many of them took at most [`SYNC_BUCKETS`] each, and more than the bucket before; the last: longer.
    pub sync_buckets: [u64; SYNC_BUCKETS.len() + 1],
    /// Failed writes, syncs and creations of segments, other than for lack of space.
    pub disk_errors: u64,
    /// Segments in which damage was found.
    pub quarantined_segments: u64,
    /// Unreleased records that damage made unreadable.
    pub lost_records: u64,
}

impl Usage {
    /// More than half of the limit is in use: traces that pin [`Usage::oldest_segment`] should be sealed early.
    pub fn past_soft_limit(&self) -> bool {
        self.bytes > self.limit_bytes / 2
    }
}

/// The oldest segment that something is still needed from. As long as that is so, it takes up space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldestSegment {
    /// Its number, as in [`Record::segment`](super::Record::segment).
    pub number: u64,
    /// The first record in it that waits to be released.
    pub first_unreleased_lsn: u64,
    /// How many of its records wait.
    pub unreleased: u64,
}

/// Why nothing is written at the moment. Appends wait; nothing is lost, and nothing is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// All segments together are at the limit, until some are released.
    Limit,
    /// The disk is (nearly) full.
    NoSpace,
    /// The disk answers with this error; it is tried again.
    Failing(Arc<str>),
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

impl Shared {
    pub(super) fn usage(&self) -> Usage {
        let queue = lock(&self.queue);
        let waiting = queue.items.len() + queue.held_by_writer;
        drop(queue);
        let state = lock(&self.state);
        let segments = &state.segments;
        let oldest = segments.iter().find_map(|segment| {
            let first_unreleased_lsn = segment.first_unreleased()?;
            Some(OldestSegment {
                number: segment.number,
                first_unreleased_lsn,
                unreleased: segment.unreleased(),
            })
        });
        Usage {
            bytes: segments.bytes(),
            limit_bytes: self.limit_bytes,
            segments: segments.len(),
            oldest_segment: oldest,
            unreleased_records: segments.unreleased(),
            next_lsn: segments.newest().map_or(1, |segment| segment.next_lsn),
            waiting,
            blocked: state.blocked.clone(),
            failing: state.failing_since.map(|since| since.elapsed()),
            ended: state.ended,
            records: state.counts.records,
            record_bytes: state.counts.record_bytes,
            syncs: state.counts.syncs,
            sync_time: state.counts.sync_time,
            sync_buckets: state.counts.sync_buckets,
            disk_errors: state.counts.disk_errors,
            quarantined_segments: state.counts.quarantined,
            lost_records: state.counts.lost_records,
        }
    }
}
