//! Times of records: from a field of the record, or from the request.

use forward_protocol::encode::write_time;
use forward_protocol::entries::Time;
use forward_protocol::msgpack::{Value, skip};
use hyper::{HeaderMap, Uri};

use super::answer::Problem;
use super::tag::parameter;

/// The header with the time of all records of a request.
const TIME_HEADER: &str = "fluent-time";
/// Bytes of an `EventTime`.
pub(super) const EVENT_TIME_BYTES: usize = 10;
/// An `EventTime` that stands for the time of arrival.
pub(super) const ARRIVAL: [u8; EVENT_TIME_BYTES] = [0xd7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// An `EventTime` that cannot be: it is counted, and the time of arrival is used.
const INVALID: [u8; EVENT_TIME_BYTES] = [0xd7, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];

/// The time of a request's records (ns since 1970), from the parameter `time`, as in Fluentd, or
/// the header `Fluent-Time`.
pub(super) fn of_request(uri: &Uri, headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let header = || Some(String::from_utf8_lossy(headers.get(TIME_HEADER)?.as_bytes()).into_owned());
    match parameter(uri, "time").or_else(header) {
        None => Ok(None),
        Some(text) => of_parameter(&text).map(Some),
    }
}

/// The time (ns) that a parameter names.
pub(super) fn of_parameter(text: &str) -> Result<i64, Problem> {
    let number = text.trim().parse::<f64>().ok();
    let time = number.map_or_else(|| of_text(text), |number| of_number(Value::F64(number)));
    time.ok_or_else(|| {
        Problem::Malformed(format!(
            "the time {text:?} is neither a number of seconds since 1970 nor ISO 8601"
        ))
    })
}

/// Moves the time of a record from its field `key` into the `EventTime` before it. `record` is
/// where its map begins in `out`.
///
/// A field that is no time stays where it is.
pub(super) fn take(out: &mut Vec<u8>, record: usize, key: &str) {
    let Some(field) = find(out, record, key) else {
        return;
    };
    let time = match Value::read(out, field.value) {
        Ok((Value::Str(text), _)) => std::str::from_utf8(text).ok().and_then(of_text),
        Ok((number, _)) => of_number(number),
        Err(_) => None,
    };
    let begin = record - EVENT_TIME_BYTES;
    let Some(ns) = time else {
        out.splice(begin..record, INVALID);
        return;
    };
    remove(out, record, &field);
    put(out, begin, ns);
}

/// Replaces the `EventTime` at `begin`.
pub(super) fn put(out: &mut Vec<u8>, begin: usize, ns: i64) {
    let mut time = Vec::with_capacity(EVENT_TIME_BYTES);
    // Before 1970 and after 2106 it is an integer.
    write_time(&mut time, ns);
    out.splice(begin..begin + EVENT_TIME_BYTES, time);
}

fn of_number(value: Value<'_>) -> Option<i64> {
    match (Time::of_number(value), value) {
        // A double of seconds is exact to a quarter of a microsecond.
        (Some(Time::At(ns)), Value::F64(_)) => Some(ns.checked_add(500)? / 1000 * 1000),
        (Some(Time::At(ns)), _) => Some(ns),
        _ => None,
    }
}

/// ISO 8601 and what is close to it; without an offset it is UTC.
fn of_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        local
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// A pair of a map.
struct Field {
    begin: usize,
    value: usize,
    end: usize,
}

fn find(out: &[u8], record: usize, key: &str) -> Option<Field> {
    const ANY_DEPTH: u32 = u32::MAX;
    let Ok((Value::Map(pairs), mut at)) = Value::read(out, record) else {
        return None;
    };
    for _ in 0..pairs {
        let begin = at;
        let (name, value) = Value::read(out, begin).ok()?;
        // A key that is a container is none of ours, and its end is not known here.
        let value = match name {
            Value::Array(_) | Value::Map(_) => skip(out, begin, ANY_DEPTH).ok()?,
            _ => value,
        };
        at = skip(out, value, ANY_DEPTH).ok()?;
        if name.as_bytes() == Some(key.as_bytes()) {
            return Some(Field {
                begin,
                value,
                end: at,
            });
        }
    }
    None
}

fn remove(out: &mut Vec<u8>, record: usize, field: &Field) {
    out.drain(field.begin..field.end);
    // The header keeps its length: a count may be written longer than needed.
    let Some(header) = out.get_mut(record..) else {
        return;
    };
    match header {
        [first @ 0x80..=0x8f, ..] => *first -= 1,
        [0xde, high, low, ..] => {
            let count = u16::from_be_bytes([*high, *low]).saturating_sub(1);
            [*high, *low] = count.to_be_bytes();
        }
        [0xdf, a, b, c, d, ..] => {
            let count = u32::from_be_bytes([*a, *b, *c, *d]).saturating_sub(1);
            [*a, *b, *c, *d] = count.to_be_bytes();
        }
        _ => {}
    }
}
