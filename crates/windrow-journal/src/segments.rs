//! What is known in memory about each segment: its lsns, its durable end, and which records are released.
//!
//! Plain data under one lock; no input or output. The writer appends to it, the keeper takes dead segments out.

use std::collections::VecDeque;
use std::ops::Range;

/// One entry per this many bytes, so that a reader can start near a record instead of at the file's start.
const INDEX_EVERY: u64 = 1 << 20;

/// One segment file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) instance: u64,
    pub(super) first_lsn: u64,
    /// One past the last durable record.
    pub(super) next_lsn: u64,
    /// Durable bytes of the file.
    pub(super) end: u64,
    /// Nothing more will be written.
    pub(super) sealed: bool,
    /// Damage was found in it; it was counted and said.
    pub(super) damaged: bool,
    /// The damaged file could not be linked into the quarantine: it is moved there instead of being removed.
    pub(super) keep_file: bool,
    /// The file may be used again: it is of this life, of full size, and nothing ever failed with it.
    pub(super) reusable: bool,
    /// The file is going to be used again: what is read of it from now on says nothing.
    pub(super) leaving: bool,
    released: Bits,
    unreleased: u64,
    /// Some lsns and where they start, ascending.
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(super) fn new(number: u64, instance: u64, lsns: Range<u64>, end: u64, sealed: bool) -> Self {
        Self {
            number,
            instance,
            first_lsn: lsns.start,
            next_lsn: lsns.end,
            end,
            sealed,
            damaged: false,
            keep_file: false,
            reusable: false,
            leaving: false,
            released: Bits::default(),
            unreleased: lsns.end - lsns.start,
            index: Vec::new(),
        }
    }

    /// Records up to `next_lsn` became durable; they begin at the present end.
    pub(super) fn committed(&mut self, next_lsn: u64, end: u64) {
        if self
            .index
            .last()
            .is_none_or(|&(_, at)| self.end >= at + INDEX_EVERY)
        {
            self.index.push((self.next_lsn, self.end));
        }
        self.unreleased += next_lsn - self.next_lsn;
        self.next_lsn = next_lsn;
        self.end = end;
    }

    /// Where to start reading to find `lsn`: the lsn and the offset of a record at or before it.
    pub(super) fn start_for(&self, lsn: u64) -> Option<(u64, u64)> {
        let after = self.index.partition_point(|&(first, _)| first <= lsn);
        self.index.get(after.checked_sub(1)?).copied()
    }

    pub(super) fn is_released(&self, lsn: u64) -> bool {
        lsn.checked_sub(self.first_lsn)
            .is_some_and(|at| self.released.contains(at))
    }

    /// True if the record is of this segment and was not released before.
    pub(super) fn release(&mut self, lsn: u64) -> bool {
        if !(self.first_lsn..self.next_lsn).contains(&lsn) || !self.released.insert(lsn - self.first_lsn) {
            return false;
        }
        self.unreleased -= 1;
        true
    }

    pub(super) fn unreleased(&self) -> u64 {
        self.unreleased
    }

    /// The first record that waits to be released.
    pub(super) fn first_unreleased(&self) -> Option<u64> {
        let at = self.first_lsn + self.released.first_absent();
        (at < self.next_lsn).then_some(at)
    }
}

/// All segments, oldest first. Numbers ascend, and so do lsns.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: VecDeque<Segment>,
    bytes: u64,
    unreleased: u64,
}

impl Segments {
    pub(super) fn push(&mut self, segment: Segment) {
        self.bytes += segment.end;
        self.unreleased += segment.unreleased;
        self.list.push_back(segment);
    }

    /// Durable bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn unreleased(&self) -> u64 {
        self.unreleased
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.list.iter()
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Segment> {
        self.list.back_mut()
    }

    pub(super) fn newest(&self) -> Option<&Segment> {
        self.list.back()
    }

    pub(super) fn by_number(&self, number: u64) -> Option<&Segment> {
        let at = self.list.partition_point(|segment| segment.number < number);
        self.list.get(at).filter(|segment| segment.number == number)
    }

