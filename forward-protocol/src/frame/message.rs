//! What one complete message is: its mode, tag, body and options.

use std::ops::Range;

use super::framer::{Frame, Framer, Limits, Outcome, Starts, Violation};
use crate::entries::{Compression, Entries};
use crate::msgpack::{Kind, Reader, Value};

/// The carrier mode, decided by the type of the message's second element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `[tag, time, record, option?]`: one event.
    Message,
    /// `[tag, [entry, …], option?]`.
    Forward,
    /// `[tag, entries as bytes, option?]`, plain or compressed.
    Packed,
}

/// What the entries are (option `fluent_signal`, Forward Protocol Specification v1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log events; also when nothing is said.
    #[default]
    Logs,
    /// Metrics, as Fluent Bit's cmetrics packs them.
    Metrics,
    /// Traces, as Fluent Bit's ctraces packs them.
    Traces,
}

/// What the option `compressed` says. What the payload really is, its first bytes say: see [`Message::payload`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compressed {
    /// The option is missing.
    #[default]
    Unsaid,
    /// `text`: not compressed. Fluentd always says so.
    Text,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
    /// Another value, which the specification wants ignored.
    Other,
}

/// Why a well-formed message can never be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Poison {
    /// The tag is neither string nor binary.
    #[error("the tag is of type {0:?}")]
    TagType(Kind),
    /// The tag is longer than [`Limits::tag`].
    #[error("the tag has {len} bytes, the limit is {limit}")]
    TagTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The second element is of a type that belongs to no mode.
    #[error("the second element is of type {0:?}, which belongs to no carrier mode")]
    NoMode(Kind),
    /// `[tag, time]` without a record.
    #[error("a message with a time but without a record")]
    NoRecord,
    /// `fluent_signal` is not 0, 1 or 2.
    #[error("the option fluent_signal is neither 0 (logs) nor 1 (metrics) nor 2 (traces)")]
    Signal,
}

/// The options that have a meaning. Of a key that comes twice the first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options<'a> {
    /// The chunk id as it was sent, with its MessagePack header. The client waits for an ack with this value.
    pub chunk: Option<&'a [u8]>,
    /// The number of entries, a hint that is often wrong: some clients put a number of bytes here.
    pub size: Option<i64>,
    /// What the client says about compression.
    pub compressed: Compressed,
    /// What the entries are.
    pub signal: Signal,
    /// The metadata of the event in Message mode: a raw MessagePack map. Ignored in the other modes.
    pub metadata: Option<&'a [u8]>,
    /// Something stood in the place of the options that is neither a map nor nil. It was ignored.
    pub ignored: bool,
}

/// One accepted message, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// Where the message begins in the buffer.
    pub offset: usize,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// The tag; any bytes, often but not always UTF-8.
    pub tag: &'a [u8],
    /// The carrier mode.
    pub mode: Mode,
    /// Where [`Message::body`] begins, counted from the start of the message.
    pub body_offset: usize,
    /// Message: time and record, one behind the other. Forward: the entries, one behind the other. Packed: the
    /// payload, perhaps compressed.
    pub body: &'a [u8],
    /// The options.
    pub options: Options<'a>,
}

/// How to get at the events of a message.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// Read them in place.
    Entries(Entries<'a>),
    /// Decompress first (see [`crate::entries::decompress`]), then read the result with [`Entries::new`].
    Compressed {
        /// What its first bytes say that it is.
        compression: Compression,
        /// The compressed bytes.
        bytes: &'a [u8],
    },
    /// No log events but metrics or traces; never decoded here.
    Opaque(&'a [u8]),
}

impl<'a> Message<'a> {
    /// How to get at the events. `max_depth` is [`Limits::depth`].
    ///
    /// Whether a payload is compressed is decided by its first bytes, as in Fluent Bit: the magic of gzip (`1f 8b`)
    /// and of zstd (`28 b5 2f fd`) cannot begin an entry, and clients forget or misname the option.
    pub fn payload(&self, max_depth: u32) -> Payload<'a> {
        if self.options.signal != Signal::Logs {
            return Payload::Opaque(self.body);
        }
        match (self.mode, Compression::sniff(self.body)) {
            (Mode::Message, _) => {
                Payload::Entries(Entries::single(self.body, self.options.metadata, max_depth))
            }
            (Mode::Packed, Some(compression)) => Payload::Compressed {
                compression,
                bytes: self.body,
            },
            (Mode::Forward | Mode::Packed, _) => Payload::Entries(Entries::new(self.body, max_depth)),
        }
    }

    /// Whether the option promises gzip or zstd and the payload is not that. It is read as what it is.
    pub fn contradicts_itself(&self) -> bool {
        let real = match self.mode {
            Mode::Packed => Compression::sniff(self.body),
            _ => None,
        };
        match self.options.compressed {
            Compressed::Gzip => real != Some(Compression::Gzip),
            Compressed::Zstd => real != Some(Compression::Zstd),
            Compressed::Text => real.is_some(),
            Compressed::Unsaid | Compressed::Other => false,
        }
    }
}

