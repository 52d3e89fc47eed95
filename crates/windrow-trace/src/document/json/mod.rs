//! MessagePack to JSON, one value at a time, straight from the received bytes.
//!
//! Owns the policy for what JSON lacks: non-finite floats become `null`, binary becomes text if it
//! is UTF-8 and else base64, event times and timestamps become RFC 3339, other extensions
//! `{"type":…,"data":…}`, keys that are not strings become their JSON text, of duplicate keys the
//! last wins, invalid UTF-8 is replaced. Names that a store refuses are replaced (`field_names`).
//!
//! Values were validated when received; for invalid ones it writes `null` and never panics.

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
use super::field_names::{any_below, is_flattened, is_simple, member_names, paths};
use super::msgpack::{Token, array, read_token, skip};
use super::time::{SECOND_NS, write_rfc3339};

/// Maximum nesting of a value. Deeper ones are rejected when received.
const MAX_DEPTH: u32 = 128;

/// Appends the JSON text of the value at offset `at`. Returns the offset behind it (the end of
/// `buf` if it is damaged).
#[inline]
pub fn write_json_value(out: &mut Vec<u8>, buf: &[u8], at: usize) -> usize {
    // The most common values.
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
    write_resolved(out, buf, at, false)
}

/// [`write_json_value`] for a field of this name.
#[inline]
pub(crate) fn write_field_value(out: &mut Vec<u8>, name: &[u8], buf: &[u8], at: usize) -> usize {
    write_value_in(out, is_flattened(name), buf, at)
}

/// [`write_json_value`] for a field that may be `flattened` in the store ([`is_flattened`]).
#[inline]
pub(crate) fn write_value_in(out: &mut Vec<u8>, flattened: bool, buf: &[u8], at: usize) -> usize {
    if flattened {
        write_resolved(out, buf, at, true)
    } else {
        write_json_value(out, buf, at)
    }
}

/// Appends the value with all names as they are.
pub(crate) fn write_verbatim(out: &mut Vec<u8>, buf: &[u8], at: usize) {
    let mut findings = Findings {
        verbatim: true,
        ..Findings::default()
    };
    write_nested(out, buf, at, 0, &mut findings);
}

/// What was found out about a value while it was written.
#[derive(Default)]
struct Findings {
    /// No name is changed.
    verbatim: bool,
    /// The value is in a `flattened` field, whose keys are no paths.
    flattened: bool,
    /// It has names with dots.
    has_paths: bool,
    /// It may have one path as object and value.
    is_unclear: bool,
}

fn write_resolved(out: &mut Vec<u8>, buf: &[u8], at: usize, flattened: bool) -> usize {
    let mut findings = Findings {
        flattened,
        ..Findings::default()
    };
    let from = out.len();
    let end = write_nested(out, buf, at, 0, &mut findings);
    if findings.is_unclear {
        paths::resolve(out, from);
    }
    end
}

fn write_nested(out: &mut Vec<u8>, buf: &[u8], at: usize, depth: u32, findings: &mut Findings) -> usize {
    let Some((token, next)) = read_token(buf, at).filter(|_| depth < MAX_DEPTH) else {
        out.extend_from_slice(b"null");
        return buf.len();
    };
    match token {
        Token::Nil => out.extend_from_slice(b"null"),
        Token::Bool(true) => out.extend_from_slice(b"true"),
        Token::Bool(false) => out.extend_from_slice(b"false"),
        Token::Unsigned(n) => write_unsigned(out, n),
        Token::Signed(n) => write_signed(out, n),
        Token::UntracedRecord(n) if n.is_finite() => write_single(out, n),
        Token::Double(n) if n.is_finite() => write_double(out, n),
        Token::UntracedRecord(_) | Token::Double(_) => out.extend_from_slice(b"null"),
        Token::Str(text) => write_string(out, text),
        Token::Bin(bytes) => write_binary(out, bytes),
        Token::Ext(kind, data) => write_extension(out, kind, data),
        Token::Array(n) => return write_array(out, buf, next, n, depth, findings),
        Token::Map(n) => return write_map(out, buf, next, n, depth, findings),
    }
    next
}

