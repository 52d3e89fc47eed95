//! Shape of a load: number, order and content of its records, and how they are sent. Sends nothing.

use std::net::SocketAddr;
use std::time::Duration;

use windrow_bench::load::{Interleaving, Mode};

/// The shape of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// `[time, record]`.
    V1,
    /// `[[time, metadata], record]`, Fluent Bit's default since 5.0.5. Message mode has none: there
    /// it is V1.
    V2,
}

/// How an event time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Extension type 0: seconds and nanoseconds.
    EventTime,
    /// Whole seconds: the lines of a trace often share one, so arrival decides their order.
    Integer,
    /// Seconds with a fraction, about 200 ns exact.
    Float,
}

/// Which chunk ids a connection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// No other chunk of any load has it.
    Unique,
    /// Each connection counts 1, 2, 3: different chunks have the same id.
    Counting,
}

/// A load.
#[derive(Debug, Clone)]
pub struct Load {
    /// Servers; connections are dealt over them in turn.
    pub addresses: Vec<SocketAddr>,
    /// Number of traces.
    pub traces: u64,
    /// Lines of one trace; the last carries the completion marker.
    pub lines: u32,
    /// Traces open at the same time, interleaved.
    pub open: u64,
    /// Connections.
    pub connections: u64,
    /// Records of one chunk.
    pub chunk_records: u32,
    /// Mode of all messages.
    pub mode: Mode,
    /// Entry shape.
    pub entries: Entries,
    /// Time form.
    pub time: Time,
    /// Kind of chunk ids.
    pub ids: Ids,
    /// Ask for acks. Without them nothing is ever marked as acknowledged.
    pub acks: bool,
    /// Chunks in flight on one connection.
    pub window: usize,
    /// Bytes of filler in each line.
    pub filler: usize,
    /// Tag of all records.
    pub tag: String,
    /// Every trace id and chunk id begins with it; tests that share a store differ in it.
    pub prefix: String,
    /// Send each chunk this many times in a row, each copy must be acknowledged.
    pub repeat: usize,
    /// Send the lines of one trace over all connections in turn instead of over one.
    pub spread: bool,
    /// Records per second over all connections; 0 = as fast as the server takes them.
    pub rate: u64,
    /// Event time of the first record, Unix seconds.
    pub start: u32,
    /// Records to a second of event time, at most 1,000,000.
    pub per_second: u32,
    /// Reconnect after this many chunks; 0 = never.
    pub reconnect: usize,
    /// The last line of a trace says "request completed".
    pub completes: bool,
    /// Records carry `traceId`.
    pub trace_ids: bool,
    /// Send a chunk again over a new connection when its ack has not come by then.
    pub ack_timeout: Duration,
    /// Panic when no ack came for this long.
    pub give_up: Duration,
}

impl Load {
    /// 1,000 traces of 5 lines over 2 connections, packed, with acks.
    pub fn new(address: SocketAddr, prefix: &str) -> Self {
        Self {
            addresses: vec![address],
            traces: 1000,
            lines: 5,
            open: 200,
            connections: 2,
            chunk_records: 500,
            mode: Mode::Packed,
            entries: Entries::V1,
            time: Time::EventTime,
            ids: Ids::Unique,
            acks: true,
            window: 1,
            filler: 60,
            tag: "app.load".to_owned(),
            prefix: prefix.to_owned(),
            repeat: 1,
            spread: false,
            rate: 0,
            start: 1_790_000_000,
            per_second: 100_000,
            reconnect: 0,
            completes: true,
            trace_ids: true,
            ack_timeout: Duration::from_secs(30),
            give_up: Duration::from_secs(120),
        }
    }

    /// The id of a trace.
    pub fn trace_id(&self, trace: u64) -> String {
        format!("{}{trace:031x}", self.prefix)
    }

    /// The exact text of a line: quotes, backslash, tab, control and non-ASCII characters included.
    pub fn text(&self, trace: u64, line: u32) -> String {
        let what = if self.completes && line + 1 == self.lines {
            "request completed"
        } else {
            "handler step"
        };
        let filler: String = (b'a'..=b'z').cycle().take(self.filler).map(char::from).collect();
        format!(
            "{what} {line} of {}{trace} \"quoted\" \\ é\t\u{1}😀 {filler}",
            self.prefix
        )
    }

    /// The event time of a line in Unix nanoseconds, as far as the time form carries it.
    pub fn time_ns(&self, trace: u64, line: u32) -> i64 {
        let (seconds, nanoseconds) = self.event_time(trace, line);
        match self.time {
            Time::Integer => i64::from(seconds) * 1_000_000_000,
            Time::EventTime | Time::Float => i64::from(seconds) * 1_000_000_000 + i64::from(nanoseconds),
        }
    }

    /// The event time of a line in Unix seconds and nanoseconds.
    pub(super) fn event_time(&self, trace: u64, line: u32) -> (u32, u32) {
        let sequence = self.order().sequence(trace, line);
        let per_second = u64::from(self.per_second.clamp(1, 1_000_000));
        let seconds = u32::try_from(sequence / per_second).expect("a load lasts less than 136 years");
        let nanoseconds = sequence % per_second * (1_000_000_000 / per_second);
        let nanoseconds = u32::try_from(nanoseconds).expect("less than a second");
        (self.start + seconds, nanoseconds)
    }

    /// The order of the records.
    pub(super) fn order(&self) -> Interleaving {
        Interleaving {
            traces: self.traces,
            lines: self.lines,
            open: self.open,
            connections: self.connections.max(1),
            spread: self.spread,
        }
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.traces * u64::from(self.lines)
    }
}

/// The number of a trace from its id, when it is one of the load's.
pub fn trace_number(load: &Load, id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix(&load.prefix)?, 16).ok()
}
