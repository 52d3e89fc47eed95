//! From a record to the bytes of one Forward entry.
//!
//! Owns the encoding of one event (`[time, record]` in MessagePack) and the local checks that refuse what no
//! server could take. Does not know tags, batches or connections.
//!
//! Times follow the Forward Protocol Specification v1 ("EventTime Ext Format"): extension type 0 with two
//! big-endian unsigned 32-bit numbers, seconds and nanoseconds, written as `fixext8`.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::error::Rejected;

/// Containers inside each other that a record may have, itself included. Fluent Bit 5.1.1 stops at 32 for a
/// whole message (`MSGPACK_EMBED_STACK_SIZE`), of which message, entries, entry and time take four.
pub(crate) const MAX_DEPTH: usize = 25;

/// Seconds from which on an EventTime means something else to Fluent Bit: 0xFFFFFFFE and 0xFFFFFFFF are its
/// group markers (`flb_log_event.h`).
const FIRST_MARKER_SECOND: u64 = 0xFFFF_FFFE;

/// A buffer larger than this is not kept for the next record of the thread.
const KEEP_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer in which this thread encodes. Taken out while in use, so that a record whose `Serialize`
    /// logs in its turn finds an empty one instead of a borrowed one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes `[time, record]` and hands the bytes to `then`; the buffer is reused.
pub(crate) fn with_entry<T: Serialize + ?Sized, R>(
    time: SystemTime,
    sub_second: bool,
    record: &T,
    limit: usize,
    then: impl FnOnce(&[u8]) -> Result<R, Rejected>,
) -> Result<R, Rejected> {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let result = encode_entry(&mut buffer, time, sub_second, record, limit).and_then(|()| then(&buffer));
    if buffer.capacity() <= KEEP_BYTES {
        SCRATCH.set(buffer);
    }
    result
}

fn encode_entry<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    time: SystemTime,
    sub_second: bool,
    record: &T,
    limit: usize,
) -> Result<(), Rejected> {
    out.push(0x92);
    write_time(out, time, sub_second);
    let start = out.len();
    let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
    record.serialize(&mut serializer).map_err(|error| Rejected::Unserializable { reason: error.to_string() })?;
    if out.len() > limit {
        return Err(Rejected::TooLarge { bytes: out.len(), limit });
    }
    check(out.get(start..).unwrap_or_default())
}

/// Writes an event time. Moments that an EventTime cannot hold (before 1970, after 2106-02-07) are written as
/// integer seconds, never wrapped.
pub(crate) fn write_time(out: &mut Vec<u8>, time: SystemTime, sub_second: bool) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) if sub_second && since.as_secs() < FIRST_MARKER_SECOND => {
            out.extend_from_slice(&[0xd7, 0x00]);
            // Lossless: the guard keeps the seconds below 2^32.
            out.extend_from_slice(&u32::try_from(since.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(&since.subsec_nanos().to_be_bytes());
        }
        Ok(since) => write_uint(out, since.as_secs()),
        Err(before) => write_negative(out, floor_seconds(before.duration())),
    }
}

/// Whole seconds before 1970, rounded away from zero so that a moment never moves to a later second.
fn floor_seconds(before: Duration) -> i64 {
    let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
    -(seconds.saturating_add(i64::from(before.subsec_nanos() > 0)))
}

fn write_uint(out: &mut Vec<u8>, value: u64) {
    if let Ok(small) = u8::try_from(value) {
        if small < 0x80 {
            out.push(small);
        } else {
            out.extend_from_slice(&[0xcc, small]);
        }
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn write_negative(out: &mut Vec<u8>, value: i64) {
    out.push(0xd3);
    out.extend_from_slice(&value.to_be_bytes());
}

/// Walks one encoded record: it must be a map, the keys of all maps must be strings, and containers must not
/// nest deeper than [`MAX_DEPTH`]. Iterative, so that no record can overflow the stack here.
fn check(mut bytes: &[u8]) -> Result<(), Rejected> {
    // Per open container: values still to come, and whether it is a map (then even counts are keys).
    let mut open: [(u64, bool); MAX_DEPTH] = [(0, false); MAX_DEPTH];
    let mut depth = 0usize;
    let first = bytes.first().copied().unwrap_or(0xc0);
    if !matches!(first, 0x80..=0x8f | 0xde | 0xdf) {
        return Err(Rejected::NotAMap);
    }
    while let Some((&head, rest)) = bytes.split_first() {
        let expects_key = match depth.checked_sub(1).and_then(|top| open.get(top)) {
            Some((left, true)) => left % 2 == 0,
            _ => false,
        };
        if expects_key && !matches!(head, 0xa0..=0xbf | 0xd9..=0xdb) {
            return Err(Rejected::KeyNotText);
        }
        let (skip, container) = shape(head, rest);
        bytes = rest.get(skip..).unwrap_or_default();
        if let Some(top) = depth.checked_sub(1).and_then(|top| open.get_mut(top)) {
            top.0 = top.0.saturating_sub(1);
        }
        if let Some((values, is_map)) = container {
            let Some(slot) = open.get_mut(depth) else {
                return Err(Rejected::TooDeep { limit: MAX_DEPTH });
            };
            *slot = (values, is_map);
            depth += 1;
        }
        while depth > 0 && open.get(depth - 1).is_some_and(|top| top.0 == 0) {
            depth -= 1;
        }
    }
    Ok(())
}

/// How many bytes follow `head` before the next value, and what `head` opens: (values inside, is a map).
fn shape(head: u8, rest: &[u8]) -> (usize, Option<(u64, bool)>) {
    let number = |bytes: usize| -> usize {
        rest.iter().take(bytes).fold(0usize, |value, byte| (value << 8) | usize::from(*byte))
    };
    let wide = |bytes: usize| u64::try_from(number(bytes)).unwrap_or(u64::MAX);
    match head {
        0x80..=0x8f => (0, Some((u64::from(head & 0x0f) * 2, true))),
        0x90..=0x9f => (0, Some((u64::from(head & 0x0f), false))),
        0xa0..=0xbf => (usize::from(head & 0x1f), None),
        0xc4 | 0xd9 => (1 + number(1), None),
        0xc5 | 0xda => (2 + number(2), None),
        0xc6 | 0xdb => (4 + number(4), None),
        0xc7 => (2 + number(1), None),
        0xc8 => (3 + number(2), None),
        0xc9 => (5 + number(4), None),
        0xcc | 0xd0 => (1, None),
        0xcd | 0xd1 => (2, None),
        0xca | 0xce | 0xd2 => (4, None),
        0xcb | 0xcf | 0xd3 => (8, None),
        0xd4..=0xd8 => (1 + (1usize << (head - 0xd4)), None),
        0xdc => (2, Some((wide(2), false))),
        0xdd => (4, Some((wide(4), false))),
        0xde => (2, Some((wide(2) * 2, true))),
        0xdf => (4, Some((wide(4) * 2, true))),
        _ => (0, None),
    }
}

#[cfg(test)]
mod tests;
