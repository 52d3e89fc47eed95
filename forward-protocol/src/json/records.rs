//! Records in a JSON text that is complete: objects and arrays of objects, converted to MessagePack
//! while they are parsed.
//!
//! Says where the first mistake is. The length of the result is bounded.

use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::convert::{MessageWriter, ValueSeed};

/// What stands around each record in the output.
pub trait RecordWriter {
    /// Called before the map of a record is appended.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// Called after it was appended; it begins at byte `record` of `out`.
    fn end(&mut self, out: &mut Vec<u8>, record: usize);
}

/// Limits of [`write_records`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// The length that the output may reach, in bytes.
    pub bytes: usize,
    /// The deepest nesting of a record.
    pub depth: u32,
}

/// Why a text has no records, or too many. The text before the mistake was converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// It is no JSON, or one of its values is no record.
    #[error("{what} at line {line}, column {column} (record {record})")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Line in the text, from 1.
        line: usize,
        /// Column in that line, from 1.
        column: usize,
        /// Number of the record, from 1.
        record: u64,
    },
    /// The output would be longer than the limit.
    #[error("the records are longer than {limit} bytes as MessagePack")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

/// Appends every record of `text` to `out` and returns their number. `text` is a JSON object, an
/// array of objects, or several of these one after the other, with white space between them or
/// without.
///
/// # Errors
/// [`RecordsError`]; `out` has the records before the mistake then.
pub fn write_records(
    text: &[u8],
    out: &mut Vec<u8>,
    limits: RecordLimits,
    writer: &mut impl RecordWriter,
) -> Result<u64, RecordsError> {
    let text = utf8(text)?;
    let begin = out.len();
    let mut conversion = Conversion::new(out, limits, writer);
    let mut parser = serde_json::Deserializer::from_str(text);
    match RecordsSeed(&mut conversion).deserialize(&mut parser) {
        Ok(()) if parser.end().is_ok() => return Ok(conversion.count),
        Ok(()) => {}
        Err(error) => return Err(conversion.error(&error, text, 0)),
    }
    // Further values follow: each is found first, so that its place is known.
    conversion.restart(begin);
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    while let Some(value) = values.next() {
        let value = match value {
            Ok(value) => value.get(),
            Err(error) => return Err(conversion.error(&error, "", 0)),
        };
        let at = values.byte_offset().saturating_sub(value.len());
        conversion.value(value, text, at)?;
    }
    Ok(conversion.count)
}

/// Appends every record of `text` to `out` and returns their number. Each line that is not empty
/// has one JSON object, or an array of objects.
///
/// # Errors
/// As [`write_records`].
pub fn write_lines(
    text: &[u8],
    out: &mut Vec<u8>,
    limits: RecordLimits,
    writer: &mut impl RecordWriter,
) -> Result<u64, RecordsError> {
    let text = utf8(text)?;
    let mut conversion = Conversion::new(out, limits, writer);
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // RFC 7464 puts a record separator before each text.
        let value = line.strip_prefix('\u{1e}').unwrap_or(line);
        if !value.trim_ascii().is_empty() {
            conversion.value(value, text, at + line.len() - value.len())?;
        }
        at += line.len();
    }
    Ok(conversion.count)
}

/// Appends one JSON value of any type to `out`.
///
/// # Errors
/// As [`write_records`].
pub fn write_value(text: &[u8], out: &mut Vec<u8>, limits: RecordLimits) -> Result<(), RecordsError> {
    let text = utf8(text)?;
    let mut writer = MessageWriter::new(out, limits.bytes).with_max_depth(limits.depth);
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = ValueSeed(&mut writer)
        .deserialize(&mut parser)
        .and_then(|()| parser.end());
    match parsed {
        Ok(()) => Ok(()),
        Err(_) if writer.too_long => Err(RecordsError::TooLong { limit: limits.bytes }),
        Err(error) => Err(malformed(&error, text, 0, 1)),
    }
}

