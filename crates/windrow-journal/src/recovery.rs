//! Finds out what an earlier life left in the folder.
//!
//! Older segments are known by their headers and notes alone; only the newest is read, to find where it ends (and
//! one whose successor is gone, if its notes do not tell). What stands there after the last whole record is one of two things. A *torn tail*: the last commit, cut short by a crash.
//! It was never confirmed and is cut off. Or *damage*: bytes that were durable once; then a later record says so
//! (see [`FIRST_OF_COMMIT`](super::format::FIRST_OF_COMMIT)), what is readable is kept, and the file goes into the
//! quarantine as it is.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::ahead::Ahead;
use super::error::OpenError;
use super::format::{
    BadSegmentHeader, FIRST_OF_COMMIT, FileKind, RECORD_HEADER_BYTES, SEGMENT_HEADER, SEGMENT_HEADER_BYTES,
    Salt, SegmentHeader, file_kind, notes_name, segment_name, spare_name,
};
use super::keeper::Signals;
use super::lock::about;
use super::queue::Queue;
use super::scan::{Scan, Step};
use super::segments::{Segment, Segments};
use super::shared::{Shared, State};
use super::storage::{QUARANTINE, Storage, read_full_at};
use super::writer::Writer;
use super::{Committed, Options};
use super::{instance, notes};

/// Segments smaller than this are all headers.
const MIN_SEGMENT: u64 = 4096;

/// Received times go on so much later than now when the newest ones cannot be read, should the clock have been set
/// back: a second.
const LOST_TIME_US: i64 = 1_000_000;

/// What [`Journal::open`](super::Journal::open) found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Segment files with records.
    pub segments: usize,
    /// Bytes in them.
    pub bytes: u64,
    /// The oldest record that is there has at least this lsn. From here on everything can be read back, with the
    /// records marked that were released.
    pub first_lsn: u64,
    /// The oldest record that is not known to be released.
    pub first_unreleased_lsn: Option<u64>,
    /// Records that are not known to be released.
    pub unreleased_records: u64,
    /// All records that are there have smaller lsns.
    pub next_lsn: u64,
    /// Bytes of an unconfirmed commit that were cut off at the end of the newest segment. 0 if its file had another
    /// segment before: what that left behind cannot be told from an unconfirmed commit.
    pub torn_bytes: u64,
    /// Segments in which damage was found so far, by number; their files are in `quarantine/`. More may come to
    /// light as older segments are read.
    pub quarantined: Vec<u64>,
    /// How long it took.
    pub took: Duration,
}

