//! Conversion of a log line to a record: parsed, timed, enriched. The same line always becomes the
//! same record.

use serde_json::{Map, Value};

use super::super::Identity;

/// A record and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unix nanoseconds.
    pub time_ns: i64,
    /// The fields.
    pub record: Map<String, Value>,
}

/// The events of a batch of lines without its empty lines. `read_at_ns` is the time of lines that
/// have none.
#[must_use]
pub fn events(lines: &[u8], read_at_ns: i64, identity: &Identity) -> Vec<Event> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| event(line, read_at_ns, identity))
        .collect()
}

/// A line that is a JSON object becomes its fields; any other line becomes `message`, and so does
/// one that nests deeper than Forward servers take. The operator's `service_name` and `environment`
/// take the place of fields of that name.
fn event(line: &[u8], read_at_ns: i64, identity: &Identity) -> Event {
    let mut record = match serde_json::from_slice(line) {
        Ok(Value::Object(record)) if record.values().all(|value| nests_at_most(value, MAX_DEPTH - 1)) => {
            record
        }
        _ => {
            let text = String::from_utf8_lossy(line);
            Map::from_iter([("message".to_owned(), text.trim_end_matches('\r').into())])
        }
    };
    let time_ns = take_time(&mut record).unwrap_or(read_at_ns);
    record.insert("service_name".to_owned(), identity.service_name.as_str().into());
    record.insert("environment".to_owned(), identity.environment.as_str().into());
    Event { time_ns, record }
}

/// The first of [`TIME_FIELDS`] that is an RFC 3339 time; it leaves the record, as with a Fluent
/// Bit parser.
fn take_time(record: &mut Map<String, Value>) -> Option<i64> {
    TIME_FIELDS.iter().find_map(|field| {
        let time: jiff::Timestamp = record.get(*field)?.as_str()?.parse().ok()?;
        let nanoseconds = i64::try_from(time.as_nanosecond()).ok()?;
        record.shift_remove(*field);
        Some(nanoseconds)
    })
}

fn nests_at_most(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| nests_at_most(item, depth - 1)),
        Value::Object(map) => depth > 0 && map.values().all(|item| nests_at_most(item, depth - 1)),
        _ => true,
    }
}

/// Containers inside each other that fluent-logger-rs takes, the record included: Fluent Bit takes
/// no more.
const MAX_DEPTH: usize = 25;

const TIME_FIELDS: [&str; 4] = ["time", "timestamp", "@timestamp", "ts"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity() -> Identity {
        Identity {
            service_name: "order".to_owned(),
            environment: "demo".to_owned(),
        }
    }

    fn one(line: &str) -> Event {
        let mut events = events(line.as_bytes(), 42, &identity());
        assert_eq!(events.len(), 1, "{line}");
        events.remove(0)
    }

    #[test]
    fn a_json_line_keeps_its_fields_and_gets_two_more() {
        let event = one(
            r#"{"time":"2026-11-21T09:20:00.123456Z","level":"info","message":"a","service_name":"liar"}"#,
        );
        assert_eq!(event.time_ns, 1_795_252_800_123_456_000);
        assert_eq!(
            Value::Object(event.record),
            json!({"level": "info", "message": "a", "service_name": "order", "environment": "demo"})
        );
    }

    #[test]
    fn a_time_that_is_none_stays_a_field() {
        for line in [r#"{"time":"yesterday"}"#, r#"{"time":17}"#] {
            let event = one(line);
            assert_eq!(event.time_ns, 42);
            assert!(event.record.contains_key("time"));
        }
        assert_eq!(one(r#"{"ts":"1970-01-01T00:00:01Z"}"#).time_ns, 1_000_000_000);
    }

    #[test]
    fn any_other_line_is_a_message() {
        for (line, message) in [
            ("plain text\r", "plain text"),
            ("[1,2]", "[1,2]"),
            (r#"{"cut":"#, r#"{"cut":"#),
        ] {
            assert_eq!(one(line).record["message"], message);
        }
        for (depth, fields) in [(MAX_DEPTH, 3), (MAX_DEPTH + 1, 3)] {
            let line = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            let record = one(&line).record;
            assert_eq!(record.len(), fields);
            assert_eq!(record.contains_key("a"), depth <= MAX_DEPTH, "{record:?}");
        }
        let broken = events(b"\xff!", 42, &identity());
        assert_eq!(broken[0].record["message"], "\u{fffd}!");
    }

    #[test]
    fn empty_lines_are_no_events() {
        assert!(events(b"\n \r\n\n", 42, &identity()).is_empty());
        assert_eq!(events(b"a\n\nb", 42, &identity()).len(), 2);
    }
}