/// The text without a byte order mark.
fn utf8(text: &[u8]) -> Result<&str, RecordsError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    std::str::from_utf8(text).map_err(|error| {
        let valid = text.get(..error.valid_up_to()).unwrap_or_default();
        let (line, column) = place(valid);
        RecordsError::Malformed {
            what: "the text is not UTF-8".into(),
            line,
            column: column + 1,
            record: 1,
        }
    })
}

/// Line and column of the last byte of `text`; column 0 at the start of a line.
fn place(text: &[u8]) -> (usize, usize) {
    let line = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = text.iter().rev().take_while(|byte| **byte != b'\n').count();
    (line, column)
}

/// The error of a value that begins at byte `at` of `text`.
fn malformed(error: &serde_json::Error, text: &str, at: usize, record: u64) -> RecordsError {
    let (line, column) = place(text.as_bytes().get(..at).unwrap_or_default());
    let what = error.to_string();
    // serde_json appends the place within the value.
    let what = what.rsplit_once(" at line ").map_or(&*what, |(what, _)| what);
    RecordsError::Malformed {
        what: what.to_owned(),
        line: line + error.line().saturating_sub(1),
        column: if error.line() > 1 {
            error.column()
        } else {
            column + error.column()
        },
        record,
    }
}

struct Conversion<'a, W> {
    out: MessageWriter<'a>,
    writer: &'a mut W,
    count: u64,
    limit: usize,
}

impl<'a, W: RecordWriter> Conversion<'a, W> {
    fn new(out: &'a mut Vec<u8>, limits: RecordLimits, writer: &'a mut W) -> Self {
        Self {
            out: MessageWriter::new(out, limits.bytes).with_max_depth(limits.depth),
            writer,
            count: 0,
            limit: limits.bytes,
        }
    }

    /// Drops all records from byte `begin` of the output on.
    fn restart(&mut self, begin: usize) {
        self.out.out.truncate(begin);
        self.out.reset();
        self.count = 0;
    }

    /// Converts the text of one value, which begins at byte `at` of `text`.
    fn value(&mut self, value: &str, text: &str, at: usize) -> Result<(), RecordsError> {
        let mut parser = serde_json::Deserializer::from_str(value);
        let parsed = RecordsSeed(self)
            .deserialize(&mut parser)
            .and_then(|()| parser.end());
        parsed.map_err(|error| self.error(&error, text, at))
    }

    fn error(&self, error: &serde_json::Error, text: &str, at: usize) -> RecordsError {
        match self.out.too_long {
            true => RecordsError::TooLong { limit: self.limit },
            false => malformed(error, text, at, self.count + 1),
        }
    }

    fn record<'de, A: MapAccess<'de>>(&mut self, pairs: A) -> Result<(), A::Error> {
        self.writer.begin(self.out.out);
        let record = self.out.out.len();
        self.out.map(pairs)?;
        self.writer.end(self.out.out, record);
        self.count += 1;
        Ok(())
    }
}

/// A record, or an array of records.
struct RecordsSeed<'c, 'a, W>(&'c mut Conversion<'a, W>);

/// A record.
struct RecordSeed<'c, 'a, W>(&'c mut Conversion<'a, W>);

impl<'de, W: RecordWriter> DeserializeSeed<'de> for RecordsSeed<'_, '_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, W: RecordWriter> DeserializeSeed<'de> for RecordSeed<'_, '_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, W: RecordWriter> Visitor<'de> for RecordsSeed<'_, '_, W> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a record (a JSON object) or an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some(()) = records.next_element_seed(RecordSeed(self.0))? {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<(), A::Error> {
        self.0.record(pairs)
    }
}

impl<'de, W: RecordWriter> Visitor<'de> for RecordSeed<'_, '_, W> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a record (a JSON object)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        // Read to its end, so that the place is that of the array.
        while let Some(IgnoredAny) = values.next_element()? {}
        Err(A::Error::invalid_type(serde_core::de::Unexpected::Seq, &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<(), A::Error> {
        self.0.record(pairs)
    }
}
