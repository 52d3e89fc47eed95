//! Reject buffer: received bytes that can never become part of a document, on their way to the dead
//! letter.
//!
//! A rejected entry is durable in the dead letter before its journal record is released. While the
//! dead letter is full or failing, gathering waits: nothing is dropped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forward_protocol::entries::{Damage, Defect};
use forward_protocol::frame::{self, RejectedMessage};

use crate::metrics::{DeadLetterSource, Metrics, Poison};
use crate::output::LineCounters;
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};

/// Entries that are written together at most; the end of a journal record writes them as well.
const MAX_BUFFERED_ENTRIES: usize = 1000;
/// Bytes of entries that are written together.
const MAX_BUFFERED_BYTES: usize = 8 << 20;

/// Why bytes are rejected.
#[derive(Clone, Copy)]
pub(crate) enum RejectReason<'a> {
    /// The framer refuses the message.
    Message(&'a RejectedMessage<'a>),
    /// One entry of a message is bad.
    Entry(Defect),
    /// More entries of one message are bad than are kept one by one.
    Entries(Defect),
    /// The compressed payload is damaged.
    Damage(Damage),
    /// Records of more than `limit` bytes.
    TooLong { limit: usize },
    /// A compressed message has more records than its size allows.
    TooManyRecords { limit: u64 },
    /// The message holds metrics or traces.
    Signal,
    /// The trace is at its size limit.
    TraceFull { trace: &'a [u8] },
}

/// Collects rejected bytes and writes them to the dead letter in groups.
pub(crate) struct RejectBuffer {
    dead_letter: Arc<DeadLetter>,
    metrics: Arc<Metrics>,
    account: Arc<LineCounters>,
    stop: Arc<AtomicBool>,
    entries: Vec<Entry>,
    /// Rejected bytes in `entries`.
    bytes: usize,
}

impl RejectBuffer {
    pub(crate) fn new(
        dead_letter: Arc<DeadLetter>,
        metrics: Arc<Metrics>,
        account: Arc<LineCounters>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            dead_letter,
            metrics,
            account,
            stop,
            entries: Vec::new(),
            bytes: 0,
        }
    }

    /// Rejects `bytes`, which stand for one record; they are in the dead letter after the next
    /// [`RejectBuffer::flush`].
    pub(crate) fn reject(
        &mut self,
        reason: RejectReason<'_>,
        bytes: &[u8],
        tag: Option<&[u8]>,
        received_us: i64,
    ) {
        self.reject_records(reason, bytes, tag, received_us, 1);
    }

    /// As [`RejectBuffer::reject`], for bytes that stand for `records` records.
    pub(crate) fn reject_records(
        &mut self,
        reason: RejectReason<'_>,
        bytes: &[u8],
        tag: Option<&[u8]>,
        received_us: i64,
        records: u32,
    ) {
        self.metrics.input_poison[reason.class()].inc_by(u64::from(records));
        self.entries.push(Entry {
            time: jiff::Timestamp::from_microsecond(received_us).unwrap_or_default(),
            source: DeadLetterSource::Intake.as_str().into(),
            status: None,
            kind: reason.class().as_str().into(),
            reason: reason.to_string(),
            index: None,
            id: match &reason {
                RejectReason::TraceFull { trace } => Some(String::from_utf8_lossy(trace).into_owned()),
                _ => tag.map(|tag| format!("tag {}", String::from_utf8_lossy(tag))),
            },
            is_trace: None,
            first_ns: None,
            lines: Some(records),
            parts: Vec::new(),
            content: EntryContent::Raw(Bytes::copy_from_slice(bytes)),
        });
        self.bytes += bytes.len();
        if self.entries.len() >= MAX_BUFFERED_ENTRIES || self.bytes >= MAX_BUFFERED_BYTES {
            self.flush();
        }
    }

    /// Writes the buffered entries to the dead letter and returns `true` once they are durable.
    /// Waits while the dead letter is full; returns `false` only when Windrow stops, and then the
    /// journal record must not be released.
    pub(crate) fn flush(&mut self) -> bool {
        let mut logged = false;
        while !self.entries.is_empty() {
            match self.dead_letter.put_all(&self.entries) {
                Ok(()) => {
                    let records: u64 = self
                        .entries
                        .iter()
                        .map(|entry| u64::from(entry.lines.unwrap_or(0)))
                        .sum();
                    self.account.dead.fetch_add(records, Ordering::Relaxed);
                    let entries = self.entries.len() as u64;
                    self.metrics.dead_letter_documents[DeadLetterSource::Intake].inc_by(entries);
                    tracing::warn!(
                        entries,
                        records,
                        reason = %self.entries.first().map(|entry| entry.reason.as_str()).unwrap_or_default(),
                        "moved to the dead letter: these bytes can never become part of a document"
                    );
                    self.entries.clear();
                    self.bytes = 0;
                }
                Err(error) => {
                    if self.stop.load(Ordering::Relaxed) {
                        return false;
                    }
                    if !std::mem::replace(&mut logged, true) {
                        tracing::error!(%error, "the dead letter cannot be written; gathering waits and tries again");
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        true
    }
}

impl RejectReason<'_> {
    fn class(&self) -> Poison {
        use forward_protocol::frame::Poison as Message;
        match self {
            Self::Message(refused) => match refused.reason {
                frame::RejectReason::Poison(Message::TagType(_) | Message::TagTooLong { .. }) => Poison::Tag,
                frame::RejectReason::Poison(Message::Signal) => Poison::Signal,
                frame::RejectReason::Poison(_) => Poison::Element,
                frame::RejectReason::Truncated | frame::RejectReason::Damaged(_) => Poison::Stored,
            },
            Self::Entry(Defect::Record(_)) | Self::Entries(Defect::Record(_)) => Poison::Record,
            Self::Entry(Defect::Truncated) => Poison::PackedEnd,
            Self::Entry(Defect::TooDeep { .. }) => Poison::Depth,
            Self::Entry(_) | Self::Entries(_) => Poison::Entry,
            Self::Damage(_) | Self::TooManyRecords { .. } => Poison::Compression,
            Self::Signal => Poison::Signal,
            Self::TooLong { .. } | Self::TraceFull { .. } => Poison::TraceBytes,
        }
    }
}

impl fmt::Display for RejectReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(refused) => write!(f, "{}", refused.reason),
            Self::Entry(defect) => write!(f, "bad entry: {defect}"),
            Self::Entries(defect) => {
                write!(
                    f,
                    "the whole message, for its many bad entries (good ones were kept): {defect}"
                )
            }
            Self::Damage(damage) => write!(f, "{damage}; the entries before the damage were kept"),
            Self::TooLong { limit } => write!(
                f,
                "the whole message, for its records of more than {limit} bytes (the others were kept); raise trace.max_trace_bytes to keep such records"
            ),
            Self::TooManyRecords { limit } => write!(
                f,
                "the whole message, for more than {limit} records in a compressed message of its size (the first ones were kept)"
            ),
            Self::Signal => {
                f.write_str("metrics or traces (fluent_signal 1 or 2), which Windrow does not gather")
            }
            Self::TraceFull { trace } => {
                write!(
                    f,
                    "trace {} is at max_trace_bytes; its first lines are in the document",
                    String::from_utf8_lossy(trace)
                )
            }
        }
    }
}
