//! Log records in protobuf: `ExportLogsServiceRequest` of opentelemetry-proto 1.x.

use forward_protocol::msgpack::{
    write_array_len, write_bin, write_bool, write_f64, write_i64, write_map_len, write_nil, write_str,
};

use super::entry::{AnyValue, Attributes, Defect, EntryWriter, LogRecord, Resource, Scope, Taken, id};
use super::wire::{Malformed, Message, Value};
use crate::input::http::{MessageBuilder, Problem};

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}

impl From<Malformed> for Defect {
    fn from(malformed: Malformed) -> Self {
        Self::Problem(malformed.into())
    }
}

/// Appends the records of a request to a message of at most `limit` bytes.
pub(super) fn append(
    body: &[u8],
    message: &mut MessageBuilder,
    limit: usize,
    depth: u32,
) -> Result<Taken, Problem> {
    let mut writer = EntryWriter::new(message, limit, depth);
    for (resource_id, resource_logs) in (0..).zip(Message::new(body).repeated(1)) {
        let resource_logs = resource_logs?;
        let resource = resource_of(resource_logs)?;
        for (scope_id, scope_logs) in (0..).zip(resource_logs.repeated(2)) {
            let scope_logs = scope_logs?;
            let scope = scope_of(scope_logs)?;
            let mut records = scope_logs.repeated(2).peekable();
            if records.peek().is_none() {
                continue;
            }
            writer.begin_group(resource_id, scope_id, &resource, &scope)?;
            for record in records {
                writer.record(&log_record(record?)?)?;
            }
            writer.end_group();
        }
    }
    Ok(writer.taken)
}

fn resource_of(resource_logs: Message<'_>) -> Result<Resource<'_, Pairs<'_>>, Malformed> {
    let mut resource = Resource {
        is_set: false,
        attributes: Pairs::default(),
        dropped_attributes: 0,
        schema_url: &[],
    };
    for field in resource_logs.fields() {
        match field? {
            (1, Value::Bytes(message)) => {
                resource.is_set = true;
                resource.attributes = Pairs { message, number: 1 };
                for field in message.fields() {
                    if let (2, value) = field? {
                        resource.dropped_attributes = value.number();
                    }
                }
            }
            (3, value) => resource.schema_url = value.message().bytes,
            _ => {}
        }
    }
    Ok(resource)
}

fn scope_of(scope_logs: Message<'_>) -> Result<Scope<'_, Pairs<'_>>, Malformed> {
    let mut scope = Scope {
        name: &[],
        version: &[],
        attributes: Pairs::default(),
        dropped_attributes: 0,
        schema_url: &[],
    };
    for field in scope_logs.fields() {
        match field? {
            (1, Value::Bytes(message)) => {
                scope.attributes = Pairs { message, number: 3 };
                for field in message.fields() {
                    match field? {
                        (1, name) => scope.name = name.message().bytes,
                        (2, version) => scope.version = version.message().bytes,
                        (4, value) => scope.dropped_attributes = value.number(),
                        _ => {}
                    }
                }
            }
            (3, value) => scope.schema_url = value.message().bytes,
            _ => {}
        }
    }
    Ok(scope)
}

fn log_record(message: Message<'_>) -> Result<LogRecord<'_, Pairs<'_>, Any<'_>>, Malformed> {
    let mut record = LogRecord {
        time: 0,
        observed_time: 0,
        severity_number: 0,
        severity_text: &[],
        body: None,
        attributes: Pairs { message, number: 6 },
        dropped_attributes: 0,
        flags: 0,
        trace_id: None,
        span_id: None,
        event_name: &[],
    };
    for field in message.fields() {
        match field? {
            (1, value) => record.time = value.number(),
            (2, value) => record.severity_number = value.number(),
            (3, value) => record.severity_text = value.message().bytes,
            (5, Value::Bytes(value)) => record.body = Some(Any(value)),
            (7, value) => record.dropped_attributes = value.number(),
            (8, value) => record.flags = value.number(),
            (9, value) => record.trace_id = id(value.message().bytes),
            (10, value) => record.span_id = id(value.message().bytes),
            (11, value) => record.observed_time = value.number(),
            (12, value) => record.event_name = value.message().bytes,
            _ => {}
        }
    }
    Ok(record)
}

/// A repeated field of `KeyValue`.
#[derive(Clone, Copy, Default)]
struct Pairs<'a> {
    message: Message<'a>,
    /// The number of the field.
    number: u32,
}

impl Attributes for Pairs<'_> {
    fn count(self) -> Result<u32, Defect> {
        let mut count = 0;
        for pair in self.message.repeated(self.number) {
            pair?;
            count += 1;
        }
        Ok(count)
    }

    fn write(self, out: &mut Vec<u8>, depth: u32) -> Result<(), Defect> {
        write_map_len(out, self.count()?);
        for pair in self.message.repeated(self.number) {
            let (mut key, mut value) = (&[][..], None);
            for field in pair?.fields() {
                match field? {
                    (1, text) => key = text.message().bytes,
                    (2, Value::Bytes(message)) => value = Some(Any(message)),
                    _ => {}
                }
            }
            write_str(out, key);
            match value {
                Some(value) => value.write(out, depth)?,
                None => write_nil(out),
            }
        }
        Ok(())
    }
}

/// An `AnyValue`.
#[derive(Clone, Copy)]
struct Any<'a>(Message<'a>);

impl<'a> Any<'a> {
    /// The value that is set: of several the last.
    fn field(self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        let mut set = None;
        for field in self.0.fields() {
            let field = field?;
            if (1..=7).contains(&field.0) {
                set = Some(field);
            }
        }
        Ok(set)
    }
}

impl AnyValue for Any<'_> {
    fn is_map(self) -> Result<bool, Defect> {
        Ok(matches!(self.field()?, Some((6, _))))
    }

    fn write(self, out: &mut Vec<u8>, depth: u32) -> Result<(), Defect> {
        match self.field()? {
            Some((1, text)) => write_str(out, text.message().bytes),
            Some((2, value)) => write_bool(out, value.number() != 0),
            Some((3, value)) => write_i64(out, value.number().cast_signed()),
            Some((4, value)) => write_f64(out, f64::from_bits(value.number())),
            Some((5, array)) => {
                let depth = depth.checked_sub(1).ok_or(Defect::TooDeep)?;
                let values = array.message().repeated(1);
                write_array_len(
                    out,
                    Pairs {
                        message: array.message(),
                        number: 1,
                    }
                    .count()?,
                );
                for value in values {
                    Any(value?).write(out, depth)?;
                }
            }
            Some((6, list)) => {
                let depth = depth.checked_sub(1).ok_or(Defect::TooDeep)?;
                let message = list.message();
                Pairs { message, number: 1 }.write(out, depth)?;
            }
            Some((7, bytes)) => write_bin(out, bytes.message().bytes),
            _ => write_nil(out),
        }
        Ok(())
    }
}
