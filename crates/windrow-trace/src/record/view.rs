//! Record view: which fields of a record hold its trace id, text, level and service.
//!
//! Owns the paths of the configuration. A path with dots matches a field of that literal name, and
//! a field in nested maps: `trace.id` is `{"trace.id": …}` and `{"trace": {"id": …}}`. All roots of
//! all paths are in one hash map, so that a record is read in one walk over its fields.

use std::collections::HashMap;

use forward_protocol::entries::{Key, MapPairs};
use smallvec::SmallVec;

use super::severity::{NumberScheme, Severity};
use crate::document::msgpack::read_token;
use crate::document::names::{FieldNames, as_text};

/// Ways in which one path can match: literally, or with its first dot, its second dot, ….
const MATCHES_PER_PATH: u16 = 8;

/// What a field is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The level of the line.
    Level,
    /// The service that wrote the line.
    Service,
}

/// One way to read a field: what it means, and where in its value that is.
#[derive(Clone, Debug)]
pub struct Reading {
    meaning: Meaning,
    /// Preference among the readings of one meaning; the lowest usable one counts.
    order: u16,
    /// The rest of the path, in the maps below the field.
    below: Option<Box<[u8]>>,
    scheme: NumberScheme,
}

impl Reading {
    /// The value that it reads, within the value of its field.
    #[inline]
    fn value<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        match &self.below {
            None => Some(value),
            Some(path) => find_below(value, path),
        }
    }
}

/// The value at `path` in a map: under its literal name, else in nested maps. Of equal names the
/// last one counts.
fn find_below<'a>(map: &'a [u8], path: &[u8]) -> Option<&'a [u8]> {
    let (mut literal, mut nested) = (None, None);
    for pair in MapPairs::new(map) {
        let Key::Text(name) = pair.key else { continue };
        if name == path {
            literal = Some(pair.value);
        } else if let Some([b'.', rest @ ..]) = path.strip_prefix(name)
            && let found @ Some(_) = find_below(pair.value, rest)
        {
            nested = found;
        }
    }
    literal.or(nested)
}

/// The compiled names of the configuration.
#[derive(Debug)]
pub struct RecordView {
    names: FieldNames,
    /// By the name of the field in the record.
    readings: HashMap<Box<[u8]>, Vec<Reading>, foldhash::quality::RandomState>,
}

impl RecordView {
    /// Compiles `names`.
    #[must_use]
    pub fn new(names: FieldNames) -> Self {
        let mut view = Self {
            names: FieldNames {
                keys: Vec::new(),
                text: Vec::new(),
                level: Vec::new(),
                service: Vec::new(),
            },
            readings: HashMap::default(),
        };
        view.add(Meaning::Level, &names.level);
        view.add(Meaning::Service, &names.service);
        view.names = names;
        view
    }

    /// The names of the configuration.
    pub fn names(&self) -> &FieldNames {
        &self.names
    }

    /// How a field of this name is read.
    #[inline]
    pub(crate) fn readings(&self, name: &[u8]) -> &[Reading] {
        self.readings.get(name).map_or(&[], Vec::as_slice)
    }

    /// Level and service of a record, field by field. Of equal names the last one counts.
    #[must_use]
    pub fn read<'a>(&self, record: &'a [u8]) -> LineContext<'a> {
        let mut found: SmallVec<[(&Reading, &'a [u8]); 8]> = SmallVec::new();
        for pair in MapPairs::new(record) {
            let Key::Text(name) = pair.key else { continue };
            for reading in self.readings(name) {
                match found.iter_mut().find(|(known, _)| std::ptr::eq(*known, reading)) {
                    Some(known) => known.1 = pair.value,
                    None => found.push((reading, pair.value)),
                }
            }
        }
        let mut context = LineContext::default();
        for (reading, value) in found {
            context.read(reading, value);
        }
        context
    }

    fn add(&mut self, meaning: Meaning, paths: &[String]) {
        for (rank, path) in (0..u16::MAX / MATCHES_PER_PATH).zip(paths) {
            let dots = path.match_indices('.').map(|(at, _)| at);
            // The longest root first: the literal name.
            let roots = std::iter::once(path.len()).chain(dots.rev());
            for (way, end) in (0..MATCHES_PER_PATH).zip(roots) {
                let (root, below) = path.split_at(end);
                let reading = Reading {
                    meaning,
                    order: rank * MATCHES_PER_PATH + way,
                    below: below.get(1..).map(|below| below.as_bytes().into()),
                    scheme: NumberScheme::of(path),
                };
                self.readings
                    .entry(root.as_bytes().into())
                    .or_default()
                    .push(reading);
            }
        }
    }
}

/// What a record says about its line apart from trace id and text.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineContext<'a> {
    /// The level.
    pub level: Option<Severity>,
    /// The service, a slice of the record.
    pub service: Option<&'a [u8]>,
    /// Complement of the order of the readings that gave them; 0 without.
    level_rank: u16,
    service_rank: u16,
}

