//! Schemas: under which names a document has what Windrow knows of its trace.
//!
//! Owns the names of ECS and of OpenTelemetry, and what becomes of a record's own fields of these
//! names. The `windrow` object is the same in every schema.

use super::json::{write_string, write_unsigned};
use crate::record::severity::Severity;

/// The version of ECS that the names are from.
const ECS_VERSION: &str = "8.17.0";

/// The names in documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DocumentSchema {
    /// The names of the records.
    #[default]
    Plain = 0,
    /// Elastic Common Schema: `trace.id`, `message`, `log.level`, `service.name`, `event.duration`,
    /// `event.outcome`, `ecs.version`.
    Ecs = 1,
    /// OpenTelemetry: `trace_id`, `body`, `severity_text`, `severity_number`, `service.name`.
    Otel = 2,
}

/// What becomes of a record's field of a name that the schema uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It is a field of the document.
    Keep,
    /// The document says the same under this name.
    Drop,
    /// A `_` is appended to its name.
    Rename,
}

/// What a schema says of a trace besides its id and text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Derived<'a, S> {
    pub(crate) level: Option<Severity>,
    pub(crate) services: &'a [S],
    /// Ns from the first to the last event; `None` for a record without a trace id.
    pub(crate) duration: Option<u64>,
}

impl DocumentSchema {
    /// All schemas, in the order of their numbers in `windrow.state`.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Ecs, Self::Otel];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Ecs => "ecs",
            Self::Otel => "otel",
        }
    }

    /// The name of the trace id, unless it is configured.
    pub(crate) fn key(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Ecs => Some("trace.id"),
            Self::Otel => Some("trace_id"),
        }
    }

    /// The name of the text, unless it is that of the records.
    #[must_use]
    pub fn text(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Ecs => Some("message"),
            Self::Otel => Some("body"),
        }
    }

    /// Whether what becomes of a record's field of this name depends on the rest of the trace, or is
    /// not told by its name. Such records have no shape.
    pub(crate) fn is_irregular(self, name: &[u8]) -> bool {
        self.placement(name, true, true) != Placement::Keep
    }

    /// What becomes of a record's field. `has_level`, `has_services`: whether the document has them.
    pub(crate) fn placement(self, name: &[u8], has_level: bool, has_services: bool) -> Placement {
        let drop_if = |known| if known { Placement::Drop } else { Placement::Keep };
        match (self, name) {
            (Self::Plain, _) => Placement::Keep,
            (_, b"service.name") => drop_if(has_services),
            (Self::Ecs, b"log.level") => drop_if(has_level),
            (Self::Ecs, b"ecs.version") => Placement::Drop,
            (Self::Ecs, b"trace.id" | b"message" | b"event.duration" | b"event.outcome") => Placement::Rename,
            (Self::Otel, b"severity_text" | b"severity_number") => drop_if(has_level),
            (Self::Otel, b"trace_id" | b"body") => Placement::Rename,
            _ => Placement::Keep,
        }
    }

    /// Names that documents may have from the schema.
    pub(crate) fn derived_names(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Ecs => &[
                "log.level",
                "service.name",
                "event.duration",
                "event.outcome",
                "ecs.version",
            ],
            Self::Otel => &["severity_text", "severity_number", "service.name"],
        }
    }

    /// Whether the document has this name from the schema and not from a record.
    pub(crate) fn is_derived(self, name: &str, has_level: bool, has_services: bool) -> bool {
        match (self, name) {
            (Self::Plain, _) => false,
            (_, "service.name") => has_services,
            (Self::Ecs, "log.level") | (Self::Otel, "severity_text" | "severity_number") => has_level,
            (Self::Ecs, "ecs.version" | "event.duration" | "event.outcome") => true,
            _ => false,
        }
    }

    /// Appends the fields that follow from the trace, each with a comma before it.
    pub(crate) fn write_derived<S: AsRef<str>>(self, out: &mut Vec<u8>, derived: &Derived<'_, S>) {
        if self == Self::Plain {
            return;
        }
        if let Some(level) = derived.level {
            match self {
                Self::Otel => {
                    out.extend_from_slice(b",\"severity_text\":\"");
                    out.extend_from_slice(level.as_str().to_ascii_uppercase().as_bytes());
                    // The first number of each range: 1, 5, 9, 13, 17, 21.
                    out.extend_from_slice(b"\",\"severity_number\":");
                    write_unsigned(out, u64::from(level as u8) * 4 - 3);
                }
                _ => {
                    out.extend_from_slice(b",\"log.level\":\"");
                    out.extend_from_slice(level.as_str().as_bytes());
                    out.push(b'"');
                }
            }
        }
        match derived.services {
            [] => {}
            [one] => {
                out.extend_from_slice(b",\"service.name\":");
                write_string(out, one.as_ref().as_bytes());
            }
            several => {
                out.extend_from_slice(b",\"service.name\":");
                write_names(out, several);
            }
        }
        if self == Self::Ecs {
            if let Some(duration) = derived.duration {
                out.extend_from_slice(b",\"event.duration\":");
                write_unsigned(out, duration);
            }
            let outcome = match derived.level {
                None => "unknown",
                Some(level) if level >= Severity::Error => "failure",
                Some(_) => "success",
            };
            out.extend_from_slice(b",\"event.outcome\":\"");
            out.extend_from_slice(outcome.as_bytes());
            out.extend_from_slice(b"\",\"ecs.version\":\"");
            out.extend_from_slice(ECS_VERSION.as_bytes());
            out.push(b'"');
        }
    }
}

/// Appends an array of strings.
pub(crate) fn write_names<S: AsRef<str>>(out: &mut Vec<u8>, names: &[S]) {
    out.push(b'[');
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(out, name.as_ref().as_bytes());
    }
    out.push(b']');
}
