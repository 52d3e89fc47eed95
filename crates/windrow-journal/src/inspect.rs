//! Reads a whole journal folder and reports, without changing anything: for `windrow journal inspect DIR`.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::OpenError;
use super::format::{
    BadSegmentHeader, FIRST_OF_COMMIT, FileKind, RecordHeader, SEGMENT_HEADER_BYTES, Salt, file_kind,
    segment_name,
};
use super::lock::{Lock, about};
use super::notes;
use super::recovery::read_header;
use super::scan::{Scan, Step};
use super::storage::{Disk, QUARANTINE, Storage};

/// What is in a journal folder.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// The folder.
    pub dir: PathBuf,
    /// A process has the folder open (its number, if known): the newest records may look torn.
    pub in_use: Option<Option<u32>>,
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    /// Files in the quarantine, and their bytes.
    pub quarantined_files: u64,
    /// Bytes in the quarantine.
    pub quarantined_bytes: u64,
}

/// One segment file.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Its number.
    pub number: u64,
    /// Bytes of the file, with space allocated ahead.
    pub file_bytes: u64,
    /// Bytes of sound records, with their headers and what fills blocks up before payloads.
    pub record_bytes: u64,
    /// Sound records.
    pub records: u64,
    /// Of these, noted as released.
    pub released: u64,
    /// The lsns of the first and the last sound record.
    pub lsns: Option<(u64, u64)>,
    /// The received times of the first and the last sound record, Unix microseconds.
    pub received_us: Option<(i64, i64)>,
    /// Bytes of an unconfirmed commit at the end of the newest segment; 0 if its file had another segment before.
    pub torn_bytes: u64,
    /// Bytes that are wrong.
    pub damaged_bytes: u64,
    /// Confirmed records that are not there.
    pub missing_records: u64,
    /// Entries of the notes that could not be read (harmless).
    pub bad_notes: u64,
    /// What is to be said about the file as a whole.
    pub remark: Option<String>,
}

/// Gets the kind and the payload of records.
pub type Each<'a> = &'a mut dyn FnMut(u8, &[u8]);

/// Reads everything in the folder once.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn inspect(dir: &Path) -> Result<Report, OpenError> {
    inspect_with(dir, &mut |_, _| {})
}

/// As [`inspect`]; `each` gets the kind and the payload of every sound record that is not noted as released, in order.
///
/// # Errors
/// As there.
pub fn inspect_with(dir: &Path, each: Each<'_>) -> Result<Report, OpenError> {
    let in_use = Lock::holder(dir);
    let storage = Disk::open(dir).map_err(about("open", dir))?;
    let mut report = inspect_on(&storage, dir, each)?;
    report.in_use = in_use;
    Ok(report)
}

pub(super) fn inspect_on(storage: &dyn Storage, dir: &Path, each: Each<'_>) -> Result<Report, OpenError> {
    let mut report = Report {
        dir: dir.to_owned(),
        ..Report::default()
    };
    let files = storage.list("").map_err(about("list", dir))?;
    let mut sizes: Vec<(u64, u64)> = files
        .iter()
        .filter_map(|(name, size)| match file_kind(name) {
            FileKind::Segment(number) => Some((number, *size)),
            FileKind::Notes(_) | FileKind::Spare(_) | FileKind::Other => None,
        })
        .collect();
    sizes.sort_unstable();
    let mut headers = Vec::new();
    for &(number, _) in &sizes {
        let name = segment_name(number);
        headers.push(match read_header(storage, &name) {
            // Removed since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BadSegmentHeader::Blank),
            other => other.map_err(about("read", dir.join(&name)))?,
        });
    }
    let instance = headers
        .iter()
        .rev()
        .flatten()
        .next()
        .map(|header| header.instance);
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
                segment.remark = Some("allocated ahead, not begun".to_owned());
            }
            Some(Err(BadSegmentHeader::Damaged)) => {
                segment.remark = Some("its header is damaged".to_owned());
                segment.damaged_bytes = SEGMENT_HEADER_BYTES.min(size);
            }
            Some(Ok(_)) | None => {}
        }
        let instance = header.map(|header| header.instance).or(instance).unwrap_or(0);
        let name = segment_name(number);
        let read = Walk {
            storage,
            number,
            size,
            instance,
            ends_at,
        }
        .fill(&mut segment, header.map(|header| header.first_lsn), each);
        if header.is_some_and(|header| header.reused) {
            // It cannot be told from what the segment before left behind.
            segment.torn_bytes = 0;
        }
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                segment.remark = Some("removed meanwhile".to_owned());
            }
            other => other.map_err(about("read", dir.join(name)))?,
        }
        report.segments.push(segment);
    }
    for (_, size) in storage.list(QUARANTINE).unwrap_or_default() {
        report.quarantined_files += 1;
        report.quarantined_bytes += size;
    }
    Ok(report)
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    number: u64,
    size: u64,
    instance: u64,
    /// The next segment continues here, if that one is there.
    ends_at: Option<u64>,
}

