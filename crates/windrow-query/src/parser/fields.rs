//! Fields with a meaning of their own, and what values they take.

use super::{Bound, Field, Value, number, phrase, plain_number};
use crate::error::QueryError;
use crate::query::{Inclusive, Keyword, NumberRange, Test, TimeRange};
use crate::time::parse_range;
use crate::values::{Level, LevelSet, parse_duration_ms};

const REASONS: [&str; 5] = ["completed", "idle", "max_age", "evicted", "shutdown"];

pub(super) fn test(field: &Field, value: &Value, now_ns: i64) -> Result<Test, QueryError> {
    match field.name.as_str() {
        "level" | "windrow.level" => level(value),
        "service" | "services" | "windrow.services" => keyword(Keyword::Service, field, value),
        "tag" | "tags" | "windrow.tags" => keyword(Keyword::Tag, field, value),
        "id" | "_id" | "traceId" | "trace_id" | "trace.id" => keyword(Keyword::Id, field, value),
        "reason" | "windrow.reason" => reason(field, value),
        "time" | "@timestamp" => time(value, now_ns),
        "duration" | "durationMs" | "windrow.durationMs" => {
            let what = "a duration: 250ms, 1.5s, 2m, or a number of milliseconds";
            numeric("windrow.durationMs", value, parse_duration_ms, what)
        }
        "lines" | "windrow.lines" => numeric("windrow.lines", value, plain_number, "a number"),
        "late" | "windrow.late" => numeric("windrow.late", value, plain_number, "a number"),
        "parts" | "windrow.parts" => numeric("windrow.parts", value, plain_number, "a number"),
        "truncated" | "windrow.truncated" => numeric("windrow.truncated", value, plain_number, "a number"),
        "text" => Ok(Test::Text(phrase(value)?)),
        name if name == "windrow"
            || name.starts_with("windrow.") && !name.starts_with("windrow.metadata") =>
        {
            let message = format!(
                "there is no field {name}; of windrow there are level, services, tags, reason, durationMs, \
                 lines, late, parts, truncated and metadata"
            );
            Err(QueryError::new(message, field.range.clone()))
        }
        name => generic(name, value),
    }
}

/// A field of the application.
fn generic(name: &str, value: &Value) -> Result<Test, QueryError> {
    let name = name.to_owned();
    if let Value::Between(low, high, _) = value {
        let range = numbers(low.as_ref(), high.as_ref(), plain_number, "a number")?;
        return Ok(Test::Number { name, range });
    }
    if is_any(value) {
        return Ok(Test::Exists { name });
    }
    Ok(Test::Field {
        name,
        phrase: phrase(value)?,
    })
}

/// Whether a value is `*` alone.
fn is_any(value: &Value) -> bool {
    matches!(value, Value::Bare(bare) if bare.wildcard && bare.text.is_empty())
}

fn numbers(
    low: Option<&Bound>,
    high: Option<&Bound>,
    read: impl Fn(&str) -> Option<f64>,
    what: &str,
) -> Result<NumberRange, QueryError> {
    let side = |bound: Option<&Bound>| match bound {
        None => Ok(None),
        Some(bound) => number(bound, &read, what).map(|value| Some((value, Inclusive(bound.inclusive)))),
    };
    Ok(NumberRange {
        low: side(low)?,
        high: side(high)?,
    })
}

/// A field of Windrow that is always a number.
fn numeric(
    name: &str,
    value: &Value,
    read: impl Fn(&str) -> Option<f64>,
    what: &str,
) -> Result<Test, QueryError> {
    let name = name.to_owned();
    let text = match value {
        Value::Between(low, high, _) => {
            let range = numbers(low.as_ref(), high.as_ref(), read, what)?;
            return Ok(Test::Number { name, range });
        }
        _ if is_any(value) => return Ok(Test::Exists { name }),
        Value::Bare(bare) if bare.wildcard => {
            return Err(QueryError::new(
                "a number has no wildcard: compare with >, >=, < or <=",
                value.range(),
            ));
        }
        Value::Bare(bare) => &bare.text,
        Value::Quoted(text, _) => text,
    };
    let value =
        read(text).ok_or_else(|| QueryError::new(format!("{text:?} is not {what}"), value.range()))?;
    Ok(Test::Number {
        name,
        range: NumberRange::exactly(value),
    })
}

