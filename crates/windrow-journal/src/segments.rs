//! In-memory table of segments: lsns, durable bytes, offset index and released records of each.
//!
//! Plain data under one lock, no I/O. The writer adds to it, the maintenance thread removes
//! obsolete segments.

use std::collections::VecDeque;
use std::ops::Range;

/// Distance of the entries in a segment's offset index: how far a reader scans to find a record.
const INDEX_INTERVAL_BYTES: u64 = 1 << 20;

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) instance: u64,
    pub(crate) first_lsn: u64,
    /// See `SegmentHeader::continues_lsn`; only known for segments of this run.
    pub(crate) continues_lsn: u64,
    /// One past the last durable record.
    pub(crate) next_lsn: u64,
    /// Durable bytes of the file.
    pub(crate) end: u64,
    /// Nothing more will be written.
    pub(crate) sealed: bool,
    /// Damage was found in it, counted and logged.
    pub(crate) damaged: bool,
    /// The damaged file could not be linked into the quarantine: it is moved there instead of being
    /// unlinked.
    pub(crate) quarantine_on_removal: bool,
    /// The file may be recycled: it was created in this run, and no write or sync of it has failed.
    pub(crate) recyclable: bool,
    /// The file is being recycled: what a reader finds in it may belong to another segment.
    pub(crate) recycling: bool,
    released: LsnBitmap,
    unreleased: u64,
    /// Sparse offset index: lsns and the file offsets of their records, ascending.
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(crate) fn new(number: u64, instance: u64, lsns: Range<u64>, end: u64, sealed: bool) -> Self {
        Self {
            number,
            instance,
            first_lsn: lsns.start,
            continues_lsn: lsns.start,
            next_lsn: lsns.end,
            end,
            sealed,
            damaged: false,
            quarantine_on_removal: false,
            recyclable: false,
            recycling: false,
            released: LsnBitmap::default(),
            unreleased: lsns.end - lsns.start,
            index: Vec::new(),
        }
    }

    /// Records below `next_lsn` became durable, starting at the previous `end`.
    pub(crate) fn committed(&mut self, next_lsn: u64, end: u64) {
        if self
            .index
            .last()
            .is_none_or(|&(_, at)| self.end >= at + INDEX_INTERVAL_BYTES)
        {
            self.index.push((self.next_lsn, self.end));
        }
        self.unreleased += next_lsn - self.next_lsn;
        self.next_lsn = next_lsn;
        self.end = end;
    }

    /// The indexed record at or before `lsn`: its lsn and file offset.
    pub(crate) fn seek(&self, lsn: u64) -> Option<(u64, u64)> {
        let after = self.index.partition_point(|&(first, _)| first <= lsn);
        self.index.get(after.checked_sub(1)?).copied()
    }

    pub(crate) fn is_released(&self, lsn: u64) -> bool {
        lsn.checked_sub(self.first_lsn)
            .is_some_and(|at| self.released.contains(at))
    }

    /// True if the record is of this segment and was not released before.
    pub(crate) fn release(&mut self, lsn: u64) -> bool {
        if !(self.first_lsn..self.next_lsn).contains(&lsn) || !self.released.insert(lsn - self.first_lsn) {
            return false;
        }
        self.unreleased -= 1;
        true
    }

    pub(crate) fn unreleased(&self) -> u64 {
        self.unreleased
    }

    /// The first unreleased record.
    pub(crate) fn first_unreleased(&self) -> Option<u64> {
        let at = self.first_lsn + self.released.first_absent();
        (at < self.next_lsn).then_some(at)
    }
}

/// All segments, oldest first, with ascending numbers and lsns.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    list: VecDeque<Segment>,
    bytes: u64,
    unreleased: u64,
}

impl Segments {
    pub(crate) fn push(&mut self, segment: Segment) {
        self.bytes += segment.end;
        self.unreleased += segment.unreleased;
        self.list.push_back(segment);
    }

