//! Trace ids in records: the forms in which they are logged, and values that mean "no trace".
//!
//! Most ids are a text as it stands. The contexts that services pass on (`traceparent`,
//! `X-Amzn-Trace-Id`, `b3`, `uber-trace-id`, `X-Cloud-Trace-Context`) contain one; integers and
//! bytes become text.

mod propagated;

use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use self::propagated::propagated;
use crate::document::msgpack::{Token, read_token};

/// Longest id that is made from another value: 16 bytes in hex.
const MAX_MADE_BYTES: usize = 32;

/// What the value of a key is, besides text and integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdForm {
    /// Any form that shows what it is. 8 or 16 binary bytes that are not printable ASCII become
    /// hex.
    Any,
    /// Binary of 8 or 16 bytes, which become hex.
    Bytes,
    /// Text: base64 of 8 or 16 bytes, which become hex.
    Base64,
    /// Text: hex digits of 8 or 16 bytes, which become lower case.
    Hex,
    /// A context that contains an id, whatever its length.
    Context,
    /// The single header of B3, which may also be one letter of the sampling decision alone.
    B3,
}

impl IdForm {
    /// The path of a key of the configuration, without its form.
    #[inline]
    pub(crate) fn path_of_key(key: &str) -> &str {
        // Called for each document: the last byte shows that usual keys have no form.
        if !matches!(key.as_bytes(), [.., b's' | b'4' | b'x']) {
            return key;
        }
        match key.rsplit_once('|') {
            Some((path, "bytes" | "base64" | "hex")) => path,
            _ => key,
        }
    }

    /// Splits a key of the configuration into its path and its form: `id|base64`. Whatever else
    /// follows a `|` belongs to the name.
    pub(crate) fn of_key(key: &str) -> (&str, Self) {
        let path = Self::path_of_key(key);
        match key.get(path.len()..) {
            Some("|bytes") => return (path, Self::Bytes),
            Some("|base64") => return (path, Self::Base64),
            Some("|hex") => return (path, Self::Hex),
            _ => {}
        }
        let last = key
            .rsplit('.')
            .next()
            .unwrap_or(key)
            .to_ascii_lowercase()
            .replace('_', "-");
        let form = match last.as_str() {
            "b3" => Self::B3,
            "uber-trace-id" | "x-cloud-trace-context" => Self::Context,
            _ => Self::Any,
        };
        (key, form)
    }
}

/// A usable id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdValue<'a> {
    /// The whole text.
    Whole(&'a [u8]),
    /// A piece of the text.
    Part(&'a [u8]),
    /// Made from another value, with all that the value says.
    Made(MadeId),
}

#[cfg(test)]
impl IdValue<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(id) | Self::Part(id) => id,
            Self::Made(id) => id.bytes(),
        }
    }
}

/// The text of an id that is not a text in its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeId {
    text: [u8; MAX_MADE_BYTES],
    length: u8,
}

impl MadeId {
    /// The bytes of the id.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn of_integer(number: impl itoa::Integer) -> Self {
        let mut buffer = itoa::Buffer::new();
        let mut id = Self::default();
        id.push(buffer.format(number).as_bytes());
        id
    }

    /// Hex of 8 or 16 bytes; `None` of any other number.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if !matches!(bytes.len(), 8 | 16) {
            return None;
        }
        let mut id = Self::default();
        for byte in bytes {
            let digit = |half: u8| char::from_digit(u32::from(half), 16).map_or(b'0', |digit| digit as u8);
            id.push(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Some(id)
    }

    /// Appends what fits, which is everything that is made.
    fn push(&mut self, text: &[u8]) {
        let at = usize::from(self.length);
        if let Some(mut place) = self.text.get_mut(at..)
            && place.write_all(text).is_ok()
        {
            self.length += text.len() as u8;
        }
    }
}

/// Reads ids, and knows which values are none.
#[derive(Debug)]
pub(crate) struct IdReader {
    /// Values that are no ids, in lower case.
    ignored: Vec<Box<[u8]>>,
    /// Length of the longest of them.
    longest: usize,
    /// For each first byte the length up to which a value that begins with it may be none: that of
    /// the longest such ignored one, and every length for blanks and dashes.
    suspicious: [u8; 256],
}