    pub(super) fn by_number_mut(&mut self, number: u64) -> Option<&mut Segment> {
        let at = self.list.partition_point(|segment| segment.number < number);
        self.list.get_mut(at).filter(|segment| segment.number == number)
    }

    /// The segment that holds `lsn`, or the first one with a later record.
    pub(super) fn at_or_after(&self, lsn: u64) -> Option<&Segment> {
        let at = self.list.partition_point(|segment| segment.next_lsn <= lsn);
        self.list
            .iter()
            .skip(at)
            .find(|segment| segment.next_lsn > segment.first_lsn)
    }

    /// Records of the newest segment became durable.
    pub(super) fn committed(&mut self, next_lsn: u64, end: u64) {
        if let Some(segment) = self.list.back_mut() {
            self.bytes += end - segment.end;
            self.unreleased += next_lsn - segment.next_lsn;
            segment.committed(next_lsn, end);
        }
    }

    /// Marks a record as released. Says whether it was not before, and whether its segment is free to go now.
    pub(super) fn release(&mut self, lsn: u64) -> Released {
        // Two segments have the same first lsn when nothing was written to the first of them.
        let after = self.list.partition_point(|segment| segment.first_lsn <= lsn);
        let Some(segment) = after.checked_sub(1).and_then(|at| self.list.get_mut(at)) else {
            return Released::Before;
        };
        if !segment.release(lsn) {
            return Released::Before;
        }
        self.unreleased -= 1;
        if segment.unreleased == 0 {
            Released::LastOfSegment
        } else {
            Released::Now
        }
    }

    /// Sealed segments without an unreleased record, oldest first. The newest is never among them: its header
    /// is what keeps lsns from being given twice.
    pub(super) fn dead(&self) -> Vec<u64> {
        let all_but_newest = self.list.len().saturating_sub(1);
        let older = self.list.iter().take(all_but_newest);
        older
            .filter(|segment| segment.sealed && segment.unreleased == 0)
            .map(|segment| segment.number)
            .collect()
    }

    /// Takes a segment out.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(at) = self.list.iter().position(|segment| segment.number == number)
            && let Some(segment) = self.list.remove(at)
        {
            self.bytes -= segment.end;
            self.unreleased -= segment.unreleased;
        }
    }
}

/// What came of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Released {
    /// Released before, or no record that is still there.
    Before,
    Now,
    /// No record of this segment waits any more.
    LastOfSegment,
}

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    /// All words before this one are full.
    full: usize,
}

impl Bits {
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
    fn a_segment_is_dead_when_sealed_and_released_and_not_the_newest() {
        let mut segments = Segments::default();
        segments.push(Segment::new(1, 0, 1..4, 500, true));
        segments.push(Segment::new(2, 0, 4..4, 64, false));
        segments.committed(6, 200);
        assert_eq!((segments.bytes(), segments.unreleased()), (700, 5));
        assert_eq!(segments.release(2), Released::Now);
        assert_eq!(segments.release(2), Released::Before);
        assert_eq!(segments.release(1), Released::Now);
        assert_eq!(
            segments.iter().next().and_then(Segment::first_unreleased),
            Some(3)
        );
        assert!(segments.dead().is_empty());
        assert_eq!(segments.release(3), Released::LastOfSegment);
        assert_eq!(segments.dead(), [1]);
        assert_eq!(segments.release(4), Released::Now);
        assert_eq!(segments.release(5), Released::LastOfSegment);
        assert_eq!(segments.release(6), Released::Before);
        assert_eq!(segments.dead(), [1]);
        segments.remove(1);
        assert_eq!(
            (segments.bytes(), segments.unreleased(), segments.len()),
            (200, 0, 1)
        );
        assert_eq!(segments.release(2), Released::Before);
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
        let mut bits = Bits::default();
        for at in (0..200).filter(|&at| at != 130) {
            assert!(bits.insert(at));
        }
        assert_eq!(bits.first_absent(), 130);
        assert!(bits.insert(130) && !bits.insert(130));
        assert_eq!(bits.first_absent(), 200);
    }
}
