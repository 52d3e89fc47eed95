//! Recovery: reconstructs the state of the previous run from the files in the folder.
//!
//! Older segments are described by their headers and release logs. Only the newest is read, to find
//! its end, and a segment whose successor is missing. What follows the last valid record is either
//! a *torn tail*, a commit that a crash cut short, which was never confirmed and is cut off; or
//! *damage*, bytes that were durable once, as a later record proves (see
//! [`FIRST_OF_COMMIT`](crate::format::FIRST_OF_COMMIT)). Then the readable records are kept and the
//! file is quarantined.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::survey::{FoundSegment, Survey};
use self::tail::SegmentTail;
use crate::error::OpenError;
use crate::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::manifest::{LiveSegment, LoadedManifest, MANIFEST, Manifest};
use crate::options::JournalOptions;
use crate::preallocator::Preallocator;
use crate::queue::AppendQueue;
use crate::record::CommitSink;
use crate::segments::{Segment, Segments};
use crate::shared::{Counters, Shared, State};
use crate::signals::MaintenanceSignals;
use crate::storage::Storage;
use crate::sync::lock;
use crate::writer::Writer;
use crate::{instance, release_log};

mod missing;
mod rename;
mod survey;
mod tail;

/// In smaller segments headers would take most of the space.
const MIN_SEGMENT_BYTES: u64 = 4096;

/// When the newest records are unreadable, received times continue this much after the present
/// time, in microseconds (1 s): the clock may have been set back since those records were received.
const UNREADABLE_TIME_GAP_US: i64 = 1_000_000;

/// Outcome of the recovery in [`Journal::open`](crate::Journal::open).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Number of segment files.
    pub segments: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// Lower bound of all lsns. Reading from here returns every record, released ones included.
    pub first_lsn: u64,
    /// The oldest record that is not known to be released.
    pub first_unreleased_lsn: Option<u64>,
    /// Records that are not known to be released.
    pub unreleased_records: u64,
    /// Upper bound of all lsns, exclusive.
    pub next_lsn: u64,
    /// Upper bound of all received times so far, Unix microseconds; later ones are greater.
    pub last_received_us: i64,
    /// Bytes of an unconfirmed commit that were cut off the newest segment. 0 if its file was
    /// recycled: remains of a previous segment look the same.
    pub torn_bytes: u64,
    /// Numbers of the segments in which damage was found; their files are in `quarantine/`. Readers
    /// may find more damage in older segments.
    pub quarantined: Vec<u64>,
    /// Numbers of the segments whose file is missing or has no readable record: their unreleased
    /// records are lost.
    pub lost: Vec<u64>,
    /// Duration of the recovery.
    pub took: Duration,
}

