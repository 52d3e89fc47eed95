//! State that the journal's handles, its readers, the writer and the maintenance thread share.
//!
//! Locks: the append queue (each append), the state (each commit, release and read), the
//! maintenance signals, the preallocator's files, and the manifest. No lock is taken while another is held,
//! except the state while the preallocator's files are locked.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::format::{MAX_PAYLOAD_BYTES, segment_name};
use crate::manifest::Manifest;
use crate::preallocator::Preallocator;
use crate::quarantine::{QUARANTINE, QuarantineMode, quarantine};
use crate::queue::AppendQueue;
use crate::segments::{ReleaseOutcome, Segment, Segments};
use crate::signals::MaintenanceSignals;
use crate::storage::{Storage, StorageFile};
use crate::sync::lock;
use crate::usage::{Blocked, OldestSegment, SYNC_BUCKETS, Usage};

pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) limit_bytes: u64,
    pub(crate) instance: u64,
    pub(crate) now_us: fn() -> i64,
    pub(crate) state: Mutex<State>,
    pub(crate) queue: AppendQueue,
    pub(crate) signals: MaintenanceSignals,
    pub(crate) preallocator: Preallocator,
    /// Used by the maintenance thread only.
    pub(crate) manifest: Mutex<Manifest>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) segments: Segments,
    /// Released lsns that are not in the release logs yet.
    pub(crate) unlogged_releases: Vec<u64>,
    /// Why the writer does not write. Set by the writer.
    pub(crate) blocked: Option<Blocked>,
    /// Since when every write has failed.
    pub(crate) failing_since: Option<Instant>,
    /// The thread of the journal that has panicked.
    pub(crate) panicked_thread: Option<&'static str>,
    /// Preallocation found no space: the writer stops before the segment in use is full.
    pub(crate) no_space_for_next: bool,
    /// Sealed segments that the maintenance thread has not handled yet.
    pub(crate) sealed_segments: Vec<SealedSegment>,
    pub(crate) counters: Counters,
}

/// A sealed segment whose unused space is to be given back and whose end is to be logged.
pub(crate) struct SealedSegment {
    pub(crate) number: u64,
    pub(crate) instance: u64,
    pub(crate) next_lsn: u64,
    /// Durable bytes.
    pub(crate) end: u64,
    /// `None` if the file is closed already.
    pub(crate) file: Option<Box<dyn StorageFile>>,
}

/// Counters since the journal was opened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counters {
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_time: Duration,
    pub(crate) sync_buckets: [u64; SYNC_BUCKETS.len() + 1],
    pub(crate) disk_errors: u64,
    pub(crate) quarantined_segments: u64,
    pub(crate) lost_records: u64,
    pub(crate) lost_segments: u64,
}

impl Shared {
    /// Size of the largest payload that is accepted.
    pub(crate) fn max_payload_bytes(&self) -> u64 {
        MAX_PAYLOAD_BYTES.min(self.limit_bytes / 2)
    }

    /// What long appends leave to short ones: a client that sends little goes on beside one that has
    /// filled the journal. Segments in use are not shared then, so there are two of them.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        (self.limit_bytes / 16).max(2 * self.segment_bytes)
    }

    /// Marks records as released. Unknown and released ones are ignored.
    pub(crate) fn release(&self, lsns: &[u64]) {
        let mut segment_is_free = false;
        let mut first_unlogged = false;
        let mut state = lock(&self.state);
        for &lsn in lsns {
            let outcome = state.segments.release(lsn);
            if outcome != ReleaseOutcome::NoChange {
                first_unlogged |= state.unlogged_releases.is_empty();
                state.unlogged_releases.push(lsn);
            }
            segment_is_free |= outcome == ReleaseOutcome::LastOfSegment;
        }
        drop(state);
        if segment_is_free {
            self.signals.request_work();
        } else if first_unlogged {
            self.signals.request_release_log();
        }
    }

    /// Gives up records that cannot be read. Returns how many of them were not released.
    pub(crate) fn mark_lost(&self, lsns: Range<u64>) -> u64 {
        let mut state = lock(&self.state);
        let mut lost = 0;
        let mut segment_is_free = false;
        for lsn in lsns {
            let outcome = state.segments.release(lsn);
            lost += u64::from(outcome != ReleaseOutcome::NoChange);
            segment_is_free |= outcome == ReleaseOutcome::LastOfSegment;
        }
        state.counters.lost_records += lost;
        drop(state);
        if segment_is_free {
            self.signals.request_work();
        }
        lost
    }

    /// Counts and logs damage and quarantines the file, once per segment.
    pub(crate) fn report_damage(&self, number: u64, bytes: &Range<u64>, reason: &str) {
        let mut state = lock(&self.state);
        let State {
            segments, counters, ..
        } = &mut *state;
        let is_new = |segment: &&mut Segment| !segment.damaged && !segment.recycling;
        let Some(segment) = segments.by_number_mut(number).filter(is_new) else {
            return;
        };
        segment.damaged = true;
        counters.quarantined_segments += 1;
        drop(state);
        error!(
            segment = number,
            from_byte = bytes.start,
            to_byte = bytes.end,
            "the journal file {} is damaged ({reason}): its readable records are processed, the file is kept in {}",
            self.dir.join(segment_name(number)).display(),
            self.dir.join(QUARANTINE).display(),
        );
        if let Err(error) = quarantine(&*self.storage, number, QuarantineMode::Link) {
            warn!(segment = number, %error, "cannot link the damaged file into the quarantine; it is moved there later");
            if let Some(segment) = lock(&self.state).segments.by_number_mut(number) {
                segment.quarantine_on_removal = true;
            }
        }
    }

    /// The segment is obsolete: its file is removed, or may hold another segment.
    pub(crate) fn is_removed_or_recycling(&self, number: u64) -> bool {
        let state = lock(&self.state);
        let segment = state.segments.by_number(number);
        segment.is_none_or(|segment| segment.recycling)
    }

    pub(crate) fn usage(&self) -> Usage {
        let waiting = self.queue.waiting();
        let state = lock(&self.state);
        let segments = &state.segments;
        let oldest_segment = segments.iter().find_map(|segment| {
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
            oldest_segment,
            unreleased_records: segments.unreleased(),
            next_lsn: segments.newest().map_or(1, |segment| segment.next_lsn),
            waiting,
            blocked: state.blocked.clone(),
            failing: state.failing_since.map(|since| since.elapsed()),
            panicked_thread: state.panicked_thread,
            records: state.counters.records,
            record_bytes: state.counters.record_bytes,
            syncs: state.counters.syncs,
            sync_time: state.counters.sync_time,
            sync_buckets: state.counters.sync_buckets,
            disk_errors: state.counters.disk_errors,
            quarantined_segments: state.counters.quarantined_segments,
            lost_records: state.counters.lost_records,
            lost_segments: state.counters.lost_segments,
        }
    }
}
