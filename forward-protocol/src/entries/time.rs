//! [`Time`]: event times in every encoding that senders use, as nanoseconds since 1970.

use super::defect::Defect;
use crate::msgpack::{Value, extent};

/// The time of an event, as its sender gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Time {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    At(i64),
    /// No time: nil or 0 seconds. Fluentd uses the time of receipt then.
    Absent,
    /// No possible time: 1 000 000 000 nanoseconds or more, NaN, outside the years 1677 to 2262, or
    /// a value that is no time, such as text, a boolean, or an extension of another type or length.
    Invalid,
}

impl Time {
    /// The time that a number stands for, in the unit that its magnitude gives: seconds, from 10^11
    /// on milliseconds, from 10^14 on microseconds, from 10^17 on nanoseconds. `None`: the value is
    /// no number.
    pub fn of_number(value: Value<'_>) -> Option<Self> {
        match value {
            Value::U64(n) => Some(integer(n)),
            Value::I64(n) => Some(n.checked_mul(i64::from(NS)).map_or(Self::Invalid, Self::At)),
            Value::F32(x) => Some(float(f64::from(x))),
            Value::F64(x) => Some(float(x)),
            _ => None,
        }
    }

    /// The time in nanoseconds since 1970, or `received_ns` when there is no usable time.
    pub fn or_received(self, received_ns: i64) -> i64 {
        match self {
            Self::At(ns) => ns,
            Self::Absent | Self::Invalid => received_ns,
        }
    }
}

/// The time field of an entry: a time or a group marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeField {
    Time(Time),
    GroupStart,
    GroupEnd,
}

/// An EventTime (extension type 0, Forward Protocol Specification v1). The seconds are unsigned.
#[inline]
pub(super) fn event_time(seconds: u32, nanoseconds: u32) -> TimeField {
    if nanoseconds == 0 && seconds >= 0xffff_fffe {
        return if seconds == 0xffff_ffff {
            TimeField::GroupStart
        } else {
            TimeField::GroupEnd
        };
    }
    if nanoseconds >= NS {
        return TimeField::Time(Time::Invalid);
    }
    if seconds == 0 {
        return TimeField::Time(Time::Absent);
    }
    TimeField::Time(Time::At(
        i64::from(seconds) * i64::from(NS) + i64::from(nanoseconds),
    ))
}

/// Reads a time in any encoding at byte `at`. Whatever is no time is [`Time::Invalid`]: a record is
/// worth more than its time.
pub(super) fn read_time(buf: &[u8], at: usize) -> Result<(TimeField, usize), Defect> {
    let (value, next) = Value::read(buf, at)?;
    let time = match value {
        Value::Nil => Time::Absent,
        Value::U64(_) | Value::I64(_) | Value::F32(_) | Value::F64(_) => {
            Time::of_number(value).unwrap_or(Time::Invalid)
        }
        Value::Ext(0, data) => {
            let words = data
                .split_first_chunk()
                .and_then(|(high, low)| Some((high, low.try_into().ok()?)));
            if let Some((high, low)) = words {
                return Ok((
                    event_time(u32::from_be_bytes(*high), u32::from_be_bytes(low)),
                    next,
                ));
            }
            Time::Invalid
        }
        Value::Ext(-1, data) => timestamp(data).unwrap_or(Time::Invalid),
        Value::Ext(..) | Value::Bool(_) | Value::Str(_) | Value::Bin(_) => Time::Invalid,
        Value::Array(_) | Value::Map(_) => {
            let (end, _) = extent(buf, at)?;
            return Ok((TimeField::Time(Time::Invalid), end));
        }
    };
    Ok((TimeField::Time(time), next))
}

const NS: u32 = 1_000_000_000;

/// Integers are seconds by the specification. The npm package fluent-logger sends `Date.now()`,
/// milliseconds, when configured so. Read as seconds such numbers are thousands of years ahead, so
/// the magnitude gives the unit: from 10^11 on milliseconds (1973), from 10^14 microseconds, from
/// 10^17 nanoseconds.
fn integer(n: u64) -> Time {
    let Ok(n) = i64::try_from(n) else {
        return Time::Invalid;
    };
    let ns = match n {
        0 => return Time::Absent,
        1..=99_999_999_999 => n.checked_mul(1_000_000_000),
        100_000_000_000..=99_999_999_999_999 => n.checked_mul(1_000_000),
        100_000_000_000_000..=99_999_999_999_999_999 => n.checked_mul(1_000),
        _ => Some(n),
    };
    ns.map_or(Time::Invalid, Time::At)
}

/// Floats follow the rule of the integers, with a fraction.
fn float(x: f64) -> Time {
    let scale = match x {
        0.0 => return Time::Absent,
        x if x < 1e11 => 1e9,
        x if x < 1e14 => 1e6,
        x if x < 1e17 => 1e3,
        _ => 1.0,
    };
    let ns = x * scale;
    // False for NaN.
    if ns.abs() < i64::MAX as f64 {
        Time::At(ns as i64)
    } else {
        Time::Invalid
    }
}

/// MessagePack's own timestamp (extension type -1), as its specification describes it.
fn timestamp(data: &[u8]) -> Option<Time> {
    let (seconds, nanoseconds) = match data.len() {
        4 => (i64::from(u32::from_be_bytes(data.try_into().ok()?)), 0),
        8 => {
            let word = u64::from_be_bytes(data.try_into().ok()?);
            ((word & 0x3_ffff_ffff) as i64, (word >> 34) as u32)
        }
        12 => {
            let (high, low) = data.split_first_chunk()?;
            (
                i64::from_be_bytes(low.try_into().ok()?),
                u32::from_be_bytes(*high),
            )
        }
        _ => return None,
    };
    if nanoseconds >= NS {
        return None;
    }
    let ns = seconds
        .checked_mul(i64::from(NS))
        .and_then(|ns| ns.checked_add(i64::from(nanoseconds)));
    if seconds == 0 {
        Some(Time::Absent)
    } else {
        ns.map(Time::At)
    }
}
