//! Entries of a Forward message from log records: the form of Fluent Bit's `in_opentelemetry`.
//!
//! Each scope of each resource is a group: a header entry with both, its records, an end entry. What
//! a record has besides its body is its metadata under `otlp`.
//!
//! Unlike Fluent Bit: integers keep their 64 bits, and ids that are empty, all zeros or of another
//! length are left out, as the protocol says.

use forward_protocol::encode::write_time;
use forward_protocol::msgpack::{
    write_array_len, write_bin, write_event_time, write_map_len, write_nil, write_str, write_u64,
};

use crate::input::http::{MessageBuilder, Problem};

/// Seconds of the times that mark the beginning and the end of a group.
const GROUP_START: u32 = 0xffff_ffff;
const GROUP_END: u32 = 0xffff_fffe;
/// Containers around an attribute or a body in an entry.
const OUTER_DEPTH: u32 = 4;

/// What a request gave.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: u64,
    /// Records that can never be taken, and why the last one.
    pub(super) rejected: u64,
    pub(super) reason: Option<String>,
    /// A record has a time that is more exact than a millisecond.
    pub(super) has_exact_time: bool,
}

/// Why a value cannot be written.
#[derive(Debug)]
pub(super) enum Defect {
    /// Only this record is affected.
    TooDeep,
    /// The request cannot be read.
    Problem(Problem),
}

/// A value of any type, in one of the encodings.
pub(super) trait AnyValue: Copy {
    /// Whether it is a list of keys and values.
    fn is_map(self) -> Result<bool, Defect>;
    /// Appends it, nested at most `depth` deep.
    fn write(self, out: &mut Vec<u8>, depth: u32) -> Result<(), Defect>;
}

/// Keys and values, in one of the encodings.
pub(super) trait Attributes: Copy {
    /// How many there are.
    fn count(self) -> Result<u32, Defect>;
    /// Appends them as a map, whose values are nested at most `depth` deep.
    fn write(self, out: &mut Vec<u8>, depth: u32) -> Result<(), Defect>;
}

/// What sends the records.
pub(super) struct Resource<'a, A> {
    pub(super) is_set: bool,
    pub(super) attributes: A,
    pub(super) dropped_attributes: u64,
    pub(super) schema_url: &'a [u8],
}

/// The library that wrote the records.
pub(super) struct Scope<'a, A> {
    pub(super) name: &'a [u8],
    pub(super) version: &'a [u8],
    pub(super) attributes: A,
    pub(super) dropped_attributes: u64,
    pub(super) schema_url: &'a [u8],
}

/// A log record.
pub(super) struct LogRecord<'a, A, V> {
    /// Times in nanoseconds since 1970; 0: not known.
    pub(super) time: u64,
    pub(super) observed_time: u64,
    pub(super) severity_number: u64,
    pub(super) severity_text: &'a [u8],
    pub(super) body: Option<V>,
    pub(super) attributes: A,
    pub(super) dropped_attributes: u64,
    pub(super) flags: u64,
    pub(super) trace_id: Option<[u8; 16]>,
    pub(super) span_id: Option<[u8; 8]>,
    pub(super) event_name: &'a [u8],
}

/// An id of this length that is not all zeros.
pub(super) fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|id| *id != [0; N])
}

/// Appends groups and records to a message.
pub(super) struct EntryWriter<'m> {
    message: &'m mut MessageBuilder,
    limit: usize,
    /// Deepest nesting of a value.
    depth: u32,
    pub(super) taken: Taken,
}

impl<'m> EntryWriter<'m> {
    /// For a message of at most `limit` bytes, whose records are nested at most `depth` deep.
    pub(super) fn new(message: &'m mut MessageBuilder, limit: usize, depth: u32) -> Self {
        Self {
            message,
            limit,
            depth: depth.saturating_sub(OUTER_DEPTH),
            taken: Taken::default(),
        }
    }

    pub(super) fn begin_group<A: Attributes>(
        &mut self,
        resource_id: u64,
        scope_id: u64,
        resource: &Resource<'_, A>,
        scope: &Scope<'_, A>,
    ) -> Result<(), Problem> {
        let (out, depth) = (&mut self.message.out, self.depth);
        write_array_len(out, 2);
        write_array_len(out, 2);
        write_event_time(out, GROUP_START, 0);
        write_map_len(out, 3);
        write_str(out, b"schema");
        write_str(out, b"otlp");
        put_number(out, "resource_id", resource_id);
        put_number(out, "scope_id", scope_id);
        let written = (|| {
            write_map_len(out, 2);
            write_str(out, b"resource");
            let mut map = MapWriter::begin(out);
            if resource.is_set {
                map.attributes(resource.attributes, depth)?;
                map.number("dropped_attributes_count", resource.dropped_attributes);
                map.pair();
                write_str(map.out, b"schema_url");
                write_str(map.out, resource.schema_url);
            }
            map.end();
            write_str(out, b"scope");
            let mut map = MapWriter::begin(out);
            map.text("schema_url", scope.schema_url);
            map.text("name", scope.name);
            map.text("version", scope.version);
            map.attributes(scope.attributes, depth)?;
            map.number("dropped_attributes_count", scope.dropped_attributes);
            map.end();
            Ok(())
        })();
        match written {
            Ok(()) => self.check_length(),
            Err(Defect::Problem(problem)) => Err(problem),
            Err(Defect::TooDeep) => Err(Problem::Malformed(format!(
                "an attribute of resource {resource_id} or its scope {scope_id} is nested deeper than {depth}"
            ))),
        }
    }

