//! Partial lines: the parts of a line wait until the last one has come.
//!
//! Owns the waiting parts, their claims on journal records, and the bounds on them. A line that is
//! too long, too old or in the way of others is given back in parts, which are then written as they
//! came. The joined line has the place of its last part, so that it is the same line after a
//! restart, however its parts were gathered before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use windrow_trace::PartId;

use super::fragment::{Mark, join, line_key, mark};
use super::root_names::RootNames;
use crate::claim::{RecordClaim, ReleaseGroup};

/// Memory of a waiting part besides its record.
const FRAGMENT_OVERHEAD_BYTES: usize = 256;
/// Journal records of more bytes than this are not released together. Only where a line is split
/// between two such groups can a crash write a part of it again, as a line of its own.
const MAX_GROUP_BYTES: usize = 64 << 20;
/// Ordinals of parts begin here.
const FIRST_ORDINAL: u32 = 1;

/// A part of a line, with all that is needed to gather it later.
#[derive(Debug)]
pub(in crate::gather) struct Fragment {
    pub(in crate::gather) part: PartId,
    /// Number of its section of the part.
    pub(in crate::gather) section: u32,
    /// Number of the record in its part.
    pub(in crate::gather) position: u32,
    /// When it was received (µs).
    pub(in crate::gather) received: i64,
    /// Event time (ns).
    pub(in crate::gather) time: i64,
    pub(in crate::gather) tag: Arc<str>,
    pub(in crate::gather) claim: RecordClaim,
    /// A MessagePack map.
    pub(in crate::gather) record: Vec<u8>,
    pub(in crate::gather) metadata: Vec<u8>,
    /// Everything that was made of it is stored: its journal record was released before a restart.
    pub(in crate::gather) is_stored: bool,
}

/// What becomes of a record.
#[derive(Debug)]
pub(in crate::gather) enum Offer {
    /// It is a whole line.
    Whole,
    /// It is a part and waits.
    Kept,
    /// It is a part that has come before.
    Repeated,
    /// It completes a line, whose parts are these, in order.
    Complete(Vec<Fragment>),
}

/// The parts of a line that have come.
#[derive(Debug)]
struct PartialLine {
    /// By their ordinals; of a line without ordinals in the order of arrival.
    fragments: BTreeMap<u32, Fragment>,
    /// The number of parts, once the last one has come.
    total: Option<u32>,
    /// The next record of the stream may end it.
    is_open: bool,
    bytes: usize,
    last_seen: i64,
    number: u64,
}

/// Limits of what waits.
#[derive(Clone, Copy, Debug)]
pub(in crate::gather) struct PartialLimits {
    /// Memory of all parts.
    pub(in crate::gather) max_bytes: usize,
    /// Bytes of the parts of one line.
    pub(in crate::gather) max_line_bytes: usize,
    /// How long a line waits for its next part (µs).
    pub(in crate::gather) timeout: i64,
}

/// All partial lines.
#[derive(Debug)]
pub(in crate::gather) struct PartialLines {
    limits: PartialLimits,
    lines: HashMap<u128, PartialLine, foldhash::fast::RandomState>,
    /// Lines by the time of a part, oldest first: time, key and number. Outdated entries are passed
    /// over.
    order: VecDeque<(i64, u128, u64)>,
    /// Lines that the next record of their stream may end.
    open: usize,
    bytes: usize,
    /// Waiting parts that are not stored.
    waiting: u64,
    next_number: u64,
    /// Parts that are to be written as they came.
    given_back: Vec<Fragment>,
    /// A part of the current journal record was kept, or completed a line that began in another.
    is_linked: bool,
    /// Journal records whose lines are connected, and their bytes.
    group: Option<(ReleaseGroup, usize)>,
}

impl PartialLines {
    pub(in crate::gather) fn new(limits: PartialLimits) -> Self {
        Self {
            limits,
            lines: HashMap::default(),
            order: VecDeque::new(),
            open: 0,
            bytes: 0,
            waiting: 0,
            next_number: 0,
            given_back: Vec::new(),
            is_linked: false,
            group: None,
        }
    }

