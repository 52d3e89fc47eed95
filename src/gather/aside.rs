//! What gathering sets aside: received bytes that can never become part of a document, with the reason.
//!
//! Owns the entries until they are in the dead letter, which is before the journal record that they came from is
//! released. While the dead letter is full or failing, gathering waits: nothing is dropped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forward_protocol::entries::{Damage, Defect};
use forward_protocol::frame::{Refusal, Refused};

use crate::metrics::{DeadLetterSource, Metrics, Poison};
use crate::output::LineCounters;
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};

/// Entries are written when there are this many, or so many bytes of them, or at the end of a journal record.
const GROUP: usize = 1000;
const GROUP_BYTES: usize = 8 << 20;

/// Why something is set aside.
#[derive(Clone, Copy)]
pub(crate) enum Why<'a> {
    Message(&'a Refused<'a>),
    Entry(Defect),
    /// More entries of one message than are kept one by one.
    Entries(Defect),
    Damage(Damage),
    /// Records of more than `limit` bytes.
    TooLong {
        limit: usize,
    },
    Signal,
    NoRoom {
        trace: &'a [u8],
    },
}

pub(crate) struct Aside {
    dead_letter: Arc<DeadLetter>,
    metrics: Arc<Metrics>,
    account: Arc<LineCounters>,
    stop: Arc<AtomicBool>,
    waiting: Vec<Entry>,
    /// Bytes of the things that wait.
    bytes: usize,
}

impl Aside {
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
            waiting: Vec::new(),
            bytes: 0,
        }
    }

    /// Sets `bytes`, which stand for one record, aside; they are in the dead letter after the next [`Aside::flush`].
    pub(crate) fn put(&mut self, why: Why<'_>, bytes: &[u8], tag: Option<&[u8]>, received_us: i64) {
        self.put_all(why, bytes, tag, received_us, 1);
    }

    /// As [`Aside::put`], for so many records.
    pub(crate) fn put_all(
        &mut self,
        why: Why<'_>,
        bytes: &[u8],
        tag: Option<&[u8]>,
        received_us: i64,
        records: u32,
    ) {
        self.metrics.input_poison[why.class()].inc_by(u64::from(records));
        self.waiting.push(Entry {
            time: jiff::Timestamp::from_microsecond(received_us).unwrap_or_default(),
            source: DeadLetterSource::Intake.as_str().into(),
            status: None,
            kind: why.class().as_str().into(),
            reason: why.to_string(),
            index: None,
            id: match &why {
                Why::NoRoom { trace } => Some(String::from_utf8_lossy(trace).into_owned()),
                _ => tag.map(|tag| format!("tag {}", String::from_utf8_lossy(tag))),
            },
            is_trace: None,
            first_ns: None,
            lines: Some(records),
            parts: Vec::new(),
            content: EntryContent::Raw(Bytes::copy_from_slice(bytes)),
        });
        self.bytes += bytes.len();
        if self.waiting.len() >= GROUP || self.bytes >= GROUP_BYTES {
            self.flush();
        }
    }

    /// Puts what waits into the dead letter; durable when it returns `true`. Waits for room as long as it takes, and
    /// gives up with `false` only when Windrow stops: the journal record must not be released then.
    pub(crate) fn flush(&mut self) -> bool {
        let mut said = false;
        while !self.waiting.is_empty() {
            match self.dead_letter.put_all(&self.waiting) {
                Ok(()) => {
                    let records: u64 = self
                        .waiting
                        .iter()
                        .map(|entry| u64::from(entry.lines.unwrap_or(0)))
                        .sum();
                    self.account.dead.fetch_add(records, Ordering::Relaxed);
                    let entries = self.waiting.len() as u64;
                    self.metrics.dead_letter_documents[DeadLetterSource::Intake].inc_by(entries);
                    tracing::warn!(
                        entries,
                        records,
                        reason = %self.waiting.first().map(|entry| entry.reason.as_str()).unwrap_or_default(),
                        "set aside in the dead letter what can never become part of a document"
                    );
                    self.waiting.clear();
                    self.bytes = 0;
                }
                Err(error) => {
                    if self.stop.load(Ordering::Relaxed) {
                        return false;
                    }
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!(%error, "the dead letter takes nothing; gathering waits until it does");
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        true
    }
}

impl Why<'_> {
    fn class(&self) -> Poison {
        use forward_protocol::frame::Poison as Message;
        match self {
            Self::Message(refused) => match refused.reason {
                Refusal::Poison(Message::TagType(_) | Message::TagTooLong { .. }) => Poison::Tag,
                Refusal::Poison(Message::Signal) => Poison::Signal,
                Refusal::Poison(_) => Poison::Element,
                Refusal::Truncated | Refusal::Damaged(_) => Poison::Stored,
            },
            Self::Entry(Defect::Record(_)) | Self::Entries(Defect::Record(_)) => Poison::Record,
            Self::Entry(Defect::Truncated) => Poison::PackedEnd,
            Self::Entry(Defect::TooDeep { .. }) => Poison::Depth,
            Self::Entry(_) | Self::Entries(_) => Poison::Entry,
            Self::Damage(_) => Poison::Compression,
            Self::Signal => Poison::Signal,
            Self::TooLong { .. } | Self::NoRoom { .. } => Poison::TraceBytes,
        }
    }
}

impl fmt::Display for Why<'_> {
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
            Self::Signal => {
                f.write_str("metrics or traces (fluent_signal 1 or 2), which Windrow does not gather")
            }
            Self::NoRoom { trace } => {
                write!(
                    f,
                    "trace {} is at max_trace_bytes; its first lines are in the document",
                    String::from_utf8_lossy(trace)
                )
            }
        }
    }
}
