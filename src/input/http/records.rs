//! Records of a body: JSON, NDJSON, MessagePack and forms become entries of a Forward message.

use forward_protocol::entries::Entries;
use forward_protocol::json::{RecordLimits, RecordWriter, RecordsError, write_lines, write_records};
use forward_protocol::msgpack::{Kind, Value, skip};

use super::answer::Problem;
use super::form;
use super::media::Format;
use super::message::MessageBuilder;
use super::time::{self, ARRIVAL, EVENT_TIME_BYTES};

/// How records are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordOptions<'a> {
    /// Field with the time of a record.
    pub(super) time_key: Option<&'a str>,
    /// Time of the records that have none (ns).
    pub(super) time: Option<i64>,
    /// The deepest nesting of a record.
    pub(super) depth: u32,
}

/// Appends the records of `body` to a message of at most `limit` bytes; returns their number.
pub(super) fn append(
    format: Format,
    body: &[u8],
    options: &RecordOptions<'_>,
    message: &mut MessageBuilder,
    limit: usize,
) -> Result<u64, Problem> {
    let limits = RecordLimits {
        bytes: limit,
        depth: options.depth,
    };
    let mut writer = EntryWriter { options };
    let written = match format {
        Format::Json => write_records(body, &mut message.out, limits, &mut writer),
        Format::Lines => write_lines(body, &mut message.out, limits, &mut writer),
        Format::MessagePack => return msgpack(body, options, message, limit),
        Format::Form => return form::append(body, options, message, limit),
    };
    let written = written.map_err(|error| match error {
        RecordsError::TooLong { limit } => too_long(limit),
        error => Problem::Malformed(error.to_string()),
    })?;
    // A time may have become longer by then.
    match message.out.len() {
        length if length > limit => Err(too_long(limit)),
        _ => Ok(written),
    }
}

pub(super) fn too_long(limit: usize) -> Problem {
    Problem::TooLarge {
        what: " as MessagePack",
        limit,
    }
}

/// Writes what stands around a record in an entry: an array, and the time.
pub(super) struct EntryWriter<'a> {
    pub(super) options: &'a RecordOptions<'a>,
}

impl RecordWriter for EntryWriter<'_> {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.push(0x92);
        // The header that gathering reads fastest; the time is written once it is known.
        out.extend_from_slice(&ARRIVAL);
        if let Some(ns) = self.options.time {
            let begin = out.len() - EVENT_TIME_BYTES;
            time::put(out, begin, ns);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, record: usize) {
        if let Some(key) = self.options.time_key {
            time::take(out, record, key);
        }
    }
}

/// Appends the records of a MessagePack body: maps, arrays of maps, and entries as Fluent Bit's
/// HTTP output sends them, one after the other.
pub(super) fn msgpack(
    body: &[u8],
    options: &RecordOptions<'_>,
    message: &mut MessageBuilder,
    limit: usize,
) -> Result<u64, Problem> {
    let mut writer = EntryWriter { options };
    let (mut at, mut count) = (0, 0);
    while at < body.len() {
        let record_number = count + 1;
        let malformed = |what: &dyn std::fmt::Display, at: usize| {
            Problem::Malformed(format!("{what}, at byte {at} (record {record_number})"))
        };
        // The depth of each record is checked.
        let end = skip(body, at, u32::MAX).map_err(|error| malformed(&error, at))?;
        let value = body.get(at..end).unwrap_or_default();
        match Value::read(body, at).map_err(|error| malformed(&error, at))? {
            (Value::Map(_), _) => {
                record(value, &mut writer, message).map_err(|what| malformed(&what, at))?;
                count += 1;
            }
            (Value::Array(2), first) if is_entry(body, first) => {
                count += entries(value, options.depth, message).map_err(|what| malformed(&what, at))?;
            }
            (Value::Array(elements), mut element) => {
                for _ in 0..elements {
                    let next = skip(body, element, u32::MAX).map_err(|error| malformed(&error, element))?;
                    let value = body.get(element..next).unwrap_or_default();
                    let kind = value.first().map(|first| Kind::of(*first));
                    let added = match kind {
                        Some(Kind::Map) => record(value, &mut writer, message).map(|()| 1),
                        Some(Kind::Array) => entries(value, options.depth, message),
                        kind => Err(format!("a record is a map, not {kind:?}")),
                    };
                    count += added.map_err(|what| {
                        Problem::Malformed(format!("{what}, at byte {element} (record {})", count + 1))
                    })?;
                    if message.out.len() > limit {
                        return Err(too_long(limit));
                    }
                    element = next;
                }
            }
            _ => {
                let kind = value.first().map_or(Kind::Illegal, |first| Kind::of(*first));
                return Err(malformed(&format!("a record is a map, not {kind:?}"), at));
            }
        }
        if message.out.len() > limit {
            return Err(too_long(limit));
        }
        at = end;
    }
    Ok(count)
}

/// Whether an array of two is an entry: a time or a header, and a map.
fn is_entry(body: &[u8], first: usize) -> bool {
    let kind = |at: usize| body.get(at).map(|first| Kind::of(*first));
    let second = skip(body, first, u32::MAX).ok().and_then(kind);
    kind(first) != Some(Kind::Map) && second == Some(Kind::Map)
}

fn record(map: &[u8], writer: &mut EntryWriter<'_>, message: &mut MessageBuilder) -> Result<(), String> {
    skip(map, 0, writer.options.depth).map_err(|error| error.to_string())?;
    writer.begin(&mut message.out);
    let begin = message.out.len();
    message.out.extend_from_slice(map);
    writer.end(&mut message.out, begin);
    Ok(())
}

/// Appends an entry as it is; a group marker is none, but is needed.
fn entries(bytes: &[u8], depth: u32, message: &mut MessageBuilder) -> Result<u64, String> {
    let mut count = 0;
    for entry in Entries::new(bytes, depth) {
        entry.map_err(|bad| bad.defect.to_string())?;
        count += 1;
    }
    message.out.extend_from_slice(bytes);
    Ok(count)
}