    /// Whether a record without marks may end a line.
    #[inline(always)]
    pub(in crate::gather) fn is_any_open(&self) -> bool {
        self.open > 0
    }

    /// The tags of waiting parts, some of them more than once.
    pub(in crate::gather) fn tags(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.values();
        lines.filter_map(|line| Some(&*line.fragments.first_key_value()?.1.tag))
    }

    /// Number of waiting parts that are not stored.
    pub(in crate::gather) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Bytes of waiting parts.
    pub(in crate::gather) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a record if it is a part of a line. `fragment` copies it.
    pub(in crate::gather) fn offer(
        &mut self,
        names: &RootNames,
        record: &[u8],
        tag: &str,
        now: i64,
        fragment: impl FnOnce() -> Fragment,
    ) -> Offer {
        let mark = mark(names, record);
        let key = match mark {
            Mark::Whole => return Offer::Whole,
            Mark::Closing(_) if self.open == 0 => return Offer::Whole,
            _ => line_key(mark, tag, record),
        };
        if matches!(mark, Mark::Closing(_)) && !self.lines.contains_key(&key) {
            return Offer::Whole;
        }
        let fragment = fragment();
        let (ordinal, total) = match mark {
            Mark::Numbered { ordinal, is_last } => (Some(ordinal), is_last.then_some(ordinal)),
            _ => (None, None),
        };
        if ordinal.is_some_and(|ordinal| !self.make_way(key, ordinal, &fragment)) {
            fragment.claim.confirm();
            return Offer::Repeated;
        }
        self.is_linked = true;
        let line = self.keep(key, ordinal, total, matches!(mark, Mark::Open(_)), now, fragment);
        let is_complete = match mark {
            Mark::Closing(_) => true,
            _ => line.is_complete(),
        };
        if is_complete && let Some(line) = self.remove(key) {
            return Offer::Complete(line.in_order());
        }
        self.limit(key);
        Offer::Kept
    }

    /// Whether a part with this ordinal is new. One that came before is a repetition, or begins
    /// another line with the same id, for which the waiting parts are given back.
    fn make_way(&mut self, key: u128, ordinal: u32, fragment: &Fragment) -> bool {
        match self.lines.get(&key).and_then(|line| line.fragments.get(&ordinal)) {
            None => true,
            Some(known) if known.record == fragment.record => false,
            Some(_) => {
                self.give_back(key);
                true
            }
        }
    }

    fn keep(
        &mut self,
        key: u128,
        ordinal: Option<u32>,
        total: Option<u32>,
        is_open: bool,
        now: i64,
        fragment: Fragment,
    ) -> &PartialLine {
        let bytes = fragment.record.len() + fragment.metadata.len() + FRAGMENT_OVERHEAD_BYTES;
        self.bytes += bytes;
        self.waiting += u64::from(!fragment.is_stored);
        let (order, next_number, open) = (&mut self.order, &mut self.next_number, &mut self.open);
        let line = self.lines.entry(key).or_insert_with(|| {
            *next_number += 1;
            *open += usize::from(is_open);
            order.push_back((now, key, *next_number));
            PartialLine {
                fragments: BTreeMap::new(),
                total: None,
                is_open,
                bytes: 0,
                last_seen: now,
                number: *next_number,
            }
        });
        let in_turn = || FIRST_ORDINAL.saturating_add(line.fragments.len() as u32);
        let ordinal = ordinal.unwrap_or_else(in_turn);
        line.fragments.insert(ordinal, fragment);
        line.total = line.total.or(total);
        line.bytes += bytes;
        line.last_seen = now;
        line
    }

    fn remove(&mut self, key: u128) -> Option<PartialLine> {
        let line = self.lines.remove(&key)?;
        self.open -= usize::from(line.is_open);
        self.bytes -= line.bytes;
        self.waiting -= line.fragments.values().filter(|part| !part.is_stored).count() as u64;
        if self.order.len() > 2 * self.lines.len() + 1024 {
            let lines = &self.lines;
            self.order
                .retain(|(_, key, number)| lines.get(key).is_some_and(|line| line.number == *number));
        }
        Some(line)
    }

