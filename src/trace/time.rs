//! Points in time as the documents show them: Unix nanoseconds to RFC 3339 in UTC and back.
//!
//! Owns the text form (milliseconds, or nanoseconds where there are any). Does not read a clock.

const DAY_S: i64 = 86_400;

/// Nanoseconds in one second.
pub(crate) const SECOND_NS: i64 = 1_000_000_000;

/// Appends `ns` (Unix nanoseconds) as `2026-11-21T09:20:00.123Z`: three digits of fraction when that is exact,
/// nine otherwise. Years 1677 to 2262, the range of an `i64` of nanoseconds.
pub(crate) fn write_rfc3339(out: &mut Vec<u8>, ns: i64) {
    let seconds = ns.div_euclid(SECOND_NS);
    let nanos = ns.rem_euclid(SECOND_NS) as u32;
    let (year, month, day) = civil(seconds.div_euclid(DAY_S));
    let of_day = seconds.rem_euclid(DAY_S) as u32;
    // Rebuilding the text digit by digit costs a fifth of a general formatter: there are two of these a document.
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut text[0..4], year as u32);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], of_day / 3600);
    digits(&mut text[14..16], of_day / 60 % 60);
    digits(&mut text[17..19], of_day % 60);
    if nanos.is_multiple_of(1_000_000) {
        digits(&mut text[20..23], nanos / 1_000_000);
        text[23] = b'Z';
        out.extend_from_slice(&text[..24]);
    } else {
        digits(&mut text[20..29], nanos);
        out.extend_from_slice(&text);
    }
}

/// The days since 1970-01-01 of a point in time, in UTC.
pub fn day_of(ns: i64) -> i64 {
    ns.div_euclid(DAY_S * SECOND_NS)
}

fn digits(to: &mut [u8], mut value: u32) {
    for place in to.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a number of days since 1970-01-01 (proleptic Gregorian calendar; the arithmetic is that of
/// H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = (if mp < 10 { mp + 3 } else { mp - 9 }) as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ns: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn shows_milliseconds_or_nanoseconds() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_700_000_000_123_000_000), "2023-11-14T22:13:20.123Z");
        assert_eq!(text(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn agrees_with_jiff_over_the_whole_range() {
        let mut ns = i64::MIN;
        loop {
            let known = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap();
            assert_eq!(text(ns).parse::<jiff::Timestamp>().unwrap(), known, "{ns}");
            let Some(next) = ns.checked_add(9_876_543_210_987_654) else {
                break;
            };
            ns = next;
        }
    }

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!(day_of(0), 0);
        assert_eq!(day_of(-1), -1);
        assert_eq!(day_of(DAY_S * SECOND_NS), 1);
    }
}
