//! Index names: the configured pattern, the index of a day, the neighbours of that day.
//!
//! Owns a cache of names; sends nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

/// Nanoseconds of a day (UTC days have no leap seconds in Unix time).
const DAY_NS: i64 = 86_400_000_000_000;

/// Capacity of the cache; imports of old records touch many days, but few at a time.
const MAX_CACHED_DAYS: usize = 512;

/// The index of one day, and the constant start of its `create` action lines.
#[derive(Debug)]
pub(crate) struct DayIndex {
    /// Index name.
    pub(crate) index: Box<str>,
    /// `{"create":{"_index":"…","_id":"`
    pub(crate) create_head: Box<[u8]>,
}

/// The configured index pattern.
#[derive(Debug)]
pub(crate) struct IndexPattern {
    pattern: String,
    days: Mutex<HashMap<i64, Arc<DayIndex>>>,
}

impl IndexPattern {
    /// Checks the pattern: strftime fields known, one name per day, a valid index name.
    ///
    /// # Errors
    /// A message for the operator.
    pub(crate) fn parse(pattern: &str) -> Result<Self, String> {
        let name = format(pattern, 0)?;
        // Days in different months, weeks and years, so that every field is checked.
        for start in [0, 19_787 * 86_400, 20_453 * 86_400] {
            let (first, last) = (format(pattern, start)?, format(pattern, start + 86_399)?);
            if first != last {
                return Err(format!(
                    "index {pattern:?} changes within a day ({first} and {last}); use fields of a day or longer, such as %Y-%m-%d"
                ));
            }
        }
        check_name(&name).map_err(|why| format!("index {pattern:?} gives the name {name:?}, which {why}"))?;
        Ok(Self {
            pattern: pattern.to_owned(),
            days: Mutex::default(),
        })
    }

    /// Days from 1970-01-01 UTC to a time in Unix ns.
    pub(crate) fn day_of(first_ns: i64) -> i64 {
        first_ns.div_euclid(DAY_NS)
    }

