//! Sequential scanner of one segment file: returns its records, and resynchronizes after damage.
//!
//! Used by recovery, the reader and `inspect`. Payloads are slices of the read window. Does not
//! decide what damage means.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use crate::format::{
    BadSegmentHeader, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RECORD_MARKER, RecordHeader,
    SEGMENT_HEADER_LEN, Salt, SegmentHeader,
};
use crate::storage::{Storage, StorageFile, read_full_at};

/// Bytes read at once: large enough for an efficient disk access, small enough to hold one window
/// per reader.
const READ_WINDOW_BYTES: u64 = 1 << 20;

pub(crate) struct SegmentScanner {
    file: Box<dyn StorageFile>,
    salt: Salt,
    /// Where the next record is expected.
    offset: u64,
    /// File offset at which the scan ends.
    end: u64,
    window: Bytes,
    window_offset: u64,
}

/// What the scanner found at its offset.
#[derive(Debug)]
pub(crate) enum ScanStep {
    /// A valid record at file offset `at`. Its payload is empty if it was not wanted.
    Record {
        header: RecordHeader,
        payload: Bytes,
        at: u64,
    },
    /// Bytes that are no record; the scan continues after them.
    Damage { bytes: Range<u64> },
    /// Only zeros up to the end.
    End,
}

impl SegmentScanner {
    pub(crate) fn new(file: Box<dyn StorageFile>, salt: Salt, offset: u64, end: u64) -> Self {
        Self {
            file,
            salt,
            offset,
            end,
            window: Bytes::new(),
            window_offset: 0,
        }
    }

    /// Moves the end of the scan.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// File offset where the next record is expected.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Scans one record or one damaged range. A record with an lsn outside `lsns` is damage.
    /// Payloads of records below `first_wanted` are neither checked nor returned.
    pub(crate) fn step(&mut self, lsns: &Range<u64>, first_wanted: u64) -> io::Result<ScanStep> {
        let at = self.offset;
        let Some(header) = self.header_at(at)?.filter(|header| lsns.contains(&header.lsn)) else {
            return self.resume_after(at, lsns);
        };
        let next = header.end(at);
        if next > self.end {
            // The header is valid, and so is the length in it: the file ends within the payload.
            self.offset = self.end;
            return Ok(ScanStep::Damage { bytes: at..self.end });
        }
        // The offset moves only after a successful read, so that the same step can be repeated
        // after an error.
        let payload = match header.lsn < first_wanted {
            true => Some(Bytes::new()),
            false => {
                let whole = self.bytes(header.payload_at(at)..next)?;
                whole.filter(|payload| crc32fast::hash(payload) == header.payload_crc)
            }
        };
        self.offset = next;
        Ok(match payload {
            Some(payload) => ScanStep::Record { header, payload, at },
            None => ScanStep::Damage { bytes: at..next },
        })
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<RecordHeader>> {
        let Some(bytes) = self.bytes(at..at + RECORD_HEADER_BYTES)? else {
            return Ok(None);
        };
        Ok(RecordHeader::decode(&bytes, &self.salt))
    }

    /// The bytes at `range`, or `None` if the file or the scan ends before.
    fn bytes(&mut self, range: Range<u64>) -> io::Result<Option<Bytes>> {
        if range.end > self.end {
            return Ok(None);
        }
        let window_end = self.window_offset + self.window.len() as u64;
        if range.start < self.window_offset || range.end > window_end {
            let len = (range.end - range.start)
                .max(READ_WINDOW_BYTES)
                .min(self.end - range.start);
            self.load(range.start, len)?;
        }
        let from = to_usize(range.start - self.window_offset);
        let to = to_usize(range.end - self.window_offset);
        Ok((to <= self.window.len()).then(|| self.window.slice(from..to)))
    }

    fn load(&mut self, at: u64, len: u64) -> io::Result<()> {
        // Not in memory beside the next one: a window is as long as a record.
        self.window = Bytes::new();
        let mut buffer = vec![0; to_usize(len)];
        let read = read_full_at(&*self.file, &mut buffer, at)?;
        buffer.truncate(read);
        self.window = buffer.into();
        self.window_offset = at;
        Ok(())
    }

    /// Searches the next valid header after the damage at `from`.
    fn resume_after(&mut self, from: u64, lsns: &Range<u64>) -> io::Result<ScanStep> {
        let finder = memmem::Finder::new(&RECORD_MARKER);
        let mut at = from;
        let mut last_nonzero = None;
        while at < self.end {
            let len = READ_WINDOW_BYTES.min(self.end - at);
            self.load(at, len)?;
            let window = self.window.clone();
            if window.is_empty() {
                break;
            }
            for hit in finder.find_iter(&window) {
                let hit_at = at + hit as u64;
                if hit_at == from {
                    continue;
                }
                // A header that crosses the end of the window is found in the next one, which
                // overlaps this.
                if let Some(header) = RecordHeader::decode(&window[hit..], &self.salt)
                    && lsns.contains(&header.lsn)
                {
                    self.offset = hit_at;
                    return Ok(ScanStep::Damage { bytes: from..hit_at });
                }
            }
            if let Some(last) = window.iter().rposition(|&byte| byte != 0) {
                last_nonzero = Some(at + last as u64);
            }
            let overlap = RECORD_HEADER_LEN - 1;
            if window.len() as u64 == self.end - at || window.len() <= overlap {
                break;
            }
            at += (window.len() - overlap) as u64;
        }
        self.offset = self.end;
        Ok(match last_nonzero {
            Some(last) => ScanStep::Damage {
                bytes: from..last + 1,
            },
            None => ScanStep::End,
        })
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Reads the header of a segment file.
pub(crate) fn read_segment_header(
    storage: &dyn Storage,
    name: &str,
) -> io::Result<Result<SegmentHeader, BadSegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    let file = storage.open(name, false)?;
    let read = read_full_at(&*file, &mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes[..read]))
}