fn keyword(keyword: Keyword, field: &Field, value: &Value) -> Result<Test, QueryError> {
    if is_any(value) {
        return Ok(Test::HasKeyword(keyword));
    }
    let (text, prefix) = match value {
        Value::Bare(bare) => (&bare.text, bare.wildcard),
        Value::Quoted(text, _) => (text, false),
        Value::Between(..) => {
            let message = format!("{} is text: it has no greater and less", field.name);
            return Err(QueryError::new(message, value.range()));
        }
    };
    Ok(Test::Keyword {
        field: keyword,
        value: text.clone(),
        prefix,
    })
}

fn reason(field: &Field, value: &Value) -> Result<Test, QueryError> {
    let test = keyword(Keyword::Reason, field, value)?;
    match &test {
        Test::Keyword {
            value: word,
            prefix: false,
            ..
        } if !REASONS.contains(&word.as_str()) => {
            let message = format!("{word:?} is no reason; there are {}", REASONS.join(", "));
            Err(QueryError::new(message, value.range()))
        }
        _ => Ok(test),
    }
}

fn level(value: &Value) -> Result<Test, QueryError> {
    let unknown = |text: &str, range| {
        let message = format!(
            "{text:?} is no level; there are trace, debug, info, warn, error, fatal, and none for documents without one"
        );
        QueryError::new(message, range)
    };
    let one = |text: &str, range| Level::of_word(text).ok_or_else(|| unknown(text, range));
    let set = match value {
        Value::Between(low, high, _) => {
            let bound = |bound: &Option<Bound>| match bound {
                None => Ok(None),
                Some(bound) => {
                    one(&bound.text, bound.range.clone()).map(|level| Some((level, bound.inclusive)))
                }
            };
            let (low, high) = (bound(low)?, bound(high)?);
            LevelSet::of(Level::ALL.into_iter().filter(|level| {
                low.is_none_or(|(low, or_equal)| *level > low || or_equal && *level == low)
                    && high.is_none_or(|(high, or_equal)| *level < high || or_equal && *level == high)
            }))
        }
        _ if is_any(value) => LevelSet::of(Level::ALL.into_iter()),
        Value::Bare(bare) if bare.wildcard => {
            let start = bare.text.to_ascii_lowercase();
            let set = LevelSet::of(
                Level::ALL
                    .into_iter()
                    .filter(|level| level.as_str().starts_with(&start)),
            );
            if set == LevelSet::default() {
                return Err(unknown(&bare.text, value.range()));
            }
            set
        }
        Value::Bare(bare) if bare.text.eq_ignore_ascii_case("none") => LevelSet::none(),
        Value::Bare(crate::lexer::Bare { text, .. }) | Value::Quoted(text, _) => {
            LevelSet::of(std::iter::once(one(text, value.range())?))
        }
    };
    Ok(Test::Level(set))
}

fn time(value: &Value, now_ns: i64) -> Result<Test, QueryError> {
    let read = |text: &str, range| {
        parse_range(text, now_ns).ok_or_else(|| {
            let message = format!(
                "{text:?} is not a time: 2026-11-21T09:20:00Z, 2026-11-21, -15m, -24h, -7d or Unix milliseconds"
            );
            QueryError::new(message, range)
        })
    };
    let mut range = TimeRange {
        from_ms: i64::MIN,
        to_ms: i64::MAX,
    };
    match value {
        Value::Between(low, high, _) => {
            if let Some(low) = low {
                let (first, last) = read(&low.text, low.range.clone())?;
                range.from_ms = if low.inclusive {
                    first
                } else {
                    last.saturating_add(1)
                };
            }
            if let Some(high) = high {
                let (first, last) = read(&high.text, high.range.clone())?;
                range.to_ms = if high.inclusive {
                    last
                } else {
                    first.saturating_sub(1)
                };
            }
        }
        Value::Bare(bare) if bare.wildcard => {
            let message = "a time has no wildcard: write the day, as in 2026-11-21, or a range";
            return Err(QueryError::new(message, value.range()));
        }
        Value::Bare(crate::lexer::Bare { text, .. }) | Value::Quoted(text, _) => {
            (range.from_ms, range.to_ms) = read(text, value.range())?;
        }
    }
    Ok(Test::Time(range))
}