    /// The index of a day.
    pub(crate) fn day(&self, day: i64) -> Arc<DayIndex> {
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = days.get(&day) {
            return known.clone();
        }
        if days.len() >= MAX_CACHED_DAYS {
            days.clear();
        }
        // `parse` has checked the pattern, and every i64 of nanoseconds is a valid time (years 1677
        // to 2262).
        let index = format(&self.pattern, day * 86_400).unwrap_or_else(|_| self.pattern.clone());
        let create_head = format!(r#"{{"create":{{"_index":"{index}","_id":""#)
            .into_bytes()
            .into_boxed_slice();
        let made = Arc::new(DayIndex {
            index: index.into_boxed_str(),
            create_head,
        });
        days.insert(day, made.clone());
        made
    }

    /// The index of a document.
    pub(crate) fn of(&self, first_ns: i64) -> Arc<DayIndex> {
        self.day(Self::day_of(first_ns))
    }

    /// Whether the name changes from day to day.
    pub(crate) fn has_date(&self) -> bool {
        self.pattern.contains('%')
    }

    /// The pattern.
    pub(crate) fn text(&self) -> &str {
        &self.pattern
    }

    /// Index of the day before, if the time is within `life` after midnight and the name differs.
    pub(crate) fn before(&self, first_ns: i64, life: Duration) -> Option<Arc<DayIndex>> {
        let into = first_ns.rem_euclid(DAY_NS);
        (into <= nanos(life))
            .then(|| Self::day_of(first_ns))
            .and_then(|day| self.neighbour(day, day - 1))
    }

    /// Index of the day after, if the time is within `life` before midnight and the name differs.
    pub(crate) fn after(&self, first_ns: i64, life: Duration) -> Option<Arc<DayIndex>> {
        let left = DAY_NS - first_ns.rem_euclid(DAY_NS);
        (left <= nanos(life))
            .then(|| Self::day_of(first_ns))
            .and_then(|day| self.neighbour(day, day + 1))
    }

    fn neighbour(&self, day: i64, other: i64) -> Option<Arc<DayIndex>> {
        let (own, other) = (self.day(day), self.day(other));
        (own.index != other.index).then_some(other)
    }
}

/// Patterns of index names that match every name and as few others as possible, for the
/// template: `logs-%Y.%m` gives `logs-19*.*` and `logs-20*.*`, not `logs-*`. A `*` in the name stays.
pub(crate) fn exact(name: &str) -> Vec<String> {
    let mut parts = name.split('%');
    let mut patterns = vec![parts.next().unwrap_or_default().to_owned()];
    let mut first = true;
    for part in parts {
        // A field is `%`, flags or colons, and one letter; `%%` is a percent sign.
        let Some((at, letter)) = part.char_indices().find(|(_, c)| c.is_ascii_alphabetic()) else {
            continue;
        };
        let digits: &[&str] = match letter {
            'Y' | 'G' | 'F' | 'C' => &["19", "20"],
            'm' => &["0", "1"],
            'd' | 'j' => &["0", "1", "2", "3"],
            'V' | 'U' | 'W' => &["0", "1", "2", "3", "4", "5"],
            'y' | 'g' | 'D' => &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            _ => &[""],
        };
        let inner = match letter {
            'F' => "*-*-*",
            'D' => "*/*/*",
            _ => "*",
        };
        let rest = &part[at + 1..];
        patterns = if std::mem::take(&mut first) {
            let with = |digit: &&str| format!("{}{digit}{inner}{rest}", patterns[0]);
            digits.iter().map(with).collect()
        } else {
            let with = |pattern: String| {
                // Two stars in a row are one.
                let inner = if pattern.ends_with('*') {
                    &inner[1..]
                } else {
                    inner
                };
                format!("{pattern}{inner}{rest}")
            };
            patterns.into_iter().map(with).collect()
        };
    }
    patterns
}

/// The pattern with `*` in place of its date, for searches. A `*` in the name stays.
pub(crate) fn wildcard(name: &str) -> String {
    match (name.find('%'), name.rfind('%')) {
        (Some(first), Some(last)) => {
            // A field is `%`, flags or colons, and one letter.
            let tail = name[last..]
                .char_indices()
                .skip(1)
                .find(|(_, c)| c.is_ascii_alphabetic());
            let tail = tail.map_or("", |(at, _)| &name[last + at + 1..]);
            format!("{}*{tail}", &name[..first])
        }
        _ => name.to_owned(),
    }
}

/// Whether a time (Unix ns) is within `life` of midnight UTC. Cheap: called for every document.
pub(crate) fn near_boundary(first_ns: i64, life: Duration) -> bool {
    let (into, life) = (first_ns.rem_euclid(DAY_NS), nanos(life));
    into <= life || DAY_NS - into <= life
}

/// Whether one of the times from `first` to `last` may be within `life` of midnight UTC.
pub(crate) fn some_near_boundary((first, last): (i64, i64), life: Duration) -> bool {
    IndexPattern::day_of(first) != IndexPattern::day_of(last)
        || near_boundary(first, life)
        || near_boundary(last, life)
}

fn nanos(life: Duration) -> i64 {
    i64::try_from(life.as_nanos()).map_or(DAY_NS / 2, |life| life.min(DAY_NS / 2))
}

fn format(pattern: &str, second: i64) -> Result<String, String> {
    let time = Timestamp::from_second(second)
        .map_err(|e| e.to_string())?
        .to_zoned(TimeZone::UTC);
    strtime::format(pattern, &time).map_err(|e| format!("index {pattern:?} is not a strftime pattern: {e}"))
}

/// Elasticsearch's rules for index names (Create index API, "Index names must meet the following
/// criteria").
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name == "." || name == ".." {
        return Err("is empty or a dot");
    }
    if name.len() > 255 {
        return Err("is longer than 255 bytes");
    }
    if name.starts_with(['-', '_', '+']) {
        return Err("starts with one of - _ +");
    }
    if name.chars().any(char::is_uppercase) {
        return Err("has capital letters, Elasticsearch allows none");
    }
    if name.contains(|c: char| r#"\/*?"<>|,#:"#.contains(c) || c.is_whitespace() || c.is_control()) {
        return Err("has one of the characters \\ / * ? \" < > | , # : or a space");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOV_21: i64 = 20_778 * DAY_NS; // 2026-11-21T00:00:00Z

    #[test]
    fn the_day_is_the_utc_day_of_the_first_event() {
        let indices = IndexPattern::parse("requests-%Y-%m-%d").unwrap();
        assert_eq!(&*indices.of(NOV_21).index, "requests-2026-11-21");
        assert_eq!(&*indices.of(NOV_21 - 1).index, "requests-2026-11-20");
        assert_eq!(&*indices.of(-1).index, "requests-1969-12-31");
        assert_eq!(&*indices.of(i64::MAX).index, "requests-2262-04-11");
        assert_eq!(&*indices.of(i64::MIN).index, "requests-1677-09-21");
        assert_eq!(
            &*indices.of(NOV_21).create_head,
            br#"{"create":{"_index":"requests-2026-11-21","_id":""#.as_slice()
        );
    }

    #[test]
    fn the_wildcard_covers_all_days() {
        for (pattern, wildcard) in [
            ("requests-%Y-%m-%d", "requests-*"),
            ("requests-%Y.%m.%d-eu", "requests-*-eu"),
            ("logs-%F", "logs-*"),
            ("all", "all"),
        ] {
            assert_eq!(super::wildcard(pattern), wildcard);
        }
    }

    #[test]
    fn the_template_matches_own_names_only() {
        for (pattern, expected) in [
            ("requests-%Y-%m-%d", &["requests-19*-*-*", "requests-20*-*-*"][..]),
            ("logs-%Y.%m.%d", &["logs-19*.*.*", "logs-20*.*.*"]),
            ("logs-%Y%m%d-eu", &["logs-19*-eu", "logs-20*-eu"]),
            ("logs-%F", &["logs-19*-*-*", "logs-20*-*-*"]),
            ("%d.%m.%Y", &["0*.*.*", "1*.*.*", "2*.*.*", "3*.*.*"]),
            ("all", &["all"]),
        ] {
            let patterns = IndexPattern::parse(pattern).unwrap();
            assert_eq!(exact(pattern), expected, "{pattern}");
            let name = patterns.of(NOV_21).index.clone();
            let matches = |glob: &String| {
                let parts: Vec<&str> = glob.split('*').collect();
                let mut rest = &*name;
                parts.iter().enumerate().all(|(n, part)| match rest.find(part) {
                    Some(at) if n > 0 || at == 0 => {
                        rest = &rest[at + part.len()..];
                        true
                    }
                    _ => false,
                })
            };
            assert!(exact(pattern).iter().any(matches), "{pattern}: {name}");
        }
    }

    #[test]
    fn wrong_patterns_are_explained() {
        for (pattern, word) in [
            ("requests-%H", "within a day"),
            ("Requests-%Y", "capital"),
            ("requests %Y", "space"),
            ("_requests", "starts with"),
            ("requests-%!", "strftime"),
            ("", "empty"),
        ] {
            let error = IndexPattern::parse(pattern).unwrap_err();
            assert!(error.contains(word), "{pattern}: {error}");
        }
    }

    #[test]
    fn neighbours_only_near_the_boundary_and_only_with_another_name() {
        let indices = IndexPattern::parse("requests-%Y-%m-%d").unwrap();
        let life = Duration::from_secs(600);
        let second = 1_000_000_000;
        let name = |day: Option<Arc<DayIndex>>| day.map(|d| d.index.to_string());
        assert_eq!(
            name(indices.before(NOV_21, life)).as_deref(),
            Some("requests-2026-11-20")
        );
        assert_eq!(
            name(indices.before(NOV_21 + 600 * second, life)).as_deref(),
            Some("requests-2026-11-20")
        );
        assert_eq!(name(indices.before(NOV_21 + 601 * second, life)), None);
        assert_eq!(
            name(indices.after(NOV_21 - 600 * second, life)).as_deref(),
            Some("requests-2026-11-21")
        );
        assert_eq!(name(indices.after(NOV_21 - 601 * second, life)), None);
        assert_eq!(name(indices.after(NOV_21, life)), None);
        for offset in [-700, -601, -600, -1, 0, 1, 600, 601, 700] {
            let at = NOV_21 + offset * second;
            let any = indices.before(at, life).is_some() || indices.after(at, life).is_some();
            assert_eq!(near_boundary(at, life), any, "{offset}");
            assert_eq!(some_near_boundary((at, at), life), any, "{offset}");
            // Of times so far apart that a day's boundary lies between them, whatever the ends are.
            assert!(some_near_boundary((at, at + 2 * DAY_NS), life), "{offset}");
        }
        let monthly = IndexPattern::parse("requests-%Y-%m").unwrap();
        assert_eq!(name(monthly.before(NOV_21, life)), None);
        assert_eq!(
            name(monthly.before(NOV_21 + 10 * DAY_NS, life)).as_deref(),
            Some("requests-2026-11")
        );
    }
}
