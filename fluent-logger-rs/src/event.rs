//! Public report types: undelivered events, delivery outcomes and statistics.

mod debug;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forward_protocol::msgpack::{Reader, Value};
use serde::de::DeserializeOwned;

use crate::chunk::Chunk;
use crate::queue::Batch;
use debug::DebugRecord;

/// An event that was accepted and not delivered, given back by [`close`](crate::Logger::close) or
/// by [`Outcome::GaveUp`].
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    tag: Arc<str>,
    /// `[time, record]` in MessagePack.
    entry: Vec<u8>,
    may_have_arrived: bool,
}

impl Event {
    /// The tag, with the prefix.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The event time. `None` if it is before 1970.
    pub fn time(&self) -> Option<SystemTime> {
        match self.reader().value().ok()? {
            Value::U64(seconds) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
            Value::Ext(0, bytes) => {
                let (seconds, nanos) = bytes.split_first_chunk::<4>()?;
                let nanos: [u8; 4] = nanos.try_into().ok()?;
                let (seconds, nanos) = (u32::from_be_bytes(*seconds), u32::from_be_bytes(nanos));
                UNIX_EPOCH.checked_add(Duration::new(u64::from(seconds), nanos))
            }
            _ => None,
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader::at(&self.entry, 1)
    }

    /// The record as MessagePack: a map with text keys.
    pub fn record(&self) -> &[u8] {
        let mut reader = self.reader();
        let _ = reader.value();
        self.entry.get(reader.position()..).unwrap_or_default()
    }

    /// The record as a value, for example a `serde_json::Value` or the struct that was logged.
    ///
    /// # Errors
    /// When `T` does not fit the record.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let mut decoder = rmp_serde::Deserializer::new(self.record()).with_human_readable();
        T::deserialize(&mut decoder).map_err(|error| DecodeError(error.to_string()))
    }

    /// The event was written to a server that did not acknowledge it: the server may have it.
    /// Whoever sends it again by other means may make a duplicate.
    pub fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }

    pub(crate) fn of_chunk(chunk: &Chunk) -> impl Iterator<Item = Self> {
        let tag = Arc::clone(&chunk.tag);
        let may_have_arrived = chunk.was_written;
        chunk.entries().into_iter().map(move |entry| Self {
            tag: Arc::clone(&tag),
            entry,
            may_have_arrived,
        })
    }

    pub(crate) fn of_batch(batch: &Batch) -> Vec<Self> {
        let mut start = batch.start();
        let ends = batch.ends.iter().skip(batch.dropped);
        ends.map(|end| {
            let end = *end as usize;
            let entry = batch.entries.get(start..end).unwrap_or_default().to_vec();
            start = end;
            Self {
                tag: Arc::clone(&batch.tag),
                entry,
                may_have_arrived: false,
            }
        })
        .collect()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("tag", &self.tag)
            .field("time", &self.time())
            .field("record", &DebugRecord(self.record()))
            .field("may_have_arrived", &self.may_have_arrived)
            .finish()
    }
}

/// A record could not be read as the type asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record is not of this type: {}", self.0)
    }
}

impl std::error::Error for DecodeError {}

/// Outcome of some events of one tag; given to the [delivery
/// callback](crate::Builder::on_delivery).
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The tag, with the prefix.
    pub tag: Arc<str>,
    /// How many events.
    pub events: usize,
    /// Their outcome.
    pub outcome: Outcome,
}

impl Report {
    pub(crate) fn new(tag: Arc<str>, events: usize, outcome: Outcome) -> Self {
        Self { tag, events, outcome }
    }
}

/// Outcome of events. Each event is reported once.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A server acknowledged them.
    Acknowledged,
    /// Without acks: the operating system took their bytes. A server that dies may not have read
    /// them.
    Written,
    /// They were the oldest in a full buffer ([`OnFull::DropOldest`](crate::OnFull::DropOldest)).
    Dropped,
    /// They were given up after `max_retry` failed attempts.
    GaveUp {
        /// Failed attempts.
        attempts: u32,
        /// The events themselves, for a last resort such as a file.
        lost: Vec<Event>,
    },
}

/// The state of a logger, in numbers. Counters count from its start and never fall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events accepted by `log`, `send` and similar calls.
    pub accepted: u64,
    /// Calls refused, for whatever reason: see [`Rejected`](crate::Rejected).
    pub rejected: u64,
    /// Events acknowledged, or without acks written.
    pub delivered: u64,
    /// Events dropped from the full buffer.
    pub dropped: u64,
    /// Events given up after `max_retry` attempts.
    pub given_up: u64,
    /// Events that the sampling of the `tracing` layer left out.
    pub sampled_out: u64,
    /// Events that the repeat limit of the `tracing` layer left out.
    pub suppressed: u64,
    /// Events in memory now: waiting or in flight.
    pub buffered_events: usize,
    /// Their bytes, encoded.
    pub buffered_bytes: usize,
    /// Chunks in flight now.
    pub in_flight: u64,
    /// Chunks delivered.
    pub chunks: u64,
    /// Chunks written again, wholly or in part, after a connection ended.
    pub resent: u64,
    /// Connections made.
    pub connections: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Connections that ended with an error.
    pub connection_losses: u64,
    /// Panics of callbacks, which are caught.
    pub callback_panics: u64,
    /// Events that an earlier process left in the spool and that were taken over.
    pub recovered: u64,
    /// Chunks in the spool now.
    pub spooled_chunks: u64,
    /// Chunks that could not be written to the spool.
    pub spool_failures: u64,
    /// Whether a connection is open now.
    pub connected: bool,
    /// Address of the current or the last connection.
    pub address: Option<String>,
    /// The last connection or spool error, as text.
    pub last_error: Option<String>,
}