/// The messages in `buf`, which holds complete messages one behind the other, as a [`super::Run`] found them. Made
/// for reading them again from storage: the limit on length does not apply. Heartbeats and stray values are left out.
pub fn messages(buf: &[u8], limits: Limits) -> Messages<'_> {
    Messages {
        buf,
        at: 0,
        framer: Framer::for_stored(limits),
    }
}

/// Iterator over stored messages; see [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    buf: &'a [u8],
    at: usize,
    framer: Framer,
}

/// A message that cannot be accepted, or bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused<'a> {
    /// Where it begins in the buffer.
    pub offset: usize,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// Its tag, when there is one.
    pub tag: Option<&'a [u8]>,
    /// The chunk id as it was sent, when there is one.
    pub chunk: Option<&'a [u8]>,
    /// What is wrong with it.
    pub reason: Refusal,
}

/// Why a stored message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is poison.
    #[error(transparent)]
    Poison(#[from] Poison),
    /// The bytes end inside a message. The framer never lets such a run through: the storage is damaged.
    #[error("the stored bytes end inside a message")]
    Truncated,
    /// The bytes are no messages. The framer never lets such a run through: the storage is damaged.
    #[error(transparent)]
    Damaged(#[from] Violation),
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Refused<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let offset = self.at;
            let rest = self.buf.get(offset..).filter(|rest| !rest.is_empty())?;
            let broken = |reason| Refused {
                offset,
                bytes: rest,
                tag: None,
                chunk: None,
                reason,
            };
            let frame = match self.framer.step(rest, offset) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.at = self.buf.len();
                    return Some(Err(broken(Refusal::Truncated)));
                }
                Err(violation) => {
                    self.at = self.buf.len();
                    return Some(Err(broken(Refusal::Damaged(violation))));
                }
            };
            self.at = frame.range.end;
            if let Some(item) = stored(&frame, self.buf) {
                return Some(item);
            }
        }
    }
}

fn stored<'a>(frame: &Frame, buf: &'a [u8]) -> Option<Result<Message<'a>, Refused<'a>>> {
    let bytes = buf.get(frame.range.clone())?;
    let head = frame.head.as_ref()?;
    let offset = frame.range.start;
    match frame.outcome {
        Outcome::Accepted => Some(Ok(head.view(bytes, offset))),
        Outcome::Poison(reason) => Some(Err(Refused {
            offset,
            bytes,
            tag: head.tag.clone().and_then(|range| bytes.get(range)),
            chunk: frame.chunk(buf),
            reason: Refusal::Poison(reason),
        })),
        Outcome::Heartbeat | Outcome::Stray(_) => None,
    }
}

/// What a message's head says, as ranges from the message's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    tag: Option<Range<usize>>,
    mode: Mode,
    pub(super) body: Range<usize>,
    pub(super) options: RawOptions,
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
    /// `bytes` are those of the message, which begins at `offset` of some buffer.
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
        }
    }
}

/// Reads the head of a complete message of `count` elements, the first of which begin at `starts`.
pub(super) fn read_head(
    message: &[u8],
    count: u32,
    starts: &Starts,
    limits: &Limits,
    base: usize,
) -> Result<(Head, Outcome), Violation> {
    let lost = |_| Violation::Malformed { at: base };
    let mut poison = None;

    let (tag, tag_end) = Value::read(message, starts[0]).map_err(lost)?;
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

    let (second, next) = Value::read(message, starts[1]).map_err(lost)?;
    let (mode, body) = match second {
        Value::Array(_) => (Mode::Forward, next..starts[2]),
        Value::Str(bytes) | Value::Bin(bytes) => (Mode::Packed, next - bytes.len()..next),
        _ => {
            let kind = message
                .get(starts[1])
                .map_or(Kind::Illegal, |first| Kind::of(*first));
            if matches!(kind, Kind::Bool | Kind::Map) {
                poison = poison.or(Some(Poison::NoMode(kind)));
            } else if count < 3 {
                poison = poison.or(Some(Poison::NoRecord));
            }
            (Mode::Message, starts[1]..starts[if count < 3 { 2 } else { 3 }])
        }
    };

    let place = if mode == Mode::Message { 3 } else { 2 };
    let options = if count > place {
        let end = starts[place as usize + 1];
        let slot = message.get(..end).unwrap_or(message);
        read_options(slot, starts[place as usize], mode, limits, base)?
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
        },
        poison.map_or(Outcome::Accepted, Outcome::Poison),
    ))
}

/// Reads the options at byte `start` of the message.
fn read_options(
    message: &[u8],
    start: usize,
    mode: Mode,
    limits: &Limits,
    base: usize,
) -> Result<RawOptions, Violation> {
    let lost = |_| Violation::Malformed { at: base };
    let mut options = RawOptions::default();
    let mut reader = Reader::at(message, start);
    let pairs = match reader.value().map_err(lost)? {
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
        let key = Value::read(reader.raw(u32::MAX).map_err(lost)?, 0)
            .map_err(lost)?
            .0;
        let from = reader.position();
        let raw = reader.raw(u32::MAX).map_err(lost)?;
        let range = from..from + raw.len();
        let value = Value::read(raw, 0).map_err(lost)?.0;
        // Keys that are no text are ignored, as Fluent Bit does for most modes.
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
            Some(b"compressed") if options.compressed == Compressed::Unsaid => {
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
