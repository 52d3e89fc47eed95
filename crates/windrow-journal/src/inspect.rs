//! Journal inspection: reads a whole folder and reports what is in it, without changing anything.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::OpenError;
use crate::folder_lock::FolderLock;
use crate::format::{
    BadSegmentHeader, FIRST_OF_COMMIT, FileKind, RecordHeader, SEGMENT_HEADER_BYTES, Salt, file_kind,
    segment_name,
};
use crate::instance;
use crate::manifest::LoadedManifest;
use crate::quarantine::QUARANTINE;
use crate::release_log;
use crate::scanner::{ScanStep, SegmentScanner, read_segment_header};
use crate::storage::{DiskStorage, Storage};

/// Content of a journal folder. [`Display`](fmt::Display) prints it as a table.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JournalReport {
    /// The folder.
    pub dir: PathBuf,
    /// The process that has the folder open: `Some` if there is one, with its number if that is
    /// known. Then the newest records may look torn.
    pub in_use: Option<Option<u32>>,
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    /// Numbers of the segments whose file is missing and was not removed by the journal.
    pub missing: Vec<u64>,
    /// Files in the quarantine.
    pub quarantined_files: u64,
    /// Bytes in the quarantine.
    pub quarantined_bytes: u64,
}

/// Content of one segment file.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Segment number.
    pub number: u64,
    /// Size of the file in bytes, preallocated space included.
    pub file_bytes: u64,
    /// Bytes of valid records: headers, payloads and the padding before payloads.
    pub record_bytes: u64,
    /// Valid records.
    pub records: u64,
    /// Valid records that are logged as released.
    pub released: u64,
    /// Lsns of the first and the last valid record.
    pub lsns: Option<(u64, u64)>,
    /// Received times of the first and the last valid record, Unix microseconds.
    pub received_us: Option<(i64, i64)>,
    /// Bytes of an unconfirmed commit at the end of the newest segment. 0 if its file was recycled.
    pub torn_bytes: u64,
    /// Damaged bytes.
    pub damaged_bytes: u64,
    /// Confirmed records that are missing.
    pub missing_records: u64,
    /// Unreadable entries of the release log. They are harmless: their records are processed again.
    pub unreadable_release_entries: u64,
    /// State of the file as a whole, if it is not a usual one.
    pub remark: Option<String>,
}

/// Function that gets the kind and the payload of each record.
pub type RecordVisitor<'a> = &'a mut dyn FnMut(u8, &[u8]);

/// Reads everything in the folder once.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn inspect(dir: &Path) -> Result<JournalReport, OpenError> {
    inspect_with(dir, &mut |_, _| {})
}

/// [`inspect`] with a visitor of all valid records that are not logged as released, in lsn order.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn inspect_with(dir: &Path, visit: RecordVisitor<'_>) -> Result<JournalReport, OpenError> {
    let in_use = FolderLock::holder(dir);
    let storage = DiskStorage::open(dir).map_err(OpenError::during("open", dir))?;
    let mut report = inspect_on(&storage, dir, visit)?;
    report.in_use = in_use;
    Ok(report)
}

