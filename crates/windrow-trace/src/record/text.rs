//! The text of a record: the line that it adds to the document.
//!
//! A text field as it stands, without the line terminator at its end and without ANSI escape
//! sequences; else the compact JSON of a text field that holds another value; else the record's own
//! fields as `key=value`. Depends on the record and the configuration alone, so the text is the same
//! whichever instance renders it.

use std::borrow::Cow;
use std::collections::HashMap;

use forward_protocol::entries::{Key, MapPairs};
use memchr::memchr;
use wide::u8x32;

use super::view::RecordView;
use crate::document::json::{write_json_value, write_string};
use crate::document::msgpack::{Token, read_token};
use crate::document::names::as_text;

/// The escape character, which begins ANSI escape sequences.
const ESCAPE: u8 = 0x1b;
/// Bytes that are searched for it at a time.
const BLOCK_BYTES: usize = 32;
/// Longest sequence that is looked for at the end of a text, in bytes.
const MAX_TRAILING_SEQUENCE_BYTES: usize = 16;

/// Where the text of a record comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextForm {
    /// A text field as it stands.
    #[default]
    Field,
    /// A text field that holds another value than a text.
    Value,
    /// All fields: there is no text field.
    Fields,
}

/// The text of a record that has no shape, or none with a text field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RecordText<'a> {
    /// A slice of the record.
    Field(&'a [u8]),
    /// The value, as its whole MessagePack bytes.
    Value(&'a [u8]),
    /// The record has no text field.
    Fields,
}

impl<'a> RecordText<'a> {
    /// The value of a text field as text; `None` of nil.
    pub(crate) fn of_value(value: &'a [u8]) -> Option<Self> {
        match read_token(value, 0)?.0 {
            Token::Nil => None,
            token => Some(as_text(token).map_or(Self::Value(value), Self::Field)),
        }
    }

    pub(crate) fn form(self) -> TextForm {
        match self {
            Self::Field(_) => TextForm::Field,
            Self::Value(_) => TextForm::Value,
            Self::Fields => TextForm::Fields,
        }
    }

    /// The text as the document has it. `None` of a record that has no fields but its id.
    pub(crate) fn write(self, view: &RecordView, record: &'a [u8], id: &[u8]) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Field(text) => Some(view.clean(text)),
            Self::Value(value) => {
                let mut text = Vec::new();
                write_json_value(&mut text, value, 0);
                Some(Cow::Owned(text))
            }
            Self::Fields => {
                let text = fields(view, record, id);
                (!text.is_empty()).then_some(Cow::Owned(text))
            }
        }
    }
}

/// `text` without the line terminator at its end; with `strip_ansi` also one that escape sequences
/// follow.
#[inline]
pub(crate) fn trimmed(text: &[u8], strip_ansi: bool) -> &[u8] {
    match text {
        [.., b'\n'] => without_terminator(text),
        [.., b'm' | b'K'] if strip_ansi => without_coloured_terminator(text),
        _ => text,
    }
}

