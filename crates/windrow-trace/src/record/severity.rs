//! Severity of a record: six ranks, and every notation of them that loggers write.
//!
//! Text is matched by length and first bytes, without allocation: most records have a level.

pub(crate) mod numbers;

use self::numbers::NumberScheme;

/// How bad a record is. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Severity {
    /// Finest detail.
    Trace = 1,
    /// For developers.
    Debug = 2,
    /// Normal operation; also syslog's notice.
    Info = 3,
    /// Something to look at.
    Warn = 4,
    /// Something failed.
    Error = 5,
    /// The application or a part of it cannot go on; also syslog's critical, alert and emergency.
    Fatal = 6,
}

impl Severity {
    /// All, from the least to the worst.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// The name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The inverse of `severity as u8`, which is 1 to 6.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Trace,
            2 => Self::Debug,
            3 => Self::Info,
            4 => Self::Warn,
            5 => Self::Error,
            6 => Self::Fatal,
            _ => return None,
        })
    }

    /// The severity that a text names, in any case: words and abbreviations of syslog, of the
    /// loggers of all larger languages, and of `OpenTelemetry`. `None` of any other text, also of
    /// digits: their meaning depends on the field.
    #[inline]
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        // The usual words are four or five letters long.
        if let Some(head) = text.first_chunk::<4>() {
            let head = u32::from_be_bytes(*head) | 0x2020_2020;
            match (text.len(), head) {
                (4, INFO) => return Some(Self::Info),
                (4, WARN) => return Some(Self::Warn),
                (5, ERRO) if text[4] | 0x20 == b'r' => return Some(Self::Error),
                (5, DEBU) if text[4] | 0x20 == b'g' => return Some(Self::Debug),
                (5, TRAC) if text[4] | 0x20 == b'e' => return Some(Self::Trace),
                _ => {}
            }
        }
        from_rare_text(text)
    }

    /// The level in the value of a field, a MessagePack value. What a number means depends on the
    /// name of the field.
    #[must_use]
    pub fn of_field(name: &str, value: &[u8]) -> Option<Self> {
        Self::from_value(NumberScheme::of(name), value)
    }

    /// The severity that a MessagePack value (its whole bytes) gives in a field with this scheme.
    #[inline(always)]
    pub(crate) fn from_value(scheme: NumberScheme, value: &[u8]) -> Option<Self> {
        if let Some((&marker @ 0xa1..=0xbf, text)) = value.split_first()
            && text.len() == usize::from(marker & 0x1f)
        {
            return Self::from_text(text).or_else(|| from_digits(scheme, text));
        }
        from_other_value(scheme, value)
    }
}

const INFO: u32 = u32::from_be_bytes(*b"info");
const WARN: u32 = u32::from_be_bytes(*b"warn");
const ERRO: u32 = u32::from_be_bytes(*b"erro");
const DEBU: u32 = u32::from_be_bytes(*b"debu");
const TRAC: u32 = u32::from_be_bytes(*b"trac");

/// Longest text that is looked at, in bytes.
const MAX_TEXT_BYTES: usize = 32;

