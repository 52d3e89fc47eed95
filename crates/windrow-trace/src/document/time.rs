//! Timestamps in documents: Unix nanoseconds as RFC 3339 in UTC.
//!
//! With milliseconds, or nanoseconds where milliseconds are not exact. Does not read a clock.

const DAY_S: i64 = 86_400;

/// Nanoseconds in one second.
pub(crate) const SECOND_NS: i64 = 1_000_000_000;

/// Appends `ns` (Unix nanoseconds) as `2026-11-21T09:20:00.123Z`, with three digits of fraction if
/// that is exact, else nine. Years 1677 to 2262, the range of an `i64` of nanoseconds.
pub(crate) fn write_rfc3339(out: &mut Vec<u8>, ns: i64) {
    Rfc3339Writer::default().write(out, ns);
}

/// Writes times as [`write_rfc3339`] does, and caches the text of the last second: most documents
/// are of the same second as the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rfc3339Writer {
    second: i64,
    /// The text, with space for the fraction.
    text: [u8; 30],
}

impl Default for Rfc3339Writer {
    fn default() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.000000000Z",
        }
    }
}

impl Rfc3339Writer {
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, ns: i64) {
        let second = ns.div_euclid(SECOND_NS);
        let nanos = ns.rem_euclid(SECOND_NS) as u32;
        if second != self.second {
            self.set_second(second);
        }
        let mut text = self.text;
        let (millis, rest) = (nanos / 1_000_000, nanos % 1_000_000);
        let [_, a, b, c] = four_digits(millis);
        text[20..23].copy_from_slice(&[a, b, c]);
        if rest == 0 {
            text[23] = b'Z';
            out.extend_from_slice(&text[..24]);
        } else {
            text[23..25].copy_from_slice(&two_digits(rest / 10_000));
            text[25..29].copy_from_slice(&four_digits(rest % 10_000));
            out.extend_from_slice(&text);
        }
    }

    #[inline(never)]
    fn set_second(&mut self, second: i64) {
        self.second = second;
        let (year, month, day) = civil_from_days(second.div_euclid(DAY_S));
        let of_day = second.rem_euclid(DAY_S) as u32;
        let mut put = |at: usize, digits: &[u8]| self.text[at..at + digits.len()].copy_from_slice(digits);
        put(0, &four_digits(year as u32));
        put(5, &two_digits(month));
        put(8, &two_digits(day));
        put(11, &two_digits(of_day / 3600));
        put(14, &two_digits(of_day / 60 % 60));
        put(17, &two_digits(of_day % 60));
    }
}

fn four_digits(number: u32) -> [u8; 4] {
    let ([a, b], [c, d]) = (two_digits(number / 100), two_digits(number % 100));
    [a, b, c, d]
}

fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

/// The number of days since 1970-01-01 in UTC.
pub fn day_of(ns: i64) -> i64 {
    ns.div_euclid(DAY_S * SECOND_NS)
}

/// Year, month and day of a number of days since 1970-01-01 in the proleptic Gregorian calendar.
/// The algorithm is `civil_from_days` of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, u32, u32) {
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
    fn what_is_remembered_is_of_the_same_second() {
        let mut one = Rfc3339Writer::default();
        let year = 1_798_761_600 * SECOND_NS; // 2027-01-01
        let steps = [
            0,
            1,
            999_000_000,
            SECOND_NS,
            60 * SECOND_NS,
            3600 * SECOND_NS,
            DAY_S * SECOND_NS,
        ];
        let around = steps
            .iter()
            .flat_map(|step| [year + step, year - step, year - 1, year, -step, *step]);
        let extremes = [i64::MIN, i64::MAX, 0, -1, i64::MIN + 1, i64::MAX - 1];
        for ns in around.chain(extremes) {
            let mut out = Vec::new();
            one.write(&mut out, ns);
            assert_eq!(String::from_utf8(out).unwrap(), text(ns));
            let known = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap();
            assert_eq!(text(ns).parse::<jiff::Timestamp>().unwrap(), known);
        }
    }

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!(day_of(0), 0);
        assert_eq!(day_of(-1), -1);
        assert_eq!(day_of(DAY_S * SECOND_NS), 1);
    }
}
