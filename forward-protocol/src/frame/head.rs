//! [`Head`]: tag, mode, body range and options of a complete message.

use std::ops::Range;

use super::limits::Limits;
use super::message::{Compressed, Message, Mode, Options, Signal};
use super::outcome::{Outcome, Poison, Violation};
use crate::msgpack::{Kind, Reader, Value, skip};

/// Offsets of elements 0 to 3, and the end of element 3.
pub(super) type Starts = [usize; 5];

/// The head of a message, as ranges from the message's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tag: Option<Range<usize>>,
    mode: Mode,
    pub(super) body: Range<usize>,
    pub(super) options: RawOptions,
    /// A message in the place of the options.
    nested: Option<Range<usize>>,
}

/// [`Options`] as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RawOptions {
    pub(super) chunk: Option<Range<usize>>,
    size: Option<i64>,
    compressed: Compressed,
    signal: Signal,
    bad_signal: bool,
    metadata: Option<Range<usize>>,
    ignored: bool,
}

impl Head {
    /// `bytes` is the message, which begins at `offset` in its buffer.
    pub(super) fn view<'a>(&self, bytes: &'a [u8], offset: usize) -> Message<'a> {
        let slice = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let options = &self.options;
        Message {
            offset,
            bytes,
            tag: self.tag.as_ref().map(slice).unwrap_or_default(),
            mode: self.mode,
            body_offset: self.body.start,
            body: slice(&self.body),
            options: Options {
                chunk: options.chunk.as_ref().map(slice),
                size: options.size,
                compressed: options.compressed,
                signal: options.signal,
                metadata: options.metadata.as_ref().map(slice),
                ignored: options.ignored,
            },
            nested: self.nested.as_ref().map(slice),
        }
    }
}

/// Reads the head of a complete message of `count` elements; `starts` are the offsets of the first.
pub(super) fn read_head(
    message: &[u8],
    count: u32,
    starts: &Starts,
    limits: &Limits,
    base: usize,
) -> Result<(Head, Outcome), Violation> {
    let malformed = |_| Violation::Malformed { at: base };
    let mut poison = None;

    let (tag, tag_end) = Value::read(message, starts[0]).map_err(malformed)?;
    let tag = match tag.as_bytes() {
        Some(bytes) => {
            if bytes.len() > limits.tag {
                poison = Some(Poison::TagTooLong {
                    len: bytes.len(),
                    limit: limits.tag,
                });
            }
            Some(tag_end - bytes.len()..tag_end)
        }
        None => {
            let kind = message
                .get(starts[0])
                .map_or(Kind::Illegal, |first| Kind::of(*first));
            poison = Some(Poison::TagType(kind));
            None
        }
    };

    let (second, next) = Value::read(message, starts[1]).map_err(malformed)?;
    let (mode, body) = match second {
        Value::Array(_) => (Mode::Forward, next..starts[2]),
        Value::Str(bytes) | Value::Bin(bytes) => (Mode::Packed, next - bytes.len()..next),
        _ => {
            let kind = message
                .get(starts[1])
                .map_or(Kind::Illegal, |first| Kind::of(*first));
            if kind == Kind::Map || (kind == Kind::Bool && count < 3) {
                poison = poison.or(Some(Poison::NoMode(kind)));
            } else if count < 3 {
                poison = poison.or(Some(Poison::NoRecord));
            }
            (Mode::Message, starts[1]..starts[if count < 3 { 2 } else { 3 }])
        }
    };

    let option_index = if mode == Mode::Message { 3 } else { 2 };
    let mut nested = None;
    // A list of maps is a list of records: none of them holds options.
    let has_options = poison != Some(Poison::TagType(Kind::Map));
    let options = if count > option_index && has_options {
        let (start, end) = (starts[option_index as usize], starts[option_index as usize + 1]);
        let slot = message.get(..end).unwrap_or(message);
        match nested_options(slot, start) {
            None => read_options(slot, start, mode, limits, base)?,
            Some(inner) => {
                nested = Some(start..end);
                match inner {
                    Some(options) => read_options(slot, options, mode, limits, base)?,
                    None => RawOptions::default(),
                }
            }
        }
    } else {
        RawOptions::default()
    };
    if options.bad_signal {
        poison = poison.or(Some(Poison::Signal));
    }
    Ok((
        Head {
            tag,
            mode,
            body,
            options,
            nested,
        },
        poison.map_or(Outcome::Accepted, Outcome::Poison),
    ))
}

