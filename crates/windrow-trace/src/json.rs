//! MessagePack to JSON: one value at a time, straight from the received bytes.
//!
//! Owns the policy for what JSON cannot say: non-finite floats become `null`, binary becomes text where it is UTF-8
//! and base64 where not, event times and timestamps become RFC 3339, other extensions `{"type":…,"data":…}`,
//! keys that are not strings become their JSON text, of equal keys the last wins, invalid UTF-8 is replaced.
//! Reads only values that were checked before (`forward_protocol` walks every record at intake); on others it
//! writes `null` and never panics.

mod escape;
mod number;

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use self::escape::write_escaped;
pub(crate) use self::escape::{push_unescaped, write_string};
pub(crate) use self::number::write_unsigned;
use self::number::{write_double, write_signed, write_single};
use super::time::{SECOND_NS, write_rfc3339};

/// How deep a value may be nested; deeper ones were refused at intake.
const MAX_DEPTH: u32 = 128;

/// One value's head: what it is and where its content lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head<'a> {
    /// `nil`.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer of zero or more.
    Unsigned(u64),
    /// A negative integer, or one in a signed encoding.
    Signed(i64),
    /// A `float 32`.
    Single(f32),
    /// A `float 64`.
    Double(f64),
    /// The bytes of a string, which need not be UTF-8.
    Str(&'a [u8]),
    /// The bytes of a binary value.
    Bin(&'a [u8]),
    /// The number of elements of an array.
    Array(u32),
    /// The number of pairs of a map.
    Map(u32),
    /// Type and bytes of an extension.
    Ext(i8, &'a [u8]),
}

/// The head of the value at `at`, and where its content ends (for arrays and maps: where their first element begins).
#[inline]
pub fn head(buf: &[u8], at: usize) -> Option<(Head<'_>, usize)> {
    let marker = *buf.get(at)?;
    let body = at + 1;
    Some(match marker {
        0x00..=0x7f => (Head::Unsigned(u64::from(marker)), body),
        0x80..=0x8f => (Head::Map(u32::from(marker & 0x0f)), body),
        0x90..=0x9f => (Head::Array(u32::from(marker & 0x0f)), body),
        0xa0..=0xbf => {
            let end = body + usize::from(marker & 0x1f);
            (Head::Str(buf.get(body..end)?), end)
        }
        0xc0 | 0xc1 => (Head::Nil, body),
        0xc2 => (Head::Bool(false), body),
        0xc3 => (Head::Bool(true), body),
        0xc4..=0xc6 => {
            let (bytes, end) = sized(buf, body, marker - 0xc4, 0)?;
            (Head::Bin(bytes), end)
        }
        0xc7..=0xc9 => {
            let (bytes, end) = sized(buf, body, marker - 0xc7, 1)?;
            let (kind, data) = bytes.split_first()?;
            (Head::Ext(*kind as i8, data), end)
        }
        0xca => (Head::Single(f32::from_be_bytes(array(buf, body)?)), body + 4),
        0xcb => (Head::Double(f64::from_be_bytes(array(buf, body)?)), body + 8),
        0xcc => (Head::Unsigned(u64::from(*buf.get(body)?)), body + 1),
        0xcd => (
            Head::Unsigned(u64::from(u16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xce => (
            Head::Unsigned(u64::from(u32::from_be_bytes(array(buf, body)?))),
            body + 4,
        ),
        0xcf => (Head::Unsigned(u64::from_be_bytes(array(buf, body)?)), body + 8),
        0xd0 => (
            Head::Signed(i64::from(i8::from_be_bytes(array(buf, body)?))),
            body + 1,
        ),
        0xd1 => (
            Head::Signed(i64::from(i16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xd2 => (
            Head::Signed(i64::from(i32::from_be_bytes(array(buf, body)?))),
            body + 4,
        ),
        0xd3 => (Head::Signed(i64::from_be_bytes(array(buf, body)?)), body + 8),
        0xd4..=0xd8 => {
            let end = body + 1 + (1usize << (marker - 0xd4));
            (Head::Ext(*buf.get(body)? as i8, buf.get(body + 1..end)?), end)
        }
        0xd9..=0xdb => {
            let (bytes, end) = sized(buf, body, marker - 0xd9, 0)?;
            (Head::Str(bytes), end)
        }
        0xdc => (
            Head::Array(u32::from(u16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xdd => (Head::Array(u32::from_be_bytes(array(buf, body)?)), body + 4),
        0xde => (
            Head::Map(u32::from(u16::from_be_bytes(array(buf, body)?))),
            body + 2,
        ),
        0xdf => (Head::Map(u32::from_be_bytes(array(buf, body)?)), body + 4),
        0xe0..=0xff => (Head::Signed(i64::from(marker as i8)), body),
    })
}

#[inline]
fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..at + N)?.try_into().ok()
}

/// Content with a length of 1, 2 or 4 bytes before it; `extra` bytes belong to it that the length does not count.
#[inline]
fn sized(buf: &[u8], at: usize, width: u8, extra: usize) -> Option<(&[u8], usize)> {
    let (length, from) = match width {
        0 => (usize::from(*buf.get(at)?), at + 1),
        1 => (usize::from(u16::from_be_bytes(array(buf, at)?)), at + 2),
        _ => (u32::from_be_bytes(array(buf, at)?) as usize, at + 4),
    };
    let end = from.checked_add(length)?.checked_add(extra)?;
    Some((buf.get(from..end)?, end))
}

/// Where the value at `at` ends, which is no array and no map; quick for strings of up to 255 bytes.
#[inline]
pub(crate) fn after_scalar(buf: &[u8], at: usize) -> Option<usize> {
    match *buf.get(at)? {
        marker @ 0xa0..=0xbf => Some(at + 1 + usize::from(marker & 0x1f)),
        0xd9 => Some(at + 2 + usize::from(*buf.get(at + 1)?)),
        _ => head(buf, at).map(|(_, next)| next),
    }
}

/// Where the value at `at` ends.
pub(crate) fn skip(buf: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut left = 1u64;
    while left > 0 {
        let (head, next) = head(buf, at)?;
        at = next;
        left -= 1;
        match head {
            Head::Array(n) => left += u64::from(n),
            Head::Map(n) => left += 2 * u64::from(n),
            _ => {}
        }
    }
    Some(at)
}

/// Appends the JSON text of the value that begins at `at`; gives where it ends (the end of `buf` for a damaged one).
#[inline]
pub fn write_value(out: &mut Vec<u8>, buf: &[u8], at: usize) -> usize {
    // What most values are.
    match buf.get(at) {
        Some(marker @ 0xa0..=0xbf) => {
            let from = at + 1;
            let end = from + usize::from(marker & 0x1f);
            if let Some(text) = buf.get(from..end) {
                write_string(out, text);
                return end;
            }
        }
        Some(number @ 0..=0x7f) => {
            write_unsigned(out, u64::from(*number));
            return at + 1;
        }
        Some(0xcc) => {
            if let Some(number) = buf.get(at + 1) {
                write_unsigned(out, u64::from(*number));
                return at + 2;
            }
        }
        _ => {}
    }
    write_nested(out, buf, at, 0)
}

fn write_nested(out: &mut Vec<u8>, buf: &[u8], at: usize, depth: u32) -> usize {
    let Some((head, next)) = head(buf, at).filter(|_| depth < MAX_DEPTH) else {
        out.extend_from_slice(b"null");
        return buf.len();
    };
    match head {
        Head::Nil => out.extend_from_slice(b"null"),
        Head::Bool(true) => out.extend_from_slice(b"true"),
        Head::Bool(false) => out.extend_from_slice(b"false"),
        Head::Unsigned(n) => write_unsigned(out, n),
        Head::Signed(n) => write_signed(out, n),
        Head::Single(n) if n.is_finite() => write_single(out, n),
        Head::Double(n) if n.is_finite() => write_double(out, n),
        Head::Single(_) | Head::Double(_) => out.extend_from_slice(b"null"),
        Head::Str(text) => write_string(out, text),
        Head::Bin(bytes) => write_binary(out, bytes),
        Head::Ext(kind, data) => write_extension(out, kind, data),
        Head::Array(n) => return write_array(out, buf, next, n, depth),
        Head::Map(n) => return write_map(out, buf, next, n, depth),
    }
    next
}

fn write_array(out: &mut Vec<u8>, buf: &[u8], mut at: usize, n: u32, depth: u32) -> usize {
    out.push(b'[');
    for i in 0..n {
        if at >= buf.len() {
            break;
        }
        if i > 0 {
            out.push(b',');
        }
        at = write_nested(out, buf, at, depth + 1);
    }
    out.push(b']');
    at
}

fn write_map(out: &mut Vec<u8>, buf: &[u8], mut at: usize, n: u32, depth: u32) -> usize {
    let mut pairs: Vec<(Cow<'_, [u8]>, usize)> = Vec::new();
    for _ in 0..n {
        let Some((name, value)) = key(buf, at) else { break };
        let Some(end) = skip(buf, value) else { break };
        pairs.push((name, value));
        at = end;
    }
    out.push(b'{');
    let mut first = true;
    // Elasticsearch refuses a document with equal keys, so only the last of them is written.
    let mut later = std::collections::HashSet::with_capacity_and_hasher(
        if pairs.len() > 16 { pairs.len() } else { 0 },
        foldhash::fast::RandomState::default(),
    );
    let mut keep = vec![true; pairs.len()];
    if pairs.len() > 16 {
        for (i, (name, _)) in pairs.iter().enumerate().rev() {
            keep[i] = later.insert(name);
        }
    } else {
        for (i, (name, _)) in pairs.iter().enumerate() {
            keep[i] = !pairs[i + 1..].iter().any(|(other, _)| other == name);
        }
    }
    for (_, (name, value)) in keep.iter().zip(&pairs).filter(|(keep, _)| **keep) {
        if !first {
            out.push(b',');
        }
        first = false;
        write_string(out, name);
        out.push(b':');
        write_nested(out, buf, *value, depth + 1);
    }
    out.push(b'}');
    at
}

/// The name that the map key at `at` has in JSON, and where its value begins.
pub(crate) fn key(buf: &[u8], at: usize) -> Option<(Cow<'_, [u8]>, usize)> {
    let (head, next) = head(buf, at)?;
    match head {
        Head::Str(text) | Head::Bin(text) => Some((Cow::Borrowed(text), next)),
        _ => {
            let mut name = Vec::new();
            let end = write_value(&mut name, buf, at);
            // A quoted form (a time, say) names the key without its quotes.
            if name.len() >= 2 && name.first() == Some(&b'"') {
                name.pop();
                name.remove(0);
            }
            Some((Cow::Owned(name), end))
        }
    }
}

fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    if std::str::from_utf8(bytes).is_ok() {
        write_string(out, bytes);
    } else {
        out.push(b'"');
        write_base64(out, bytes);
        out.push(b'"');
    }
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
}

fn write_extension(out: &mut Vec<u8>, kind: i8, data: &[u8]) {
    let ns = extension_time(kind, data);
    if let Some(ns) = ns {
        out.push(b'"');
        write_rfc3339(out, ns);
        out.push(b'"');
    } else {
        // Writing to a Vec cannot fail.
        write!(out, "{{\"type\":{kind},\"data\":\"").ok();
        write_base64(out, data);
        out.extend_from_slice(b"\"}");
    }
}

/// Unix nanoseconds of an EventTime (type 0, Forward Protocol Specification v1) or a MessagePack timestamp (type -1).
fn extension_time(kind: i8, data: &[u8]) -> Option<i64> {
    let (seconds, nanos) = match (kind, data.len()) {
        (0, 8) => (
            i64::from(u32::from_be_bytes(array(data, 0)?)),
            u64::from(u32::from_be_bytes(array(data, 4)?)),
        ),
        (-1, 4) => (i64::from(u32::from_be_bytes(array(data, 0)?)), 0),
        (-1, 8) => {
            let word = u64::from_be_bytes(array(data, 0)?);
            ((word & 0x3_ffff_ffff) as i64, word >> 34)
        }
        (-1, 12) => (
            i64::from_be_bytes(array(data, 4)?),
            u64::from(u32::from_be_bytes(array(data, 0)?)),
        ),
        _ => return None,
    };
    let nanos = i64::try_from(nanos).ok().filter(|nanos| *nanos < SECOND_NS)?;
    seconds.checked_mul(SECOND_NS)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        assert_eq!(write_value(&mut out, bytes, 0), bytes.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_what_json_can_say() {
        assert_eq!(json(b"\xc0"), "null");
        assert_eq!(json(b"\x93\xc2\xc3\xff"), "[false,true,-1]");
        assert_eq!(
            json(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
            "18446744073709551615"
        );
        assert_eq!(json(b"\xd3\x80\0\0\0\0\0\0\0"), "-9223372036854775808");
        assert_eq!(json(b"\xcb\x3f\xf8\0\0\0\0\0\0"), "1.5");
        assert_eq!(json(b"\x00"), "0");
        assert_eq!(json(b"\x7f"), "127");
        assert_eq!(json(b"\xcc\xc8"), "200");
        assert_eq!(json(b"\xcd\x01\x00"), "256");
        assert_eq!(json(b"\xcc"), "null", "cut short");
        assert_eq!(json(b"\xa2a"), "null", "cut short");
        assert_eq!(json(b"\xa6a\"\\\n\x01\x7f"), "\"a\\\"\\\\\\n\\u0001\x7f\"");
        assert_eq!(json(b"\x82\xa1a\x01\xa1b\x91\xa1c"), r#"{"a":1,"b":["c"]}"#);
    }

    #[test]
    fn has_a_policy_for_the_rest() {
        assert_eq!(json(b"\xca\x7f\x80\0\0"), "null", "infinity");
        assert_eq!(json(b"\xcb\x7f\xf8\0\0\0\0\0\0"), "null", "not a number");
        assert_eq!(json(b"\xc4\x02hi"), "\"hi\"");
        assert_eq!(json(b"\xc4\x02\xff\xfe"), "\"//4=\"");
        assert_eq!(json(b"\xa3a\xffb"), "\"a\u{fffd}b\"");
        assert_eq!(
            json(b"\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15"),
            "\"2023-11-14T22:13:20.123456789Z\""
        );
        assert_eq!(json(b"\xd6\xff\x65\x53\xf1\x00"), "\"2023-11-14T22:13:20.000Z\"");
        assert_eq!(json(b"\xd4\x05\x2a"), r#"{"type":5,"data":"Kg=="}"#);
        assert_eq!(
            json(b"\x84\x01\x01\xc0\x02\x91\x01\x03\xc3\x04"),
            r#"{"1":1,"null":2,"[1]":3,"true":4}"#
        );
        assert_eq!(
            json(b"\x83\xa1a\x01\xa1b\x02\xa1a\x03"),
            r#"{"b":2,"a":3}"#,
            "of equal keys the last"
        );
    }

    #[test]
    fn of_many_equal_keys_the_last_wins_too() {
        let mut bytes = vec![0xde, 0, 40];
        for i in 0..40u8 {
            bytes.extend_from_slice(&[0xa1, b'a' + i % 20, i]);
        }
        let value: serde_json::Value = serde_json::from_str(&json(&bytes)).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 20);
        assert_eq!(value["a"], 20);
    }

    proptest! {
        #[test]
        fn any_bytes_give_valid_json(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            write_value(&mut out, &bytes, 0);
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        }
    }
}
