//! The JSON carrier: the same messages as JSON texts on a TCP connection, as sent by
//! fluent-logger-golang with `MarshalAsJSON`, or by hand with `nc`.
//!
//! The first byte of a connection decides its carrier ([`is_json`]): `{` and `[` are small integers
//! in MessagePack, which no Forward client sends first. [`JsonCarrier`] converts each complete text
//! into the same message in MessagePack, so that all later stages handle one format. A connection
//! with a shared key cannot speak JSON.
//!
//! [`write_records`] and [`write_lines`] convert JSON that is not from a Forward connection: bodies
//! of requests with records.
//!
//! Of duplicate keys in an object the last counts, as in Fluentd. Texts may be nested 127 deep.
//! Integers beyond 64 bits become floats. Comments, which Fluentd's parser accepts, are rejected.

mod convert;
mod number;
mod object;
mod records;
mod split;

#[cfg(test)]
mod tests;

use bytes::BufMut;

use crate::msgpack::Value;
pub use records::{RecordLimits, RecordWriter, RecordsError, write_lines, write_records, write_value};

use convert::MessageWriter;
pub use object::{ObjectError, write_object};
use split::Splitter;

/// Whether a connection that begins with this byte speaks JSON.
pub fn is_json(first: u8) -> bool {
    matches!(first, b'{' | b'[')
}

/// Converts the JSON texts of one connection into MessagePack messages.
#[derive(Clone, Debug)]
pub struct JsonCarrier {
    splitter: Splitter,
    limit: usize,
}

/// The result of [`JsonCarrier::convert`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Length of the converted bytes at the buffer's start. The next buffer given to
    /// [`JsonCarrier::convert`] must begin here.
    pub consumed: usize,
    /// Set when converting cannot continue. The messages before it are valid. Close the connection.
    pub violation: Option<JsonViolation>,
}

/// A breach of the JSON carrier after which the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonViolation {
    /// The bytes are not a JSON text.
    #[error(
        "the peer sent invalid JSON: the text that begins at byte {at} has an error at line {line}, column {column}"
    )]
    Malformed {
        /// Where the text begins.
        at: usize,
        /// Line in the text, from 1.
        line: usize,
        /// Column in that line, from 1.
        column: usize,
    },
    /// The text, or the message that it becomes, is longer than the limit.
    #[error("the JSON text that begins at byte {at} has more than {limit} bytes, or more as MessagePack")]
    TooLarge {
        /// Where the text begins.
        at: usize,
        /// The limit.
        limit: usize,
    },
}

impl JsonCarrier {
    /// A carrier for a new connection; `limit` is the longest text in bytes, usually
    /// [`crate::frame::Limits::message`].
    pub fn new(limit: usize) -> Self {
        Self {
            splitter: Splitter::default(),
            limit,
        }
    }

    /// Appends every complete text at the front of `buf` to `out`, as a MessagePack message for
    /// [`crate::frame::Framer`]. No byte is scanned twice while a text is incomplete. Takes no
    /// memory besides `out` but 8 bytes at most for each pair of the open objects.
    pub fn convert(&mut self, buf: &[u8], out: &mut Vec<u8>) -> Converted {
        let mut converted = Converted::default();
        loop {
            let at = converted.consumed;
            let rest = buf.get(at..).unwrap_or_default();
            let Some(end) = self.splitter.end(rest) else {
                if rest.len() > self.limit {
                    converted.violation = Some(JsonViolation::TooLarge {
                        at,
                        limit: self.limit,
                    });
                }
                return converted;
            };
            if end > self.limit {
                converted.violation = Some(JsonViolation::TooLarge {
                    at,
                    limit: self.limit,
                });
                return converted;
            }
            // GELF ends a text with a zero.
            let text = rest.get(..end).unwrap_or_default();
            let text = text.strip_suffix(&[0]).unwrap_or(text);
            if !text.trim_ascii().is_empty() {
                let begin = out.len();
                // Mostly a message is shorter than its text.
                out.reserve(end);
                let written = MessageWriter::new(out, begin.saturating_add(self.limit)).write(text);
                if !matches!(written, Ok(true)) {
                    out.truncate(begin);
                }
                match written {
                    Ok(true) => {}
                    Ok(false) => {
                        converted.violation = Some(JsonViolation::TooLarge {
                            at,
                            limit: self.limit,
                        });
                        return converted;
                    }
                    Err(error) => {
                        let (line, column) = (error.line(), error.column());
                        converted.violation = Some(JsonViolation::Malformed { at, line, column });
                        return converted;
                    }
                }
            }
            converted.consumed += end;
        }
    }
}

/// Writes the ack of a chunk for a JSON connection: `{"ack":"…"}`. `chunk` is the id with its
/// MessagePack header, as [`crate::frame::Frame::chunk`] gives it.
pub fn write_json_ack(out: &mut impl BufMut, chunk: &[u8]) {
    let id = match Value::read(chunk, 0) {
        Ok((Value::Str(text) | Value::Bin(text), _)) => String::from_utf8_lossy(text).into_owned().into(),
        Ok((Value::U64(n), _)) => n.into(),
        Ok((Value::I64(n), _)) => n.into(),
        Ok((Value::F64(x), _)) => x.into(),
        Ok((Value::Bool(b), _)) => b.into(),
        _ => serde_json::Value::Null,
    };
    out.put_slice(b"{\"ack\":");
    out.put_slice(id.to_string().as_bytes());
    out.put_slice(b"}");
}