fn write_array(
    out: &mut Vec<u8>,
    buf: &[u8],
    mut at: usize,
    n: u32,
    depth: u32,
    findings: &mut Findings,
) -> usize {
    let from = out.len();
    let (mut objects, mut arrays) = (0, 0);
    let has_paths = std::mem::take(&mut findings.has_paths);
    out.push(b'[');
    for i in 0..n {
        if at >= buf.len() {
            break;
        }
        if i > 0 {
            out.push(b',');
        }
        match buf.get(at) {
            // Some extensions are written as objects.
            Some(0x80..=0x8f | 0xde | 0xdf | 0xc7..=0xc9 | 0xd4..=0xd8) => objects += 1,
            Some(0x90..=0x9f | 0xdc | 0xdd) => arrays += 1,
            _ => {}
        }
        at = write_nested(out, buf, at, depth + 1, findings);
    }
    out.push(b']');
    if objects + arrays > 1 && !findings.flattened {
        findings.is_unclear |= findings.has_paths || has_inner_objects(out, from, objects);
    }
    findings.has_paths |= has_paths;
    at
}

/// Whether objects in an array, which begins at offset `from`, have objects themselves. May say so
/// because of a text with a brace.
fn has_inner_objects(out: &[u8], from: usize, objects: usize) -> bool {
    let array = out.get(from..).unwrap_or_default();
    array.iter().filter(|byte| **byte == b'{').count() > objects
}

fn write_map(
    out: &mut Vec<u8>,
    buf: &[u8],
    mut at: usize,
    n: u32,
    depth: u32,
    findings: &mut Findings,
) -> usize {
    let mut pairs: Vec<(Cow<'_, [u8]>, usize)> = Vec::new();
    let mut all_simple = true;
    for _ in 0..n {
        let Some((name, value)) = key(buf, at) else { break };
        let Some(end) = skip(buf, value) else { break };
        all_simple &= is_simple(&name);
        pairs.push((name, value));
        at = end;
    }
    if !all_simple && !findings.verbatim {
        write_named(out, buf, &pairs, depth, findings);
        return at;
    }
    out.push(b'{');
    let mut first = true;
    // Elasticsearch rejects documents with duplicate keys, so only the last is written.
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
        write_member(out, name, buf, *value, depth, findings);
    }
    out.push(b'}');
    at
}

fn write_member(
    out: &mut Vec<u8>,
    name: &[u8],
    buf: &[u8],
    value: usize,
    depth: u32,
    findings: &mut Findings,
) {
    write_string(out, name);
    out.push(b':');
    let outer = findings.flattened;
    findings.flattened |= is_flattened(name);
    write_nested(out, buf, value, depth + 1, findings);
    findings.flattened = outer;
}

/// Writes a map with names of which some may have to change.
#[cold]
fn write_named(
    out: &mut Vec<u8>,
    buf: &[u8],
    pairs: &[(Cow<'_, [u8]>, usize)],
    depth: u32,
    findings: &mut Findings,
) {
    let (keys, values): (Vec<&[u8]>, Vec<usize>) = pairs.iter().map(|(name, at)| (&**name, *at)).unzip();
    let names = member_names(&keys);
    if !findings.flattened && names.iter().flatten().any(|name| name.contains('.')) {
        findings.has_paths = true;
        findings.is_unclear |= any_below(names.iter().flatten().map(String::as_str).collect());
    }
    out.push(b'{');
    let mut first = true;
    for (name, value) in names.iter().zip(values) {
        let Some(name) = name else { continue };
        if !first {
            out.push(b',');
        }
        first = false;
        write_member(out, name.as_bytes(), buf, value, depth, findings);
    }
    out.push(b'}');
}

/// The JSON name of the map key at `at`, and the offset of its value.
pub(crate) fn key(buf: &[u8], at: usize) -> Option<(Cow<'_, [u8]>, usize)> {
    let (token, next) = read_token(buf, at)?;
    match token {
        Token::Str(text) | Token::Bin(text) => Some((Cow::Borrowed(text), next)),
        _ => {
            let mut name = Vec::new();
            let end = write_json_value(&mut name, buf, at);
            // A quoted form (a time, for example) is used without its quotes.
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

/// Unix nanoseconds of an EventTime (type 0, Forward Protocol Specification v1) or a MessagePack
/// timestamp (type -1).
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

/// The text of a value on one line: the store may return a document with line breaks.
pub(crate) fn one_line(raw: &serde_json::value::RawValue) -> impl Iterator<Item = u8> {
    raw.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        assert_eq!(write_json_value(&mut out, bytes, 0), bytes.len());
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
            write_json_value(&mut out, &bytes, 0);
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        }
    }
}