pub(crate) fn inspect_on(
    storage: &dyn Storage,
    dir: &Path,
    visit: RecordVisitor<'_>,
) -> Result<JournalReport, OpenError> {
    let mut report = JournalReport {
        dir: dir.to_owned(),
        ..JournalReport::default()
    };
    // Of a journal in use: what is begun or removed meanwhile is not missing.
    let live_before = live_segments(storage);
    let files = storage.list("").map_err(OpenError::during("list", dir))?;
    let live_after = live_segments(storage);
    let mut sizes: Vec<(u64, u64)> = files
        .iter()
        .filter_map(|(name, size)| match file_kind(name) {
            FileKind::Segment(number) => Some((number, *size)),
            FileKind::ReleaseLog(_) | FileKind::Spare(_) | FileKind::Renamed(_) | FileKind::Other => None,
        })
        .collect();
    sizes.sort_unstable();
    let mut headers = Vec::new();
    for &(number, _) in &sizes {
        let name = segment_name(number);
        headers.push(match read_segment_header(storage, &name) {
            // Removed since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BadSegmentHeader::Blank),
            other => other.map_err(OpenError::during("read", dir.join(&name)))?,
        });
    }
    let is_found = |number: &u64| {
        let mut found = sizes.iter().zip(&headers);
        found.any(|((named, _), header)| header.as_ref().map_or(named, |header| &header.number) == number)
    };
    let live = live_before
        .into_iter()
        .filter(|number| live_after.contains(number));
    report.missing = live.filter(|number| !is_found(number)).collect();
    let newest_header = headers.iter().rev().flatten().next();
    let newest_instance = newest_header.map(|header| header.instance);
    for (at, &(number, size)) in sizes.iter().enumerate() {
        let next = headers.get(at + 1).and_then(|next| next.as_ref().ok());
        let ends_at = next
            .filter(|next| next.number == number + 1)
            .map(|next| next.continues_lsn);
        let header = headers.get(at).and_then(|header| header.as_ref().ok());
        let mut segment = SegmentReport {
            number,
            file_bytes: size,
            ..SegmentReport::default()
        };
        match headers.get(at) {
            Some(Err(BadSegmentHeader::Newer { version })) => {
                segment.remark = Some(format!("written by a newer Windrow (format {version})"));
                report.segments.push(segment);
                continue;
            }
            Some(Err(BadSegmentHeader::Blank)) => {
                segment.remark = Some("preallocated, not used yet".to_owned());
            }
            Some(Err(BadSegmentHeader::Damaged)) => {
                segment.remark = Some("its header is damaged".to_owned());
                segment.damaged_bytes = SEGMENT_HEADER_BYTES.min(size);
            }
            Some(Ok(_)) | None => {}
        }
        if let Some(header) = header.filter(|header| header.number != number) {
            segment.remark = Some(format!("holds segment {}; a start renames it", header.number));
        }
        let instance = header.map(|header| header.instance).or(newest_instance);
        let read = SegmentInspector {
            storage,
            name: segment_name(number),
            number: header.map_or(number, |header| header.number),
            size,
            instance: instance.unwrap_or(0),
            ends_at,
        }
        .inspect(&mut segment, header.map(|header| header.first_lsn), visit);
        if header.is_some_and(|header| header.recycled) {
            // Remains of a previous segment look like a torn tail.
            segment.torn_bytes = 0;
        }
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                segment.remark = Some("removed meanwhile".to_owned());
            }
            other => other.map_err(OpenError::during("read", dir.join(segment_name(number))))?,
        }
        report.segments.push(segment);
    }
    for (_, size) in storage.list(QUARANTINE).unwrap_or_default() {
        report.quarantined_files += 1;
        report.quarantined_bytes += size;
    }
    Ok(report)
}

struct SegmentInspector<'a> {
    storage: &'a dyn Storage,
    name: String,
    number: u64,
    size: u64,
    instance: u64,
    /// The lsn that the next segment continues at, if that segment exists.
    ends_at: Option<u64>,
}

impl SegmentInspector<'_> {
    fn inspect(
        &self,
        out: &mut SegmentReport,
        first_lsn: Option<u64>,
        visit: RecordVisitor<'_>,
    ) -> io::Result<()> {
        let file = self.storage.open(&self.name, false)?;
        let salt = Salt::new(self.number, self.instance);
        let mut scanner = SegmentScanner::new(file, salt, SEGMENT_HEADER_BYTES.min(self.size), self.size);
        let logged = release_log::read(self.storage, self.number, self.instance)?;
        let released = release_log::merge_ranges(logged.released);
        out.unreadable_release_entries = logged.unreadable_entries;
        let ends_at = self.ends_at.or(logged.next_lsn);
        let end = ends_at.unwrap_or(u64::MAX);
        let mut expected = first_lsn.unwrap_or(0);
        // In the newest segment invalid bytes are a torn tail unless a later commit follows.
        let mut doubtful = 0;
        let mut doubtful_missing = 0;
        let mut uncertain = Vec::new();
        let mut count = |out: &mut SegmentReport, (header, at, payload): (RecordHeader, u64, Bytes)| {
            let RecordHeader {
                lsn,
                received_us,
                kind,
                ..
            } = header;
            out.records += 1;
            out.record_bytes += header.end(at) - at;
            if contains(&released, lsn) {
                out.released += 1;
            } else {
                visit(kind, &payload);
            }
            out.lsns = Some((out.lsns.map_or(lsn, |(first, _)| first), lsn));
            out.received_us = Some((
                out.received_us.map_or(received_us, |(first, _)| first),
                received_us,
            ));
        };
        while expected < end {
            match scanner.step(&(expected..end), 0)? {
                ScanStep::Record { header, payload, at } => {
                    if first_lsn.is_some() || out.records > 0 {
                        doubtful_missing += header.lsn - expected;
                    }
                    expected = header.lsn + 1;
                    if doubtful > 0 && ends_at.is_none() && header.flags & FIRST_OF_COMMIT == 0 {
                        uncertain.push((header, at, payload));
                        continue;
                    }
                    out.damaged_bytes += std::mem::take(&mut doubtful);
                    out.missing_records += std::mem::take(&mut doubtful_missing);
                    uncertain.drain(..).for_each(|record| count(out, record));
                    count(out, (header, at, payload));
                }
                ScanStep::Damage { bytes } => doubtful += bytes.end - bytes.start,
                ScanStep::End => {
                    out.missing_records += ends_at.map_or(0, |end| end - expected);
                    break;
                }
            }
        }
        if ends_at.is_some() {
            out.damaged_bytes += std::mem::take(&mut doubtful);
        }
        let uncertain = uncertain.iter().map(|(header, at, _)| header.end(*at) - at);
        out.torn_bytes = doubtful + uncertain.sum::<u64>();
        Ok(())
    }
}

