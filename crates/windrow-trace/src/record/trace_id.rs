//! Trace ids in records: the forms in which they are logged, and values that mean "no trace".
//!
//! Most ids are a text as it stands. The contexts that services pass on (`traceparent`,
//! `X-Amzn-Trace-Id`, `b3`, `uber-trace-id`, `X-Cloud-Trace-Context`) contain one; integers and
//! bytes become text.

mod placeholder;
mod propagated;

use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use self::placeholder::{is_placeholder, unquoted};
use self::propagated::propagated;
use crate::document::msgpack::{Token, read_token};

/// Longest id that is made from another value: 16 bytes in hex.
const MAX_MADE_BYTES: usize = 32;

/// Integers below this are exact as floating-point numbers: 2^53.
const EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;

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
    /// Text that is an id only if it is a context that contains one.
    ContextOnly,
}

impl IdForm {
    /// The path of a key of the configuration, without its form.
    #[inline]
    pub(crate) fn path_of_key(key: &str) -> &str {
        // Called for each document: the last byte shows that usual keys have no form.
        if !matches!(key.as_bytes(), [.., b's' | b'4' | b'x' | b't']) {
            return key;
        }
        match key.rsplit_once('|') {
            Some((path, "bytes" | "base64" | "hex" | "context")) => path,
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
            Some("|context") => return (path, Self::ContextOnly),
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
            "uber-trace-id" | "x-cloud-trace-context" | "aws-xray-trace-id" => Self::Context,
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
    /// the longest such ignored one, and every length for blanks, dashes, quotes and what begins a
    /// placeholder.
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
        for first in b" \t\r\n\x0b\x0c-\"'{$%#" {
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
        let value = unquoted(value);
        // The root of an X-Ray id begins with its version.
        let digits = match value {
            // A GUID as .NET writes it with the format "B".
            [b'{', digits @ .., b'}'] => digits,
            [b'0', b'x' | b'X', digits @ ..] => digits,
            [b'1', b'-', digits @ ..] if digits.len() == 33 => digits,
            digits => digits,
        };
        let is_zero = digits.contains(&b'0') && digits.iter().all(|byte| matches!(byte, b'0' | b'-'));
        let is_word = |word: &[u8]| word.len() == value.len() && word.eq_ignore_ascii_case(value);
        let is_short = value.len() <= self.longest;
        let is_known = || is_short && self.ignored.iter().any(|word| is_word(word));
        value.is_empty() || is_zero || is_known() || is_placeholder(value)
    }

    #[inline(never)]
    fn read_other<'a>(&self, form: IdForm, value: &'a [u8]) -> Option<IdValue<'a>> {
        let made = match (read_token(value, 0)?.0, form) {
            (Token::Unsigned(number), _) => Some(MadeId::of_integer(number)),
            (Token::Signed(number), _) => Some(MadeId::of_integer(number)),
            // Lua, and so a filter of Fluent Bit, knows no integers. Beyond 2^53 digits are lost.
            (Token::Double(number), IdForm::Any) if number.fract() == 0.0 && number.abs() < EXACT_DOUBLE => {
                Some(MadeId::of_integer(number as i64))
            }
            // Headers of requests are lists in Go and in Caddy's log.
            (Token::Array(1), _) if !matches!(value.get(1), Some(0x90..=0x9f | 0xdc | 0xdd)) => {
                return match self.read(form, value.get(1..)?)? {
                    IdValue::Whole(id) | IdValue::Part(id) => Some(IdValue::Part(id)),
                    IdValue::Made(_) => None,
                };
            }
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
            (Token::Str(text) | Token::Bin(text), IdForm::ContextOnly) => {
                let id = self.examine(text)?;
                return matches!(id, IdValue::Part(_)).then_some(id);
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
mod tests;
