//! Manifest: durable log of the segments that were begun and removed, so that a missing segment
//! file is told from one that the journal has removed.
//!
//! Owns the file `manifest`. An entry is durable before the file of a removed segment is unlinked
//! or recycled.
//!
//! ```text
//! entry    kind 4 | 0 4 | segment number 8 | first lsn 8 | continues lsn 8 | bytes 8 | end lsn 8
//!          | 0 12 | crc 4 (over instance, entry)
//! ```
//!
//! The file is preallocated, so that an entry needs no space on a full disk, and rewritten when it
//! is half full. Entries of zeros are not used yet.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;

use crate::format::{RECORD_HEADER_BYTES, Salt};
use crate::storage::{Storage, StorageFile, read_full_at, write_all_at};

/// Name of the file in the journal's folder.
pub(crate) const MANIFEST: &str = "manifest";
/// Name of the file while it is rewritten. A leftover of a crash is ignored.
pub(crate) const TEMPORARY: &str = "manifest.new";

const ENTRY_BYTES: usize = 64;
/// Size to which the file is preallocated, at least: 1,024 entries.
pub(crate) const MIN_FILE_BYTES: u64 = 64 << 10;

const BEGUN: u32 = 1;
const REMOVED: u32 = 2;
/// The journal was closed; the segment is the newest and has got its last record.
const CLOSED: u32 = 3;

/// A segment that was begun and not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LiveSegment {
    pub(crate) first_lsn: u64,
    /// See `SegmentHeader::continues_lsn`.
    pub(crate) continues_lsn: u64,
    /// Bytes that the file can take; a single record may be larger.
    pub(crate) bytes: u64,
    /// One past the last lsn of the segment, if that is known.
    pub(crate) end_lsn: Option<u64>,
}

impl LiveSegment {
    /// Upper bound of the lsns in it, exclusive.
    pub(crate) fn max_end_lsn(&self) -> u64 {
        self.end_lsn
            .unwrap_or_else(|| self.first_lsn + self.bytes / RECORD_HEADER_BYTES + 1)
    }
}

/// Content of the file.
#[derive(Debug, Default)]
pub(crate) struct LoadedManifest {
    pub(crate) exists: bool,
    pub(crate) live: BTreeMap<u64, LiveSegment>,
    pub(crate) unreadable_entries: u64,
    /// End of the last entry in the file.
    len: u64,
}

impl LoadedManifest {
    /// Reads the manifest of the folder; empty if there is none.
    pub(crate) fn read(storage: &dyn Storage, instance: u64) -> io::Result<Self> {
        let file = match storage.open(MANIFEST, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        let read = read_full_at(&*file, &mut bytes, 0)?;
        bytes.truncate(read);
        let mut loaded = Self {
            exists: true,
            ..Self::default()
        };
        for (at, entry) in bytes.chunks(ENTRY_BYTES).enumerate() {
            match Entry::decode(entry, instance) {
                Some(entry) => entry.apply(&mut loaded.live),
                None if entry.iter().all(|&byte| byte == 0) => continue,
                None => loaded.unreadable_entries += 1,
            }
            loaded.len = ((at + 1) * ENTRY_BYTES) as u64;
        }
        Ok(loaded)
    }
}

/// The manifest of an open journal.
#[derive(Default)]
pub(crate) struct Manifest {
    instance: u64,
    live: BTreeMap<u64, LiveSegment>,
    /// `None` if the file has to be rewritten, at first and after a failed write or sync.
    file: Option<Box<dyn StorageFile>>,
    len: u64,
    /// Preallocated size of the file.
    capacity: u64,
}

impl Manifest {
    pub(crate) fn new(instance: u64, loaded: LoadedManifest) -> Self {
        Self {
            instance,
            live: loaded.live,
            file: None,
            len: loaded.len,
            capacity: 0,
        }
    }

    /// Makes `live` the content, durably. A sound file is continued, so that a full disk does not
    /// keep the journal from opening.
    pub(crate) fn update(
        &mut self,
        storage: &dyn Storage,
        is_sound: bool,
        live: &BTreeMap<u64, LiveSegment>,
    ) -> io::Result<()> {
        let changed: Vec<(u64, LiveSegment)> = live
            .iter()
            .filter(|(number, segment)| self.live.get(number) != Some(segment))
            .map(|(number, segment)| (*number, *segment))
            .collect();
        let gone: Vec<u64> = self
            .live
            .keys()
            .filter(|number| !live.contains_key(number))
            .copied()
            .collect();
        if is_sound && let Ok(file) = storage.open(MANIFEST, true) {
            self.capacity = file.len()?;
            self.file = Some(file);
        }
        self.log(storage, &changed, &gone)
    }

    pub(crate) fn newest_number(&self) -> Option<u64> {
        self.live.last_key_value().map(|(&number, _)| number)
    }

    /// Logs that a segment was begun and that the segments `removed` are about to be removed,
    /// durably. After an error the call is to be repeated.
    pub(crate) fn log(
        &mut self,
        storage: &dyn Storage,
        begun: &[(u64, LiveSegment)],
        removed: &[u64],
    ) -> io::Result<()> {
        let mut entries: Vec<Entry> = begun
            .iter()
            .map(|(number, segment)| Entry::begun(*number, segment))
            .collect();
        // After an error some are logged already.
        let is_live =
            |number: &u64| self.live.contains_key(number) || begun.iter().any(|(begun, _)| begun == number);
        entries.extend(removed.iter().copied().filter(is_live).map(|number| Entry {
            kind: REMOVED,
            number,
            ..Entry::default()
        }));
        self.append(storage, &entries)
    }