/// The segments that the manifest names; none if it cannot be used.
fn live_segments(storage: &dyn Storage) -> Vec<u64> {
    let instance = instance::read(storage).ok().flatten();
    let manifest = instance.and_then(|instance| LoadedManifest::read(storage, instance).ok());
    let sound = manifest.filter(|manifest| manifest.unreadable_entries == 0);
    sound.map_or_else(Vec::new, |manifest| manifest.live.into_keys().collect())
}

fn contains(ranges: &[Range<u64>], lsn: u64) -> bool {
    let after = ranges.partition_point(|range| range.start <= lsn);
    after
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|range| range.contains(&lsn))
}

impl JournalReport {
    fn total(&self, number: impl Fn(&SegmentReport) -> u64) -> u64 {
        self.segments.iter().map(number).sum()
    }

    /// Valid records in all segments.
    pub fn records(&self) -> u64 {
        self.total(|segment| segment.records)
    }

    /// Valid records that are not logged as released: those that a start would process.
    pub fn unreleased(&self) -> u64 {
        self.total(|segment| segment.records - segment.released)
    }

    /// True if there is damage; a torn tail is none.
    pub fn is_damaged(&self) -> bool {
        !self.missing.is_empty() || self.total(|segment| segment.damaged_bytes + segment.missing_records) > 0
    }
}

impl fmt::Display for JournalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "journal {}", self.dir.display())?;
        match self.in_use {
            Some(Some(pid)) => writeln!(f, "in use by process {pid}: the newest records may look torn")?,
            Some(None) => writeln!(f, "in use by a process: the newest records may look torn")?,
            None => writeln!(f, "not in use")?,
        }
        writeln!(
            f,
            "{:>20}  {:>9}  {:>9}  {:>10}  {:>10}  {:<27}  first received",
            "segment", "records", "released", "bytes", "file", "lsns"
        )?;
        for segment in &self.segments {
            let lsns = segment
                .lsns
                .map_or_else(String::new, |(first, last)| format!("{first}..={last}"));
            let time = segment
                .received_us
                .map_or_else(String::new, |(first, _)| unix_seconds(first));
            let SegmentReport {
                number,
                records,
                released,
                record_bytes,
                file_bytes,
                ..
            } = segment;
            writeln!(
                f,
                "{number:>20}  {records:>9}  {released:>9}  {:>10}  {:>10}  {lsns:<27}  {time}",
                ByteSize(*record_bytes),
                ByteSize(*file_bytes),
            )?;
            let facts = [
                (segment.torn_bytes, "bytes of an unconfirmed commit"),
                (segment.damaged_bytes, "DAMAGED bytes"),
                (segment.missing_records, "confirmed records MISSING"),
                (
                    segment.unreadable_release_entries,
                    "unreadable release log entries (harmless)",
                ),
            ];
            for (number, what) in facts.into_iter().filter(|(number, _)| *number > 0) {
                writeln!(f, "{:>20}  {number} {what}", "")?;
            }
            if let Some(remark) = &segment.remark {
                writeln!(f, "{:>20}  {remark}", "")?;
            }
        }
        for number in &self.missing {
            writeln!(f, "{number:>20}  MISSING: the file was not removed by Windrow")?;
        }
        let total = self.total(|segment| segment.record_bytes);
        writeln!(
            f,
            "{} segments, {} records ({} not released), {}",
            self.segments.len(),
            self.records(),
            self.unreleased(),
            ByteSize(total)
        )?;
        if self.quarantined_files > 0 {
            let (files, bytes) = (self.quarantined_files, ByteSize(self.quarantined_bytes));
            writeln!(
                f,
                "{files} damaged files ({bytes}) in {QUARANTINE}; remove them when you do not need them"
            )?;
        }
        Ok(())
    }
}

/// A size in B, KiB or MiB.
struct ByteSize(u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes @ 0..1024 => format!("{bytes} B"),
            bytes @ 1024..1_048_576 => format!("{}.{} KiB", bytes >> 10, (bytes % 1024) * 10 / 1024),
            bytes => format!("{}.{} MiB", bytes >> 20, (bytes % (1 << 20)) * 10 / (1 << 20)),
        };
        f.pad(&text)
    }
}

/// Unix time in seconds, with milliseconds.
fn unix_seconds(us: i64) -> String {
    format!(
        "{}.{:03}",
        us.div_euclid(1_000_000),
        us.rem_euclid(1_000_000) / 1000
    )
}
