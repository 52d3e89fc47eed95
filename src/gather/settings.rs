//! Settings of gathering, derived from the configuration.

use std::time::Duration;

use forward_protocol::frame::Limits as FrameLimits;
use windrow_trace::{FieldNames, Token, read_token};

use crate::config::{Condition, Config, ParseJson, TraceConfig};
use crate::input::forward;
use crate::memory::{MemoryShares, to_usize};

/// Settings of the gathering thread.
pub(crate) struct Settings {
    pub(crate) names: FieldNames,
    pub(crate) complete: Vec<Condition>,
    pub(crate) parse_json: ParseJson,
    /// Bytes of parts of lines that may wait for the others.
    pub(crate) partial_bytes: usize,
    /// Event times outside of it are replaced; `None`: none are.
    pub(crate) time_window: Option<TimeWindow>,
    pub(crate) table: windrow_trace::Limits,
    pub(crate) frame: FrameLimits,
    /// Bytes of a section of a part; see `windrow_trace::max_part_bytes`.
    pub(crate) max_part_bytes: usize,
    /// Longest record that is gathered.
    pub(crate) max_record_bytes: usize,
    /// Longest JSON of a record that is longer than a trace may be.
    pub(crate) max_json_bytes: usize,
    /// Chunks in the duplicate window.
    pub(crate) duplicate_window: usize,
    /// Put before every tag.
    pub(crate) tag_prefix: String,
    /// Bytes of documents that may be in flight to the outputs.
    pub(crate) output_budget_bytes: usize,
    /// Silence after which traces are looked up in the store (µs).
    pub(crate) silence: Option<i64>,
    /// Write open traces at shutdown instead of keeping them in the journal.
    pub(crate) flush_on_exit: bool,
}

/// How far event times may be from the time of reception.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWindow {
    pub(crate) back_ns: i64,
    pub(crate) ahead_ns: i64,
}

impl Settings {
    /// Derives the settings from `config`.
    pub(crate) fn from_config(config: &Config) -> Self {
        let shares = MemoryShares::of(config.memory_limit);
        let TraceConfig {
            complete,
            parse_json,
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
            parse_json: *parse_json,
            partial_bytes: shares.partial_lines,
            time_window: config.trace.time_window.map(|(back, ahead)| TimeWindow {
                back_ns: nanos(back),
                ahead_ns: nanos(ahead),
            }),
            table: windrow_trace::Limits {
                linger: micros(*linger),
                idle_timeout: micros(*idle_timeout),
                max_age: micros(*max_age),
                max_traces: to_usize(*max_traces),
                max_bytes: shares.open_traces - shares.partial_lines,
                max_trace_bytes: to_usize(*max_trace_bytes),
            },
            frame: forward::frame_limits(&config.forward),
            max_part_bytes: windrow_trace::max_part_bytes(to_usize(*max_trace_bytes)),
            max_record_bytes: max_record_bytes(config),
            max_json_bytes: to_usize(config.memory_limit / 4).min(MAX_DOCUMENT_BYTES),
            duplicate_window: to_usize(config.duplicate_window),
            tag_prefix: config.forward.tag_prefix.clone(),
            output_budget_bytes: shares.outputs,
            silence: config.elasticsearch.completion_lookup.map(micros),
            flush_on_exit: config.flush_on_exit,
        }
    }

    /// Whether a record is longer than a document may be, as it is or as JSON.
    #[cold]
    #[inline(never)]
    pub(super) fn is_too_long(&self, record: &[u8], metadata: &[u8]) -> bool {
        let (record_json, metadata_json) = (max_json_bytes(record), max_json_bytes(metadata));
        record.len() + metadata.len() > self.max_record_bytes
            || record_json.saturating_add(metadata_json) > self.max_json_bytes
    }
}

/// Upper bound of the JSON of a MessagePack value.
fn max_json_bytes(value: &[u8]) -> usize {
    let (mut at, mut bytes) = (0, 0usize);
    while let Some((token, next)) = read_token(value, at).filter(|(_, next)| *next > at) {
        bytes += match token {
            Token::Str(text) => escaped_bytes(text) + 4,
            // Base64 or text: at most this.
            Token::Bin(text) => escaped_bytes(text).max(text.len() * 2) + 4,
            Token::Nil | Token::Bool(_) => 6,
            Token::Map(_) | Token::Array(_) => 3,
            // Numbers of 1, 5 and 9 bytes have at most 4, 16 and 24 characters.
            _ => (next - at) * 3 + 2,
        };
        at = next;
    }
    bytes
}

/// Upper bound of a string in JSON, without its quotes.
fn escaped_bytes(text: &[u8]) -> usize {
    let is_utf8 = std::str::from_utf8(text).is_ok();
    let cost = |byte: &u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        0x80.. if !is_utf8 => 3,
        _ => 1,
    };
    text.iter().map(cost).sum()
}

/// Longest document that any store takes: Elasticsearch's `http.max_content_length` is 100 MiB.
const MAX_DOCUMENT_BYTES: usize = 100 << 20;

/// Longest record that is gathered: an eighth of `memory_limit`, because it is in memory a few times
/// while it becomes a document, and no longer than a document may be; but as long as a trace.
pub(super) fn max_record_bytes(config: &Config) -> usize {
    let share = to_usize(config.memory_limit / 8).min(MAX_DOCUMENT_BYTES);
    share.max(to_usize(config.trace.max_trace_bytes))
}

impl Settings {
    /// Event times outside of these (ns) are replaced, for a message received at `received` (µs).
    pub(super) fn time_bounds(&self, received: i64) -> (i64, i64) {
        let received = received.saturating_mul(1000);
        self.time_window.map_or((i64::MIN, i64::MAX), |window| {
            (
                received.saturating_sub(window.back_ns),
                received.saturating_add(window.ahead_ns),
            )
        })
    }
}

/// The names of fields in the configuration.
pub(crate) fn field_names(config: &TraceConfig) -> FieldNames {
    FieldNames {
        keys: config.keys.clone(),
        text: config.text.clone(),
        level: config.level.clone(),
        service: config.service.clone(),
        document: config.document.clone(),
        ignore: config.ignore.clone(),
        strip_ansi: config.strip_ansi,
    }
}

/// Longest entry of a compressed payload that is walked, in bytes: a record with metadata of at
/// most `max_record_bytes`, and its time.
pub(super) fn max_entry_bytes(max_record_bytes: usize) -> usize {
    max_record_bytes.saturating_add(1 << 10)
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

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
