//! Notes of which records are released, one small file beside each segment.
//!
//! They are never synced: a lost note only means that a record is processed once more after a restart, and
//! processing is idempotent. Each entry (a range of lsns) has its own checksum, so a torn or damaged one is
//! skipped and costs nothing else.
//!
//! ```text
//! entry    first lsn 8 | count 4 | crc 4 (over segment number, instance, first lsn, count)
//! ```
//!
//! An entry with the count 0 says where a sealed segment ends: its records have smaller lsns. The next segment's
//! header says the same, but that one may be gone first.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::ops::Range;

use super::format::{Salt, notes_name};
use super::storage::{Storage, StorageFile, read_full_at, write_all_at};

const ENTRY: usize = 16;

/// The files that are open for writing.
#[derive(Default)]
pub(super) struct Notes {
    files: HashMap<u64, (Box<dyn StorageFile>, u64)>,
}

impl Notes {
    /// Appends the (ascending) lsns of one segment.
    pub(super) fn append(
        &mut self,
        storage: &dyn Storage,
        number: u64,
        instance: u64,
        lsns: &[u64],
    ) -> io::Result<()> {
        self.write(storage, number, &encode(&Salt::new(number, instance), lsns))
    }

    /// The segment has its last record; all have smaller lsns than this.
    pub(super) fn seal(
        &mut self,
        storage: &dyn Storage,
        number: u64,
        instance: u64,
        next_lsn: u64,
    ) -> io::Result<()> {
        self.write(
            storage,
            number,
            &entry(&Salt::new(number, instance), &(next_lsn..next_lsn)),
        )
    }

    fn write(&mut self, storage: &dyn Storage, number: u64, entries: &[u8]) -> io::Result<()> {
        let (file, len) = match self.files.entry(number) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(open(storage, number)?),
        };
        write_all_at(&mut **file, &mut [IoSlice::new(entries)], *len)?;
        *len += entries.len() as u64;
        Ok(())
    }

    /// The segment is gone or going.
    pub(super) fn forget(&mut self, number: u64) {
        self.files.remove(&number);
    }
}

fn open(storage: &dyn Storage, number: u64) -> io::Result<(Box<dyn StorageFile>, u64)> {
    let name = notes_name(number);
    let file = match storage.open(&name, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => storage.create(&name)?,
        other => other?,
    };
    // A torn last entry is filled up: entries stay where they can be found.
    let len = file.len()?.next_multiple_of(ENTRY as u64);
    Ok((file, len))
}

fn encode(salt: &Salt, lsns: &[u64]) -> Vec<u8> {
    ranges(lsns).flat_map(|range| entry(salt, &range)).collect()
}

fn entry(salt: &Salt, lsns: &Range<u64>) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..8].copy_from_slice(&lsns.start.to_le_bytes());
    // A segment never has so many records.
    let count = u32::try_from(lsns.end - lsns.start).unwrap_or(u32::MAX);
    entry[8..12].copy_from_slice(&count.to_le_bytes());
    let crc = salt.crc(&entry[..12]);
    entry[12..].copy_from_slice(&crc.to_le_bytes());
    entry
}

/// Ascending numbers as ranges.
fn ranges(lsns: &[u64]) -> impl Iterator<Item = Range<u64>> {
    lsns.chunk_by(|a, b| a + 1 == *b)
        .filter_map(|run| Some(*run.first()?..*run.last()? + 1))
}

/// What the notes of a segment tell.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) released: Vec<Range<u64>>,
    /// All its records have smaller lsns than this; nothing if that was not noted.
    pub(super) next_lsn: Option<u64>,
    /// Entries that were not readable.
    pub(super) bad: u64,
}

/// Reads the notes of a segment, if there are any.
pub(super) fn read(storage: &dyn Storage, number: u64, instance: u64) -> io::Result<Noted> {
    let file = match storage.open(&notes_name(number), false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::default()),
        other => other?,
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    bytes.truncate(read);
    let salt = Salt::new(number, instance);
    let mut out = Noted::default();
    for entry in bytes.chunks(ENTRY) {
        match decode(&salt, entry) {
            Some(range) if range.is_empty() => out.next_lsn = Some(range.start),
            Some(range) => out.released.push(range),
            None => out.bad += 1,
        }
    }
    Ok(out)
}

fn decode(salt: &Salt, entry: &[u8]) -> Option<Range<u64>> {
    let (first, rest) = entry.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let crc = rest.first_chunk::<4>()?;
    if salt.crc(entry.get(..12)?) != u32::from_le_bytes(*crc) {
        return None;
    }
    let first = u64::from_le_bytes(*first);
    Some(first..first.checked_add(u64::from(u32::from_le_bytes(*count)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsns_come_back_as_ranges_and_a_flipped_bit_costs_one_entry() {
        let salt = Salt::new(3, 4);
        let mut bytes = encode(&salt, &[5, 6, 7, 9, 20]);
        let read = |bytes: &[u8]| {
            bytes
                .chunks(ENTRY)
                .filter_map(|e| decode(&salt, e))
                .collect::<Vec<_>>()
        };
        assert_eq!(read(&bytes), [5..8, 9..10, 20..21]);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert_eq!(read(&bytes).len(), 2, "byte {at}");
            bytes[at] ^= 0x10;
        }
        assert_eq!(read(&bytes[..40]), [5..8, 9..10]);
    }
}
