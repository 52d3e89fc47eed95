//! Fields of spans and events, encoded.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::ops::Range;

use forward_protocol::msgpack::{write_bool, write_f64, write_i64, write_str, write_u64};
use tracing_core::field::{Field, Visit};

use crate::record::{write_i128, write_u128};
use crate::record_map::is_trace_id;

/// The fields of a span or of an event.
#[derive(Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    values: Vec<(&'static str, Range<usize>)>,
    /// Target of a record of the `log` facade, from `tracing-log`.
    pub(super) log_target: Option<String>,
    text: String,
}

impl Fields {
    fn add(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let range = start..self.bytes.len();
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            // Recorded again: the last value counts.
            Some((_, old)) => *old = range,
            None => self.values.push((name, range)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.values
            .iter()
            .map(|(name, range)| (*name, self.bytes.get(range.clone()).unwrap_or_default()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    pub(super) fn has_trace_id(&self) -> bool {
        self.values.iter().any(|(name, _)| is_trace_id(name))
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, |out| write_f64(out, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |out| write_i64(out, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |out| write_u64(out, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.add(field, |out| write_i128(out, value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(field, |out| write_u128(out, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |out| write_bool(out, value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.log_target = Some(value.to_owned()),
            "log.module_path" | "log.file" => {}
            _ => self.add(field, |out| write_str(out, value.as_bytes())),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            // Writing to a String does not fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.add(field, |out| write_str(out, text.as_bytes()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let _ = write!(text, "{value:?}");
        self.add(field, |out| write_str(out, text.as_bytes()));
        self.text = text;
    }
}