impl Walk<'_> {
    fn fill(&self, out: &mut SegmentReport, first_lsn: Option<u64>, each: Each<'_>) -> io::Result<()> {
        let file = self.storage.open(&segment_name(self.number), false)?;
        let salt = Salt::new(self.number, self.instance);
        let mut scan = Scan::new(file, salt, SEGMENT_HEADER_BYTES.min(self.size), self.size);
        let noted = notes::read(self.storage, self.number, self.instance)?;
        let ranges = joined(noted.released);
        out.bad_notes = noted.bad;
        let ends_at = self.ends_at.or(noted.next_lsn);
        let end = ends_at.unwrap_or(u64::MAX);
        let mut expected = first_lsn.unwrap_or(0);
        // Of the newest segment: wrong bytes that are a torn tail unless a later commit follows.
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
            if holds(&ranges, lsn) {
                out.released += 1;
            } else {
                each(kind, &payload);
            }
            out.lsns = Some((out.lsns.map_or(lsn, |(first, _)| first), lsn));
            out.received_us = Some((
                out.received_us.map_or(received_us, |(first, _)| first),
                received_us,
            ));
        };
        while expected < end {
            match scan.step(&(expected..end), 0)? {
                Step::Record { header, payload, at } => {
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
                Step::Damage { bytes } => doubtful += bytes.end - bytes.start,
                Step::End => {
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

/// Ranges in order and without overlap.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

fn holds(ranges: &[Range<u64>], lsn: u64) -> bool {
    let after = ranges.partition_point(|range| range.start <= lsn);
    after
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|range| range.contains(&lsn))
}

impl Report {
    fn total(&self, number: impl Fn(&SegmentReport) -> u64) -> u64 {
        self.segments.iter().map(number).sum()
    }

    /// Sound records in all segments.
    pub fn records(&self) -> u64 {
        self.total(|segment| segment.records)
    }

    /// Sound records that are not noted as released: what a start would process.
    pub fn unreleased(&self) -> u64 {
        self.total(|segment| segment.records - segment.released)
    }

    /// True if anything is wrong that a torn end does not explain.
    pub fn is_damaged(&self) -> bool {
        self.total(|segment| segment.damaged_bytes + segment.missing_records) > 0
    }
}

impl fmt::Display for Report {
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
                .map_or_else(String::new, |(first, _)| seconds(first));
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
                Size(*record_bytes),
                Size(*file_bytes),
            )?;
            let facts = [
                (segment.torn_bytes, "bytes of an unconfirmed end"),
                (segment.damaged_bytes, "DAMAGED bytes"),
                (segment.missing_records, "confirmed records MISSING"),
                (segment.bad_notes, "unreadable notes (harmless)"),
            ];
            for (number, what) in facts.into_iter().filter(|(number, _)| *number > 0) {
                writeln!(f, "{:>20}  {number} {what}", "")?;
            }
            if let Some(remark) = &segment.remark {
                writeln!(f, "{:>20}  {remark}", "")?;
            }
        }
        let total = self.total(|segment| segment.record_bytes);
        writeln!(
            f,
            "{} segments, {} records ({} not released), {}",
            self.segments.len(),
            self.records(),
            self.unreleased(),
            Size(total)
        )?;
        if self.quarantined_files > 0 {
            let (files, bytes) = (self.quarantined_files, Size(self.quarantined_bytes));
            writeln!(
                f,
                "{files} damaged files ({bytes}) in {QUARANTINE}; remove them when they are not needed"
            )?;
        }
        Ok(())
    }
}

/// A size for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes @ 0..1024 => format!("{bytes} B"),
            bytes @ 1024..1_048_576 => format!("{}.{} KiB", bytes >> 10, (bytes % 1024) * 10 / 1024),
            bytes => format!("{}.{} MiB", bytes >> 20, (bytes % (1 << 20)) * 10 / (1 << 20)),
        };
        f.pad(&text)
    }
}

/// Unix time for people who compare: seconds and milliseconds.
fn seconds(us: i64) -> String {
    format!(
        "{}.{:03}",
        us.div_euclid(1_000_000),
        us.rem_euclid(1_000_000) / 1000
    )
}
