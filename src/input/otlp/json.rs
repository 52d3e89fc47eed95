//! Log records in JSON: the same messages with the names and encodings of OTLP/JSON.
//!
//! The text is converted to MessagePack, which is then read in place: the parts of a message may
//! come in any order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forward_protocol::json::{RecordLimits, RecordsError, write_value};
use forward_protocol::msgpack::{
    Value, skip, write_array_len, write_bin, write_bool, write_f64, write_i64, write_map_len, write_nil,
    write_str,
};

use super::entry::{AnyValue, Attributes, Defect, EntryWriter, LogRecord, Resource, Scope, Taken, id};
use crate::input::http::{MessageBuilder, Problem};

/// Containers around a value of a record, and two for each level of such a value.
const OUTER_DEPTH: u32 = 16;

/// Appends the records of a request to a message of at most `limit` bytes.
pub(super) fn append(
    body: &[u8],
    message: &mut MessageBuilder,
    limit: usize,
    depth: u32,
) -> Result<Taken, Problem> {
    let mut tree = Vec::with_capacity(body.len());
    let limits = RecordLimits {
        bytes: limit,
        depth: 3 * depth + OUTER_DEPTH,
    };
    write_value(body, &mut tree, limits).map_err(|error| match error {
        RecordsError::TooLong { limit } => Problem::TooLarge {
            what: " as MessagePack",
            limit,
        },
        error => Problem::Malformed(error.to_string()),
    })?;
    let mut writer = EntryWriter::new(message, limit, depth);
    let root = Node { tree: &tree, at: 0 };
    let Some(resource_logs) = root.object("the body")?.get("resourceLogs") else {
        return Ok(writer.taken);
    };
    for (resource_id, resource_logs) in (0..).zip(resource_logs.array("resourceLogs")?) {
        let name = format!("resourceLogs[{resource_id}]");
        let fields = resource_logs.object(&name)?;
        let resource = resource_of(fields, &name)?;
        let Some(scope_logs) = fields.get("scopeLogs") else {
            continue;
        };
        for (scope_id, scope_logs) in (0..).zip(scope_logs.array(&format!("{name}.scopeLogs"))?) {
            let name = format!("{name}.scopeLogs[{scope_id}]");
            let fields = scope_logs.object(&name)?;
            let scope = scope_of(fields, &name)?;
            let records = fields.get("logRecords");
            let records = records
                .map(|records| records.array(&format!("{name}.logRecords")))
                .transpose()?;
            let mut records = records.into_iter().flatten().peekable();
            if records.peek().is_none() {
                continue;
            }
            writer.begin_group(resource_id, scope_id, &resource, &scope)?;
            for (number, record) in (0..).zip(records) {
                writer.record(&log_record(record, &name, number)?)?;
            }
            writer.end_group();
        }
    }
    Ok(writer.taken)
}

fn resource_of<'a>(fields: Object<'a>, name: &str) -> Result<Resource<'a, Pairs<'a>>, Problem> {
    let resource = fields.get("resource");
    let inner = resource
        .map(|resource| resource.object(&format!("{name}.resource")))
        .transpose()?;
    Ok(Resource {
        is_set: inner.is_some(),
        attributes: Pairs::of(inner, &format!("{name}.resource"))?,
        dropped_attributes: number(inner, "droppedAttributesCount", name)?,
        schema_url: text(Some(fields), "schemaUrl"),
    })
}

fn scope_of<'a>(fields: Object<'a>, name: &str) -> Result<Scope<'a, Pairs<'a>>, Problem> {
    let scope = fields.get("scope");
    let inner = scope
        .map(|scope| scope.object(&format!("{name}.scope")))
        .transpose()?;
    Ok(Scope {
        name: text(inner, "name"),
        version: text(inner, "version"),
        attributes: Pairs::of(inner, &format!("{name}.scope"))?,
        dropped_attributes: number(inner, "droppedAttributesCount", name)?,
        schema_url: text(Some(fields), "schemaUrl"),
    })
}

