//! [`write_value`]: converts a JSON value to MessagePack.

use serde_json::Value;

use crate::msgpack::{
    write_array_len, write_bool, write_f64, write_i64, write_map_len, write_nil, write_str, write_u64,
};

/// Appends the value. Recursion is bounded by the parser, which refuses texts nested deeper than
/// 127.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => write_nil(out),
        Value::Bool(b) => write_bool(out, *b),
        Value::Number(number) => {
            if let Some(n) = number.as_u64() {
                write_u64(out, n);
            } else if let Some(n) = number.as_i64() {
                write_i64(out, n);
            } else {
                write_f64(out, number.as_f64().unwrap_or(f64::NAN));
            }
        }
        Value::String(text) => write_str(out, text.as_bytes()),
        // A text is shorter than 4 GiB, so are its counts.
        Value::Array(values) => {
            write_array_len(out, values.len() as u32);
            for value in values {
                write_value(out, value);
            }
        }
        Value::Object(pairs) => {
            write_map_len(out, pairs.len() as u32);
            for (key, value) in pairs {
                write_str(out, key.as_bytes());
                write_value(out, value);
            }
        }
    }
}