    fn give_back(&mut self, key: u128) {
        if let Some(line) = self.remove(key) {
            self.given_back.extend(line.in_order());
        }
    }

    /// Gives back the line that has just grown, if it is too long, and the oldest lines while all
    /// together take too much memory.
    fn limit(&mut self, key: u128) {
        if self
            .lines
            .get(&key)
            .is_some_and(|line| line.bytes > self.limits.max_line_bytes)
        {
            self.give_back(key);
        }
        while self.bytes > self.limits.max_bytes
            && let Some((_, key, number)) = self.order.pop_front()
        {
            if self.lines.get(&key).is_some_and(|line| line.number == number) {
                self.give_back(key);
            }
        }
    }

    /// Gives back the lines whose next part has not come in time.
    pub(in crate::gather) fn expire(&mut self, now: i64) {
        let is_waiting = |since: i64| (0..self.limits.timeout).contains(&(now - since));
        let mut expired = Vec::new();
        while let Some(&(since, key, number)) = self.order.front()
            && !is_waiting(since)
        {
            self.order.pop_front();
            match self.lines.get(&key).filter(|line| line.number == number) {
                Some(line) if is_waiting(line.last_seen) => {
                    self.order.push_back((line.last_seen, key, number));
                }
                Some(_) => expired.push(key),
                None => {}
            }
        }
        expired.into_iter().for_each(|key| self.give_back(key));
        self.end_group();
    }

    /// Gives back all lines with a part whose claim satisfies `predicate`.
    pub(in crate::gather) fn give_back_holding(&mut self, predicate: impl Fn(&RecordClaim) -> bool) {
        let holds = |line: &PartialLine| line.fragments.values().any(|part| predicate(&part.claim));
        let keys: Vec<u128> = self
            .lines
            .iter()
            .filter_map(|(key, line)| holds(line).then_some(*key))
            .collect();
        keys.into_iter().for_each(|key| self.give_back(key));
        self.end_group();
    }

    /// Parts that are to be written as they came.
    pub(in crate::gather) fn take_given_back(&mut self) -> Vec<Fragment> {
        std::mem::take(&mut self.given_back)
    }

    /// Ends a journal record of `bytes` bytes. Records whose lines are connected are released
    /// together: a part whose others are gone would be written as a line of its own after a crash.
    pub(in crate::gather) fn end_record(&mut self, claim: &RecordClaim, bytes: usize) {
        if std::mem::take(&mut self.is_linked) && (self.group.is_some() || !self.lines.is_empty()) {
            let (group, size) = self.group.get_or_insert_with(Default::default);
            claim.release_with(group);
            *size = size.saturating_add(bytes);
            if *size > MAX_GROUP_BYTES {
                self.group = None;
            }
        }
        self.end_group();
    }

    /// Ends the group once no line connects its records with later ones.
    fn end_group(&mut self) {
        if self.lines.is_empty() {
            self.group = None;
        }
    }
}

impl PartialLine {
    /// Whether all parts up to the last have come.
    fn is_complete(&self) -> bool {
        let (first, last) = (self.fragments.first_key_value(), self.fragments.last_key_value());
        self.total.is_some_and(|total| {
            first.is_some_and(|(first, _)| *first == FIRST_ORDINAL)
                && last.is_some_and(|(last, _)| *last == total)
                && self.fragments.len() == total as usize
        })
    }

    fn in_order(self) -> Vec<Fragment> {
        self.fragments.into_values().collect()
    }
}

/// The record of the line that consists of `fragments`.
pub(in crate::gather) fn joined_record(names: &RootNames, fragments: &[Fragment]) -> Vec<u8> {
    let parts: Vec<&[u8]> = fragments.iter().map(|part| &*part.record).collect();
    parts
        .last()
        .map_or_else(Vec::new, |last| join(names, last, &parts))
}
