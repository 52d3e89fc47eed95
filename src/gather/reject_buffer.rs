//! Reject buffer: received bytes that can never become part of a document, on their way to the
//! folder of rejected input.
//!
//! A journal record is released when its rejected entries are durable there. Gathering never waits
//! for room or for a folder that cannot be written: entries are tried again for [`WRITE_TIMEOUT`],
//! then they are dropped and counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forward_protocol::entries::{Damage, Defect};
use forward_protocol::frame::{self, RejectedMessage};

use crate::claim::RecordClaim;
use crate::logging::{WarningLimiter, WarningPeer};
use crate::metrics::{Metrics, Poison};
use crate::output::LineCounters;
use crate::output::dead_letter::{Entry, EntryContent, Overwritten, RejectedStore};

/// Entries that are written together at most.
const MAX_BUFFERED_ENTRIES: usize = 1000;
/// Bytes of entries that are written together.
const MAX_BUFFERED_BYTES: usize = 8 << 20;
/// Time between two writes, unless the buffer is full: many small rejected messages share a sync.
const WRITE_INTERVAL: Duration = Duration::from_millis(50);
/// How long entries that cannot be written are kept.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a tag in an entry.
const MAX_NAME_BYTES: usize = 512;

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
}

/// Collects rejected bytes and writes them in groups.
pub(crate) struct RejectBuffer {
    store: RejectedStore,
    metrics: Arc<Metrics>,
    account: Arc<LineCounters>,
    entries: Vec<Entry>,
    /// Rejected bytes in `entries`.
    bytes: usize,
    /// Kind of the first of `entries`.
    kind: Option<Poison>,
    /// The journal record that is being gathered has rejected entries.
    has_rejected: bool,
    /// Claims on the gathered journal records that `entries` come from.
    claims: Vec<RecordClaim>,
    last_write: Option<Instant>,
    /// When `entries` could not be written for the first time.
    failing_since: Option<Instant>,
    warnings: WarningLimiter,
}

impl RejectBuffer {
    pub(crate) fn new(mut store: RejectedStore, metrics: Arc<Metrics>, account: Arc<LineCounters>) -> Self {
        metrics
            .rejected_overwritten
            .inc_by(store.take_overwritten().entries);
        let buffer = Self {
            store,
            metrics,
            account,
            entries: Vec::new(),
            bytes: 0,
            kind: None,
            has_rejected: false,
            claims: Vec::new(),
            last_write: None,
            failing_since: None,
            warnings: WarningLimiter::default(),
        };
        buffer.show_size();
        buffer
    }