/// Reads the folder; the parts of a journal that is ready to run.
pub(super) fn recover(
    storage: Arc<dyn Storage>,
    options: Options,
    sink: Box<dyn Committed>,
    now_us: fn() -> i64,
) -> Result<(Arc<Shared>, Writer, Recovery), OpenError> {
    let started = Instant::now();
    let dir = options.dir;
    let mut survey = Survey::take(&*storage, &dir)?;
    let sound = survey.found.iter().rev().find(|found| !found.headless);
    let instance = instance::settle(&*storage, &dir, sound.map(|found| found.instance))?;
    survey.examine_headless(&*storage, &dir, instance)?;
    let newest = match survey.found.last() {
        Some(newest) => {
            End::find(&*storage, newest, u64::MAX).map_err(about("read", dir.join(&newest.name)))?
        }
        None => End::default(),
    };

    let reused = survey.found.last().is_some_and(|newest| newest.reused);
    let mut recovery = Recovery {
        torn_bytes: if reused { 0 } else { newest.torn },
        quarantined: survey.lost.clone(),
        ..Recovery::default()
    };
    let mut segments = Segments::default();
    for (at, found) in survey.found.iter().enumerate() {
        // Notes that cannot be read are notes that were lost.
        let noted = notes::read(&*storage, found.number, found.instance).unwrap_or_default();
        let (next_lsn, end) = match survey.found.get(at + 1) {
            None => (newest.next_lsn, newest.end),
            Some(next) if next.number == found.number + 1 => (next.continues_lsn, found.size),
            // The one after it is gone.
            Some(next) => match noted.next_lsn {
                Some(next_lsn) => (next_lsn, found.size),
                None => {
                    let end = End::find(&*storage, found, next.continues_lsn);
                    let end = end.map_err(about("read", dir.join(&found.name)))?;
                    (end.next_lsn, end.end)
                }
            },
        };
        let lsns = found.first_lsn..next_lsn.max(found.first_lsn);
        let mut segment = Segment::new(found.number, found.instance, lsns.clone(), end, true);
        for range in noted.released {
            for lsn in range.start.max(lsns.start)..range.end.min(lsns.end) {
                segment.release(lsn);
            }
        }
        if recovery.first_unreleased_lsn.is_none() {
            recovery.first_unreleased_lsn = segment.first_unreleased();
        }
        segments.push(segment);
    }
    // What was cut off may have been durable once (nobody can tell): its lsns are not given again.
    let unknown = newest.torn + survey.lost_at_end;
    let continues = newest.next_lsn.max(1);
    let next_lsn = if unknown > 0 {
        continues + unknown / RECORD_HEADER_BYTES + 1
    } else {
        continues
    };
    recovery.segments = segments.len();
    recovery.bytes = segments.bytes();
    recovery.unreleased_records = segments.unreleased();
    recovery.first_lsn = segments
        .iter()
        .next()
        .map_or(next_lsn, |segment| segment.first_lsn);
    recovery.next_lsn = next_lsn;

    let segment_bytes = options
        .segment_bytes
        .min(options.limit_bytes / 8)
        .max(MIN_SEGMENT);
    let shared = Arc::new(Shared {
        storage,
        dir,
        segment_bytes,
        limit_bytes: options.limit_bytes,
        instance,
        now_us,
        state: Mutex::new(State {
            segments,
            ..State::default()
        }),
        queue: Mutex::new(Queue::default()),
        queue_changed: std::sync::Condvar::new(),
        signals: Mutex::new(Signals {
            work: true,
            ..Signals::default()
        }),
        signals_changed: std::sync::Condvar::new(),
        ahead: Mutex::new(Ahead {
            next_number: survey.next_number,
            ready: None,
            spares: Vec::new(),
        }),
    });
    let mut last_us = survey.after_us.max(newest.last_us);
    if survey.lost_at_end > 0 || (unknown > 0 && newest.damage.is_some()) {
        // Nor can anybody tell how late the records were that cannot be read.
        last_us = last_us.max(now_us()) + LOST_TIME_US;
    }
    let mut writer = Writer::new(Arc::clone(&shared), sink, &(continues..next_lsn), last_us);

    let headless = survey.found.iter().filter(|found| found.headless);
    for number in headless.map(|found| found.number) {
        shared.found_damage(number, &(0..SEGMENT_HEADER_BYTES), "its header is damaged");
        recovery.quarantined.push(number);
    }
    if let Some(found) = survey.found.last() {
        if let Some(damage) = &newest.damage {
            shared.found_damage(found.number, damage, "the checksum is wrong");
            if !found.headless {
                recovery.quarantined.push(found.number);
            }
        }
        settle_newest(&shared, &mut writer, found, &newest)?;
    }
    survey.remove_leftovers(&*shared.storage);
    recovery.took = started.elapsed();
    info!(
        segments = recovery.segments,
        bytes = recovery.bytes,
        unreleased = recovery.unreleased_records,
        torn_bytes = recovery.torn_bytes,
        quarantined = recovery.quarantined.len(),
        took_ms = recovery.took.as_millis(),
        "journal {} is open",
        shared.dir.display()
    );
    Ok((shared, writer, recovery))
}