    pub(super) fn end_group(&mut self) {
        let out = &mut self.message.out;
        write_array_len(out, 2);
        write_array_len(out, 2);
        write_event_time(out, GROUP_END, 0);
        write_map_len(out, 0);
        write_map_len(out, 0);
    }

    pub(super) fn record<A: Attributes, V: AnyValue>(
        &mut self,
        record: &LogRecord<'_, A, V>,
    ) -> Result<(), Problem> {
        let begin = self.message.out.len();
        match write_record(&mut self.message.out, record, self.depth) {
            Ok(()) => {
                self.taken.records += 1;
                let is_exact = |time: u64| !time.is_multiple_of(1_000_000);
                self.taken.has_exact_time |= is_exact(record.time) || is_exact(record.observed_time);
            }
            Err(Defect::TooDeep) => {
                self.message.out.truncate(begin);
                self.taken.rejected += 1;
                let number = self.taken.records + self.taken.rejected;
                self.taken.reason = Some(format!("record {number} is nested deeper than {}", self.depth));
            }
            Err(Defect::Problem(problem)) => return Err(problem),
        }
        self.check_length()
    }

    fn check_length(&self) -> Result<(), Problem> {
        match self.message.out.len() > self.limit {
            true => Err(Problem::TooLarge {
                what: " as MessagePack",
                limit: self.limit,
            }),
            false => Ok(()),
        }
    }
}

fn write_record<A: Attributes, V: AnyValue>(
    out: &mut Vec<u8>,
    record: &LogRecord<'_, A, V>,
    depth: u32,
) -> Result<(), Defect> {
    write_array_len(out, 2);
    write_array_len(out, 2);
    let time = if record.time > 0 {
        record.time
    } else {
        record.observed_time
    };
    match i64::try_from(time) {
        // The time of arrival.
        Ok(0) => write_event_time(out, 0, 0),
        Ok(ns) => write_time(out, ns),
        // Impossible: it is counted, and the time of arrival is used.
        Err(_) => write_event_time(out, 1, u32::MAX),
    }
    write_map_len(out, 1);
    write_str(out, b"otlp");
    let mut map = MapWriter::begin(out);
    map.number("observed_timestamp", record.observed_time);
    map.number("timestamp", record.time);
    if (1..=24).contains(&record.severity_number) {
        map.number("severity_number", record.severity_number);
    }
    map.text("severity_text", record.severity_text);
    map.attributes(record.attributes, depth)?;
    map.number("dropped_attributes_count", record.dropped_attributes);
    map.id("trace_id", record.trace_id.as_ref().map(<[u8; 16]>::as_slice));
    map.id("span_id", record.span_id.as_ref().map(<[u8; 8]>::as_slice));
    map.pair();
    put_number(map.out, "trace_flags", record.flags & 0xff);
    map.text("event_name", record.event_name);
    map.end();
    match record.body {
        Some(body) if body.is_map()? => body.write(out, depth),
        body => {
            write_map_len(out, 1);
            write_str(out, b"log");
            match body {
                Some(body) => body.write(out, depth),
                None => {
                    write_nil(out);
                    Ok(())
                }
            }
        }
    }
}

fn put_number(out: &mut Vec<u8>, key: &str, number: u64) {
    write_str(out, key.as_bytes());
    write_u64(out, number);
}

/// A map of fewer than 16 pairs whose number is known at its end.
struct MapWriter<'o> {
    out: &'o mut Vec<u8>,
    header: usize,
    pairs: u8,
}

impl<'o> MapWriter<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Self {
        let header = out.len();
        out.push(0);
        Self {
            out,
            header,
            pairs: 0,
        }
    }

    /// Counts a pair that is appended to `out`.
    fn pair(&mut self) {
        self.pairs += 1;
    }

    fn number(&mut self, key: &str, number: u64) {
        if number > 0 {
            self.pair();
            put_number(self.out, key, number);
        }
    }

    fn text(&mut self, key: &str, text: &[u8]) {
        if !text.is_empty() {
            self.pair();
            write_str(self.out, key.as_bytes());
            write_str(self.out, text);
        }
    }

    fn id(&mut self, key: &str, id: Option<&[u8]>) {
        if let Some(id) = id {
            self.pair();
            write_str(self.out, key.as_bytes());
            write_bin(self.out, id);
        }
    }

    fn attributes(&mut self, attributes: impl Attributes, depth: u32) -> Result<(), Defect> {
        if attributes.count()? > 0 {
            self.pair();
            write_str(self.out, b"attributes");
            attributes.write(self.out, depth)?;
        }
        Ok(())
    }

    fn end(self) {
        debug_assert!(self.pairs < 16, "the header has one byte");
        if let Some(header) = self.out.get_mut(self.header) {
            *header = 0x80 | self.pairs;
        }
    }
}