impl IdReader {
    pub(crate) fn new(ignored: &[String]) -> Self {
        let ignored: Vec<Box<[u8]>> = ignored
            .iter()
            .map(|value| value.trim().to_ascii_lowercase().into_bytes().into())
            .collect();
        let mut suspicious = [0; 256];
        for (first, value) in ignored.iter().filter_map(|value| Some((value.first()?, value))) {
            let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
            for first in [*first, first.to_ascii_uppercase()] {
                let longest = &mut suspicious[usize::from(first)];
                *longest = length.max(*longest);
            }
        }
        for first in b" \t\r\n\x0b\x0c-" {
            suspicious[usize::from(*first)] = u8::MAX;
        }
        let longest = ignored.iter().map(|value| value.len()).max().unwrap_or(0);
        Self {
            ignored,
            longest,
            suspicious,
        }
    }

    /// The id in a value, given as its whole MessagePack bytes.
    #[inline]
    pub(crate) fn read<'a>(&self, form: IdForm, value: &'a [u8]) -> Option<IdValue<'a>> {
        if form == IdForm::Any
            && let Some(id) = self.read_usual(value)
        {
            return Some(IdValue::Whole(id));
        }
        self.read_other(form, value)
    }

    /// The id in a value of the form [`IdForm::Any`], if it is the whole of a short text that shows
    /// by its first byte and its length that it is nothing else.
    #[inline(always)]
    pub(crate) fn read_usual<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        // Whole values: a string reaches to the end.
        match value {
            [0xa1..=0xbf, text @ ..] | [0xd9, _, text @ ..] if self.is_usual(text) => Some(text),
            _ => None,
        }
    }

    #[inline(always)]
    fn is_usual(&self, text: &[u8]) -> bool {
        let (Some(first), Some(last)) = (text.first(), text.last()) else {
            return false;
        };
        let may_be_none = text.len() <= usize::from(self.suspicious[usize::from(*first)])
            || (*first == b'0' && matches!(last, b'0' | b'-'))
            || *last <= b' ';
        // Of the contexts that contain an id, none has 32 bytes or fewer, or 36 as a UUID has.
        !may_be_none && (text.len() <= 32 || text.len() == 36)
    }

    /// The id in a text.
    #[inline]
    fn text<'a>(&self, text: &'a [u8]) -> Option<IdValue<'a>> {
        if self.is_usual(text) {
            Some(IdValue::Whole(text))
        } else {
            self.examine(text)
        }
    }

    #[inline(never)]
    fn examine<'a>(&self, text: &'a [u8]) -> Option<IdValue<'a>> {
        let trimmed = text.trim_ascii();
        let id = propagated(trimmed);
        if self.is_ignored(id.unwrap_or(trimmed)) {
            return None;
        }
        Some(id.map_or(IdValue::Whole(text), IdValue::Part))
    }

    /// Whether a value means "no trace".
    fn is_ignored(&self, value: &[u8]) -> bool {
        // The root of an X-Ray id begins with its version.
        let digits = match value {
            [b'0', b'x' | b'X', digits @ ..] => digits,
            [b'1', b'-', digits @ ..] if digits.len() == 33 => digits,
            digits => digits,
        };
        let is_zero = digits.contains(&b'0') && digits.iter().all(|byte| matches!(byte, b'0' | b'-'));
        let is_word = |word: &[u8]| word.len() == value.len() && word.eq_ignore_ascii_case(value);
        let is_short = value.len() <= self.longest;
        value.is_empty() || is_zero || is_short && self.ignored.iter().any(|word| is_word(word))
    }

    #[inline(never)]
    fn read_other<'a>(&self, form: IdForm, value: &'a [u8]) -> Option<IdValue<'a>> {
        let made = match (read_token(value, 0)?.0, form) {
            (Token::Unsigned(number), _) => Some(MadeId::of_integer(number)),
            (Token::Signed(number), _) => Some(MadeId::of_integer(number)),
            (Token::Bin(bytes), IdForm::Any) if !bytes.iter().all(is_printable) => {
                match MadeId::of_bytes(bytes) {
                    None if std::str::from_utf8(bytes).is_ok() => return self.text(bytes),
                    made => made,
                }
            }
            (Token::Bin(bytes), IdForm::Bytes) => MadeId::of_bytes(bytes),
            (Token::Str(text) | Token::Bin(text), IdForm::Base64) => from_base64(text.trim_ascii()),
            (Token::Str(text) | Token::Bin(text), IdForm::Hex) => from_hex(text.trim_ascii()),
            (Token::Str(text) | Token::Bin(text), IdForm::B3) if text.len() <= 1 => return None,
            (Token::Str(text) | Token::Bin(text), IdForm::Context | IdForm::B3) => {
                return self.examine(text);
            }
            (Token::Str(text) | Token::Bin(text), IdForm::Any | IdForm::Bytes) => return self.text(text),
            _ => None,
        };
        made.filter(|id| !self.is_ignored(id.bytes())).map(IdValue::Made)
    }
}