    /// Durable bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn unreleased(&self) -> u64 {
        self.unreleased
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.list.iter()
    }

    pub(crate) fn newest_mut(&mut self) -> Option<&mut Segment> {
        self.list.back_mut()
    }

    pub(crate) fn newest(&self) -> Option<&Segment> {
        self.list.back()
    }

    pub(crate) fn by_number(&self, number: u64) -> Option<&Segment> {
        let at = self.list.partition_point(|segment| segment.number < number);
        self.list.get(at).filter(|segment| segment.number == number)
    }

    pub(crate) fn by_number_mut(&mut self, number: u64) -> Option<&mut Segment> {
        let at = self.list.partition_point(|segment| segment.number < number);
        self.list.get_mut(at).filter(|segment| segment.number == number)
    }

    /// The segment that holds `lsn`, or the first one with a later record.
    pub(crate) fn at_or_after(&self, lsn: u64) -> Option<&Segment> {
        let at = self.list.partition_point(|segment| segment.next_lsn <= lsn);
        self.list
            .iter()
            .skip(at)
            .find(|segment| segment.next_lsn > segment.first_lsn)
    }

    /// Records of the newest segment became durable.
    pub(crate) fn committed(&mut self, next_lsn: u64, end: u64) {
        if let Some(segment) = self.list.back_mut() {
            self.bytes += end - segment.end;
            self.unreleased += next_lsn - segment.next_lsn;
            segment.committed(next_lsn, end);
        }
    }

    /// Marks a record as released.
    pub(crate) fn release(&mut self, lsn: u64) -> ReleaseOutcome {
        // Two segments have the same first lsn when the first of them is empty.
        let after = self.list.partition_point(|segment| segment.first_lsn <= lsn);
        let Some(segment) = after.checked_sub(1).and_then(|at| self.list.get_mut(at)) else {
            return ReleaseOutcome::NoChange;
        };
        if !segment.release(lsn) {
            return ReleaseOutcome::NoChange;
        }
        self.unreleased -= 1;
        if segment.unreleased == 0 {
            ReleaseOutcome::LastOfSegment
        } else {
            ReleaseOutcome::Released
        }
    }

    /// Sealed segments without an unreleased record, oldest first. Never the newest: after a
    /// restart its header keeps lsns from being assigned twice.
    pub(crate) fn obsolete(&self) -> Vec<u64> {
        let all_but_newest = self.list.len().saturating_sub(1);
        let older = self.list.iter().take(all_but_newest);
        older
            .filter(|segment| segment.sealed && segment.unreleased == 0)
            .map(|segment| segment.number)
            .collect()
    }

    pub(crate) fn remove(&mut self, number: u64) {
        if let Some(at) = self.list.iter().position(|segment| segment.number == number)
            && let Some(segment) = self.list.remove(at)
        {
            self.bytes -= segment.end;
            self.unreleased -= segment.unreleased;
        }
    }
}

/// Effect of releasing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseOutcome {
    /// The record was released before, or does not exist.
    NoChange,
    Released,
    /// It was the last unreleased record of its segment.
    LastOfSegment,
}

/// Set of lsns, relative to the first of a segment.
#[derive(Debug, Default)]
struct LsnBitmap {
    words: Vec<u64>,
    /// Number of leading words with all bits set.
    full: usize,
}

impl LsnBitmap {
    fn contains(&self, at: u64) -> bool {
        let (word, bit) = split(at);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// True if it was not in the set.
    fn insert(&mut self, at: u64) -> bool {
        let (word, bit) = split(at);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let Some(slot) = self.words.get_mut(word) else {
            return false;
        };
        let new = *slot & bit == 0;
        *slot |= bit;
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
        new
    }

    fn first_absent(&self) -> u64 {
        let word = self.words.get(self.full).copied().unwrap_or(0);
        self.full as u64 * 64 + u64::from(word.trailing_ones())
    }
}

fn split(at: u64) -> (usize, u64) {
    (usize::try_from(at / 64).unwrap_or(usize::MAX), 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_obsolete_when_sealed_and_released_and_not_the_newest() {
        let mut segments = Segments::default();
        segments.push(Segment::new(1, 0, 1..4, 500, true));
        segments.push(Segment::new(2, 0, 4..4, 64, false));
        segments.committed(6, 200);
        assert_eq!((segments.bytes(), segments.unreleased()), (700, 5));
        assert_eq!(segments.release(2), ReleaseOutcome::Released);
        assert_eq!(segments.release(2), ReleaseOutcome::NoChange);
        assert_eq!(segments.release(1), ReleaseOutcome::Released);
        assert_eq!(
            segments.iter().next().and_then(Segment::first_unreleased),
            Some(3)
        );
        assert!(segments.obsolete().is_empty());
        assert_eq!(segments.release(3), ReleaseOutcome::LastOfSegment);
        assert_eq!(segments.obsolete(), [1]);
        assert_eq!(segments.release(4), ReleaseOutcome::Released);
        assert_eq!(segments.release(5), ReleaseOutcome::LastOfSegment);
        assert_eq!(segments.release(6), ReleaseOutcome::NoChange);
        assert_eq!(segments.obsolete(), [1]);
        segments.remove(1);
        assert_eq!(
            (segments.bytes(), segments.unreleased(), segments.len()),
            (200, 0, 1)
        );
        assert_eq!(segments.release(2), ReleaseOutcome::NoChange);
    }

    #[test]
    fn a_record_is_found_in_the_segment_that_has_it() {
        let mut segments = Segments::default();
        segments.push(Segment::new(1, 0, 1..4, 500, true));
        segments.push(Segment::new(2, 0, 4..4, 64, true));
        segments.push(Segment::new(3, 0, 9..12, 64, true));
        let number = |lsn| segments.at_or_after(lsn).map(|segment| segment.number);
        assert_eq!(
            [number(0), number(3), number(4), number(11), number(12)],
            [Some(1), Some(1), Some(3), Some(3), None]
        );
    }

    #[test]
    fn bits_find_the_first_gap() {
        let mut bits = LsnBitmap::default();
        for at in (0..200).filter(|&at| at != 130) {
            assert!(bits.insert(at));
        }
        assert_eq!(bits.first_absent(), 130);
        assert!(bits.insert(130) && !bits.insert(130));
        assert_eq!(bits.first_absent(), 200);
    }
}
