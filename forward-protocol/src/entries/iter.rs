//! Walking entries: one pass over the bytes, a fast way for what agents send all day and a slow one for the rest.

use std::ops::Range;

use super::expected::{self, WireKey};
use super::pairs::{Pair, pair_at};
use super::time::{Stamp, Time, event_time, read};
use crate::msgpack::{Error, Kind, Value, check_depth, extent};

/// One event. All slices are raw MessagePack and lie in the bytes that are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// Where the entry begins in the walked bytes.
    pub offset: usize,
    /// When it happened.
    pub time: Time,
    /// The event's own metadata: a map that is not empty.
    pub metadata: Option<&'a [u8]>,
    /// The record: a map, complete, well-formed, and not nested deeper than the limit.
    pub record: &'a [u8],
}

/// What a group marker says for all events up to the group's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group<'a> {
    /// The metadata of the group, a raw MessagePack map; empty bytes when there is none.
    pub metadata: &'a [u8],
    /// The attributes (OTLP resource and scope, for instance), a raw MessagePack map.
    pub attributes: &'a [u8],
}

/// An entry that is no event. The iteration goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadEntry<'a> {
    /// Where it begins in the walked bytes.
    pub offset: usize,
    /// Its bytes; all that is left when its end cannot be known.
    pub bytes: &'a [u8],
    /// What is wrong with it.
    pub defect: Defect,
}

/// What is wrong with an entry. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// It is no array.
    #[error("the entry is of type {0:?}, not an array")]
    NotArray(Kind),
    /// It has not two elements.
    #[error("the entry has {0} elements, not 2")]
    Size(u32),
    /// Its time is of a type that is no time.
    #[error("the time is of type {0:?}")]
    TimeType(Kind),
    /// Its time is an extension that is no time.
    #[error("the time is an extension of type {kind} with {len} bytes")]
    TimeExtension {
        /// The extension type.
        kind: i8,
        /// The length of its data.
        len: usize,
    },
    /// Its header `[time, metadata]` has not two elements.
    #[error("the header of the entry has {0} elements, not 2")]
    HeaderSize(u32),
    /// Its metadata is neither a map nor nil.
    #[error("the metadata is of type {0:?}, not a map")]
    Metadata(Kind),
    /// Its record is no map.
    #[error("the record is of type {0:?}, not a map")]
    Record(Kind),
    /// More containers lie inside each other than allowed.
    #[error("more than {0} containers inside each other")]
    TooDeep(u32),
    /// The payload ends inside the entry.
    #[error("the payload ends inside the entry")]
    Truncated,
    /// These bytes are no MessagePack; where the next entry begins cannot be known.
    #[error("the byte 0xc1, which MessagePack never uses, stands in the entry")]
    Malformed,
}

impl From<Error> for Defect {
    fn from(error: Error) -> Self {
        match error {
            Error::Incomplete { .. } | Error::TooLong { .. } => Self::Truncated,
            Error::TooDeep { limit, .. } => Self::TooDeep(limit),
            Error::Malformed { .. } | Error::WrongType { .. } => Self::Malformed,
        }
    }
}

/// Looks at the records of [`Entries::next_with`] while they are walked. `'k` is the life of the keys that it expects.
pub trait Visitor<'a, 'k> {
    /// A record begins. What was seen before belongs to another one, which may have turned out bad: what was gathered
    /// counts only when `next_with` returns an entry. `pairs` is how many pairs it declares.
    ///
    /// Gives the keys that the pairs are expected to have, in order; empty when it expects nothing. As long as the pairs
    /// have them, their values go to [`Self::value`]: keys are compared then and not read, which is quicker. From the
    /// first pair on that has another key, or a key beyond the expected ones, all pairs go to [`Self::pair`].
    fn record(&mut self, pairs: u32) -> &'k [WireKey];

    /// The next pair, the `number`-th of the record; the first one has the number 0.
    fn pair(&mut self, number: usize, pair: Pair<'a>);

    /// The value, as raw MessagePack bytes, of the `number`-th pair, which has the expected key. Not called for keys
    /// that are [passed over](WireKey::passed_over).
    fn value(&mut self, number: usize, value: &'a [u8]) {
        let _ = (number, value);
    }
}

/// Iterates over the entries of a message; see [`crate::frame::Message::payload`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    buf: &'a [u8],
    at: usize,
    max_depth: u32,
    group: Option<Group<'a>>,
    /// Message mode: no array around time and record; the metadata stands in the options.
    single: Option<Option<&'a [u8]>>,
    /// More bytes are to come behind those of `buf`.
    more: bool,
}

