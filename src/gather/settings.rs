//! Settings of gathering, taken from the configuration.

use std::time::Duration;

use forward_protocol::frame::Limits as FrameLimits;
use windrow_trace::FieldNames;

use crate::config::{Config, Rule, TraceConfig};
use crate::input::forward;
use crate::memory::{MemoryShares, to_usize};

/// What gathering needs to know.
pub(crate) struct Settings {
    pub(crate) names: FieldNames,
    pub(crate) complete: Vec<Rule>,
    pub(crate) table: windrow_trace::Limits,
    pub(crate) frame: FrameLimits,
    /// Chunk ids that are remembered to tell repeated ones.
    pub(crate) window: usize,
    /// Put before every tag.
    pub(crate) tag_prefix: String,
    /// Bytes of documents that may wait for outputs.
    pub(crate) output_budget: usize,
    /// Write what is open at the end.
    pub(crate) flush_on_exit: bool,
}

impl Settings {
    /// The settings that the configuration asks for.
    pub(crate) fn from_config(config: &Config) -> Self {
        let shares = MemoryShares::of(config.memory_limit);
        let TraceConfig {
            keys,
            text,
            complete,
            linger,
            idle_timeout,
            max_age,
            max_traces,
            max_trace_bytes,
            ..
        } = &config.trace;
        Self {
            names: FieldNames {
                keys: keys.clone(),
                text: text.clone(),
            },
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
            window: to_usize(config.duplicate_window),
            tag_prefix: config.forward.tag_prefix.clone(),
            output_budget: shares.outputs,
            flush_on_exit: config.flush_on_exit,
        }
    }
}

/// The longest entry of a compressed payload that is walked: a record with its metadata that a trace takes, and their
/// time.
pub(super) fn longest_entry(max_trace_bytes: usize) -> usize {
    max_trace_bytes.saturating_add(1 << 10)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