/// Makes the newest segment final. What was read of it may be in memory only, written and not synced by a process
/// that died: it is synced, for it is going to be processed. A new segment is begun, whose header keeps the lsns
/// from being given again, whatever becomes of this one. Then the torn tail can be cut off.
fn settle_newest(shared: &Shared, writer: &mut Writer, found: &Found, newest: &End) -> Result<(), OpenError> {
    let path = shared.dir.join(&found.name);
    let file = shared
        .storage
        .open(&found.name, true)
        .map_err(about("open", &path));
    let mut file = file?;
    file.sync_data().map_err(about("sync", &path))?;
    if newest.next_lsn == found.first_lsn && newest.torn == 0 {
        return Ok(());
    }
    if let Err(error) = writer.begin_at_open() {
        // Full, most likely: it is begun as soon as there is space. A torn end is never read.
        warn!(%error, "cannot begin a new journal segment yet");
        return Ok(());
    }
    if newest.torn > 0 && newest.damage.is_none() {
        match file.set_len(newest.end).and_then(|()| file.sync_all()) {
            Ok(()) if found.reused => info!(
                file = found.name,
                bytes = newest.torn,
                "cut what is no record off the newest journal segment: left by an earlier segment, or an unconfirmed end"
            ),
            Ok(()) => info!(
                file = found.name,
                bytes = newest.torn,
                "cut an unconfirmed end off the newest journal segment"
            ),
            Err(error) => {
                warn!(file = found.name, %error, "cannot cut an unconfirmed end off; it is not read");
            }
        }
    }
    Ok(())
}

/// A segment file that can be used.
#[derive(Debug)]
struct Found {
    number: u64,
    name: String,
    size: u64,
    instance: u64,
    first_lsn: u64,
    continues_lsn: u64,
    /// Its header is damaged; the rest was found by looking for records.
    headless: bool,
    /// The file had another segment before.
    reused: bool,
}

/// What the folder holds, by names and headers.
#[derive(Debug, Default)]
struct Survey {
    /// Oldest first.
    found: Vec<Found>,
    /// Files without a sound header: number and size.
    without_header: Vec<(u64, u64)>,
    notes: Vec<u64>,
    /// Files of segments that were done with.
    spares: Vec<u64>,
    after_us: i64,
    next_number: u64,
    /// Whole files in which nothing is readable, moved to the quarantine.
    lost: Vec<u64>,
    /// Bytes of such files behind all others.
    lost_at_end: u64,
}

impl Survey {
    fn take(storage: &dyn Storage, dir: &Path) -> Result<Self, OpenError> {
        let files = storage.list("").map_err(about("list", dir))?;
        // There is none as long as nothing was damaged.
        let set_aside = storage.list(QUARANTINE).unwrap_or_default();
        let mut out = Self::default();
        let mut sizes = std::collections::BTreeMap::new();
        for (name, size) in &files {
            match file_kind(name) {
                FileKind::Segment(number) => drop(sizes.insert(number, *size)),
                FileKind::Notes(number) => out.notes.push(number),
                FileKind::Spare(number) => out.spares.push(number),
                FileKind::Other => {}
            }
        }
        let numbers = files
            .iter()
            .chain(&set_aside)
            .filter_map(|(name, _)| match file_kind(name) {
                FileKind::Segment(number) | FileKind::Notes(number) | FileKind::Spare(number) => Some(number),
                FileKind::Other => None,
            });
        out.next_number = numbers.max().unwrap_or(0) + 1;
        for (number, size) in sizes {
            let name = segment_name(number);
            let path = dir.join(&name);
            let header = read_header(storage, &name).map_err(about("read", &path))?;
            match header {
                Ok(header) if header.number == number => {
                    out.after_us = out.after_us.max(header.after_us);
                    out.found.push(Found {
                        number,
                        name,
                        size,
                        instance: header.instance,
                        first_lsn: header.first_lsn,
                        continues_lsn: header.continues_lsn,
                        headless: false,
                        reused: header.reused,
                    });
                }
                Err(BadSegmentHeader::Newer { version }) => {
                    return Err(OpenError::NewerFormat {
                        path,
                        found: version,
                        supported: super::format::VERSION,
                    });
                }
                Ok(_) | Err(BadSegmentHeader::Blank | BadSegmentHeader::Damaged) => {
                    out.without_header.push((number, size));
                }
            }
        }
        Ok(out)
    }