#[inline]
fn without_terminator(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// Loggers that colour whole lines write the terminator before the sequence that ends the colour.
#[cold]
fn without_coloured_terminator(text: &[u8]) -> &[u8] {
    let mut head = text;
    loop {
        let from = head.len().saturating_sub(MAX_TRAILING_SEQUENCE_BYTES);
        let tail = head.get(from..).unwrap_or_default();
        match tail.iter().rposition(|byte| *byte == ESCAPE) {
            Some(at) if sequence_length(&tail[at..]) == tail.len() - at => {
                head = head.get(..from + at).unwrap_or_default();
            }
            _ => break,
        }
    }
    if head.ends_with(b"\n") {
        without_terminator(head)
    } else {
        text
    }
}

/// Whether a text has ANSI escape sequences.
#[inline]
pub(crate) fn has_escapes(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<BLOCK_BYTES>() else {
        return has_escapes_in_short(text);
    };
    // Faster than `memchr`, which finds where: most texts have a few blocks, and no escapes.
    let of = |block: &[u8; BLOCK_BYTES]| u8x32::new(*block).simd_eq(u8x32::splat(ESCAPE));
    let (blocks, _) = text.as_chunks::<BLOCK_BYTES>();
    // The last block overlaps the others.
    let found = blocks.iter().fold(of(last), |found, block| found | of(block));
    found.to_bitmask() != 0
}

#[inline(never)]
fn has_escapes_in_short(text: &[u8]) -> bool {
    text.contains(&ESCAPE)
}

/// `text` without ANSI escape sequences and without escape characters that begin none.
pub(crate) fn stripped(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr(ESCAPE, text) else {
        return Cow::Borrowed(text);
    };
    let (head, mut rest) = text.split_at(first);
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(head);
    while !rest.is_empty() {
        rest = rest.get(sequence_length(rest)..).unwrap_or_default();
        let end = memchr(ESCAPE, rest).unwrap_or(rest.len());
        let (plain, after) = rest.split_at(end);
        out.extend_from_slice(plain);
        rest = after;
    }
    Cow::Owned(out)
}

/// Length of the escape sequence at the front of `text` (ECMA-48), which begins with the escape
/// character; 1 if no whole sequence follows.
fn sequence_length(text: &[u8]) -> usize {
    let body = text.get(1..).unwrap_or_default();
    let whole = match body {
        // Control sequence: parameters, intermediates, one final byte.
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| !matches!(byte, 0x20..=0x3f));
            end.filter(|end| matches!(rest[*end], 0x40..=0x7e))
                .map(|end| end + 2)
        }
        // Operating system command, such as a hyperlink: up to BEL or ESC \.
        [b']', rest @ ..] => {
            let end = rest
                .iter()
                .position(|byte| matches!(*byte, 0x07 | ESCAPE | b'\n'));
            end.and_then(|end| match (rest[end], rest.get(end + 1)) {
                (0x07, _) => Some(end + 2),
                (ESCAPE, Some(b'\\')) => Some(end + 3),
                _ => None,
            })
        }
        // Choice of a character set.
        [b'(' | b')', _, ..] => Some(2),
        // A single letter: reset, save and restore.
        [b'c' | b'7' | b'8' | b'=' | b'>', ..] => Some(1),
        _ => None,
    };
    1 + whole.unwrap_or(0)
}

/// All fields of a record but its trace id as `key=value`, separated by spaces, as logfmt has them.
/// Of equal names the last one counts.
fn fields(view: &RecordView, record: &[u8], id: &[u8]) -> Vec<u8> {
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for pair in MapPairs::new(record) {
        let name = match pair.key {
            Key::Text(name) | Key::Other(name) => name,
        };
        match known.get(name) {
            Some(&at) => pairs[at].1 = pair.value,
            None => {
                known.insert(name, pairs.len());
                pairs.push((name, pair.value));
            }
        }
    }
    let mut out = Vec::new();
    for (name, value) in pairs {
        if view.is_id(name, value, id) {
            continue;
        }
        if !out.is_empty() {
            out.push(b' ');
        }
        write_plain(&mut out, name);
        out.push(b'=');
        match read_token(value, 0) {
            Some((Token::Str(text), _)) => write_plain(&mut out, view.clean(text).as_ref()),
            _ => _ = write_json_value(&mut out, value, 0),
        }
    }
    out
}

