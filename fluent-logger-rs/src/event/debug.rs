//! Text form of an encoded record, for `Debug`.

use std::fmt::{self, Write as _};

use forward_protocol::msgpack::{Reader, Value};

/// A record in MessagePack; its `Debug` is JSON-like text.
pub(super) struct DebugRecord<'a>(pub(super) &'a [u8]);

impl fmt::Debug for DebugRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, &mut Reader::new(self.0))
    }
}

/// Recursive: records nest at most 25 containers.
fn write_value(f: &mut fmt::Formatter<'_>, reader: &mut Reader<'_>) -> fmt::Result {
    let Ok(value) = reader.value() else {
        return f.write_str("<damaged>");
    };
    match value {
        Value::Map(pairs) => {
            f.write_char('{')?;
            for index in 0..pairs {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write_value(f, reader)?;
                f.write_str(": ")?;
                write_value(f, reader)?;
            }
            f.write_char('}')
        }
        Value::Array(items) => {
            f.write_char('[')?;
            for index in 0..items {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write_value(f, reader)?;
            }
            f.write_char(']')
        }
        Value::Nil => f.write_str("null"),
        Value::Bool(value) => write!(f, "{value}"),
        Value::U64(value) => write!(f, "{value}"),
        Value::I64(value) => write!(f, "{value}"),
        Value::F32(value) => write!(f, "{value:?}"),
        Value::F64(value) => write!(f, "{value:?}"),
        Value::Str(text) => write!(f, "{:?}", String::from_utf8_lossy(text)),
        Value::Bin(bytes) => write!(f, "<{} bytes>", bytes.len()),
        Value::Ext(kind, bytes) => write!(f, "<extension {kind}, {} bytes>", bytes.len()),
    }
}
