//! Express lane of the record queue: short records that came after records which are only in the
//! journal, in memory, so that they need not wait until all of those are gathered.
//!
//! Owns their budget, and which records the reader of the journal leaves out. Records keep their
//! order among those with the same tag: parts of one line may be in two chunks.

use std::collections::{HashSet, VecDeque};

use twox_hash::XxHash3_64;
use windrow_journal::Record;

use super::RECORD_OVERHEAD_BYTES;

/// Longest payload of a record in the lane.
const MAX_PAYLOAD_BYTES: usize = 64 << 10;
/// Records that the reader may have to leave out: 1 MiB of numbers.
const MAX_LEFT_OUT: usize = 128 << 10;
/// Tags with records that wait in order. With more of them all records wait in order.
const MAX_TAGS: usize = 16 << 10;

#[derive(Debug, Default)]
pub(super) struct ExpressLane {
    records: VecDeque<Record>,
    bytes: usize,
    budget_bytes: usize,
    /// Records (LSN, ascending) that the reader has not passed.
    left_out: VecDeque<u64>,
}

/// Hashes of the tags of records that wait in order.
#[derive(Debug, Default)]
pub(super) struct WaitingTags(HashSet<u64>);

impl ExpressLane {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a record that the reader has not passed, unless it is too long or there is no space.
    pub(super) fn push(&mut self, record: Record) -> bool {
        let cost = record.payload.len() + RECORD_OVERHEAD_BYTES;
        if record.payload.len() > MAX_PAYLOAD_BYTES
            || self.bytes + cost > self.budget_bytes
            || self.left_out.len() >= MAX_LEFT_OUT
        {
            return false;
        }
        self.bytes += cost;
        self.left_out.push_back(record.lsn);
        self.records.push_back(record);
        true
    }

    pub(super) fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
        Some(record)
    }

    /// Gives a popped record back to the journal, if its reader has not passed it.
    pub(super) fn give_back(&mut self, lsn: u64) -> bool {
        let at = self.left_out.binary_search(&lsn);
        at.is_ok_and(|at| self.left_out.remove(at).is_some())
    }

    /// Whether the reader, which has read the record `lsn`, leaves it out.
    pub(super) fn leaves_out(&mut self, lsn: u64) -> bool {
        while self.left_out.front().is_some_and(|first| *first < lsn) {
            self.left_out.pop_front();
        }
        let is_first = self.left_out.front() == Some(&lsn);
        if is_first {
            self.left_out.pop_front();
        }
        is_first
    }

    /// The reader has passed all records.
    pub(super) fn end_reading(&mut self) {
        self.left_out.clear();
    }
}

impl WaitingTags {
    /// Adds the tag of a record.
    pub(super) fn insert(&mut self, payload: &[u8]) {
        self.insert_tag(first_tag(payload));
    }

    pub(super) fn insert_tag(&mut self, tag: &[u8]) {
        if self.0.len() <= MAX_TAGS {
            self.0.insert(XxHash3_64::oneshot(tag));
        }
    }

    /// Whether records of its tag wait, or may wait.
    pub(super) fn contains(&self, payload: &[u8]) -> bool {
        self.0.len() > MAX_TAGS || self.0.contains(&XxHash3_64::oneshot(first_tag(payload)))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The tag of the first message: the messages of a record come from one client.
fn first_tag(payload: &[u8]) -> &[u8] {
    let rest = match payload {
        [0x90..=0x9f, rest @ ..] | [0xdc, _, _, rest @ ..] | [0xdd, _, _, _, _, rest @ ..] => rest,
        _ => payload,
    };
    let (length, tag) = match rest {
        [head @ 0xa0..=0xbf, tag @ ..] => (usize::from(head & 0x1f), tag),
        [0xd9 | 0xc4, length, tag @ ..] => (usize::from(*length), tag),
        [0xda | 0xc5, a, b, tag @ ..] => (usize::from(u16::from_be_bytes([*a, *b])), tag),
        _ => (0, rest),
    };
    tag.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(lsn: u64, bytes: usize) -> Record {
        Record {
            lsn,
            segment: 1,
            received_us: 0,
            kind: 1,
            payload: Bytes::from(vec![0; bytes]),
            released: false,
        }
    }

    #[test]
    fn the_reader_leaves_out_what_was_taken_and_not_given_back() {
        let mut lane = ExpressLane::new(10_000);
        for lsn in [3, 5, 8, 9] {
            assert!(lane.push(record(lsn, 10)));
        }
        assert_eq!(lane.pop().unwrap().lsn, 3);
        assert_eq!(lane.pop().unwrap().lsn, 5);
        assert!(lane.give_back(5));
        let left_out: Vec<_> = (1..=8).filter(|lsn| lane.leaves_out(*lsn)).collect();
        assert_eq!(left_out, [3, 8]);
        assert!(!lane.give_back(8), "the reader has passed it");
        assert!(!lane.leaves_out(12) && lane.left_out.is_empty());
        assert_eq!((lane.pop().unwrap().lsn, lane.pop().unwrap().lsn), (8, 9));
        assert_eq!((lane.bytes(), lane.pop()), (0, None));
    }

    #[test]
    fn its_bytes_are_bounded() {
        let mut lane = ExpressLane::new(3 * MAX_PAYLOAD_BYTES);
        assert!(!lane.push(record(1, MAX_PAYLOAD_BYTES + 1)));
        assert!(lane.push(record(2, MAX_PAYLOAD_BYTES)));
        assert!(lane.push(record(3, MAX_PAYLOAD_BYTES)));
        assert!(!lane.push(record(4, MAX_PAYLOAD_BYTES)));
    }

    #[test]
    fn tags_of_all_lengths_are_found() {
        let mut tags = WaitingTags::default();
        for length in [0, 1, 31, 32, 255, 256, 70_000] {
            let tag = "t".repeat(length);
            let long = rmp_serde::to_vec(&(&tag, 1, 2)).unwrap();
            let short = rmp_serde::to_vec(&(&tag, [0])).unwrap();
            // A tag of more than 64 KiB counts as none.
            tags.clear();
            tags.insert(&long);
            assert!(tags.contains(&short));
            if length < 1 << 16 {
                tags.clear();
                tags.insert_tag(tag.as_bytes());
                assert!(tags.contains(&short), "{length}");
            }
            assert!(!tags.contains(b"\x92\xa1u\x90"));
        }
    }
}
