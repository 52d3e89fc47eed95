//! [`write_object`]: one JSON object as a MessagePack map, for records that carry JSON in a string.

use super::convert::MessageWriter;
use crate::msgpack::check_depth;

/// Why a text is not converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The text is no JSON object.
    #[error("the text is no JSON object")]
    NoObject,
    /// The map would be longer than the limit.
    #[error("the map has more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Containers are nested deeper than allowed.
    #[error("containers are nested deeper than {limit}")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
}

/// Appends the JSON object `text` to `out` as a MessagePack map of at most `max_len` bytes, whose
/// containers are nested at most `max_depth` deep. White space around the object is allowed. Of
/// equal keys the last counts.
///
/// Numbers keep their digits: those that are neither integers of 64 bits nor what a formatter makes
/// of their float (`1.50`, `1e3`, integers beyond 64 bits) are written as extensions of type
/// `number_extension` whose data is the number's text.
///
/// # Errors
/// [`ObjectError`]; `out` is as before then.
pub fn write_object(
    out: &mut Vec<u8>,
    text: &[u8],
    max_len: usize,
    max_depth: u32,
    number_extension: i8,
) -> Result<(), ObjectError> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(ObjectError::NoObject);
    }
    let begin = out.len();
    let end = begin.saturating_add(max_len);
    let written = MessageWriter::with_digits(out, end, text, number_extension).write(text);
    let result = match written {
        Ok(true) => check_depth(out, begin, max_depth).map_err(|_| ObjectError::TooDeep { limit: max_depth }),
        Ok(false) => Err(ObjectError::TooLong { limit: max_len }),
        Err(_) => Err(ObjectError::NoObject),
    };
    if result.is_err() {
        out.truncate(begin);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: i8 = 74;

    fn object(text: &str) -> Result<Vec<u8>, ObjectError> {
        let mut out = vec![0xff];
        write_object(&mut out, text.as_bytes(), 100, 3, NUMBER).map(|()| out.split_off(1))
    }

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!(
            object(r#" {"a":1.5} "#).unwrap(),
            b"\x81\xa1a\xcb\x3f\xf8\0\0\0\0\0\0"
        );
        assert_eq!(object(r#"{"a":-7,"b":7}"#).unwrap(), b"\x82\xa1a\xf9\xa1b\x07");
        for number in [
            "1.50",
            "1e3",
            "-0",
            "18446744073709551616",
            "0.12345678901234567890",
        ] {
            let mut expected = b"\x82\xa10\xa21\"\xa1a".to_vec();
            crate::msgpack::write_ext(&mut expected, NUMBER, number.as_bytes());
            // Digits inside of strings are no numbers.
            let text = format!(r#"{{"0":"1\"","a":{number}}}"#);
            assert_eq!(object(&text).unwrap(), expected, "{number}");
        }
    }

    #[test]
    fn what_is_no_object_or_beyond_the_limits_leaves_nothing() {
        for text in ["", "{", "[1]", "{\"a\":1} {}", "{a:1}", "x {}", "\"{}\""] {
            assert_eq!(object(text), Err(ObjectError::NoObject), "{text}");
        }
        assert_eq!(object(r#"{"a":{"b":{}}}"#).unwrap(), b"\x81\xa1a\x81\xa1b\x80");
        assert_eq!(
            object(r#"{"a":{"b":{"c":[1]}}}"#),
            Err(ObjectError::TooDeep { limit: 3 })
        );
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(100));
        assert_eq!(object(&long), Err(ObjectError::TooLong { limit: 100 }));
        let mut out = vec![0xff];
        assert!(write_object(&mut out, long.as_bytes(), 100, 3, NUMBER).is_err());
        assert_eq!(out, [0xff]);
    }
}
