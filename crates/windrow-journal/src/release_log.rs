//! Release log: which records of a segment are released, one `.notes` file beside each segment.
//!
//! Never synced: after a lost entry a record is processed once more, and processing is idempotent.
//! Each entry, a range of lsns, has its own checksum, so a torn or damaged entry is skipped alone.
//!
//! ```text
//! entry    first lsn 8 | count 4 | crc 4 (over segment number, instance, first lsn, count)
//! ```
//!
//! An entry with the count 0 seals the segment: its records have smaller lsns. The header of the
//! next segment says the same, but that segment may be removed first.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::ops::Range;

use crate::format::{Salt, release_log_name};
use crate::storage::{Storage, StorageFile, read_full_at, write_all_at};

const ENTRY_BYTES: usize = 16;

/// The logs that are open for writing.
#[derive(Default)]
pub(crate) struct ReleaseLogs {
    /// File and length, by segment number.
    files: HashMap<u64, (Box<dyn StorageFile>, u64)>,
}

impl ReleaseLogs {
    /// Logs ascending lsns of one segment.
    pub(crate) fn append(
        &mut self,
        storage: &dyn Storage,
        number: u64,
        instance: u64,
        lsns: &[u64],
    ) -> io::Result<()> {
        self.write(storage, number, &encode(&Salt::new(number, instance), lsns))
    }

    /// Logs that all records of the segment have smaller lsns than `next_lsn`.
    pub(crate) fn seal(
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
        *len += write_all_at(&mut **file, &mut [IoSlice::new(entries)], *len, &mut false)?;
        Ok(())
    }

    /// Closes the log of a segment.
    pub(crate) fn close(&mut self, number: u64) {
        self.files.remove(&number);
    }
}

fn open(storage: &dyn Storage, number: u64) -> io::Result<(Box<dyn StorageFile>, u64)> {
    let name = release_log_name(number);
    let file = match storage.open(&name, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => storage.create(&name)?,
        other => other?,
    };
    // Entries stay at multiples of their size, also after a torn one.
    let len = file.len()?.next_multiple_of(ENTRY_BYTES as u64);
    Ok((file, len))
}

fn encode(salt: &Salt, lsns: &[u64]) -> Vec<u8> {
    ranges(lsns).flat_map(|range| entry(salt, &range)).collect()
}

fn entry(salt: &Salt, lsns: &Range<u64>) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..8].copy_from_slice(&lsns.start.to_le_bytes());
    // A segment never has more records than that.
    let count = u32::try_from(lsns.end - lsns.start).unwrap_or(u32::MAX);
    entry[8..12].copy_from_slice(&count.to_le_bytes());
    let crc = salt.crc(&entry[..12]);
    entry[12..].copy_from_slice(&crc.to_le_bytes());
    entry
}

/// Ranges of consecutive lsns.
fn ranges(lsns: &[u64]) -> impl Iterator<Item = Range<u64>> {
    lsns.chunk_by(|a, b| a + 1 == *b)
        .filter_map(|run| Some(*run.first()?..*run.last()? + 1))
}

/// Content of the release log of one segment.
#[derive(Debug, Default)]
pub(crate) struct LoggedReleases {
    pub(crate) released: Vec<Range<u64>>,
    /// All records of the segment have smaller lsns than this, if it was sealed.
    pub(crate) next_lsn: Option<u64>,
    pub(crate) unreadable_entries: u64,
}

/// Reads the release log of a segment; empty if there is none.
pub(crate) fn read(storage: &dyn Storage, number: u64, instance: u64) -> io::Result<LoggedReleases> {
    let file = match storage.open(&release_log_name(number), false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LoggedReleases::default()),
        other => other?,
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    bytes.truncate(read);
    let salt = Salt::new(number, instance);
    let mut out = LoggedReleases::default();
    for entry in bytes.chunks(ENTRY_BYTES) {
        match decode(&salt, entry) {
            Some(range) if range.is_empty() => out.next_lsn = Some(range.start),
            Some(range) => out.released.push(range),
            None => out.unreadable_entries += 1,
        }
    }
    Ok(out)
}

/// The same lsns as ascending ranges that do not overlap.
pub(crate) fn merge_ranges(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
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
                .chunks(ENTRY_BYTES)
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