    /// Files without a sound header: prepared and never begun (removed), damaged but with records (used), or
    /// nothing but damage (quarantined).
    fn examine_headless(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
        instance: u64,
    ) -> Result<(), OpenError> {
        for (number, size) in std::mem::take(&mut self.without_header) {
            let name = segment_name(number);
            let file = storage
                .open(&name, false)
                .map_err(about("open", dir.join(&name)))?;
            let from = SEGMENT_HEADER_BYTES.min(size);
            let mut scan = Scan::new(file, Salt::new(number, instance), from, size);
            let mut damaged = 0;
            let first = loop {
                match scan
                    .step(&(0..u64::MAX), u64::MAX)
                    .map_err(about("read", dir.join(&name)))?
                {
                    Step::Record { header, .. } => break Some(header.lsn),
                    Step::Damage { bytes } => damaged += bytes.end - bytes.start,
                    Step::End => break None,
                }
            };
            match first {
                Some(lsn) => {
                    let found = Found {
                        number,
                        name,
                        size,
                        instance,
                        first_lsn: lsn,
                        continues_lsn: lsn,
                        headless: true,
                        reused: false,
                    };
                    let at = self.found.partition_point(|other| other.number < number);
                    self.found.insert(at, found);
                }
                // The header is synced before the first record is written: there never was one.
                None if damaged == 0 => {
                    storage.remove(&name).map_err(about("remove", dir.join(&name)))?;
                }
                None => {
                    error!(
                        segment = number,
                        bytes = size,
                        "nothing in the journal file {name} can be read; it is moved to {QUARANTINE}"
                    );
                    let moved = storage
                        .create_folder(QUARANTINE)
                        .and_then(|()| storage.rename(&name, &format!("{QUARANTINE}/{name}")));
                    moved.map_err(about("move to the quarantine", dir.join(&name)))?;
                    self.lost.push(number);
                    if self.found.last().is_none_or(|newest| newest.number < number) {
                        self.lost_at_end += size;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes without a segment, and files of segments that were done with.
    fn remove_leftovers(&self, storage: &dyn Storage) {
        for number in &self.spares {
            let _ = storage.remove(&spare_name(*number));
        }
        let segments: BTreeSet<u64> = self.found.iter().map(|found| found.number).collect();
        for number in self.notes.iter().filter(|number| !segments.contains(number)) {
            let _ = storage.remove(&notes_name(*number));
        }
        let _ = storage.remove(instance::TEMPORARY);
    }
}

pub(super) fn read_header(
    storage: &dyn Storage,
    name: &str,
) -> io::Result<Result<SegmentHeader, BadSegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER];
    let file = storage.open(name, false)?;
    let read = read_full_at(&*file, &mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes[..read]))
}

/// Where a segment ends, found by reading it.
#[derive(Debug, Default)]
struct End {
    next_lsn: u64,
    end: u64,
    last_us: i64,
    torn: u64,
    /// Bytes that were durable once and are wrong now.
    damage: Option<Range<u64>>,
}

impl End {
    /// Only records below this lsn count.
    fn find(storage: &dyn Storage, found: &Found, below: u64) -> io::Result<Self> {
        let file = storage.open(&found.name, false)?;
        let salt = Salt::new(found.number, found.instance);
        let mut scan = Scan::new(file, salt, SEGMENT_HEADER_BYTES, found.size);
        let mut out = Self {
            next_lsn: found.first_lsn,
            end: SEGMENT_HEADER_BYTES,
            ..Self::default()
        };
        // Wrong bytes that are a torn tail unless a later commit follows.
        let mut doubtful: Option<Range<u64>> = None;
        let mut expected = found.first_lsn;
        loop {
            let step = match scan.step(&(expected..below), expected) {
                Ok(step) => step,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    // Sectors that cannot be read are damage, and what stands behind them is unknown.
                    let rest = scan.offset()..found.size;
                    out.torn = rest.end - out.end;
                    out.damage = Some(rest);
                    return Ok(out);
                }
                Err(error) => return Err(error),
            };
            match step {
                Step::Record { header, at, .. } => {
                    expected = header.lsn + 1;
                    if let Some(bytes) = &doubtful {
                        if header.flags & FIRST_OF_COMMIT == 0 {
                            continue;
                        }
                        out.damage.get_or_insert_with(|| bytes.clone());
                        doubtful = None;
                    }
                    out.next_lsn = expected;
                    out.end = header.end(at);
                    out.last_us = out.last_us.max(header.received_us);
                }
                Step::Damage { bytes } => {
                    doubtful = Some(doubtful.map_or(bytes.start, |earlier| earlier.start)..bytes.end);
                }
                Step::End => break,
            }
        }
        out.torn = doubtful.map_or(0, |bytes| bytes.end - out.end);
        Ok(out)
    }
}
