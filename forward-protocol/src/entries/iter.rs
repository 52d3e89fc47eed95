//! [`Entries`]: the iterator over the entries of a message.
//!
//! One pass over the bytes, with a fast path for the two headers that agents send by default.

use super::defect::{BadEntry, Defect};
use super::time::{Time, TimeField, event_time, read_time};
use super::visitor::{Visitor, walk_expected, walk_others};
use crate::msgpack::{Error, Kind, Value, check_depth, extent};

/// One event. All slices are raw MessagePack and point into the walked bytes.
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

/// Metadata and attributes that apply to all events up to the end of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group<'a> {
    /// The metadata of the group, a raw MessagePack map; empty bytes when there is none.
    pub metadata: &'a [u8],
    /// The attributes (OTLP resource and scope, for instance), a raw MessagePack map.
    pub attributes: &'a [u8],
}

/// Iterates over the entries of a message; see [`crate::frame::Message::payload`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    buf: &'a [u8],
    at: usize,
    max_depth: u32,
    group: Option<Group<'a>>,
    /// Message mode: no array around time and record; the metadata comes from the options.
    single: Option<Option<&'a [u8]>>,
    /// More bytes follow those of `buf`.
    more: bool,
}

impl<'a> Entries<'a> {
    /// The consecutive entries in `buf`: a decompressed payload, or the body of a message in
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

    /// The entries in a piece of a longer stream; the piece begins inside `group`. When `more`
    /// bytes follow the piece, the walk ends before an entry that the piece's end cuts off, at
    /// [`Self::at`].
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

    /// The group of the entry that was returned last.
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

    /// The next entry, like [`Iterator::next`], while `visitor` sees every pair of its record: one
    /// walk over the bytes instead of two.
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
            let (number, at) = walk_expected(buf, at, expected, visitor, &mut opened)?;
            if number == pairs as usize {
                return Ok((at, opened));
            }
            walk_others(buf, at, number..pairs as usize, visitor, opened)
        })
    }

    /// `walk` returns the end of the record at a byte and the number of containers in it.
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
                        TimeField::Time(time) => {
                            let EntryHead { metadata, .. } = head;
                            return Some(Ok(Entry {
                                offset,
                                time,
                                metadata,
                                record,
                            }));
                        }
                        TimeField::GroupStart => {
                            let metadata = head.metadata.unwrap_or_default();
                            self.group = Some(Group {
                                metadata,
                                attributes: record,
                            });
                        }
                        TimeField::GroupEnd => self.group = None,
                    }
                }
                Err(_) if self.may_complete(offset) => return None,
                Err(defect) => return Some(Err(self.bad(offset, defect))),
            }
        }
    }

    /// Whether the unreadable entry at `offset` may be complete once more bytes have arrived.
    #[cold]
    fn may_complete(&self, offset: usize) -> bool {
        self.more && matches!(extent(self.buf, offset), Err(Error::Incomplete { .. }))
    }

    /// Reads the entry at `start`; returns its head, its record, and where it ends.
    #[inline]
    fn entry(
        &self,
        start: usize,
        walk: &mut impl FnMut(&'a [u8], usize) -> Result<(usize, u32), Error>,
    ) -> Result<(EntryHead<'a>, &'a [u8], usize), Defect> {
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
    fn head(&self, start: usize) -> Result<(EntryHead<'a>, usize), Defect> {
        let first = self.buf.get(start..).and_then(<[u8]>::first_chunk::<13>);
        if let Some(first) = first.filter(|_| self.single.is_none()) {
            let time_at = |at: usize| {
                let time = first.get(at..)?.first_chunk()?;
                let time = u64::from_be_bytes(*time);
                Some(event_time((time >> 32) as u32, time as u32))
            };
            let fast = match first {
                // Fluent Bit's default, with empty metadata.
                [0x92, 0x92, 0xd7, 0x00, .., 0x80] => Some((4, 13)),
                // Fluentd and most loggers.
                [0x92, 0xd7, 0x00, ..] => Some((3, 11)),
                _ => None,
            };
            if let Some((stamp, end)) = fast.and_then(|(time, end)| Some((time_at(time)?, end))) {
                let metadata = None;
                return Ok((EntryHead { stamp, metadata }, start + end));
            }
        }
        self.head_slow(start)
    }

    fn head_slow(&self, start: usize) -> Result<(EntryHead<'a>, usize), Defect> {
        if let Some(metadata) = self.single {
            let (stamp, next) = read_time(self.buf, start)?;
            let metadata = metadata.filter(|map| !is_empty_map(map));
            return Ok((EntryHead { stamp, metadata }, next));
        }
        let at = match Value::read(self.buf, start)? {
            (Value::Array(2), next) => next,
            (Value::Array(n), _) => return Err(Defect::Size(n)),
            _ => return Err(Defect::NotArray(kind_at(self.buf, start))),
        };
        match Value::read(self.buf, at)? {
            (Value::Array(2), inner) => {
                let (stamp, next) = read_time(self.buf, inner)?;
                let (end, opened) = extent(self.buf, next)?;
                if opened > self.max_depth {
                    check_depth(self.buf, next, self.max_depth)?;
                }
                let metadata = match kind_at(self.buf, next) {
                    Kind::Map => self.buf.get(next..end).filter(|map| !is_empty_map(map)),
                    Kind::Nil => None,
                    kind => return Err(Defect::Metadata(kind)),
                };
                Ok((EntryHead { stamp, metadata }, end))
            }
            (Value::Array(n), _) => Err(Defect::HeaderSize(n)),
            _ => {
                let (stamp, next) = read_time(self.buf, at)?;
                Ok((
                    EntryHead {
                        stamp,
                        metadata: None,
                    },
                    next,
                ))
            }
        }
    }

    /// Skips the bad entry at `offset`; everything that is left when its end is unknown.
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

struct EntryHead<'a> {
    stamp: TimeField,
    metadata: Option<&'a [u8]>,
}

/// The number of pairs of the map at `at`, and the offset of the first. [`Entries::entry`] has
/// checked that it is a map.
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