impl<'a> Entries<'a> {
    /// The entries that stand one behind the other in `buf`: a decompressed payload, or the body of a message in
    /// Forward or PackedForward mode. `max_depth` is [`crate::frame::Limits::depth`].
    pub fn new(buf: &'a [u8], max_depth: u32) -> Self {
        Self {
            buf,
            at: 0,
            max_depth,
            group: None,
            single: None,
            more: false,
        }
    }

    /// The entries in a piece of a longer stream, which begins inside `group`. If there is more behind the piece, an
    /// entry that is cut off by its end is none: the walk ends before it, at [`Self::at`].
    pub(super) fn piece(buf: &'a [u8], max_depth: u32, group: Option<Group<'a>>, more: bool) -> Self {
        Self {
            group,
            more,
            ..Self::new(buf, max_depth)
        }
    }

    /// How many bytes were walked.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are not walked yet.
    #[inline]
    pub fn rest(&self) -> usize {
        self.buf.len().saturating_sub(self.at)
    }

    /// The group in which the entry stands that was given last.
    #[inline]
    pub fn group(&self) -> Option<Group<'a>> {
        self.group
    }

    /// The one event of a message in Message mode: `body` is its time and its record.
    pub(crate) fn single(body: &'a [u8], metadata: Option<&'a [u8]>, max_depth: u32) -> Self {
        Self {
            buf: body,
            at: 0,
            max_depth,
            group: None,
            single: Some(metadata),
            more: false,
        }
    }

    /// The next entry, like [`Iterator::next`]; on the way `visitor` sees every pair of its record. One walk over the
    /// bytes instead of two.
    #[inline]
    pub fn next_with<'k>(
        &mut self,
        visitor: &mut impl Visitor<'a, 'k>,
    ) -> Option<Result<Entry<'a>, BadEntry<'a>>> {
        self.advance(|buf, at| {
            let (pairs, at) = map_at(buf, at)?;
            let keys = visitor.record(pairs);
            let expected = keys.get(..pairs as usize).unwrap_or(keys);
            let mut opened = 1;
            let (number, at) = expected::walk(buf, at, expected, visitor, &mut opened)?;
            if number == pairs as usize {
                return Ok((at, opened));
            }
            others(buf, at, number..pairs as usize, visitor, opened)
        })
    }

    /// `walk` finds the end of the record at a byte and how many containers it has.
    #[inline]
    fn advance(
        &mut self,
        mut walk: impl FnMut(&'a [u8], usize) -> Result<(usize, u32), Error>,
    ) -> Option<Result<Entry<'a>, BadEntry<'a>>> {
        loop {
            let offset = self.at;
            if offset >= self.buf.len() {
                return None;
            }
            match self.entry(offset, &mut walk) {
                Ok((head, record, end)) => {
                    self.at = end;
                    match head.stamp {
                        Stamp::Time(time) => {
                            let Head { metadata, .. } = head;
                            return Some(Ok(Entry {
                                offset,
                                time,
                                metadata,
                                record,
                            }));
                        }
                        Stamp::GroupStart => {
                            let metadata = head.metadata.unwrap_or_default();
                            self.group = Some(Group {
                                metadata,
                                attributes: record,
                            });
                        }
                        Stamp::GroupEnd => self.group = None,
                    }
                }
                Err(_) if self.is_cut(offset) => return None,
                Err(defect) => return Some(Err(self.bad(offset, defect))),
            }
        }
    }

    /// Whether the entry at `offset`, which could not be read, may be whole once more bytes are there.
    #[cold]
    fn is_cut(&self, offset: usize) -> bool {
        self.more && matches!(extent(self.buf, offset), Err(Error::Incomplete { .. }))
    }

    /// Reads the entry at `start`; returns its head, its record, and where it ends.
    #[inline]
    fn entry(
        &self,
        start: usize,
        walk: &mut impl FnMut(&'a [u8], usize) -> Result<(usize, u32), Error>,
    ) -> Result<(Head<'a>, &'a [u8], usize), Defect> {
        let (head, at) = self.head(start)?;
        let first = *self.buf.get(at).ok_or(Defect::Truncated)?;
        if !matches!(first, 0x80..=0x8f | 0xde | 0xdf) {
            return Err(Defect::Record(Kind::of(first)));
        }
        let (end, opened) = walk(self.buf, at)?;
        if opened > self.max_depth {
            check_depth(self.buf, at, self.max_depth)?;
        }
        let record = self.buf.get(at..end).ok_or(Defect::Truncated)?;
        Ok((head, record, end))
    }

    /// Reads everything before the record.
    #[inline]
    fn head(&self, start: usize) -> Result<(Head<'a>, usize), Defect> {
        let first = self.buf.get(start..).and_then(<[u8]>::first_chunk::<13>);
        if let Some(first) = first.filter(|_| self.single.is_none()) {
            let stamped = |at: usize| {
                let time = first.get(at..)?.first_chunk()?;
                let time = u64::from_be_bytes(*time);
                Some(event_time((time >> 32) as u32, time as u32))
            };
            let quick = match first {
                // What Fluent Bit sends by default, with metadata that is mostly empty.
                [0x92, 0x92, 0xd7, 0x00, .., 0x80] => Some((4, 13)),
                // What Fluentd and nearly everybody else sends.
                [0x92, 0xd7, 0x00, ..] => Some((3, 11)),
                _ => None,
            };
            if let Some((stamp, end)) = quick.and_then(|(time, end)| Some((stamped(time)?, end))) {
                let metadata = None;
                return Ok((Head { stamp, metadata }, start + end));
            }
        }
        self.any_head(start)
    }

    fn any_head(&self, start: usize) -> Result<(Head<'a>, usize), Defect> {
        if let Some(metadata) = self.single {
            let (stamp, next) = read(self.buf, start)?;
            let metadata = metadata.filter(|map| !is_empty_map(map));
            return Ok((Head { stamp, metadata }, next));
        }
        let at = match Value::read(self.buf, start)? {
            (Value::Array(2), next) => next,
            (Value::Array(n), _) => return Err(Defect::Size(n)),
            _ => return Err(Defect::NotArray(kind_at(self.buf, start))),
        };
        match Value::read(self.buf, at)? {
            (Value::Array(2), inner) => {
                let (stamp, next) = read(self.buf, inner)?;
                let (end, opened) = extent(self.buf, next)?;
                if opened > self.max_depth {
                    check_depth(self.buf, next, self.max_depth)?;
                }
                let metadata = match kind_at(self.buf, next) {
                    Kind::Map => self.buf.get(next..end).filter(|map| !is_empty_map(map)),
                    Kind::Nil => None,
                    kind => return Err(Defect::Metadata(kind)),
                };
                Ok((Head { stamp, metadata }, end))
            }
            (Value::Array(n), _) => Err(Defect::HeaderSize(n)),
            _ => {
                let (stamp, next) = read(self.buf, at)?;
                Ok((
                    Head {
                        stamp,
                        metadata: None,
                    },
                    next,
                ))
            }
        }
    }

    /// Steps over the bad entry at `offset`, to the end if its own end cannot be known.
    #[cold]
    fn bad(&mut self, offset: usize, defect: Defect) -> BadEntry<'a> {
        let (end, defect) = match extent(self.buf, offset) {
            _ if self.single.is_some() => (self.buf.len(), defect),
            Ok((end, _)) => (end, defect),
            Err(error) => (self.buf.len(), error.into()),
        };
        self.at = end;
        BadEntry {
            offset,
            bytes: self.buf.get(offset..end).unwrap_or_default(),
            defect,
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, BadEntry<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.advance(extent)
    }
}

struct Head<'a> {
    stamp: Stamp,
    metadata: Option<&'a [u8]>,
}

