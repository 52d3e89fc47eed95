//! JSON numbers.
//!
//! Has fast paths for the numbers that are common in logs: small integers, and fractions of few
//! decimal places. The output is that of `itoa` and `ryu`, which format all others.

/// Type of a MessagePack extension whose data is the text of a JSON number, for numbers whose digits
/// no MessagePack number keeps.
pub const NUMBER_EXTENSION: i8 = 74;

/// Whether `text` is a number as RFC 8259, section 6, defines it. Senders can write any extension.
pub(crate) fn is_json_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text.get(end..).filter(|_| end > 0)
    }
    let number = || {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let mut rest = match text.strip_prefix(b"0") {
            Some(rest) => rest,
            None => digits(text)?,
        };
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let unsigned = exponent
                .strip_prefix(b"-")
                .or_else(|| exponent.strip_prefix(b"+"));
            rest = digits(unsigned.unwrap_or(exponent))?;
        }
        Some(rest.is_empty())
    };
    number().unwrap_or(false)
}

/// Appends an unsigned integer.
#[inline]
pub(crate) fn write_unsigned(out: &mut Vec<u8>, n: u64) {
    if n < 10 {
        out.push(b'0' + n as u8);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }
}

/// Appends a signed integer.
pub(crate) fn write_signed(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends a finite single-precision number, as ryu does.
pub(crate) fn write_single(out: &mut Vec<u8>, n: f32) {
    out.extend_from_slice(ryu::Buffer::new().format_finite(n).as_bytes());
}

/// Appends a finite number in the fewest digits that read back as the same, as ryu does.
#[inline]
pub(crate) fn write_double(out: &mut Vec<u8>, n: f64) {
    if !write_thousandths(out, n) {
        out.extend_from_slice(ryu::Buffer::new().format_finite(n).as_bytes());
    }
}

/// Appends a number of up to nine digits before and three behind the decimal point, as most in logs
/// are. Returns `false` for any other.
///
/// A decimal number of at most 15 digits is the shortest one that reads back as its double. So if
/// `n` is a number of thousandths, these are its digits; and it is one if dividing the thousandths
/// gives `n` again, because that division is rounded exactly.
#[inline]
fn write_thousandths(out: &mut Vec<u8>, n: f64) -> bool {
    if !(0.001..1e9).contains(&n) {
        return false;
    }
    let thousandths = (n * 1000.0 + 0.5) as u64;
    if thousandths as f64 / 1000.0 != n {
        return false;
    }
    write_unsigned(out, thousandths / 1000);
    let fraction = (thousandths % 1000) as u32;
    let digit = |n: u32| b'0' + (n % 10) as u8;
    let digits = [b'.', digit(fraction / 100), digit(fraction / 10), digit(fraction)];
    // One decimal place stays, others only up to the last that is not 0.
    let length = match (digits[2], digits[3]) {
        (b'0', b'0') => 2,
        (_, b'0') => 3,
        _ => 4,
    };
    out.extend_from_slice(&digits);
    out.truncate(out.len() - digits.len() + length);
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_numbers_are_written_as_they_are() {
        for number in [
            "0",
            "-0",
            "10",
            "1.50",
            "1e3",
            "1E+3",
            "-2.5e-07",
            "18446744073709551616",
        ] {
            assert!(is_json_number(number.as_bytes()), "{number}");
        }
        for other in [
            "",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "1 ",
            "0x1",
            "NaN",
            "1,\"a\":2",
            "1e5.5",
        ] {
            assert!(!is_json_number(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn unsigned_numbers_of_every_length() {
        for n in [0, 1, 9, 10, 11, 99, 100, 12_345, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            write_unsigned(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        }
    }

    fn as_ryu(n: f64) {
        let mut out = Vec::new();
        write_double(&mut out, n);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            ryu::Buffer::new().format_finite(n)
        );
    }

    #[test]
    fn doubles_are_written_as_ryu_writes_them() {
        let edges = [
            0.0,
            -0.0,
            0.001,
            0.0005,
            0.000_999_999_999_999_999_9,
            0.01,
            0.1,
            0.3,
            0.1 + 0.2,
            1.0,
            999_999_999.999,
        ];
        let large = [
            1e9,
            999_999_999.999_5,
            1e15,
            1e16,
            1e17,
            1.5e300,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::EPSILON,
        ];
        for n in edges.into_iter().chain(large) {
            for n in [n, -n, n.next_up(), n.next_down(), n * 0.5] {
                if n.is_finite() {
                    as_ryu(n);
                }
            }
        }
        for thousandths in 0..20_000 {
            as_ryu(f64::from(thousandths) / 1000.0);
            as_ryu(f64::from(thousandths) * 0.001);
        }
    }

    proptest! {
        #[test]
        fn any_double_is_written_as_ryu_writes_it(n in any::<f64>(), thousandths in 0..2_000_000_000_000u64, steps in -3i64..=3) {
            if n.is_finite() {
                as_ryu(n);
            }
            // And those close to thousandths.
            as_ryu(f64::from_bits((thousandths as f64 / 1000.0).to_bits().saturating_add_signed(steps)));
        }
    }
}
