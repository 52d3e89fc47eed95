//! Reader: returns durable records in order, skips damage.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::error;

use crate::error::ReadError;
use crate::format::{SEGMENT_HEADER_BYTES, Salt, segment_name};
use crate::record::Record;
use crate::scanner::{ScanStep, SegmentScanner};
use crate::shared::Shared;
use crate::storage::is_device_error;
use crate::sync::lock;

/// Device errors in a row after which a segment is given up as damaged.
const MAX_DEVICE_ERRORS: u32 = 5;

/// Returns the records of a journal in lsn order. A journal can have many readers.
///
/// A reader keeps the file of its segment open: a segment that is removed meanwhile is read to its
/// end.
pub struct Reader {
    shared: Arc<Shared>,
    /// Lower bound of the next record's lsn.
    next_lsn: u64,
    open: Option<OpenSegment>,
}

/// The segment that is being read.
struct OpenSegment {
    number: u64,
    scanner: SegmentScanner,
    /// From the lsn expected next to one past the last durable record.
    lsns: Range<u64>,
    device_errors: u32,
    damaged_bytes: u64,
    lost_records: u64,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, from_lsn: u64) -> Self {
        Self {
            shared,
            next_lsn: from_lsn,
            open: None,
        }
    }

    /// Lower bound of the next record's lsn.
    pub fn position(&self) -> u64 {
        self.next_lsn
    }

    /// The next record, or `None` when all durable records were read; later calls return later
    /// records. Damage is counted, logged and skipped: see
    /// [`Usage::lost_records`](crate::Usage::lost_records).
    ///
    /// Blocks on the disk. The payload is a slice of a buffer of 1 MiB or more that lives as long
    /// as any of its slices: copy small payloads that are kept for long.
    ///
    /// # Errors
    /// See [`ReadError`]: a later call tries the same record again, nothing is skipped.
    #[expect(
        clippy::should_implement_trait,
        reason = "`None` of an iterator is final, here more records can follow"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if self.open.is_none() && !self.open_segment()? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            if open.lsns.is_empty() {
                match open.refresh(&self.shared) {
                    SegmentState::HasMore => {}
                    SegmentState::ReadSoFar => return Ok(None),
                    SegmentState::Ended => {
                        open.log_losses(&self.shared);
                        self.next_lsn = self.next_lsn.max(open.lsns.end);
                        self.open = None;
                        continue;
                    }
                }
            }
            if let Some(record) = self.step()? {
                return Ok(Some(record));
            }
        }
    }

    /// Opens the segment with the next record. False if there is none yet.
    fn open_segment(&mut self) -> Result<bool, ReadError> {
        loop {
            let state = lock(&self.shared.state);
            let Some(segment) = state.segments.at_or_after(self.next_lsn) else {
                return Ok(false);
            };
            let number = segment.number;
            let salt = Salt::new(number, segment.instance);
            let first = (segment.first_lsn, SEGMENT_HEADER_BYTES);
            let (at_lsn, offset) = segment.seek(self.next_lsn).unwrap_or(first);
            let (lsns, end) = (at_lsn..segment.next_lsn, segment.end);
            drop(state);
            self.next_lsn = self.next_lsn.max(lsns.start);
            let file = match self.shared.storage.open(&segment_name(number), false) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let state = lock(&self.shared.state);
                    let segment = state.segments.by_number(number);
                    let needed = segment.is_some_and(|segment| segment.unreleased() > 0);
                    drop(state);
                    self.next_lsn = lsns.end;
                    if needed {
                        // Not removed by the journal.
                        let reason = "the file is missing";
                        self.shared
                            .report_damage(number, &(SEGMENT_HEADER_BYTES..end), reason);
                        let lost = self.shared.mark_lost(lsns.clone());
                        error!(
                            segment = number,
                            records = lost,
                            "a whole journal segment is lost"
                        );
                    }
                    continue;
                }
                Err(source) => {
                    return Err(ReadError {
                        path: self.path(number),
                        source,
                    });
                }
            };
            self.open = Some(OpenSegment {
                number,
                scanner: SegmentScanner::new(file, salt, offset, end),
                lsns,
                device_errors: 0,
                damaged_bytes: 0,
                lost_records: 0,
            });
            return Ok(true);
        }
    }

    /// Makes one scan step in the open segment; returns the record if it is wanted.
    fn step(&mut self) -> Result<Option<Record>, ReadError> {
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let shared = &self.shared;
        let number = open.number;
        match open.scanner.step(&open.lsns, self.next_lsn) {
            Ok(ScanStep::Record { header, payload, .. }) => {
                open.device_errors = 0;
                if header.lsn > open.lsns.start {
                    open.lose(shared, header.lsn);
                }
                open.lsns.start = header.lsn + 1;
                if header.lsn < self.next_lsn {
                    return Ok(None);
                }
                self.next_lsn = header.lsn + 1;
                let state = lock(&shared.state);
                let released = state
                    .segments
                    .by_number(number)
                    .is_none_or(|s| s.is_released(header.lsn));
                drop(state);
                Ok(Some(Record {
                    lsn: header.lsn,
                    segment: number,
                    received_us: header.received_us,
                    kind: header.kind,
                    payload,
                    released,
                }))
            }
            // All its records were released meanwhile, and its file may hold another segment by
            // now.
            Ok(ScanStep::Damage { .. } | ScanStep::End) if shared.is_removed_or_recycling(number) => {
                open.lsns.start = open.lsns.end;
                Ok(None)
            }
            Ok(ScanStep::Damage { bytes }) => {
                open.damaged_bytes += bytes.end - bytes.start;
                shared.report_damage(number, &bytes, "a checksum does not match");
                Ok(None)
            }
            Ok(ScanStep::End) => {
                let at = open.scanner.offset();
                shared.report_damage(number, &(at..at), "records are missing at its end");
                open.lose(shared, open.lsns.end);
                Ok(None)
            }
            Err(source) if is_device_error(&source) && open.device_errors + 1 >= MAX_DEVICE_ERRORS => {
                let at = open.scanner.offset();
                shared.report_damage(number, &(at..at), "the device cannot read it");
                open.lose(shared, open.lsns.end);
                Ok(None)
            }
            Err(source) => {
                open.device_errors += u32::from(is_device_error(&source));
                Err(ReadError {
                    path: self.path(number),
                    source,
                })
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.shared.dir.join(segment_name(number))
    }
}

enum SegmentState {
    HasMore,
    /// All durable records were read; more may follow.
    ReadSoFar,
    /// The segment has no further records.
    Ended,
}

impl OpenSegment {
    /// Extends the scan to records that became durable meanwhile.
    fn refresh(&mut self, shared: &Shared) -> SegmentState {
        let state = lock(&shared.state);
        let Some(segment) = state.segments.by_number(self.number) else {
            return SegmentState::Ended;
        };
        if segment.next_lsn > self.lsns.end {
            self.lsns.end = segment.next_lsn;
            self.scanner.extend(segment.end);
            SegmentState::HasMore
        } else if segment.sealed {
            SegmentState::Ended
        } else {
            SegmentState::ReadSoFar
        }
    }

    /// Gives up the records before `until`.
    fn lose(&mut self, shared: &Shared, until: u64) {
        self.lost_records += shared.mark_lost(self.lsns.start..until);
        self.lsns.start = until;
    }

    fn log_losses(&self, shared: &Shared) {
        if self.lost_records > 0 || self.damaged_bytes > 0 {
            error!(
                segment = self.number,
                records = self.lost_records,
                bytes = self.damaged_bytes,
                "records were lost to damage in {}",
                shared.dir.join(segment_name(self.number)).display()
            );
        }
    }
}
