//! [`Message`]: one accepted message as a view on the received bytes.

use crate::entries::{Compression, Entries};

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

/// The kind of telemetry in the entries (option `fluent_signal`, Forward Protocol Specification
/// v1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log events; also when the option is missing.
    #[default]
    Logs,
    /// Metrics, as Fluent Bit's cmetrics packs them.
    Metrics,
    /// Traces, as Fluent Bit's ctraces packs them.
    Traces,
}

/// The value of the option `compressed`. [`Message::payload`] does not rely on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compressed {
    /// The option is missing.
    #[default]
    Absent,
    /// `text`: not compressed. Fluentd always sends it.
    Text,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
    /// Another value, to be ignored by the specification.
    Other,
}

/// The known options. Of a duplicate key the first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options<'a> {
    /// The chunk id as it was sent, with its MessagePack header: the value of the ack that the
    /// client waits for.
    pub chunk: Option<&'a [u8]>,
    /// The number of entries. Often wrong: some clients send a number of bytes.
    pub size: Option<i64>,
    /// The compression that the client declares.
    pub compressed: Compressed,
    /// The kind of telemetry in the entries.
    pub signal: Signal,
    /// The metadata of the event in Message mode: a raw MessagePack map. Ignored in the other
    /// modes.
    pub metadata: Option<&'a [u8]>,
    /// The options element was neither a map nor nil, and was ignored.
    pub ignored: bool,
}

/// One accepted message, as a view on the received bytes.
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
    /// Message: time and record. Forward: the entries. Packed: the payload, which may be
    /// compressed.
    pub body: &'a [u8],
    /// The options.
    pub options: Options<'a>,
    /// A message in the place of the options, which Fluent Bit sometimes writes: more events. Its
    /// options are [`Message::options`].
    pub nested: Option<&'a [u8]>,
}

/// The payload of a message, and how to read its events.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// Read them in place.
    Entries(Entries<'a>),
    /// Decompress first (see [`crate::entries::decompress`]), then read the result with
    /// [`Entries::new`].
    Compressed {
        /// The format, as its magic number says.
        compression: Compression,
        /// The compressed bytes.
        bytes: &'a [u8],
    },
    /// Metrics or traces, which this crate does not decode.
    Opaque(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The payload of the message. `max_depth` is [`Limits::depth`](super::Limits::depth).
    ///
    /// Whether a payload is compressed is decided by its first bytes, as in Fluent Bit: the magic
    /// of gzip (`1f 8b`) and of zstd (`28 b5 2f fd`) cannot begin an entry, and clients forget or
    /// misname the option.
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

    /// Whether the option `compressed` contradicts the payload's magic number, which decides.
    pub fn compression_mismatch(&self) -> bool {
        let real = match self.mode {
            Mode::Packed => Compression::sniff(self.body),
            _ => None,
        };
        match self.options.compressed {
            Compressed::Gzip => real != Some(Compression::Gzip),
            Compressed::Zstd => real != Some(Compression::Zstd),
            Compressed::Text => real.is_some(),
            Compressed::Absent | Compressed::Other => false,
        }
    }
}