    /// Logs the end of the newest segment when the journal is closed.
    pub(crate) fn close(&mut self, storage: &dyn Storage, number: u64, end_lsn: u64) -> io::Result<()> {
        let entry = Entry {
            kind: CLOSED,
            number,
            end_lsn,
            ..Entry::default()
        };
        self.append(storage, &[entry])
    }

    fn append(&mut self, storage: &dyn Storage, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() && self.file.is_some() {
            return Ok(());
        }
        for entry in entries {
            entry.apply(&mut self.live);
        }
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.encode(self.instance))
            .collect();
        let end = self.len + bytes.len() as u64;
        let full = end > self.capacity || self.file.is_none();
        if full || end > self.capacity / 2 {
            let rewritten = self.rewrite(storage);
            // The other half is for the time while that fails.
            if full || rewritten.is_ok() {
                return rewritten;
            }
        }
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        // After an error the kernel may have dropped the pages: the file is not used again.
        self.len += write_all_at(&mut *file, &mut [IoSlice::new(&bytes)], self.len, &mut false)?;
        file.sync_data()?;
        self.file = Some(file);
        Ok(())
    }

    /// Replaces the file by one with the live segments only, durably.
    fn rewrite(&mut self, storage: &dyn Storage) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (&number, segment) in &self.live {
            bytes.extend(Entry::begun(number, segment).encode(self.instance));
        }
        let mut file = storage.create(TEMPORARY)?;
        let capacity = (bytes.len() as u64 * 4)
            .next_multiple_of(MIN_FILE_BYTES)
            .max(MIN_FILE_BYTES);
        match file.allocate(capacity) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
        let len = write_all_at(&mut *file, &mut [IoSlice::new(&bytes)], 0, &mut false)?;
        file.sync_all()?;
        // From here on the old file may have no name.
        self.file = None;
        storage.rename(TEMPORARY, MANIFEST)?;
        storage.sync_folder()?;
        self.len = len;
        self.capacity = capacity;
        self.file = Some(file);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entry {
    kind: u32,
    number: u64,
    first_lsn: u64,
    continues_lsn: u64,
    bytes: u64,
    /// 0 if it is unknown.
    end_lsn: u64,
}

impl Entry {
    fn begun(number: u64, segment: &LiveSegment) -> Self {
        Self {
            kind: BEGUN,
            number,
            first_lsn: segment.first_lsn,
            continues_lsn: segment.continues_lsn,
            bytes: segment.bytes,
            end_lsn: segment.end_lsn.unwrap_or(0),
        }
    }

    fn apply(&self, live: &mut BTreeMap<u64, LiveSegment>) {
        match self.kind {
            BEGUN => {
                let segment = LiveSegment {
                    first_lsn: self.first_lsn,
                    continues_lsn: self.continues_lsn,
                    bytes: self.bytes,
                    end_lsn: (self.end_lsn > 0).then_some(self.end_lsn),
                };
                // The segment before ends where this one continues.
                if let Some((_, previous)) = live.range_mut(..self.number).next_back() {
                    previous.end_lsn.get_or_insert(self.continues_lsn);
                }
                live.insert(self.number, segment);
            }
            REMOVED => drop(live.remove(&self.number)),
            CLOSED => {
                if let Some(segment) = live.get_mut(&self.number) {
                    segment.end_lsn = Some(self.end_lsn);
                }
            }
            // Of a newer program; harmless to an older one.
            _ => {}
        }
    }

    fn encode(&self, instance: u64) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..4].copy_from_slice(&self.kind.to_le_bytes());
        let numbers = [
            self.number,
            self.first_lsn,
            self.continues_lsn,
            self.bytes,
            self.end_lsn,
        ];
        for (slot, number) in out[8..48].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let crc = Salt::new(0, instance).crc(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], instance: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<ENTRY_BYTES>()?;
        let crc = u32::from_le_bytes(*bytes[60..].first_chunk()?);
        if Salt::new(0, instance).crc(&bytes[..60]) != crc {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(*bytes[at..].first_chunk()?));
        Some(Self {
            kind: u32::from_le_bytes(*bytes.first_chunk()?),
            number: number(8)?,
            first_lsn: number(16)?,
            continues_lsn: number(24)?,
            bytes: number(32)?,
            end_lsn: number(40)?,
        })
    }
}

/// A segment whose file is missing or has no readable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MissingSegment {
    pub(crate) number: u64,
    /// Its lsns; the end is an upper bound if `records` is unknown.
    pub(crate) lsns: Range<u64>,
    /// Unreleased records, if the end is known.
    pub(crate) records: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_unchanged_and_a_flipped_bit_is_noticed() {
        let segment = LiveSegment {
            first_lsn: 12,
            continues_lsn: 10,
            bytes: 4096,
            end_lsn: None,
        };
        let entry = Entry::begun(7, &segment);
        let mut bytes = entry.encode(3);
        assert_eq!(Entry::decode(&bytes, 3), Some(entry));
        assert_eq!(Entry::decode(&bytes, 4), None);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert_eq!(Entry::decode(&bytes, 3), None, "byte {at}");
            bytes[at] ^= 0x10;
        }
    }

    #[test]
    fn the_next_segment_tells_the_end_of_the_one_before() {
        let segment = |first_lsn| LiveSegment {
            first_lsn,
            continues_lsn: first_lsn,
            bytes: 4096,
            end_lsn: None,
        };
        let mut live = BTreeMap::new();
        Entry::begun(1, &segment(1)).apply(&mut live);
        assert_eq!(live[&1].max_end_lsn(), 1 + 4096 / 32 + 1);
        Entry::begun(2, &segment(9)).apply(&mut live);
        assert_eq!(live[&1].end_lsn, Some(9));
    }
}
