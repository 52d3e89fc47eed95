//! End of a segment, found by reading it.

use std::io;
use std::ops::Range;

use super::survey::FoundSegment;
use crate::format::{FIRST_OF_COMMIT, SEGMENT_HEADER_BYTES, Salt};
use crate::scanner::{ScanStep, SegmentScanner};
use crate::storage::{Storage, is_device_error};

#[derive(Debug, Default)]
pub(super) struct SegmentTail {
    pub(super) next_lsn: u64,
    /// File offset of the end of the last valid record.
    pub(super) end: u64,
    /// Received time of the newest record, Unix microseconds.
    pub(super) last_us: i64,
    /// Bytes from `end` on that were written and are no records.
    pub(super) torn_bytes: u64,
    /// Bytes that were durable once and are invalid.
    pub(super) damage: Option<Range<u64>>,
}

impl SegmentTail {
    /// Reads a segment. Records with an lsn of `max_lsn` or more are not counted.
    pub(super) fn find(storage: &dyn Storage, found: &FoundSegment, max_lsn: u64) -> io::Result<Self> {
        let file = storage.open(&found.name, false)?;
        let salt = Salt::new(found.number, found.instance);
        let mut scanner = SegmentScanner::new(file, salt, SEGMENT_HEADER_BYTES, found.size);
        let mut tail = Self {
            next_lsn: found.first_lsn,
            end: SEGMENT_HEADER_BYTES,
            ..Self::default()
        };
        // Invalid bytes: a torn tail unless a later commit follows.
        let mut doubtful: Option<Range<u64>> = None;
        let mut expected = found.first_lsn;
        loop {
            let step = match scanner.step(&(expected..max_lsn), expected) {
                Ok(step) => step,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_device_error(&error) => {
                    // Unreadable sectors are damage. What follows them is unknown.
                    let rest = scanner.offset()..found.size;
                    tail.torn_bytes = rest.end - tail.end;
                    tail.damage = Some(rest);
                    return Ok(tail);
                }
                Err(error) => return Err(error),
            };
            match step {
                ScanStep::Record { header, at, .. } => {
                    expected = header.lsn + 1;
                    if let Some(bytes) = &doubtful {
                        if header.flags & FIRST_OF_COMMIT == 0 {
                            continue;
                        }
                        tail.damage.get_or_insert_with(|| bytes.clone());
                        doubtful = None;
                    }
                    tail.next_lsn = expected;
                    tail.end = header.end(at);
                    tail.last_us = tail.last_us.max(header.received_us);
                }
                ScanStep::Damage { bytes } => {
                    doubtful = Some(doubtful.map_or(bytes.start, |earlier| earlier.start)..bytes.end);
                }
                ScanStep::End => break,
            }
        }
        tail.torn_bytes = doubtful.map_or(0, |bytes| bytes.end - tail.end);
        Ok(tail)
    }
}