fn log_record<'a>(
    record: Node<'a>,
    scope: &str,
    number_in_scope: u64,
) -> Result<LogRecord<'a, Pairs<'a>, Any<'a>>, Problem> {
    let name = || format!("{scope}.logRecords[{number_in_scope}]");
    let fields = record.object_or(name)?;
    let mut found = LogRecord {
        time: 0,
        observed_time: 0,
        severity_number: 0,
        severity_text: &[],
        body: None,
        attributes: Pairs::default(),
        dropped_attributes: 0,
        flags: 0,
        trace_id: None,
        span_id: None,
        event_name: &[],
    };
    for (key, node) in fields.pairs() {
        let number = || node.number().ok_or_else(|| wrong(&name(), key, "a whole number"));
        match key {
            b"timeUnixNano" => found.time = number()?,
            b"observedTimeUnixNano" => found.observed_time = number()?,
            b"severityNumber" => {
                let named = node.text().and_then(severity_named);
                found.severity_number = named.map_or_else(number, Ok)?;
            }
            b"severityText" => found.severity_text = node.text().unwrap_or_default(),
            b"body" if node.is_null() => {}
            b"body" => {
                node.object_or(|| format!("{}.body", name()))?;
                found.body = Some(Any(node));
            }
            b"attributes" if node.is_null() => {}
            b"attributes" => found.attributes = Pairs::new(node, name)?,
            b"droppedAttributesCount" => found.dropped_attributes = number()?,
            b"flags" => found.flags = number()?,
            b"traceId" => found.trace_id = hex(node.text().unwrap_or_default()),
            b"spanId" => found.span_id = hex(node.text().unwrap_or_default()),
            b"eventName" => found.event_name = node.text().unwrap_or_default(),
            _ => {}
        }
    }
    Ok(found)
}

fn wrong(name: &str, key: &[u8], expected: &str) -> Problem {
    let key = String::from_utf8_lossy(key);
    Problem::Malformed(format!("{name}.{key} is not {expected}"))
}

fn number(fields: Option<Object<'_>>, key: &str, name: &str) -> Result<u64, Problem> {
    let node = fields.and_then(|fields| fields.get(key));
    let number = node.map(|node| {
        node.number()
            .ok_or_else(|| wrong(name, key.as_bytes(), "a whole number"))
    });
    Ok(number.transpose()?.unwrap_or(0))
}

fn text<'a>(fields: Option<Object<'a>>, key: &str) -> &'a [u8] {
    let node = fields.and_then(|fields| fields.get(key));
    node.and_then(Node::text).unwrap_or_default()
}

/// The number of a severity that is written as its name in protobuf, `SEVERITY_NUMBER_WARN2`, which
/// JSON allows for values of an enumeration.
fn severity_named(name: &[u8]) -> Option<u64> {
    let name = name.strip_prefix(b"SEVERITY_NUMBER_")?;
    if name == b"UNSPECIFIED" {
        return Some(0);
    }
    let (level, step) = match name {
        [level @ .., digit @ b'2'..=b'4'] => (level, u64::from(digit - b'1')),
        level => (level, 0),
    };
    let levels = [&b"TRACE"[..], b"DEBUG", b"INFO", b"WARN", b"ERROR", b"FATAL"];
    let level = (0..).zip(levels).find(|(_, known)| *known == level);
    level.map(|(level, _)| 4 * level + 1 + step)
}

/// An id in hexadecimal digits, which is not all zeros.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = Vec::with_capacity(N);
    for pair in digits.chunks(2) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
        if bytes.len() > N {
            return None;
        }
    }
    id(&bytes)
}

/// A value of the converted text.
#[derive(Clone, Copy)]
struct Node<'a> {
    tree: &'a [u8],
    at: usize,
}

/// An object, and where its pairs begin.
#[derive(Clone, Copy)]
struct Object<'a> {
    tree: &'a [u8],
    pairs: u32,
    at: usize,
}

