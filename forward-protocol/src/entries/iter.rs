//! Walking entries: one pass over the bytes, a fast way for what agents send all day and a slow one for the rest.

use super::expected::WireKey;
use super::pairs::{Pair, pair_at, value_at};
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
    /// The group in which the event stands.
    pub group: Option<Group<'a>>,
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

/// Looks at the records of [`Entries::next_with`] while they are walked.
pub trait Visitor<'a> {
    /// A record begins. What was seen before belongs to another one, which may have turned out bad: what was gathered
    /// counts only when `next_with` returns an entry. `pairs` is how many pairs it declares.
    fn record(&mut self, pairs: u32);
    /// The pair that is the `number`-th of the record; the first one has the number 0.
    fn pair(&mut self, number: usize, pair: Pair<'a>);
    /// The key that the `number`-th pair of the record is expected to have. When it has it, [`Self::value`] sees the
    /// pair instead of [`Self::pair`]; that is quicker, since the key is compared and not read.
    #[inline]
    fn expected(&self, number: usize) -> Option<&WireKey> {
        let _ = number;
        None
    }
    /// The value, as raw MessagePack bytes, of a pair that has the expected key.
    #[inline]
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
        }
    }

    /// The one event of a message in Message mode: `body` is its time and its record.
    pub(crate) fn single(body: &'a [u8], metadata: Option<&'a [u8]>, max_depth: u32) -> Self {
        Self {
            buf: body,
            at: 0,
            max_depth,
            group: None,
            single: Some(metadata),
        }
    }

    /// The next entry, like [`Iterator::next`]; on the way `visitor` sees every pair of its record. One walk over the
    /// bytes instead of two.
    #[inline]
    pub fn next_with(&mut self, visitor: &mut impl Visitor<'a>) -> Option<Result<Entry<'a>, BadEntry<'a>>> {
        self.advance(|buf, at| {
            let (pairs, mut at) = map_at(buf, at)?;
            visitor.record(pairs);
            let mut opened = 1;
            for number in 0..pairs as usize {
                if let Some(middle) = visitor.expected(number).and_then(|key| key.end_at(buf, at)) {
                    let (value, next) = value_at(buf, middle, &mut opened)?;
                    visitor.value(number, value);
                    at = next;
                } else {
                    let (pair, next) = pair_at(buf, at, &mut opened)?;
                    visitor.pair(number, pair);
                    at = next;
                }
            }
            Ok((at, opened))
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
                                group: self.group,
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
                Err(defect) => return Some(Err(self.bad(offset, defect))),
            }
        }
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
        if self.single.is_none() {
            match self.buf.get(start..).unwrap_or_default() {
                // What Fluent Bit sends by default, with metadata that is mostly empty.
                [0x92, 0x92, 0xd7, 0x00, a, b, c, d, e, f, g, h, 0x80, ..] => {
                    let stamp = event_time(
                        u32::from_be_bytes([*a, *b, *c, *d]),
                        u32::from_be_bytes([*e, *f, *g, *h]),
                    );
                    return Ok((
                        Head {
                            stamp,
                            metadata: None,
                        },
                        start + 13,
                    ));
                }
                // What Fluentd and nearly everybody else sends.
                [0x92, 0xd7, 0x00, a, b, c, d, e, f, g, h, ..] => {
                    let stamp = event_time(
                        u32::from_be_bytes([*a, *b, *c, *d]),
                        u32::from_be_bytes([*e, *f, *g, *h]),
                    );
                    return Ok((
                        Head {
                            stamp,
                            metadata: None,
                        },
                        start + 11,
                    ));
                }
                _ => {}
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
