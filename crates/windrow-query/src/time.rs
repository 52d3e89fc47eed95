//! Times as queries and parameters write them: RFC 3339, dates, Unix ms, relative to now.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::values::parse_duration_ms;

const DAY_MS: i64 = 86_400_000;

/// Unix ms of a time: RFC 3339 such as `2026-11-21T09:20:00Z`, a date (its start, UTC), Unix
/// milliseconds, `now`, or a time before now such as `-15m`, `-24h`, `-7d`. `now_ns` is Unix ns.
#[must_use]
pub fn parse_time(text: &str, now_ns: i64) -> Option<i64> {
    parse_range(text, now_ns).map(|(start, _)| start)
}

/// The first and the last millisecond that `text` means: the same one, except for a date.
pub(crate) fn parse_range(text: &str, now_ns: i64) -> Option<(i64, i64)> {
    let now_ms = now_ns.div_euclid(1_000_000);
    if text == "now" {
        return Some((now_ms, now_ms));
    }
    if let Some(ago) = text.strip_prefix('-').or_else(|| text.strip_prefix("now-")) {
        let has_unit = !ago.ends_with(|c: char| c.is_ascii_digit());
        let ago = parse_duration_ms(ago).filter(|_| has_unit)?;
        let at = now_ms.checked_sub(ago as i64)?;
        return Some((at, at));
    }
    // Eight digits would be a date in the basic format of ISO 8601.
    if text.len() >= 9 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let at = text.parse().ok()?;
        return Some((at, at));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        let at = time.as_nanosecond().div_euclid(1_000_000);
        let at = i64::try_from(at).ok()?;
        return Some((at, at));
    }
    let is_date = text.len() == 10 && text.bytes().filter(|byte| *byte == b'-').count() == 2;
    let date: Date = text.parse().ok().filter(|_| is_date)?;
    let start = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
    Some((start, start + DAY_MS - 1))
}
