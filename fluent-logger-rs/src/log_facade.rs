//! Adapter for the `log` facade (feature `log`).
//!
//! Owns the shape of its records: level, target, message, file and line where known, and the
//! key-values of the record.

use std::fmt::Write as _;

use forward_protocol::msgpack::{write_bool, write_f64, write_i64, write_nil, write_str, write_u64};
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use crate::logger::Logger;
use crate::record::{write_i128, write_u128};
use crate::record_map::RecordMap;
use crate::suppression::is_suppressed;

/// Sends the records of the `log` facade. A record that is refused is counted in
/// [`Stats::rejected`](crate::Stats::rejected).
///
/// A record has `level`, `target`, `message`, `file`, `line` and the key-values of the call;
/// numbers and booleans keep their type. A key-value `traceId`, `trace_id` or `trace.id` is the
/// trace id, by which Windrow gathers the lines of one trace into one document. A key-value named
/// `level`, `target`, `file` or `line` is kept as `fields.level` and so on.
/// [`Naming`](crate::Naming) changes the names.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let logger = fluent_logger::Logger::builder().address("127.0.0.1:24224").build()?;
/// let _guard = logger.guard(std::time::Duration::from_secs(5));
/// fluent_logger::FluentLog::new(logger, "app").init()?;
/// log::info!(traceId = "4bf92f35", items = 3; "cart shown");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FluentLog {
    logger: Logger,
    tag: String,
    max_level: LevelFilter,
}

impl FluentLog {
    /// Logs with this tag, up to level `Info`.
    pub fn new(logger: Logger, tag: impl Into<String>) -> Self {
        Self {
            logger,
            tag: tag.into(),
            max_level: LevelFilter::Info,
        }
    }

    /// Leaves out records that are less severe than this. Default: `Info`.
    #[must_use]
    pub fn max_level(mut self, level: LevelFilter) -> Self {
        self.max_level = level;
        self
    }

    /// Makes this the logger of the process.
    ///
    /// # Errors
    /// When the process has a logger already.
    pub fn init(self) -> Result<(), SetLoggerError> {
        let level = self.max_level;
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(level);
        Ok(())
    }
}

impl Log for FluentLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.max_level && !is_suppressed()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let settings = self.logger.settings();
        let names = settings.naming.names();
        let mut fields = KeyValues::default();
        // The visitor never returns an error.
        let _ = record.key_values().visit(&mut fields);
        let reserved = [names.level, names.severity, names.target, names.file, names.line];
        self.logger.log_written(&self.tag, |out| {
            let mut map = RecordMap::new(out, names, names.trace_id, &reserved);
            map.own_text(names.level, record.level().as_str());
            if settings.numeric_severity {
                map.own_number(names.severity, names.severities[severity_index(record.level())]);
            }
            map.own_text(names.target, record.target());
            match record.args().as_str() {
                Some(text) => map.own_text(names.message, text),
                None => map.own_text(names.message, &record.args().to_string()),
            }
            if let Some((file, line)) = record.file().zip(record.line()) {
                map.own_text(names.file, file);
                map.own_number(names.line, u64::from(line));
            }
            for (key, value) in &fields.pairs {
                map.field(key, value);
            }
            map.finish();
        });
    }

    /// Makes everything queued due at once; does not wait.
    fn flush(&self) {
        self.logger.flush_soon();
    }
}

fn severity_index(level: Level) -> usize {
    match level {
        Level::Trace => 0,
        Level::Debug => 1,
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
    }
}

/// The key-values of a record, values encoded.
#[derive(Default)]
struct KeyValues {
    pairs: Vec<(String, Vec<u8>)>,
}

impl<'kvs> VisitSource<'kvs> for KeyValues {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut encoded = Vec::new();
        value.visit(EncodeValue(&mut encoded))?;
        let key = match key.as_str() {
            // The text of the line is the message; a key-value of this name is another thing.
            "message" => "fields.message",
            key => key,
        };
        self.pairs.push((key.to_owned(), encoded));
        Ok(())
    }
}

/// Encodes a value with its type; a type that `log` does not know is written as its text.
struct EncodeValue<'a>(&'a mut Vec<u8>);

impl<'v> VisitValue<'v> for EncodeValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        let mut text = String::new();
        // Writing to a String does not fail, unless the value's own Display does.
        let _ = write!(text, "{value}");
        write_str(self.0, text.as_bytes());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        write_nil(self.0);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        write_u64(self.0, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        write_i64(self.0, value);
        Ok(())
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), Error> {
        write_u128(self.0, value);
        Ok(())
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), Error> {
        write_i128(self.0, value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        write_f64(self.0, value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        write_bool(self.0, value);
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        write_str(self.0, value.as_bytes());
        Ok(())
    }
}