/// Walks over the pairs of which the keys were not expected.
#[inline(never)]
fn others<'a, 'k>(
    buf: &'a [u8],
    mut at: usize,
    numbers: Range<usize>,
    visitor: &mut impl Visitor<'a, 'k>,
    mut opened: u32,
) -> Result<(usize, u32), Error> {
    for number in numbers {
        let (pair, next) = pair_at(buf, at, &mut opened)?;
        visitor.pair(number, pair);
        at = next;
    }
    Ok((at, opened))
}

/// The number of pairs of the map at `at`, and where the first of them begins. [`Entries::entry`] has made sure that it
/// is a map.
#[inline]
fn map_at(buf: &[u8], at: usize) -> Result<(u32, usize), Error> {
    if let Some(first @ 0x80..=0x8f) = buf.get(at) {
        return Ok((u32::from(first & 0x0f), at + 1));
    }
    match Value::read(buf, at)? {
        (Value::Map(pairs), at) => Ok((pairs, at)),
        _ => Err(Error::Malformed { at }),
    }
}

fn kind_at(buf: &[u8], at: usize) -> Kind {
    buf.get(at).map_or(Kind::Illegal, |first| Kind::of(*first))
}

fn is_empty_map(map: &[u8]) -> bool {
    matches!(Value::read(map, 0), Ok((Value::Map(0), _)))
}
