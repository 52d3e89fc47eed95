//! A Forward client under test control: it writes the wire itself, resends the very same bytes after a
//! failure, and keeps a [`Ledger`] of what was acknowledged.
//!
//! A load is deterministic: trace ids, texts, times, chunk borders and chunk ids follow from [`Load`] alone. So
//! the ledger needs only one mark a record, and what a stored document must contain can be worked out again.
//! It does not speak TLS and knows no handshake.

mod drive;
mod ledger;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drive::Outcome;
pub use ledger::{Ledger, Mark};
use serde_json::Value;
pub use wire::{Chunk, event_time, trace_number};

/// How records are put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `[tag, time, record, option]`, one record a message, each a chunk of its own.
    Message,
    /// `[tag, [entry…], option]`.
    Forward,
    /// `[tag, bin(entries), option]`.
    Packed,
    /// As packed, the entries one gzip member, `compressed: gzip`.
    Gzip,
    /// As gzip, the entries in two gzip members one after the other.
    GzipMembers,
}

/// The shape of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// `[time, record]`.
    V1,
    /// `[[time, metadata], record]`, Fluent Bit's default since 5.0.5. Message mode has none: there it is V1.
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
    /// Each connection counts 1, 2, 3: ids meet, chunks differ.
    Counting,
}

/// What to send, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to; connections are dealt over the addresses.
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
    pub chunk_records: usize,
    /// Mode of all messages.
    pub mode: Mode,
    /// Entry shape.
    pub entries: Entries,
    /// Time form.
    pub time: Time,
    /// Chunk ids.
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
    /// Send each chunk this many times in a row, as a hasty client does; each copy must be acknowledged.
    pub repeat: usize,
    /// Deal the lines of one trace over all connections in turn, instead of over one.
    pub spread: bool,
    /// Records per second over all connections; 0 = as fast as it goes.
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
        let (seconds, nanos) = wire::when(self, self.sequence(trace, line));
        match self.time {
            Time::Integer => i64::from(seconds) * 1_000_000_000,
            Time::EventTime | Time::Float => i64::from(seconds) * 1_000_000_000 + i64::from(nanos),
        }
    }

    /// The place of a line in the order of event times.
    fn sequence(&self, trace: u64, line: u32) -> u64 {
        let open = self.open.max(1);
        let group = trace / open;
        let size = open.min(self.traces - group * open);
        group * open * u64::from(self.lines) + u64::from(line) * size + trace % open
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.traces * u64::from(self.lines)
    }

    /// The records in order of their times as JSON, each with `_time` in Unix seconds, for a logger of another
    /// language to send; and a ledger by which all of them must be stored.
    pub fn by_logger(self) -> (Vec<Value>, Ledger) {
        let ledger = Ledger::new(Arc::new(self));
        let records = ledger.records_in_order();
        (records, ledger)
    }

    /// Sends everything and waits for the end.
    ///
    /// # Panics
    /// When an ack is wrong, or none came for `give_up`.
    #[track_caller]
    pub fn run(self) -> Report {
        self.start().finish()
    }

    /// Sends in the background.
    pub fn start(self) -> Running {
        assert!(
            !self.spread || self.time != Time::Integer,
            "spread lines of one second have no order to check"
        );
        assert!(self.acks || self.window > 0, "a window of at least one chunk");
        let load = Arc::new(self);
        let ledger = Arc::new(Ledger::new(Arc::clone(&load)));
        let stop = Arc::new(AtomicBool::new(false));
        let drivers = (0..load.connections)
            .map(|connection| {
                let (load, ledger, stop) = (Arc::clone(&load), Arc::clone(&ledger), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let chunks = wire::chunks(&load, connection);
                    drive::drive(&load, connection, &chunks, &ledger, &stop)
                })
            })
            .collect();
        Running {
            ledger,
            drivers,
            stop,
            began: Instant::now(),
        }
    }
}

/// A load on its way.
#[derive(Debug)]
pub struct Running {
    ledger: Arc<Ledger>,
    drivers: Vec<JoinHandle<Outcome>>,
    stop: Arc<AtomicBool>,
    began: Instant,
}

impl Running {
    /// The marks so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All connections have ended.
    pub fn is_finished(&self) -> bool {
        self.drivers.iter().all(JoinHandle::is_finished)
    }

    /// Waits until at least `records` are acknowledged.
    ///
    /// # Panics
    /// When that takes longer than two minutes.
    #[track_caller]
    pub fn wait_acknowledged(&self, records: u64) {
        crate::wait::until("acknowledged records", Duration::from_secs(120), || {
            let have = self.ledger.acknowledged();
            if have >= records {
                Ok(())
            } else {
                Err(format!("{have} of {records}"))
            }
        });
    }

    /// Ends early: no new chunk is sent, chunks in flight stay without a mark of acknowledgement.
    #[track_caller]
    pub fn stop(self) -> Report {
        self.stop.store(true, Relaxed);
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When a connection found a reason to.
    #[track_caller]
    pub fn finish(self) -> Report {
        let mut report = Report {
            ledger: self.ledger,
            seconds: 0.0,
            latencies: Vec::new(),
            resent: 0,
            connects: 0,
            refusals: Vec::new(),
        };
        for driver in self.drivers {
            match driver.join() {
                Ok(outcome) => {
                    report.latencies.extend(outcome.latencies);
                    report.resent += outcome.resent;
                    report.connects += outcome.connects;
                    report.refusals.extend(outcome.troubles);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        report.seconds = self.began.elapsed().as_secs_f64();
        report.latencies.sort();
        report
    }
}

/// What a load did.
#[derive(Debug)]
pub struct Report {
    /// What was acknowledged.
    pub ledger: Arc<Ledger>,
    /// From the first connection to the last ack, building included.
    pub seconds: f64,
    /// From a chunk's last byte to its ack, sorted.
    pub latencies: Vec<Duration>,
    /// Chunks sent again after a failure.
    pub resent: u64,
    /// Connections opened.
    pub connects: u64,
    /// Why connections failed, the first few.
    pub refusals: Vec<String>,
}

impl Report {
    /// The latency below which the share `q` (0 to 1) of the acks lies, in milliseconds.
    pub fn latency_ms(&self, q: f64) -> f64 {
        if self.latencies.is_empty() {
            return 0.0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list of less than 2^52 entries"
        )]
        let index = ((self.latencies.len() - 1) as f64 * q.clamp(0.0, 1.0)) as usize;
        self.latencies[index].as_secs_f64() * 1e3
    }
}
