//! Numbers of a JSON text as they are written, for converters that keep their digits.

use std::ops::Range;

/// Most significant digits of a decimal number that is the shortest text of its float.
const EXACT_DIGITS: usize = 15;
/// Zeros after the decimal point up to which formatters write no exponent.
const MAX_LEADING_ZEROS: usize = 2;

/// The numbers of a valid JSON text, in order.
#[derive(Clone, Debug)]
pub(super) struct NumberTexts<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> NumberTexts<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The text of the next number. Only what precedes it and the number itself must be valid.
    pub(super) fn next(&mut self) -> Option<&'t [u8]> {
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => {
                    let start = self.at - 1;
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    self.at += rest.iter().take_while(|byte| is_part(byte)).count();
                    return self.text.get(Range { start, end: self.at });
                }
                _ => {}
            }
        }
    }

    /// Moves behind the string whose first quote has been passed.
    fn skip_string(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return,
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }
}

/// Whether a formatter that writes the fewest digits writes the float of `number` with exactly
/// these characters: no exponent, no zeros that could be left out, at most 15 digits.
pub(super) fn is_plain(number: &[u8]) -> bool {
    let number = number.strip_prefix(b"-").unwrap_or(number);
    let Some(point) = number.iter().position(|byte| *byte == b'.') else {
        return false;
    };
    let (whole, fraction) = (&number[..point], &number[point + 1..]);
    let zeros = fraction.iter().take_while(|byte| **byte == b'0').count();
    let shortest = fraction == b"0" || fraction.last().is_some_and(|last| *last != b'0');
    let positional = whole != b"0" || zeros <= MAX_LEADING_ZEROS;
    shortest
        && positional
        && whole.len() + fraction.len() <= EXACT_DIGITS
        && fraction.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_between_strings() {
        let text = br#"{"a1":-1.50,"b\"2":[3e7,"4\\",5],"c":true,"6":0}"#;
        let mut numbers = NumberTexts::new(text);
        let found: Vec<_> = std::iter::from_fn(|| numbers.next()).collect();
        assert_eq!(found, [&b"-1.50"[..], b"3e7", b"5", b"0"]);
    }

    #[test]
    fn plain_numbers_are_the_shortest_text_of_their_float() {
        for plain in [
            "0.0",
            "-0.0",
            "1.0",
            "0.5",
            "12.75",
            "-0.001",
            "123456789.123456",
            "0.00123",
        ] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
            assert_eq!(format!("{:?}", plain.parse::<f64>().unwrap()), plain);
        }
        for other in [
            "1",
            "1e3",
            "1.0e3",
            "1.50",
            "0.00",
            "0.0001",
            "1234567890.1234567",
            "1.5E3",
            "-0",
        ] {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }
}