/// Messages may be nested this deep in the place of options.
const MAX_NESTING: u32 = 8;

/// If a message stands at `start`, in the place of the options, as some versions of Fluent Bit write
/// it (fluent-bit#8418): where its own options begin, which are those of the whole.
fn nested_options(message: &[u8], mut start: usize) -> Option<Option<usize>> {
    let mut options = None;
    for _ in 0..MAX_NESTING {
        let Ok((Value::Array(count @ 2..), tag)) = Value::read(message, start) else {
            return options;
        };
        let (Value::Str(_) | Value::Bin(_), entries) = Value::read(message, tag).ok()? else {
            return options;
        };
        let (Value::Array(_) | Value::Str(_) | Value::Bin(_), _) = Value::read(message, entries).ok()? else {
            return options;
        };
        if count < 3 {
            return Some(None);
        }
        start = skip(message, entries, u32::MAX).ok()?;
        options = Some(Some(start));
    }
    options
}

/// Reads the options at byte `start` of the message.
fn read_options(
    message: &[u8],
    start: usize,
    mode: Mode,
    limits: &Limits,
    base: usize,
) -> Result<RawOptions, Violation> {
    let malformed = |_| Violation::Malformed { at: base };
    let mut options = RawOptions::default();
    let mut reader = Reader::at(message, start);
    let pairs = match reader.value().map_err(malformed)? {
        Value::Map(pairs) => pairs,
        other => {
            options.ignored = other != Value::Nil;
            return Ok(options);
        }
    };
    if pairs > limits.options {
        return Err(Violation::TooManyOptions {
            at: base,
            pairs,
            limit: limits.options,
        });
    }
    let mut signal_seen = false;
    for _ in 0..pairs {
        let key = Value::read(reader.raw(u32::MAX).map_err(malformed)?, 0)
            .map_err(malformed)?
            .0;
        let from = reader.position();
        let raw = reader.raw(u32::MAX).map_err(malformed)?;
        let range = from..from + raw.len();
        let value = Value::read(raw, 0).map_err(malformed)?.0;
        // Keys other than text are ignored, as Fluent Bit does for most modes.
        match key.as_bytes() {
            Some(b"chunk") if options.chunk.is_none() => {
                if matches!(value, Value::Nil | Value::Array(_) | Value::Map(_)) {
                    continue;
                }
                let len = value.as_bytes().map_or(raw.len(), <[u8]>::len);
                if len > limits.chunk {
                    return Err(Violation::ChunkTooLong {
                        at: base,
                        len,
                        limit: limits.chunk,
                    });
                }
                options.chunk = Some(range);
            }
            Some(b"size") if options.size.is_none() => options.size = value.as_i64(),
            Some(b"compressed") if options.compressed == Compressed::Absent => {
                options.compressed = match value.as_bytes() {
                    Some(b"text") => Compressed::Text,
                    Some(b"gzip") => Compressed::Gzip,
                    Some(b"zstd") => Compressed::Zstd,
                    _ => Compressed::Other,
                };
            }
            Some(b"fluent_signal") if !signal_seen => {
                signal_seen = true;
                match value.as_i64() {
                    Some(0) => options.signal = Signal::Logs,
                    Some(1) => options.signal = Signal::Metrics,
                    Some(2) => options.signal = Signal::Traces,
                    _ => options.bad_signal = true,
                }
            }
            Some(b"metadata") if mode == Mode::Message && options.metadata.is_none() => {
                if matches!(value, Value::Map(_)) {
                    options.metadata = Some(range);
                }
            }
            _ => {}
        }
    }
    Ok(options)
}