fn is_printable(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn from_base64(text: &[u8]) -> Option<MadeId> {
    let mut bytes = [0; 32];
    let engines = [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD];
    let length = engines
        .iter()
        .find_map(|engine| engine.decode_slice(text, &mut bytes).ok())?;
    MadeId::of_bytes(bytes.get(..length)?)
}

fn from_hex(text: &[u8]) -> Option<MadeId> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    if !matches!(digits.len(), 16 | 32) || !is_hex(digits) {
        return None;
    }
    let mut id = MadeId::default();
    id.push(digits);
    id.text.make_ascii_lowercase();
    Some(id)
}

fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::FieldNames;
    use crate::tests::record;

    const HEX: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read_bytes(key: &str, value: &[u8]) -> Option<String> {
        let reader = IdReader::new(&FieldNames::default().ignore);
        let id = reader.read(IdForm::of_key(key).1, value)?;
        Some(String::from_utf8_lossy(id.bytes()).into_owned())
    }

    fn read(key: &str, value: &Value) -> Option<String> {
        read_bytes(key, &record(value))
    }

    #[test]
    fn forms_in_which_ids_are_logged() {
        let uuid = "746bddd3-74c3-f994-9535-13c9bab2808b";
        for (key, value, id) in [
            ("traceId", json!("abc"), "abc"),
            ("traceId", json!(HEX), HEX),
            ("traceId", json!(uuid), uuid),
            ("traceId", json!(" padded "), " padded "),
            ("traceId", json!("0abc"), "0abc"),
            ("traceId", json!("x".repeat(300)), &"x".repeat(300)),
            (
                "traceId",
                json!(1_234_567_890_123_456_789u64),
                "1234567890123456789",
            ),
            ("traceId", json!(u64::MAX), "18446744073709551615"),
            ("traceId", json!(-5), "-5"),
            ("traceparent", json!(format!("00-{HEX}-00f067aa0ba902b7-01")), HEX),
            ("traceId", json!(format!("00-{HEX}-00f067aa0ba902b7-01")), HEX),
            (
                "traceId",
                json!(format!("cc-{HEX}-00f067aa0ba902b7-01-later-versions")),
                HEX,
            ),
            (
                "x-amzn-trace-id",
                json!("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
                "1-5759e988-bd862e3fe1be46a994272793",
            ),
            (
                "x-amzn-trace-id",
                json!("Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678"),
                "1-67891233-abcdef012345678912345678",
            ),
            (
                "b3",
                json!(format!("{HEX}-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")),
                HEX,
            ),
            (
                "b3",
                json!("80f198ee56343ba8-e457b5a2e4d86bd1"),
                "80f198ee56343ba8",
            ),
            (
                "b3",
                json!("80f198ee56343ba8-e457b5a2e4d86bd1-d"),
                "80f198ee56343ba8",
            ),
            ("uber-trace-id", json!(format!("{HEX}:e457b5a2e4d86bd1:0:1")), HEX),
            ("uber-trace-id", json!("abc:def:0:1"), "abc"),
            ("x-cloud-trace-context", json!(format!("{HEX}/1234;o=1")), HEX),
            ("trace", json!(format!("projects/my-project/traces/{HEX}")), HEX),
            ("id|base64", json!("S/kvNXezTaajzpKdDg5HNg=="), HEX),
            ("id|base64", json!("S_kvNXezTaajzpKdDg5HNg"), HEX),
            ("id|hex", json!(HEX.to_uppercase()), HEX),
            ("id|hex", json!(format!("0x{HEX}")), HEX),
        ] {
            assert_eq!(read(key, &value).as_deref(), Some(id), "{key}: {value}");
        }
        let bytes: Vec<u8> = (0..16)
            .map(|at| u8::from_str_radix(&HEX[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let binary = [&[0xc4, 16], bytes.as_slice()].concat();
        assert_eq!(read_bytes("traceId", &binary).as_deref(), Some(HEX));
        assert_eq!(read_bytes("traceId|bytes", &binary).as_deref(), Some(HEX));
        let ascii = b"\xc4\x10abcdefghijklmnop";
        assert_eq!(
            read_bytes("traceId", ascii).as_deref(),
            Some("abcdefghijklmnop"),
            "Ruby sends text so"
        );
        let hex = "6162636465666768696a6b6c6d6e6f70";
        assert_eq!(read_bytes("traceId|bytes", ascii).as_deref(), Some(hex));
    }

    #[test]
    fn what_means_no_trace() {
        for value in [
            "-",
            "0",
            "00",
            "00000000000000000000000000000000",
            "00000000-0000-0000-0000-000000000000",
            "0x0",
            "null",
            "NULL",
            "nil",
            "<nil>",
            "None",
            "none",
            "undefined",
            "Unknown",
            "N/A",
            "n/a",
            "",
            " ",
            "\t\n",
            " - ",
            "(null)",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "Root=1-00000000-000000000000000000000000;Sampled=0",
            "0000000000000000-e457b5a2e4d86bd1-0",
            "0:0:0:0",
        ] {
            assert_eq!(read("traceId", &json!(value)), None, "{value:?}");
        }
        for (key, value) in [
            ("traceId", json!(0)),
            ("traceId", json!(1.5)),
            ("traceId", json!(true)),
            ("traceId", json!(null)),
            ("traceId", json!(["a"])),
            ("traceId", json!({"high": 1})),
            ("b3", json!("0")),
            ("b3", json!("1")),
            ("b3", json!("d")),
            ("id|base64", json!("AAAAAAAAAAAAAAAAAAAAAA==")),
            ("id|base64", json!("no base64!")),
            ("id|base64", json!("YWJj")),
            ("id|hex", json!("xyz")),
        ] {
            assert_eq!(read(key, &value), None, "{key}: {value}");
        }
        assert_eq!(read_bytes("traceId", &[&[0xc4, 16][..], &[0; 16]].concat()), None);
        assert_eq!(
            read_bytes("traceId", b"\xc4\x03\xff\xff\xff"),
            None,
            "neither text nor an id's bytes"
        );
    }

    #[test]
    fn the_ignored_values_can_be_configured() {
        let reader = IdReader::new(&["No-Trace".into()]);
        let is_id = |text: &str| reader.read(IdForm::Any, &record(&json!(text))).is_some();
        assert!(
            !is_id("no-trace") && !is_id("NO-TRACE") && !is_id(" no-trace ") && !is_id("0") && !is_id(" ")
        );
        assert!(is_id("none") && is_id("-") && is_id("no-trace-1"));
        let reader = IdReader::new(&["7".into()]);
        assert_eq!(reader.read(IdForm::Any, &[7]), None, "also as a number");
    }

    #[test]
    fn a_name_may_contain_a_bar() {
        assert_eq!(IdForm::of_key("a|b"), ("a|b", IdForm::Any));
        assert_eq!(IdForm::of_key("a|b|hex"), ("a|b", IdForm::Hex));
        assert_eq!(IdForm::of_key("http.headers.b3"), ("http.headers.b3", IdForm::B3));
    }
}
