//! Settings of gathering, derived from the configuration.

use std::time::Duration;

use forward_protocol::frame::Limits as FrameLimits;
use windrow_trace::FieldNames;

use crate::config::{Config, Rule, TraceConfig};
use crate::input::forward;
use crate::memory::{MemoryShares, to_usize};

/// Settings of the gathering thread.
pub(crate) struct Settings {
    pub(crate) names: FieldNames,
    pub(crate) complete: Vec<Rule>,
    pub(crate) table: windrow_trace::Limits,
    pub(crate) frame: FrameLimits,
    /// Chunks in the duplicate window.
    pub(crate) duplicate_window: usize,
    /// Put before every tag.
    pub(crate) tag_prefix: String,
    /// Bytes of documents that may be in flight to the outputs.
    pub(crate) output_budget_bytes: usize,
    /// Write open traces at shutdown instead of keeping them in the journal.
    pub(crate) flush_on_exit: bool,
}

impl Settings {
    /// Derives the settings from `config`.
    pub(crate) fn from_config(config: &Config) -> Self {
        let shares = MemoryShares::of(config.memory_limit);
        let TraceConfig {
            complete,
            linger,
            idle_timeout,
            max_age,
            max_traces,
            max_trace_bytes,
            ..
        } = &config.trace;
        Self {
            names: field_names(&config.trace),
            complete: complete.clone(),
            table: windrow_trace::Limits {
                linger: micros(*linger),
                idle_timeout: micros(*idle_timeout),
                max_age: micros(*max_age),
                max_traces: to_usize(*max_traces),
                max_bytes: shares.open_traces,
                max_trace_bytes: to_usize(*max_trace_bytes),
            },
            frame: forward::frame_limits(&config.forward),
            duplicate_window: to_usize(config.duplicate_window),
            tag_prefix: config.forward.tag_prefix.clone(),
            output_budget_bytes: shares.outputs,
            flush_on_exit: config.flush_on_exit,
        }
    }
}

/// The names of fields in the configuration.
pub(super) fn field_names(config: &TraceConfig) -> FieldNames {
    FieldNames {
        keys: config.keys.clone(),
        text: config.text.clone(),
        level: config.level.clone(),
        service: config.service.clone(),
    }
}

/// Longest entry of a compressed payload that is walked, in bytes: a record with metadata of at
/// most `max_trace_bytes`, and its time.
pub(super) fn max_entry_bytes(max_trace_bytes: usize) -> usize {
    max_trace_bytes.saturating_add(1 << 10)
}

/// Records of a compressed message of `bytes` bytes that are gathered. Deflate makes at most 1032
/// bytes out of one, so a message in which records have 129 bytes on average never reaches it.
pub(super) fn max_records(bytes: usize) -> u64 {
    const ALWAYS_ALLOWED: u64 = 100_000;
    const RECORDS_PER_BYTE: u64 = 8;
    (bytes as u64)
        .saturating_mul(RECORDS_PER_BYTE)
        .saturating_add(ALWAYS_ALLOWED)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
