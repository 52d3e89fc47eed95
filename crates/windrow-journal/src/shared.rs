//! What the handles, the writer, the keeper and the readers share.
//!
//! Locks: the queue (taken by each append), the state (taken once per commit, release and read), the keeper's signals,
//! and the segment that is prepared ahead. None is held while another is taken, but for one case: whoever prepares a
//! segment may look at the state.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::ahead::Ahead;
use super::format::{MAX_PAYLOAD, segment_name};
use super::keeper::Signals;
use super::queue::{Pending, Queue};
use super::segments::{Released, Segment, Segments};
use super::storage::{QUARANTINE, Storage, StorageFile};
use super::usage::{Blocked, SYNC_BUCKETS};

/// A panic elsewhere does not make the data wrong: every change under these locks is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) limit_bytes: u64,
    pub(super) instance: u64,
    pub(super) now_us: fn() -> i64,
    pub(super) state: Mutex<State>,
    pub(super) queue: Mutex<Queue>,
    pub(super) queue_changed: Condvar,
    pub(super) signals: Mutex<Signals>,
    pub(super) signals_changed: Condvar,
    pub(super) ahead: Mutex<Ahead>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) segments: Segments,
    /// Released since the keeper last wrote notes.
    pub(super) to_note: Vec<u64>,
    /// Why the writer does not write, said by the writer.
    pub(super) blocked: Option<Blocked>,
    /// Since when the disk has failed without a success in between.
    pub(super) failing_since: Option<Instant>,
    /// One of the journal's threads has panicked, this one.
    pub(super) ended: Option<&'static str>,
    /// The keeper found no room for the next segment: the writer stops before the present one is full.
    pub(super) no_space_ahead: bool,
    /// Segments that were sealed since the keeper last looked.
    pub(super) retired: Vec<Retired>,
    pub(super) counts: Counts,
}

/// A sealed segment: the keeper cuts off what was allocated and not used, and notes where it ends.
pub(super) struct Retired {
    pub(super) number: u64,
    pub(super) instance: u64,
    pub(super) next_lsn: u64,
    /// Durable bytes.
    pub(super) end: u64,
    /// Unless it is closed already.
    pub(super) file: Option<Box<dyn StorageFile>>,
}

/// Numbers since the journal was opened.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) record_bytes: u64,
    pub(super) syncs: u64,
    pub(super) sync_time: Duration,
    pub(super) sync_buckets: [u64; SYNC_BUCKETS.len() + 1],
    pub(super) disk_errors: u64,
    pub(super) quarantined: u64,
    pub(super) lost_records: u64,
}

impl Shared {
    /// The largest payload that is taken, in bytes.
    pub(super) fn max_payload(&self) -> u64 {
        MAX_PAYLOAD.min(self.limit_bytes / 2)
    }

    /// False if the journal is closed.
    pub(super) fn push(&self, pending: Pending) -> bool {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return false;
        }
        queue.items.push_back(pending);
        let wake = (1..=queue.items.len()).contains(&queue.writer_wants);
        if wake {
            queue.writer_wants = 0;
        }
        drop(queue);
        if wake {
            self.queue_changed.notify_one();
        }
        true
    }

    /// Lets a blocked writer look again.
    pub(super) fn kick_writer(&self) {
        lock(&self.queue).kick = true;
        self.queue_changed.notify_one();
    }

    pub(super) fn close_queue(&self) {
        lock(&self.queue).closed = true;
        self.queue_changed.notify_one();
    }

    pub(super) fn wake_keeper(&self) {
        lock(&self.signals).work = true;
        self.signals_changed.notify_one();
    }

    pub(super) fn stop_keeper(&self) {
        lock(&self.signals).stop = true;
        self.signals_changed.notify_one();
    }

    pub(super) fn release(&self, lsns: &[u64]) {
        let mut wake = false;
        let mut first_note = false;
        let mut state = lock(&self.state);
        for &lsn in lsns {
            let released = state.segments.release(lsn);
            if released != Released::Before {
                first_note |= state.to_note.is_empty();
                state.to_note.push(lsn);
            }
            wake |= released == Released::LastOfSegment;
        }
        drop(state);
        if wake {
            self.wake_keeper();
        } else if first_note {
            lock(&self.signals).notes = true;
            self.signals_changed.notify_one();
        }
    }

    /// Damage was found: keeps the file, counts and says it; once per segment.
    pub(super) fn found_damage(&self, number: u64, bytes: &Range<u64>, why: &str) {
        let mut state = lock(&self.state);
        let State { segments, counts, .. } = &mut *state;
        let known = |segment: &&mut Segment| !segment.damaged && !segment.leaving;
        let Some(segment) = segments.by_number_mut(number).filter(known) else {
            return;
        };
        segment.damaged = true;
        counts.quarantined += 1;
        drop(state);
        error!(
            segment = number,
            from_byte = bytes.start,
            to_byte = bytes.end,
            "the journal file {} is damaged ({why}); what can be read of it is processed, the file is kept in {}",
            self.dir.join(segment_name(number)).display(),
            self.dir.join(QUARANTINE).display(),
        );
        if let Err(error) = quarantine(&*self.storage, number) {
            warn!(segment = number, %error, "cannot link the damaged file into the quarantine, it is moved there later");
            if let Some(segment) = lock(&self.state).segments.by_number_mut(number) {
                segment.keep_file = true;
            }
        }
    }

    /// Whether a segment is not needed any more, and its file may be used for another.
    pub(super) fn has_left(&self, number: u64) -> bool {
        let state = lock(&self.state);
        let segment = state.segments.by_number(number);
        segment.is_none_or(|segment| segment.leaving)
    }

    /// These records cannot be read and never will be. Returns how many of them were still needed.
    pub(super) fn lost(&self, lsns: Range<u64>) -> u64 {
        let mut state = lock(&self.state);
        let mut lost = 0;
        let mut wake = false;
        for lsn in lsns {
            let released = state.segments.release(lsn);
            lost += u64::from(released != Released::Before);
            wake |= released == Released::LastOfSegment;
        }
        state.counts.lost_records += lost;
        drop(state);
        if wake {
            self.wake_keeper();
        }
        lost
    }
}

/// Gives a damaged file a second name in the quarantine: what is removed later is only the first one.
pub(super) fn quarantine(storage: &dyn Storage, number: u64) -> std::io::Result<()> {
    let name = segment_name(number);
    storage.create_folder(QUARANTINE)?;
    match storage.link(&name, &format!("{QUARANTINE}/{name}")) {
        // From an earlier life.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
