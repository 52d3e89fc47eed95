//! Forms as Fluentd and Fluent Bit take them: `json=…` or `msgpack=…` with records, and `time=…`;
//! or the fields of one record.

use forward_protocol::json::{RecordLimits, RecordWriter as _, RecordsError, write_records};
use forward_protocol::msgpack::{write_map_len, write_str};
use percent_encoding::percent_decode;

use super::answer::Problem;
use super::message::MessageBuilder;
use super::records::{EntryWriter, RecordOptions, msgpack, too_long};
use super::time;

/// Appends the records of a form; returns their number.
pub(super) fn append(
    body: &[u8],
    options: &RecordOptions<'_>,
    message: &mut MessageBuilder,
    limit: usize,
) -> Result<u64, Problem> {
    let mut options = *options;
    if let Some(value) = value_of(body, b"time") {
        options.time = Some(time::of_parameter(&String::from_utf8_lossy(&value))?);
    }
    if let Some(packed) = value_of(body, b"msgpack") {
        return msgpack(&packed, &options, message, limit);
    }
    let mut writer = EntryWriter { options: &options };
    if let Some(text) = value_of(body, b"json") {
        let limits = RecordLimits {
            bytes: limit,
            depth: options.depth,
        };
        return write_records(&text, &mut message.out, limits, &mut writer).map_err(|error| match error {
            RecordsError::TooLong { limit } => too_long(limit),
            error => Problem::Malformed(format!("json: {error}")),
        });
    }
    let pairs = || pairs(body).filter(|(name, _)| !name.is_empty());
    if pairs().next().is_none() {
        return Err(Problem::Malformed("the form has no fields".into()));
    }
    writer.begin(&mut message.out);
    let record = message.out.len();
    write_map_len(&mut message.out, pairs().count() as u32);
    for (name, value) in pairs() {
        write_str(&mut message.out, &decoded(name));
        write_str(&mut message.out, &decoded(value));
        if message.out.len() > limit {
            return Err(too_long(limit));
        }
    }
    writer.end(&mut message.out, record);
    Ok(1)
}

/// The pairs of a form, encoded.
fn pairs(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    })
}

fn value_of(body: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let mut pairs = pairs(body);
    pairs
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| decoded(value))
}

/// Not as text: `msgpack=…` is no UTF-8.
fn decoded(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(encoded.len());
    for (n, part) in encoded.split(|byte| *byte == b'+').enumerate() {
        if n > 0 {
            decoded.push(b' ');
        }
        decoded.extend(percent_decode(part));
    }
    decoded
}