    /// Rejects `bytes`, which stand for one record.
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
        let class = reason.class();
        self.metrics.input_poison[class].inc_by(u64::from(records));
        let kept = bytes.get(..self.store.max_content_bytes()).unwrap_or(bytes);
        let cut = if kept.len() < bytes.len() {
            format!(
                "; only the first {} of {} bytes are kept",
                kept.len(),
                bytes.len()
            )
        } else {
            String::new()
        };
        self.entries.push(Entry {
            time: jiff::Timestamp::from_microsecond(received_us).unwrap_or_default(),
            source: "intake".into(),
            status: None,
            kind: class.as_str().into(),
            reason: format!("{reason}{cut}"),
            index: None,
            destination: None,
            id: tag.map(|tag| format!("tag {}", name(tag))),
            is_trace: None,
            first_ns: None,
            lines: Some(records),
            parts: Vec::new(),
            content: EntryContent::Raw(Bytes::copy_from_slice(kept)),
        });
        self.bytes += kept.len();
        self.kind.get_or_insert(class);
        self.has_rejected = true;
        if self.is_full() {
            self.write();
        }
    }

    /// Interrupts a journal record for others. Returns what [`Self::resume_record`] needs.
    pub(crate) fn suspend_record(&mut self) -> bool {
        std::mem::take(&mut self.has_rejected)
    }

    /// Goes on with an interrupted journal record.
    pub(crate) fn resume_record(&mut self, suspended: bool) {
        self.has_rejected = suspended;
    }

    /// Ends a journal record: `claim` is confirmed when its rejected entries are durable.
    pub(crate) fn end_record(&mut self, claim: RecordClaim) {
        if std::mem::take(&mut self.has_rejected) && !self.entries.is_empty() {
            self.claims.push(claim);
            self.write_due();
        } else {
            claim.confirm();
        }
    }

    /// Writes the buffered entries if the last write is long enough ago.
    pub(crate) fn write_due(&mut self) {
        let is_due = |last: Instant| last.elapsed() >= WRITE_INTERVAL;
        if !self.entries.is_empty() && self.last_write.is_none_or(is_due) {
            self.write();
        }
    }

    /// Logs how many warnings were not logged, once a minute.
    pub(crate) fn sum_up_warnings(&self) {
        for repeated in self.warnings.end_window(Instant::now()) {
            let (kind, count) = (repeated.kind, repeated.count);
            tracing::warn!(kind, "rejected input: … {count} more warnings in the last minute");
        }
    }

    /// Writes the buffered entries. Those that cannot be written stay until the buffer is full or
    /// [`WRITE_TIMEOUT`] has passed.
    pub(crate) fn write(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let result = self.store.put_all(&self.entries);
        self.last_write = Some(Instant::now());
        self.show_size();
        let overwritten = self.store.take_overwritten();
        if overwritten.entries > 0 {
            self.warn_overwritten(overwritten);
        }
        let entries = self.entries.len() as u64;
        let kind = self.kind.map_or("rejected", Poison::as_str);
        match result {
            Ok(()) => {
                self.metrics.rejected_entries.inc_by(entries);
                if self.warnings.admit(kind, WarningPeer::Local) {
                    let (source, reason) = self.first();
                    tracing::warn!(
                        entries,
                        records = self.records(),
                        source,
                        reason,
                        "rejected: these bytes can never become part of a document"
                    );
                }
                self.clear();
            }
            Err(error) => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                let lost = self.is_full() || since.elapsed() >= WRITE_TIMEOUT;
                if self.warnings.admit("rejected_failed", WarningPeer::Local) {
                    tracing::error!(%error, "rejected input cannot be written; gathering continues and tries again");
                }
                if lost {
                    self.metrics.rejected_lost.inc_by(entries);
                    if self.warnings.admit("rejected_lost", WarningPeer::Local) {
                        let (source, reason) = self.first();
                        tracing::error!(
                            %error,
                            entries,
                            records = self.records(),
                            source,
                            reason,
                            "rejected input is lost: it could not be written"
                        );
                    }
                    self.clear();
                }
            }
        }
    }

    fn warn_overwritten(&self, Overwritten { entries, bytes }: Overwritten) {
        self.metrics.rejected_overwritten.inc_by(entries);
        if self.warnings.admit("rejected_overwritten", WarningPeer::Local) {
            let (source, reason) = self.first();
            tracing::warn!(
                entries,
                bytes,
                limit = self.store.limit_bytes(),
                source,
                reason,
                "the oldest rejected entries were overwritten: rejected.limit is reached; \
                 source and reason are those of the newest"
            );
        }
    }

    /// Tag and reason of the first buffered entry.
    fn first(&self) -> (&str, &str) {
        self.entries.first().map_or(("", ""), |entry| {
            (entry.id.as_deref().unwrap_or_default(), entry.reason.as_str())
        })
    }

    fn records(&self) -> u64 {
        let records = |entry: &Entry| u64::from(entry.lines.unwrap_or(0));
        self.entries.iter().map(records).sum()
    }

    /// Counts the buffered entries as done and confirms their claims.
    fn clear(&mut self) {
        self.account.dead.fetch_add(self.records(), Ordering::Relaxed);
        self.entries.clear();
        self.bytes = 0;
        self.kind = None;
        self.failing_since = None;
        self.claims.drain(..).for_each(RecordClaim::confirm);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= MAX_BUFFERED_ENTRIES || self.bytes >= MAX_BUFFERED_BYTES
    }

    fn show_size(&self) {
        let bytes = i64::try_from(self.store.bytes()).unwrap_or(i64::MAX);
        self.metrics.rejected_bytes.set(bytes);
    }
}

/// A tag as text, at most [`MAX_NAME_BYTES`] of it.
fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_NAME_BYTES).unwrap_or(bytes)).into_owned()
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
            Self::TooLong { .. } => Poison::TraceBytes,
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
                "the whole message, for its records of more than {limit} bytes, or of more than 100 MiB as JSON (the others were kept); \
                 up to 100 MiB, a larger memory_limit raises the first limit to an eighth of it"
            ),
            Self::TooManyRecords { limit } => write!(
                f,
                "the whole message, for more than {limit} records in a compressed message of its size (the first ones were kept)"
            ),
            Self::Signal => {
                f.write_str("metrics or traces (fluent_signal 1 or 2), which Windrow does not gather")
            }
        }
    }
}