/// Recovers the folder and assembles the journal, without its threads.
pub(crate) fn recover(
    storage: Arc<dyn Storage>,
    options: JournalOptions,
    sink: Box<dyn CommitSink>,
) -> Result<(Arc<Shared>, Writer, Recovery), OpenError> {
    let started = Instant::now();
    let (dir, now_us) = (options.dir, options.clock);
    let mut survey = Survey::take(&*storage, &dir)?;
    let newest_header = survey.found.last().map(|found| found.instance);
    let instance = instance::load_or_create(&*storage, &dir, newest_header)?;
    survey.examine_damaged_headers(&*storage, &dir, instance)?;
    let manifest =
        LoadedManifest::read(&*storage, instance).map_err(OpenError::during("read", dir.join(MANIFEST)))?;
    survey.complete_damaged_headers(&manifest);
    let mut tail = match survey.found.last() {
        Some(newest) => SegmentTail::find(&*storage, newest, u64::MAX)
            .map_err(OpenError::during("read", dir.join(&newest.name)))?,
        None => SegmentTail::default(),
    };

    let recycled = survey.found.last().is_some_and(|newest| newest.recycled);
    let mut recovery = Recovery {
        torn_bytes: if recycled { 0 } else { tail.torn_bytes },
        quarantined: survey.unreadable.clone(),
        ..Recovery::default()
    };
    let missing = missing::find(&*storage, &dir, &manifest, &survey, instance);
    recovery.lost = missing.iter().map(|segment| segment.number).collect();
    let lost_at_end = missing::find_at_end(&*storage, &manifest, &survey, &mut tail);
    let counters = Counters {
        lost_records: missing::report(&dir, &missing) + lost_at_end,
        lost_segments: missing.len() as u64,
        ..Counters::default()
    };
    let newest_number = manifest.live.last_key_value().map_or(0, |(&number, _)| number);
    survey.next_number = survey.next_number.max(newest_number + 1);
    // The lsns of missing records are not assigned again.
    let missing_end = manifest.live.values().map(LiveSegment::max_end_lsn);
    let newest_found = survey.found.last().map_or(0, |newest| newest.number);
    let missing_at_end = newest_number > newest_found || lost_at_end > 0;
    let segments = load_segments(&*storage, &dir, &survey, &manifest, &tail)?;
    // The bytes that are cut off or unreadable may have been durable records: their lsns are not
    // assigned again.
    let unknown_bytes = tail.torn_bytes + survey.unreadable_bytes_at_end;
    let continues_lsn = tail.next_lsn.max(1);
    let mut next_lsn = if unknown_bytes > 0 {
        continues_lsn + unknown_bytes / RECORD_HEADER_BYTES + 1
    } else {
        continues_lsn
    };
    if missing_at_end {
        next_lsn = next_lsn.max(missing_end.max().unwrap_or(0));
    }
    recovery.segments = segments.len();
    recovery.bytes = segments.bytes();
    recovery.unreleased_records = segments.unreleased();
    recovery.first_unreleased_lsn = segments.iter().find_map(Segment::first_unreleased);
    recovery.first_lsn = segments
        .iter()
        .next()
        .map_or(next_lsn, |segment| segment.first_lsn);
    recovery.next_lsn = next_lsn;

    let segment_bytes = options
        .segment_bytes
        .min(options.limit_bytes / 8)
        .max(MIN_SEGMENT_BYTES);
    let shared = Arc::new(Shared {
        preallocator: Preallocator::new(Arc::clone(&storage), segment_bytes, survey.next_number),
        storage,
        dir,
        segment_bytes,
        limit_bytes: options.limit_bytes,
        instance,
        now_us,
        state: Mutex::new(State {
            segments,
            counters,
            ..State::default()
        }),
        manifest: Mutex::default(),
        queue: AppendQueue::default(),
        signals: MaintenanceSignals::new(),
    });
    let mut last_us = survey.after_us.max(tail.last_us);
    if missing_at_end || survey.unreadable_bytes_at_end > 0 || (unknown_bytes > 0 && tail.damage.is_some()) {
        last_us = last_us.max(now_us()) + UNREADABLE_TIME_GAP_US;
    }
    recovery.last_received_us = last_us;
    let mut writer = Writer::new(Arc::clone(&shared), sink, &(continues_lsn..next_lsn), last_us);

    for found in survey.found.iter().filter(|found| found.header_damaged) {
        shared.report_damage(found.number, &(0..SEGMENT_HEADER_BYTES), "its header is damaged");
        recovery.quarantined.push(found.number);
    }
    if let Some(newest) = survey.found.last() {
        if let Some(damage) = &tail.damage {
            shared.report_damage(newest.number, damage, "a checksum does not match");
            if !newest.header_damaged {
                recovery.quarantined.push(newest.number);
            }
        }
        finish_newest(&shared, &mut writer, newest, &tail)?;
    }
    survey.remove_leftovers(&*shared.storage, &manifest);
    let live = missing::live_segments(&lock(&shared.state).segments, &survey, segment_bytes);
    let is_sound = manifest.exists && manifest.unreadable_entries == 0;
    let mut manifest = Manifest::new(instance, manifest);
    if let Err(error) = manifest.update(&*shared.storage, is_sound, &live) {
        // The maintenance thread tries again before it removes a segment.
        warn!(%error, "cannot write {} yet", shared.dir.join(MANIFEST).display());
    }
    *lock(&shared.manifest) = manifest;
    recovery.took = started.elapsed();
    info!(
        segments = recovery.segments,
        bytes = recovery.bytes,
        unreleased = recovery.unreleased_records,
        torn_bytes = recovery.torn_bytes,
        quarantined = recovery.quarantined.len(),
        lost = recovery.lost.len(),
        took_ms = recovery.took.as_millis(),
        "journal {} is open",
        shared.dir.display()
    );
    Ok((shared, writer, recovery))
}