impl<'a> LineContext<'a> {
    /// Reads one field. `value`: the bytes of its value.
    #[inline]
    pub fn read(&mut self, reading: &Reading, value: &'a [u8]) {
        let rank = u16::MAX - reading.order;
        match reading.meaning {
            Meaning::Level => {
                if rank > self.level_rank
                    && let Some(value) = reading.value(value)
                    && let Some(level) = Severity::from_value(reading.scheme, value)
                {
                    (self.level, self.level_rank) = (Some(level), rank);
                }
            }
            Meaning::Service => {
                if rank > self.service_rank
                    && let Some(value) = reading.value(value)
                    && let Some(service) = service_of(value)
                {
                    (self.service, self.service_rank) = (Some(service), rank);
                }
            }
        }
    }
}

/// The name of a service: a text that is not blank. Docker's container names begin with a slash.
#[inline]
fn service_of(value: &[u8]) -> Option<&[u8]> {
    let text = as_text(read_token(value, 0)?.0)?;
    match text {
        [] => None,
        [b'/' | b' ', ..] | [.., b' '] => {
            let text = text.trim_ascii();
            let text = text.strip_prefix(b"/").unwrap_or(text);
            (!text.is_empty()).then_some(text)
        }
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tests::record;

    fn context(json: &Value) -> (Option<Severity>, Option<String>) {
        let record = record(json);
        let context = RecordView::new(FieldNames::default()).read(&record);
        let service = context
            .service
            .map(|name| String::from_utf8_lossy(name).into_owned());
        (context.level, service)
    }

    #[test]
    fn what_the_loggers_of_the_large_languages_write() {
        use Severity::{Debug, Error, Fatal, Info, Warn};
        let known = [
            // pino, bunyan
            (json!({"level": 50, "name": "x", "msg": "m"}), Some(Error), None),
            // winston
            (
                json!({"level": "error", "service": "user-service"}),
                Some(Error),
                Some("user-service"),
            ),
            // ECS, literally and nested
            (
                json!({"log.level": "WARN", "service.name": "shop"}),
                Some(Warn),
                Some("shop"),
            ),
            (
                json!({"log": {"level": "warn"}, "service": {"name": "shop"}}),
                Some(Warn),
                Some("shop"),
            ),
            // Serilog's compact form
            (json!({"@l": "Fatal", "@mt": "x"}), Some(Fatal), None),
            // python-json-logger
            (
                json!({"levelname": "CRITICAL", "message": "m"}),
                Some(Fatal),
                None,
            ),
            // Monolog
            (
                json!({"level": 400, "level_name": "ERROR", "channel": "app"}),
                Some(Error),
                None,
            ),
            // GELF
            (json!({"short_message": "m", "level": 6}), Some(Info), None),
            // journald
            (
                json!({"PRIORITY": "4", "SYSLOG_IDENTIFIER": "sshd"}),
                Some(Warn),
                Some("sshd"),
            ),
            // Google Cloud
            (json!({"severity": "NOTICE"}), Some(Info), None),
            // OpenTelemetry, flattened
            (json!({"severity_number": 5}), Some(Debug), None),
            // Kubernetes
            (
                json!({"log": "text", "kubernetes": {"container_name": "web", "labels": {"app.kubernetes.io/name": "shop"}}}),
                None,
                Some("shop"),
            ),
            (
                json!({"log": "text", "kubernetes": {"container_name": "web"}}),
                None,
                Some("web"),
            ),
            // Docker
            (
                json!({"log": "text", "container_name": "/web-1"}),
                None,
                Some("web-1"),
            ),
            // What is unusable gives way.
            (json!({"level": null, "severity": "error"}), Some(Error), None),
            (json!({"level": "high", "lvl": "warn"}), Some(Warn), None),
            (
                json!({"service": {"id": 1}, "service_name": "", "app": "a"}),
                None,
                Some("a"),
            ),
            (json!({"service_name": "  ", "app": 5}), None, None),
            (json!({"message": "error"}), None, None),
        ];
        for (json, level, service) in known {
            assert_eq!(context(&json), (level, service.map(str::to_owned)), "{json}");
        }
    }

    #[test]
    fn of_equal_names_the_last_counts_also_if_it_is_unusable() {
        let view = RecordView::new(FieldNames::default());
        let read = |record: &[u8]| view.read(record).level;
        assert_eq!(
            read(b"\x82\xa5level\xa5error\xa5level\xa4info"),
            Some(Severity::Info)
        );
        assert_eq!(
            read(b"\x83\xa5level\xa5error\xa3lvl\xa4warn\xa5level\xc0"),
            Some(Severity::Warn)
        );
    }

    #[test]
    fn paths_are_found_however_the_dots_are_spread() {
        for value in [
            json!({"a.b.c": 1}),
            json!({"a": {"b.c": 1}}),
            json!({"a.b": {"c": 1}}),
            json!({"a": {"b": {"c": 1}}}),
            json!({"a": {"x": 2, "b": {"c": 1}}}),
        ] {
            assert_eq!(find_below(&record(&value), b"a.b.c"), Some(&[1][..]), "{value}");
        }
        for value in [
            json!({"a": {"b": 1}}),
            json!({"a": 1}),
            json!([1]),
            json!({"a": {"b": {"c.": 1}}}),
        ] {
            assert_eq!(find_below(&record(&value), b"a.b.c"), None, "{value}");
        }
        assert_eq!(find_below(&record(&json!({"": {"x": 1}})), b".x"), Some(&[1][..]));
    }
}
