//! Durations and sizes with units: `30s`, `1h30m`, `500ms`, `64MiB`, `10GB`.
//!
//! Formatted values parse to the same value.

use std::time::Duration;

const DURATIONS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Parses a duration: numbers with units (`d h m s ms us ns`), added up. A bare `0` needs no unit.
///
/// # Errors
/// A message for the operator.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0u64;
    loop {
        let (number, unit, after) = split(rest)?;
        let unit = match unit {
            "" => return Err(format!("no unit after {number:?} (d, h, m, s, ms, us, ns)")),
            "min" => "m",
            "sec" => "s",
            "µs" => "us",
            other => other,
        };
        let Some((_, nanos)) = DURATIONS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {unit:?} (d, h, m, s, ms, us, ns)"));
        };
        let part = scale(number, *nanos)?;
        total = total.checked_add(part).ok_or_else(|| "too long".to_owned())?;
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(Duration::from_nanos(total));
        }
    }
}

/// Parses a size: a number with a unit (`KiB MiB GiB TiB`, `kB MB GB TB`, `B`); a bare number is
/// bytes.
///
/// # Errors
/// A message for the operator.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit, after) = split(text.trim())?;
    if !after.is_empty() {
        return Err(format!("unexpected {after:?}"));
    }
    if unit.is_empty() {
        return number
            .parse()
            .map_err(|_| "a number of bytes must be whole".to_owned());
    }
    let unit = if unit == "KB" { "kB" } else { unit };
    match SIZES.iter().find(|(name, _)| *name == unit) {
        Some((_, bytes)) => scale(number, *bytes),
        None => {
            let hint = match unit {
                "k" | "K" | "M" | "G" | "T" => {
                    format!(" (write {0}iB for 1024, {0}B for 1000)", unit.to_uppercase())
                }
                _ => " (KiB, MiB, GiB, TiB, kB, MB, GB, TB, B)".to_owned(),
            };
            Err(format!("unknown unit {unit:?}{hint}"))
        }
    }
}

/// Formats a duration exactly, in the largest units possible: `1h30m`, `1s500ms`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, size) in DURATIONS {
        let count = nanos / size;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            nanos %= size;
        }
    }
    text
}

/// Formats a size exactly, in the largest unit possible: `64MiB`, `1500000B` as `1500kB`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".into();
    }
    let fits = |(_, size): &&(&str, u64)| bytes.is_multiple_of(*size);
    let (unit, size) = SIZES.iter().find(fits).copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

/// Splits `1.5h30m` into `1.5`, `h`, `30m`.
fn split(text: &str) -> Result<(&str, &str, &str), String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if number.is_empty() {
        return Err(if text.is_empty() {
            "it is empty".into()
        } else {
            format!("{text:?} does not begin with a number")
        });
    }
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(end);
    Ok((number, unit, after))
}

/// `1.5` times a unit, exact down to a billionth of the unit's own parts.
fn scale(number: &str, unit: u64) -> Result<u64, String> {
    let too_large = || "too large".to_owned();
    let not_a_number = || format!("{number:?} is not a number");
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(not_a_number());
    }
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let parts: u64 = fraction.parse().map_err(|_| not_a_number())?;
    let of = 10u64.pow(u32::try_from(fraction.len()).unwrap_or(9));
    let fraction =
        u64::try_from(u128::from(parts) * u128::from(unit) / u128::from(of)).map_err(|_| too_large())?;
    whole
        .checked_mul(unit)
        .and_then(|whole| whole.checked_add(fraction))
        .ok_or_else(too_large)
}