/// Words other than the usual ones, and the usual ones with padding, brackets, a prefix or an
/// offset: `[INFO]`, `LEVEL_ERROR`, `SEVERITY_NUMBER_WARN2`, `INFO+4`.
#[inline(never)]
fn from_rare_text(text: &[u8]) -> Option<Severity> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    let text = crate::record::text::stripped(text);
    let text = text.as_ref();
    let is_frame = |byte: &u8| matches!(byte, b'[' | b']' | b'<' | b'>' | b'(' | b')' | b':' | b'"');
    let mut rest = text;
    while let [first, tail @ ..] = rest
        && (first.is_ascii_whitespace() || is_frame(first))
    {
        rest = tail;
    }
    while let [head @ .., last] = rest
        && (last.is_ascii_whitespace() || is_frame(last))
    {
        rest = head;
    }
    for prefix in [
        &b"severity_number_"[..],
        b"loglevel.",
        b"level_",
        b"log_",
        b"level.",
    ] {
        if let Some((head, tail)) = rest.split_at_checked(prefix.len())
            && head.eq_ignore_ascii_case(prefix)
        {
            rest = tail;
            break;
        }
    }
    // Go's slog writes INFO+4; OpenTelemetry INFO2; MongoDB and glog D1.
    let end = rest
        .iter()
        .position(|byte| !byte.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (word, offset) = rest.split_at(end);
    let is_offset = match offset {
        [] => true,
        [b'+' | b'-', digits @ ..] | digits => {
            (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
    };
    if is_offset { word_of(word) } else { None }
}

/// The severity of a bare word in any case.
fn word_of(word: &[u8]) -> Option<Severity> {
    use Severity::{Debug, Error, Fatal, Info, Trace, Warn};
    const WORDS: [(&[u8], Severity); 55] = [
        (b"t", Trace),
        (b"d", Debug),
        (b"i", Info),
        (b"n", Info),
        (b"w", Warn),
        (b"e", Error),
        (b"f", Fatal),
        (b"c", Fatal),
        (b"a", Fatal),
        (b"v", Trace),
        (b"trc", Trace),
        (b"dbg", Debug),
        (b"inf", Info),
        (b"wrn", Warn),
        (b"err", Error),
        (b"ftl", Fatal),
        (b"crt", Fatal),
        (b"pnc", Fatal),
        (b"log", Info),
        (b"all", Trace),
        (b"info", Info),
        (b"warn", Warn),
        (b"crit", Fatal),
        (b"dbug", Debug),
        (b"emrg", Fatal),
        (b"alrt", Fatal),
        (b"fail", Error),
        (b"note", Info),
        (b"http", Debug),
        (b"fine", Debug),
        (b"trace", Trace),
        (b"debug", Debug),
        (b"error", Error),
        (b"fatal", Fatal),
        (b"emerg", Fatal),
        (b"alert", Fatal),
        (b"panic", Fatal),
        (b"eror", Error),
        (b"silly", Trace),
        (b"finer", Trace),
        (b"notice", Info),
        (b"dpanic", Fatal),
        (b"severe", Error),
        (b"config", Debug),
        (b"finest", Trace),
        (b"warning", Warn),
        (b"verbose", Trace),
        (b"success", Info),
        (b"failure", Error),
        (b"default", Info),
        (b"critical", Fatal),
        (b"emergency", Fatal),
        (b"exception", Error),
        (b"information", Info),
        (b"informational", Info),
    ];
    let known = WORDS
        .iter()
        .find(|(known, _)| known.len() == word.len() && known.eq_ignore_ascii_case(word));
    known.map(|(_, severity)| *severity)
}

/// A number written as text, as journald and CSV-like parsers give it.
#[inline(never)]
fn from_digits(scheme: NumberScheme, text: &[u8]) -> Option<Severity> {
    let text = text.trim_ascii();
    if text.is_empty() || text.len() > 6 {
        return None;
    }
    let digits = text
        .iter()
        .map(|byte| byte.is_ascii_digit().then(|| i64::from(byte - b'0')));
    let number = digits
        .into_iter()
        .try_fold(0, |number, digit| Some(number * 10 + digit?))?;
    scheme.severity(number)
}

#[inline(never)]
fn from_other_value(scheme: NumberScheme, value: &[u8]) -> Option<Severity> {
    use crate::document::msgpack::{Token, read_token};
    match read_token(value, 0)?.0 {
        Token::Unsigned(number) => scheme.severity(i64::try_from(number).ok()?),
        Token::Signed(number) => scheme.severity(number),
        // Lua, and so a filter of Fluent Bit, knows no integers.
        Token::Double(number) if number.fract() == 0.0 && number.abs() < 1e6 => {
            scheme.severity(number as i64)
        }
        Token::Str(text) | Token::Bin(text) => {
            Severity::from_text(text).or_else(|| from_digits(scheme, text))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Severity::{Debug, Error, Fatal, Info, Trace, Warn};
    use super::*;
    use crate::tests::record;

    #[test]
    fn words_in_any_case_and_abbreviation() {
        let known = [
            (
                Trace,
                "trace TRACE TRC t T verbose Verbose VERBOSE silly FINEST finer v TRACE2 trace4",
            ),
            (
                Debug,
                "debug DEBUG dbg DBG D d fine config http D1 DEBUG-4 Debug3",
            ),
            (
                Info,
                "info INFO Info inf i I notice NOTICE Information informational log INFO2 INFO+2 success",
            ),
            (
                Warn,
                "warn WARN warning Warning WARNING WRN w W LEVEL_WARN SEVERITY_NUMBER_WARN3",
            ),
            (
                Error,
                "error ERROR err ERR e E severe SEVERE ERROR+1 ERROR4 failure [error] <ERROR>",
            ),
            (
                Fatal,
                "fatal FATAL crit CRIT critical CRITICAL emerg emergency alert panic PANIC DPANIC ftl c f a",
            ),
        ];
        for (severity, words) in known {
            for word in words.split(' ') {
                assert_eq!(Severity::from_text(word.as_bytes()), Some(severity), "{word}");
            }
        }
        assert_eq!(Severity::from_text(b"INFO  "), Some(Info), "padded to a column");
        assert_eq!(Severity::from_text(b" [WARN ] "), Some(Warn));
        for none in [
            "",
            " ",
            "-",
            "high",
            "info message",
            "errors",
            "x",
            "30",
            "info+",
            "info+12345",
            "inföö",
            "[]",
        ] {
            assert_eq!(Severity::from_text(none.as_bytes()), None, "{none}");
        }
        assert_eq!(Severity::from_text(&[b' '; 1000]), None);
    }

    #[test]
    fn numbers_by_the_name_of_their_field() {
        let known = [
            ("level", json!(30), Some(Info)),
            ("level", json!(50), Some(Error)),
            ("level", json!(35), Some(Info)),
            ("level", json!(3), Some(Error)),
            ("level", json!(400), Some(Error)),
            ("level", json!(30.0), Some(Info)),
            ("severity", json!(400), Some(Warn)),
            ("severity", json!("6"), Some(Info)),
            ("PRIORITY", json!("3"), Some(Error)),
            ("PRIORITY", json!(7), Some(Debug)),
            ("PRIORITY", json!(8), None),
            ("pri", json!("134"), Some(Info)),
            ("severity_number", json!(9), Some(Info)),
            ("severity_number", json!(21), Some(Fatal)),
            ("severity_number", json!(0), None),
            ("levelno", json!(20), Some(Info)),
            ("levelno", json!(50), Some(Fatal)),
            ("level_value", json!(40000), Some(Error)),
            ("LogLevel", json!(4), Some(Error)),
            ("level", json!(true), None),
            ("level", json!({"a": 1}), None),
            ("level", json!(-1), None),
            ("level", json!(u64::MAX), None),
            ("level", Value::Null, None),
            ("level", json!("critical"), Some(Fatal)),
        ];
        for (name, value, severity) in known {
            let found = Severity::from_value(NumberScheme::of(name), &record(&value));
            assert_eq!(found, severity, "{name}: {value}");
        }
        assert_eq!(Severity::from_value(NumberScheme::Level, b""), None);
        assert_eq!(
            Severity::from_value(NumberScheme::Level, b"\xc4\x04WARN"),
            Some(Warn)
        );
    }

    #[test]
    fn ranks_survive_as_numbers() {
        for severity in Severity::ALL {
            assert_eq!(Severity::from_u8(severity as u8), Some(severity));
            assert_eq!(Severity::from_text(severity.as_str().as_bytes()), Some(severity));
        }
        assert!(Severity::ALL.is_sorted());
        assert_eq!((Severity::from_u8(0), Severity::from_u8(7)), (None, None));
    }
}
