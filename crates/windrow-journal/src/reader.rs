//! Reads records back in order, up to the durable end, past damage.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::error;

use super::Record;
use super::error::ReadError;
use super::format::{SEGMENT_HEADER_BYTES, Salt, segment_name};
use super::scan::{Scan, Step};
use super::shared::{Shared, lock};

/// A sector that cannot be read this many times in a row is damage.
const GIVE_UP_AFTER: u32 = 5;
/// Linux `EIO`: the device itself failed.
const EIO: i32 = 5;

/// Gives the records of a journal in order. Several can be open at once.
///
/// It holds the file that it is reading: a segment that is removed meanwhile is read to its end.
pub struct Reader {
    shared: Arc<Shared>,
    /// The next record to return has at least this lsn.
    next_lsn: u64,
    open: Option<Open>,
}

/// The segment that is being read.
struct Open {
    number: u64,
    scan: Scan,
    /// From the lsn that is expected at the scan's place to one past the last durable record.
    lsns: Range<u64>,
    device_errors: u32,
    damaged_bytes: u64,
    lost_records: u64,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from_lsn: u64) -> Self {
        Self {
            shared,
            next_lsn: from_lsn,
            open: None,
        }
    }

    /// The lsn that the next record will at least have.
    pub fn position(&self) -> u64 {
        self.next_lsn
    }

    /// The next record; `None` when all that is durable was read (more may come). Damage is counted, said in the
    /// log and passed over: see [`Usage::lost_records`](super::Usage::lost_records).
    ///
    /// This blocks on the disk. The payload is a slice of a buffer of about 1 MiB that lives as long as any of its
    /// slices: do not keep small payloads for long.
    ///
    /// # Errors
    /// Something that may pass; call again later. Nothing is skipped.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not say error, end and later apart"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if self.open.is_none() && !self.enter()? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            if open.lsns.is_empty() {
                match open.refresh(&self.shared) {
                    More::Yes => {}
                    More::NotYet => return Ok(None),
                    More::Never => {
                        open.report(&self.shared);
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
    fn enter(&mut self) -> Result<bool, ReadError> {
        loop {
            let state = lock(&self.shared.state);
            let Some(segment) = state.segments.at_or_after(self.next_lsn) else {
                return Ok(false);
            };
            let number = segment.number;
            let salt = Salt::new(number, segment.instance);
            let first = (segment.first_lsn, SEGMENT_HEADER_BYTES);
            let (at_lsn, offset) = segment.start_for(self.next_lsn).unwrap_or(first);
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
                        // Not removed by us: gone for good.
                        let why = "the file is missing";
                        self.shared
                            .found_damage(number, &(SEGMENT_HEADER_BYTES..end), why);
                        let lost = self.shared.lost(lsns.clone());
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
            let scan = Scan::new(file, salt, offset, end);
            self.open = Some(Open {
                number,
                scan,
                lsns,
                device_errors: 0,
                damaged_bytes: 0,
                lost_records: 0,
            });
            return Ok(true);
        }
    }

    /// One step in the open segment; a record if it is one to return.
    fn step(&mut self) -> Result<Option<Record>, ReadError> {
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let shared = &self.shared;
        let number = open.number;
        match open.scan.step(&open.lsns, self.next_lsn) {
            Ok(Step::Record { header, payload, .. }) => {
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
            // Everything in it was released meanwhile, and its file may have another segment by now.
            Ok(Step::Damage { .. } | Step::End) if shared.has_left(number) => {
                open.lsns.start = open.lsns.end;
                Ok(None)
            }
            Ok(Step::Damage { bytes }) => {
                open.damaged_bytes += bytes.end - bytes.start;
                shared.found_damage(number, &bytes, "the checksum is wrong");
                Ok(None)
            }
            Ok(Step::End) => {
                let at = open.scan.offset();
                shared.found_damage(number, &(at..at), "records are missing at its end");
                open.lose(shared, open.lsns.end);
                Ok(None)
            }
            Err(source) if source.raw_os_error() == Some(EIO) && open.device_errors + 1 >= GIVE_UP_AFTER => {
                let at = open.scan.offset();
                shared.found_damage(number, &(at..at), "the device cannot read it");
                open.lose(shared, open.lsns.end);
                Ok(None)
            }
            Err(source) => {
                open.device_errors += u32::from(source.raw_os_error() == Some(EIO));
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

enum More {
    Yes,
    NotYet,
    Never,
}

impl Open {
    /// Looks whether more became durable.
    fn refresh(&mut self, shared: &Shared) -> More {
        let state = lock(&shared.state);
        let Some(segment) = state.segments.by_number(self.number) else {
            return More::Never;
        };
        if segment.next_lsn > self.lsns.end {
            self.lsns.end = segment.next_lsn;
            self.scan.extend(segment.end);
            More::Yes
        } else if segment.sealed {
            More::Never
        } else {
            More::NotYet
        }
    }

    /// Gives the records before `until` up.
    fn lose(&mut self, shared: &Shared, until: u64) {
        self.lost_records += shared.lost(self.lsns.start..until);
        self.lsns.start = until;
    }

    fn report(&self, shared: &Shared) {
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