/// Writes a text as it stands if it is one word, else as a JSON string.
fn write_plain(out: &mut Vec<u8>, text: &[u8]) {
    let is_word = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    let is_one = match std::str::from_utf8(text) {
        Ok(valid) => valid.chars().all(|c| !c.is_whitespace() && !c.is_control()),
        Err(_) => false,
    };
    if !text.is_empty() && is_one && text.iter().all(|byte| !byte.is_ascii() || is_word(byte)) {
        out.extend_from_slice(text);
    } else {
        write_string(out, text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::FieldNames;
    use crate::tests::record;

    fn text(json: &Value) -> Option<String> {
        let view = RecordView::new(FieldNames::default());
        let record = record(json);
        let text = view.text(&record).1.write(&view, &record, b"t")?;
        Some(String::from_utf8(text.into_owned()).unwrap())
    }

    #[test]
    fn one_terminator_is_no_part_of_the_text() {
        for (line, text) in [
            ("line 0\n", "line 0"),
            ("line 0\r\n", "line 0"),
            ("line 0", "line 0"),
            ("a\n\n", "a\n"),
            ("a\r", "a\r"),
            ("\n", ""),
            ("\x1b[31mred\n\x1b[0m", "\x1b[31mred"),
            ("\x1b[31mred\r\n\x1b[0m\x1b[K", "\x1b[31mred"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("from", "from"),
            ("\x1b[0m", "\x1b[0m"),
        ] {
            assert_eq!(trimmed(line.as_bytes(), true), text.as_bytes(), "{line:?}");
        }
        assert_eq!(trimmed(b"red\n\x1b[0m", false), b"red\n\x1b[0m");
    }

    #[test]
    fn escape_sequences_are_removed() {
        for (line, text) in [
            ("plain", "plain"),
            ("\x1b[1;31mERROR\x1b[0m failed", "ERROR failed"),
            ("\x1b[38;5;208mx\x1b[K\x1b[2Jy", "xy"),
            ("\x1b]8;;http://x\x07link\x1b]8;;\x1b\\ end", "link end"),
            ("\x1b(Bx\x1bcy", "xy"),
            ("cut \x1b[31", "cut [31"),
            ("\x1b\x1b[0m[1mx", "[1mx"),
            ("\x1b", ""),
            ("é\x1b[0mé", "éé"),
        ] {
            assert_eq!(stripped(line.as_bytes()), text.as_bytes(), "{line:?}");
        }
    }

    #[test]
    fn an_escape_is_found_at_every_place_of_every_length() {
        for length in 0..70 {
            let mut text = vec![b'['; length];
            assert!(!has_escapes(&text), "{length}");
            for at in 0..length {
                text[at] = ESCAPE;
                assert!(has_escapes(&text), "{at} of {length}");
                text[at] = b'[';
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_stripped_has_no_escape(bytes in prop::collection::vec(
            prop_oneof![Just(0x1b), Just(b'['), Just(b']'), Just(b'm'), Just(b'\\'), Just(7), Just(b'\n'), any::<u8>()],
            0..40,
        )) {
            let once = stripped(&bytes);
            prop_assert!(!has_escapes(&once));
            let trimmed = trimmed(&bytes, true);
            prop_assert!(bytes.starts_with(trimmed));
        }
    }

    #[test]
    fn other_values_are_compact_json() {
        for (json, expected) in [
            (
                json!({"log": {"level": "info", "msg": "line 0"}}),
                r#"{"level":"info","msg":"line 0"}"#,
            ),
            (json!({"message": ["a", "b", 1]}), r#"["a","b",1]"#),
            (json!({"message": 42}), "42"),
            (json!({"message": false}), "false"),
            (
                json!({"message": 42, "log": "a string is preferred"}),
                "a string is preferred",
            ),
            (json!({"message": null, "log": 1.5}), "1.5"),
            (json!({"message": ""}), ""),
            (json!({"event": "structlog"}), "structlog"),
            (json!({"MESSAGE": "journald"}), "journald"),
            (json!({"fields": {"message": "tracing"}}), "tracing"),
            (json!({"message": "a\n"}), "a"),
            (json!({"message": "\u{1b}[32mgreen\u{1b}[0m\n"}), "green"),
        ] {
            assert_eq!(text(&json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn without_a_text_field_the_fields_are_the_text() {
        let json = json!({"traceId": "t", "status": 200, "path": "/a b", "x": {"y": [1]}, "empty": "", "user": "zoë", "n": null});
        let expected = r#"empty="" n=null path="/a b" status=200 user=zoë x={"y":[1]}"#;
        let mut words: Vec<_> = text(&json).unwrap().split(' ').map(str::to_owned).collect();
        words.sort_unstable();
        let mut expected: Vec<_> = expected.split(' ').map(str::to_owned).collect();
        expected.sort_unstable();
        assert_eq!(words, expected);
        assert_eq!(text(&json!({"traceId": "t"})), None, "nothing but the id");
        assert_eq!(
            text(&json!({"traceId": "-"})).as_deref(),
            Some("traceId=-"),
            "not the id"
        );
        let view = RecordView::new(FieldNames::default());
        let twice = b"\x82\xa1a\x01\xa1a\x02";
        assert_eq!(
            RecordText::Fields.write(&view, twice, b"t").as_deref(),
            Some(&b"a=2"[..])
        );
    }
}