impl<'a> Node<'a> {
    fn value(self) -> Value<'a> {
        Value::read(self.tree, self.at).map_or(Value::Nil, |(value, _)| value)
    }

    /// Where the first child, or the next value begins.
    fn inside(self) -> usize {
        Value::read(self.tree, self.at).map_or(self.tree.len(), |(_, next)| next)
    }

    fn is_null(self) -> bool {
        self.value() == Value::Nil
    }

    fn object(self, name: &str) -> Result<Object<'a>, Problem> {
        self.object_or(|| name.to_owned())
    }

    fn object_or(self, name: impl FnOnce() -> String) -> Result<Object<'a>, Problem> {
        match self.value() {
            Value::Map(pairs) => Ok(Object {
                tree: self.tree,
                pairs,
                at: self.inside(),
            }),
            _ => Err(Problem::Malformed(format!("{} is not an object", name()))),
        }
    }

    fn array(self, name: &str) -> Result<impl Iterator<Item = Node<'a>> + use<'a>, Problem> {
        match self.value() {
            Value::Array(length) => Ok(children(self.tree, self.inside(), length)),
            _ => Err(Problem::Malformed(format!("{name} is not an array"))),
        }
    }

    fn text(self) -> Option<&'a [u8]> {
        match self.value() {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, which JSON may write as a string.
    fn number(self) -> Option<u64> {
        match self.value() {
            Value::U64(n) => Some(n),
            Value::Nil => Some(0),
            Value::Str(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Value::F64(x) if x >= 0.0 && x.fract() == 0.0 && x < 1e19 => Some(x as u64),
            _ => None,
        }
    }
}

/// The consecutive values from `at` on.
fn children(tree: &[u8], mut at: usize, length: u32) -> impl Iterator<Item = Node<'_>> {
    (0..length).map_while(move |_| {
        let node = Node { tree, at };
        at = skip(tree, at, u32::MAX).ok()?;
        Some(node)
    })
}

impl<'a> Object<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'a [u8], Node<'a>)> {
        let mut nodes = children(self.tree, self.at, self.pairs.saturating_mul(2));
        std::iter::from_fn(move || Some((nodes.next()?.text()?, nodes.next()?)))
    }

    /// The value of a key; null is none.
    fn get(self, key: &str) -> Option<Node<'a>> {
        let found = self.pairs().find(|(name, _)| *name == key.as_bytes());
        found.map(|(_, node)| node).filter(|node| !node.is_null())
    }
}

/// An array of objects with `key` and `value`.
#[derive(Clone, Copy, Default)]
struct Pairs<'a> {
    tree: &'a [u8],
    at: usize,
    length: u32,
}

impl<'a> Pairs<'a> {
    fn of(fields: Option<Object<'a>>, name: &str) -> Result<Self, Problem> {
        match fields.and_then(|fields| fields.get("attributes")) {
            Some(node) => Self::new(node, || name.to_owned()),
            None => Ok(Self::default()),
        }
    }

    fn new(node: Node<'a>, name: impl FnOnce() -> String) -> Result<Self, Problem> {
        match node.value() {
            Value::Array(length) => Ok(Self {
                tree: node.tree,
                at: node.inside(),
                length,
            }),
            _ => Err(Problem::Malformed(format!(
                "{}.attributes is not an array",
                name()
            ))),
        }
    }
}

fn malformed(what: &str) -> Defect {
    Defect::Problem(Problem::Malformed(what.to_owned()))
}

impl Attributes for Pairs<'_> {
    fn count(self) -> Result<u32, Defect> {
        Ok(self.length)
    }

    fn write(self, out: &mut Vec<u8>, depth: u32) -> Result<(), Defect> {
        write_map_len(out, self.length);
        for pair in children(self.tree, self.at, self.length) {
            let pair = pair.object("an attribute").map_err(Defect::Problem)?;
            let key = pair.get("key").and_then(Node::text);
            write_str(out, key.ok_or_else(|| malformed("an attribute has no key"))?);
            match pair.get("value") {
                Some(value) => Any(value).write(out, depth)?,
                None => write_nil(out),
            }
        }
        Ok(())
    }
}

/// An object with one of `stringValue`, `intValue` and so on.
#[derive(Clone, Copy)]
struct Any<'a>(Node<'a>);