/// The table of segments, with the releases from their logs.
fn load_segments(
    storage: &dyn Storage,
    dir: &Path,
    survey: &Survey,
    manifest: &LoadedManifest,
    newest: &SegmentTail,
) -> Result<Segments, OpenError> {
    let mut segments = Segments::default();
    for (at, found) in survey.found.iter().enumerate() {
        // An unreadable log is as good as a lost one.
        let logged = release_log::read(storage, found.number, found.instance).unwrap_or_default();
        // Known even if its successor is gone. A failed commit may have left valid records behind it,
        // whose lsns were assigned again. Without some entry the end may be that of a later segment.
        let live = manifest.live.get(&found.number);
        let live = live.filter(|_| manifest.unreadable_entries == 0);
        let logged_end = live.and_then(|live| live.end_lsn);
        let logged_end = logged_end.or(logged.next_lsn);
        let (next_lsn, end) = match survey.found.get(at + 1) {
            None => (newest.next_lsn, newest.end),
            Some(next) if next.number == found.number + 1 => (next.continues_lsn, found.size),
            // Its successor is missing.
            Some(next) => match logged_end {
                Some(next_lsn) => (next_lsn, found.size),
                None => {
                    let tail = SegmentTail::find(storage, found, next.continues_lsn);
                    let tail = tail.map_err(OpenError::during("read", dir.join(&found.name)))?;
                    (tail.next_lsn, tail.end)
                }
            },
        };
        let lsns = found.first_lsn..next_lsn.max(found.first_lsn);
        let mut segment = Segment::new(found.number, found.instance, lsns.clone(), end, true);
        for range in logged.released {
            for lsn in range.start.max(lsns.start)..range.end.min(lsns.end) {
                segment.release(lsn);
            }
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Makes the newest segment final.
///
/// Its records may be in the page cache only, if a killed process had not synced them; they are
/// going to be processed, so they are synced. A new segment is begun, whose header keeps their lsns
/// from being assigned again. Then the torn tail is cut off.
fn finish_newest(
    shared: &Shared,
    writer: &mut Writer,
    newest: &FoundSegment,
    tail: &SegmentTail,
) -> Result<(), OpenError> {
    let path = shared.dir.join(&newest.name);
    let file = shared.storage.open(&newest.name, true);
    let mut file = file.map_err(OpenError::during("open", &path))?;
    file.sync_data().map_err(OpenError::during("sync", &path))?;
    if tail.next_lsn == newest.first_lsn && tail.torn_bytes == 0 {
        return Ok(());
    }
    if let Err(error) = writer.begin_at_open() {
        // The disk is probably full: the writer begins the segment when there is space. The torn
        // tail is not read.
        warn!(%error, "cannot begin a new journal segment yet");
        return Ok(());
    }
    if tail.torn_bytes > 0 && tail.damage.is_none() {
        match file.set_len(tail.end).and_then(|()| file.sync_all()) {
            Ok(()) if newest.recycled => info!(
                file = newest.name,
                bytes = tail.torn_bytes,
                "cut the bytes after the last record off the newest journal segment: remains of a previous segment, or an \
                 unconfirmed commit"
            ),
            Ok(()) => info!(
                file = newest.name,
                bytes = tail.torn_bytes,
                "cut an unconfirmed commit off the newest journal segment"
            ),
            Err(error) => {
                warn!(file = newest.name, %error, "cannot cut off an unconfirmed commit; it is not read");
            }
        }
    }
    Ok(())
}
