//! Walks through the records of one segment file, past damage.
//!
//! Shared by recovery, the reader and `inspect`. It reads in large pieces; payloads are slices of what was read.
//! It decides nothing: it says "a record", "damage from here to there" or "the end".

use std::io;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::format::{MARKER, RECORD_HEADER, RECORD_HEADER_BYTES, RecordHeader, Salt};
use super::storage::{StorageFile, read_full_at};

/// Bytes read at once: large enough for a disk to be efficient, small enough to hold one per reader.
const WINDOW: u64 = 1 << 20;

/// A walk through one file.
pub(super) struct Scan {
    file: Box<dyn StorageFile>,
    salt: Salt,
    /// Where the next record should start.
    offset: u64,
    /// Nothing is read from here on.
    end: u64,
    window: Bytes,
    window_at: u64,
}

/// What stands next in the file.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole and sound record. The payload is empty when it was not asked for.
    Record {
        header: RecordHeader,
        payload: Bytes,
        at: u64,
    },
    /// Bytes that are no record; the walk goes on after them.
    Damage { bytes: Range<u64> },
    /// Nothing but zeros up to the end.
    End,
}

impl Scan {
    pub(super) fn new(file: Box<dyn StorageFile>, salt: Salt, offset: u64, end: u64) -> Self {
        Self {
            file,
            salt,
            offset,
            end,
            window: Bytes::new(),
            window_at: 0,
        }
    }

    /// More of the file may be read now.
    pub(super) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Where the next record should start.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next step. Only records with an lsn in `lsns` count; payloads of records below `wanted` are
    /// neither returned nor checked.
    pub(super) fn step(&mut self, lsns: &Range<u64>, wanted: u64) -> io::Result<Step> {
        let at = self.offset;
        let Some(header) = self.header_at(at)?.filter(|header| lsns.contains(&header.lsn)) else {
            return self.resume_after(at, lsns);
        };
        let next = header.end(at);
        if next > self.end {
            // The header is sound, so its length is: the file ends inside the payload.
            self.offset = self.end;
            return Ok(Step::Damage { bytes: at..self.end });
        }
        // Past this record only once it is read: after an error the same step is tried again.
        let payload = match header.lsn < wanted {
            true => Some(Bytes::new()),
            false => {
                let whole = self.bytes(header.payload_at(at)..next)?;
                whole.filter(|payload| crc32fast::hash(payload) == header.payload_crc)
            }
        };
        self.offset = next;
        Ok(match payload {
            Some(payload) => Step::Record { header, payload, at },
            None => Step::Damage { bytes: at..next },
        })
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<RecordHeader>> {
        let Some(bytes) = self.bytes(at..at + RECORD_HEADER_BYTES)? else {
            return Ok(None);
        };
        Ok(RecordHeader::decode(&bytes, &self.salt))
    }

    /// What stands at `range`, or nothing if the file or the part of it that may be read ends before.
    fn bytes(&mut self, range: Range<u64>) -> io::Result<Option<Bytes>> {
        if range.end > self.end {
            return Ok(None);
        }
        let window_end = self.window_at + self.window.len() as u64;
        if range.start < self.window_at || range.end > window_end {
            let len = (range.end - range.start).max(WINDOW).min(self.end - range.start);
            self.load(range.start, len)?;
        }
        let from = to_usize(range.start - self.window_at);
        let to = to_usize(range.end - self.window_at);
        Ok((to <= self.window.len()).then(|| self.window.slice(from..to)))
    }

    fn load(&mut self, at: u64, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; to_usize(len)];
        let read = read_full_at(&*self.file, &mut buffer, at)?;
        buffer.truncate(read);
        self.window = buffer.into();
        self.window_at = at;
        Ok(())
    }

    /// Looks for the next sound header after the damage at `from`.
    fn resume_after(&mut self, from: u64, lsns: &Range<u64>) -> io::Result<Step> {
        let finder = memmem::Finder::new(&MARKER);
        let mut at = from;
        let mut last_nonzero = None;
        while at < self.end {
            let len = WINDOW.min(self.end - at);
            self.load(at, len)?;
            let window = self.window.clone();
            if window.is_empty() {
                break;
            }
            for hit in finder.find_iter(&window) {
                let found_at = at + hit as u64;
                if found_at == from {
                    continue;
                }
                // A header that reaches over the window's end is looked at with the next window, below.
                if let Some(header) = RecordHeader::decode(&window[hit..], &self.salt)
                    && lsns.contains(&header.lsn)
                {
                    self.offset = found_at;
                    return Ok(Step::Damage {
                        bytes: from..found_at,
                    });
                }
            }
            if let Some(last) = window.iter().rposition(|&byte| byte != 0) {
                last_nonzero = Some(at + last as u64);
            }
            let overlap = RECORD_HEADER - 1;
            if window.len() as u64 == self.end - at || window.len() <= overlap {
                break;
            }
            at += (window.len() - overlap) as u64;
        }
        self.offset = self.end;
        Ok(match last_nonzero {
            Some(last) => Step::Damage {
                bytes: from..last + 1,
            },
            None => Step::End,
        })
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