impl<'a> Any<'a> {
    /// The value that is set: of several the last.
    fn field(self) -> Result<Option<(&'a [u8], Node<'a>)>, Defect> {
        let fields = self.0.object("a value").map_err(Defect::Problem)?;
        let set = fields
            .pairs()
            .filter(|(key, node)| key.ends_with(b"Value") && !node.is_null());
        Ok(set.last())
    }
}

impl AnyValue for Any<'_> {
    fn is_map(self) -> Result<bool, Defect> {
        Ok(matches!(self.field()?, Some((b"kvlistValue", _))))
    }

    fn write(self, out: &mut Vec<u8>, depth: u32) -> Result<(), Defect> {
        let Some((key, node)) = self.field()? else {
            write_nil(out);
            return Ok(());
        };
        let wrong = |expected: &str| {
            let key = String::from_utf8_lossy(key);
            Defect::Problem(Problem::Malformed(format!("a {key} is not {expected}")))
        };
        match (key, node.value()) {
            (b"stringValue", Value::Str(text)) => write_str(out, text),
            (b"stringValue", _) => return Err(wrong("a string")),
            (b"boolValue", Value::Bool(value)) => write_bool(out, value),
            (b"boolValue", _) => return Err(wrong("true or false")),
            (b"intValue", value) => write_i64(out, integer(value).ok_or_else(|| wrong("a whole number"))?),
            (b"doubleValue", value) => write_f64(out, float(value).ok_or_else(|| wrong("a number"))?),
            (b"bytesValue", Value::Str(text)) => {
                write_bin(out, &STANDARD.decode(text).map_err(|_| wrong("base64"))?);
            }
            (b"arrayValue", Value::Map(_)) => {
                let depth = depth.checked_sub(1).ok_or(Defect::TooDeep)?;
                let values = node
                    .object("an arrayValue")
                    .map_err(Defect::Problem)?
                    .get("values");
                match values.map(Node::value) {
                    None => write_array_len(out, 0),
                    Some(Value::Array(length)) => {
                        write_array_len(out, length);
                        let inside = values.map_or(0, Node::inside);
                        for value in children(node.tree, inside, length) {
                            Any(value).write(out, depth)?;
                        }
                    }
                    Some(_) => return Err(wrong("an array of values")),
                }
            }
            (b"kvlistValue", Value::Map(_)) => {
                let depth = depth.checked_sub(1).ok_or(Defect::TooDeep)?;
                let values = node
                    .object("a kvlistValue")
                    .map_err(Defect::Problem)?
                    .get("values");
                let pairs = match values {
                    Some(values) => Pairs::new(values, || "a kvlistValue".into())
                        .map_err(|_| wrong("a list of keys and values"))?,
                    None => Pairs::default(),
                };
                pairs.write(out, depth)?;
            }
            (b"bytesValue" | b"arrayValue" | b"kvlistValue", _) => return Err(wrong("of its type")),
            _ => write_nil(out),
        }
        Ok(())
    }
}

fn integer(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Str(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::F64(x) if x.fract() == 0.0 && x.abs() < 9e18 => Some(x as i64),
        value => value.as_i64(),
    }
}

fn float(value: Value<'_>) -> Option<f64> {
    match value {
        Value::F64(x) => Some(x),
        Value::U64(n) => Some(n as f64),
        Value::I64(n) => Some(n as f64),
        // NaN, Infinity and -Infinity, as protobuf's JSON has them.
        Value::Str(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_have_names() {
        for (name, number) in [
            ("UNSPECIFIED", Some(0)),
            ("TRACE", Some(1)),
            ("DEBUG4", Some(8)),
            ("INFO", Some(9)),
            ("WARN2", Some(14)),
            ("FATAL4", Some(24)),
            ("FATAL5", None),
            ("INFO1", None),
            ("", None),
        ] {
            let full = format!("SEVERITY_NUMBER_{name}");
            assert_eq!(severity_named(full.as_bytes()), number, "{name}");
        }
        assert_eq!(severity_named(b"INFO"), None);
    }
}
