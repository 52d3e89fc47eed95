//! Random identifiers: unlikely to collide, not secret.

/// A fresh trace id: 32 lower-case hexadecimal digits, the size of a W3C trace id.
#[must_use]
pub fn trace_id() -> String {
    let mut bytes = [0_u8; 16];
    fill(&mut bytes);
    let mut text = String::with_capacity(32);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// A number in `0.0..1.0`, to spread retries.
#[must_use]
pub fn fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// The kernel's generator fails only where there is none; then the clock is random enough for an
/// id.
fn fill(bytes: &mut [u8]) {
    if getrandom::fill(bytes).is_err() {
        let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        for (byte, source) in bytes.iter_mut().zip(now.iter().cycle()) {
            *byte = *source;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_are_hex_and_differ() {
        let (one, two) = (trace_id(), trace_id());
        assert_eq!(one.len(), 32);
        assert!(one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(one, two);
        assert!((0.0..1.0).contains(&fraction()));
    }
}
