//! Encoding of one event as a Forward entry, `[time, record]` in MessagePack.
//!
//! Owns the checks that refuse what no server accepts. Does not know tags, batches or connections.
//!
//! Times follow the Forward Protocol Specification v1 ("EventTime Ext Format"): extension type 0
//! with two big-endian unsigned 32-bit numbers, seconds and nanoseconds, written as `fixext8`.

mod serializer;

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forward_protocol::msgpack::{self, Kind, Reader, Value};
use serde::Serialize;

use crate::error::Rejected;
use crate::static_fields::StaticFields;
use serializer::RecordSerializer;
#[cfg(any(feature = "log", feature = "tracing"))]
pub(crate) use serializer::{write_i128, write_u128};

/// Containers inside each other that a record may have, itself included. Fluent Bit 5.1.1 stops at
/// 32 for a whole message (`MSGPACK_EMBED_STACK_SIZE`), of which message, entries, entry and time
/// take four.
pub(crate) const MAX_DEPTH: usize = 25;

/// Seconds from which on an EventTime means something else to Fluent Bit: 0xFFFFFFFE and 0xFFFFFFFF
/// are its group markers (`flb_log_event.h`).
const FIRST_MARKER_SECOND: u32 = 0xFFFF_FFFE;

/// A larger buffer is not kept for the next record of the thread.
const MAX_SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// Buffer in which this thread encodes. Taken out while in use, so that a `Serialize` that
    /// itself logs finds an empty buffer instead of a borrowed one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How entries are encoded.
#[derive(Debug, Clone)]
pub(crate) struct EntryFormat {
    /// Times have nanoseconds.
    pub(crate) sub_second: bool,
    /// Most bytes of an entry.
    pub(crate) limit: usize,
    pub(crate) static_fields: StaticFields,
}

/// Encodes `[time, record]` and hands the bytes to `then`; the buffer is reused.
pub(crate) fn with_entry<T: Serialize + ?Sized, R>(
    time: SystemTime,
    format: &EntryFormat,
    record: &T,
    then: impl FnOnce(&[u8]) -> Result<R, Rejected>,
) -> Result<R, Rejected> {
    let write = |out: &mut Vec<u8>| {
        let start = out.len();
        record
            .serialize(RecordSerializer::new(&mut *out))
            .map_err(|error| error.0)?;
        match Reader::at(out, start).kind() {
            Some(Kind::Map) => Ok(()),
            _ => Err(Rejected::NotAMap),
        }
    };
    with_written(time, format, write, then)
}

/// As [`with_entry`], for a record that `write` writes as MessagePack: a map with text keys.
pub(crate) fn with_written<R>(
    time: SystemTime,
    format: &EntryFormat,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Rejected>,
    then: impl FnOnce(&[u8]) -> Result<R, Rejected>,
) -> Result<R, Rejected> {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    buffer.push(0x92);
    write_time(&mut buffer, time, format.sub_second);
    let start = buffer.len();
    let result = write(&mut buffer).and_then(|()| {
        format.static_fields.append(&mut buffer, start);
        let (bytes, limit) = (buffer.len(), format.limit);
        if bytes > limit {
            Err(Rejected::TooLarge { bytes, limit })
        } else {
            then(&buffer)
        }
    });
    if buffer.capacity() <= MAX_SCRATCH_BYTES {
        SCRATCH.set(buffer);
    }
    result
}

/// Writes an event time. Moments that an EventTime cannot hold (before 1970, after 2106-02-07) are
/// written as integer seconds, never wrapped.
pub(crate) fn write_time(out: &mut Vec<u8>, time: SystemTime, sub_second: bool) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => match u32::try_from(since.as_secs()) {
            Ok(seconds) if sub_second && seconds < FIRST_MARKER_SECOND => {
                msgpack::write_event_time(out, seconds, since.subsec_nanos());
            }
            _ => msgpack::write_u64(out, since.as_secs()),
        },
        Err(before) => msgpack::write_i64(out, floor_seconds(before.duration())),
    }
}

/// Whole seconds before 1970, rounded down so that a moment never moves to a later second.
fn floor_seconds(before: Duration) -> i64 {
    let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
    -(seconds.saturating_add(i64::from(before.subsec_nanos() > 0)))
}

/// Checks a record that the caller encoded: it must be a map, the keys of all maps must be strings,
/// and containers must not nest deeper than [`MAX_DEPTH`]. Iterative, so that no record can
/// overflow the stack here.
pub(crate) fn check(record: &[u8]) -> Result<(), Rejected> {
    // Per open container: values still to come, and whether it is a map (then at even counts a key
    // is next).
    let mut open = [(0u64, false); MAX_DEPTH];
    let mut depth = 0usize;
    let mut reader = Reader::new(record);
    if reader.kind() != Some(Kind::Map) {
        return Err(Rejected::NotAMap);
    }
    while !reader.is_empty() {
        let value = reader.value().map_err(|error| Rejected::Unserializable {
            reason: error.to_string(),
        })?;
        if let Some((left, is_map)) = depth.checked_sub(1).and_then(|top| open.get_mut(top)) {
            if *is_map && *left % 2 == 0 && !matches!(value, Value::Str(_)) {
                return Err(Rejected::KeyNotText);
            }
            *left = left.saturating_sub(1);
        }
        let opened = match value {
            Value::Map(pairs) => Some((u64::from(pairs) * 2, true)),
            Value::Array(items) => Some((u64::from(items), false)),
            _ => None,
        };
        if let Some(opened) = opened {
            *open
                .get_mut(depth)
                .ok_or(Rejected::TooDeep { limit: MAX_DEPTH })? = opened;
            depth += 1;
        }
        while depth
            .checked_sub(1)
            .and_then(|top| open.get(top))
            .is_some_and(|(left, _)| *left == 0)
        {
            depth -= 1;
        }
        if depth == 0 && !reader.is_empty() {
            return Err(Rejected::Unserializable {
                reason: "bytes behind the record".to_owned(),
            });
        }
    }
    if depth > 0 {
        return Err(Rejected::Unserializable {
            reason: "the record ends early".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
