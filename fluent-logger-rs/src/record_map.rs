//! Map writer for the records of the `log` adapter, the `tracing` layer and the `tower` layer.
//!
//! Owns the rule for equal keys: of two pairs with the same key the first stays, and a field of the
//! application whose key is one of the logger's own is kept as `fields.` and its key.

use forward_protocol::msgpack::{write_f64, write_str, write_u64};
use std::time::Duration;

use crate::naming::{DurationUnit, Names};

/// Prefix of an application's field that has the name of one of the logger's own.
const RENAMED: &str = "fields.";

/// Writes a map whose length is known at the end.
pub(crate) struct RecordMap<'out, 'keys> {
    out: &'out mut Vec<u8>,
    header: usize,
    /// (key, whether it is renamed).
    keys: Vec<(&'keys str, bool)>,
    names: &'static Names,
    /// Key of the trace id.
    trace_key: &'keys str,
    /// Keys of the logger that the application cannot set.
    reserved: &'keys [&'static str],
}

#[cfg_attr(
    not(feature = "tracing"),
    allow(dead_code, reason = "the `log` adapter uses some")
)]
impl<'out, 'keys> RecordMap<'out, 'keys> {
    pub(crate) fn new(
        out: &'out mut Vec<u8>,
        names: &'static Names,
        trace_key: &'keys str,
        reserved: &'keys [&'static str],
    ) -> Self {
        let header = out.len();
        // map16, so that the length can be written at the end.
        out.extend_from_slice(&[0xde, 0, 0]);
        Self {
            out,
            header,
            keys: Vec::with_capacity(16),
            names,
            trace_key,
            reserved,
        }
    }

    /// A field of the logger.
    pub(crate) fn own(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.pair(key, false, write);
    }

    /// A text field of the logger.
    pub(crate) fn own_text(&mut self, key: &'static str, value: &str) {
        self.pair(key, false, |out| write_str(out, value.as_bytes()));
    }

    /// A number field of the logger.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn own_number(&mut self, key: &'static str, value: u64) {
        self.pair(key, false, |out| write_u64(out, value));
    }

    /// A duration in the unit of the naming.
    pub(crate) fn own_duration(&mut self, key: &'static str, duration: Duration) {
        let unit = self.names.duration_unit;
        self.pair(key, false, |out| match unit {
            DurationUnit::Nanoseconds => {
                write_u64(out, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
            }
            // Microseconds are precise enough, and the text of the number stays short.
            DurationUnit::Milliseconds => write_f64(out, duration.as_micros() as f64 / 1_000.0),
            DurationUnit::Seconds => write_f64(out, duration.as_micros() as f64 / 1_000_000.0),
        });
    }

    /// The trace id.
    pub(crate) fn trace_id(&mut self, id: &str) {
        self.pair(self.trace_key, false, |out| write_str(out, id.as_bytes()));
    }

    /// Whether the record has a trace id.
    pub(crate) fn has_trace_id(&self) -> bool {
        self.keys.contains(&(self.trace_key, false))
    }

    /// A field of the application. `message`, `traceId` and the like become the names of the
    /// naming.
    pub(crate) fn field(&mut self, key: &'keys str, value: &[u8]) {
        let write = |out: &mut Vec<u8>| out.extend_from_slice(value);
        if is_trace_id(key) {
            self.pair(self.trace_key, false, write);
        } else if key == "message" {
            self.pair(self.names.message, false, write);
        } else {
            let renamed = self.reserved.contains(&key);
            self.pair(key, renamed, write);
        }
    }

    fn pair(&mut self, key: &'keys str, renamed: bool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.keys.contains(&(key, renamed)) || self.keys.len() >= usize::from(u16::MAX) {
            return;
        }
        self.keys.push((key, renamed));
        if renamed {
            write_str(self.out, [RENAMED, key].concat().as_bytes());
        } else {
            write_str(self.out, key.as_bytes());
        }
        write(self.out);
    }

    pub(crate) fn finish(self) {
        let count = u16::try_from(self.keys.len()).unwrap_or(u16::MAX);
        if let Some(place) = self.out.get_mut(self.header + 1..self.header + 3) {
            place.copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// Names under which applications give a trace id.
pub(crate) fn is_trace_id(key: &str) -> bool {
    matches!(key, "traceId" | "trace_id" | "trace.id")
}
