//! Queue of committed journal records between the journal's writer and gathering, in order and in
//! bounded memory.
//!
//! Owns the choice between memory and disk. While gathering keeps up, records stay in memory and
//! are never read back. When the queued bytes reach the budget, later records are only in the
//! journal and are read back once the queue is empty. A slow or absent output therefore costs disk,
//! not memory, and acks stay fast.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::admission::{AdmissionControl, BypassReason};
use windrow_journal::{CommitSink, Journal, Record};

/// Memory of a queued record besides its payload.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// Records among which [`RecordQueue::take_short`] looks.
const MAX_OVERTAKEN: usize = 64;

/// The shared state of the two ends.
#[derive(Debug)]
pub(crate) struct RecordQueue {
    inner: Mutex<Inner>,
    not_empty: Condvar,
    budget_bytes: usize,
    admission: Arc<AdmissionControl>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Record>,
    bytes: usize,
    /// The first record (LSN) that is only in the journal.
    spilled_from: Option<u64>,
    /// The newest durable record (LSN).
    newest: Option<u64>,
    /// The consumer waits for `not_empty`.
    consumer_waits: bool,
    closed: bool,
}

/// Result of [`QueueConsumer::poll`].
#[derive(Debug)]
pub(super) enum Polled {
    /// The next record.
    Record(Record),
    /// No record came in time.
    Timeout,
    /// The queue is closed.
    Closed,
}

/// The journal's end of the queue.
#[derive(Debug)]
pub(crate) struct QueueProducer(pub(crate) Arc<RecordQueue>);

impl CommitSink for QueueProducer {
    fn committed(&mut self, records: Vec<Record>) {
        let mut inner = self.0.lock();
        inner.newest = records.last().map(|record| record.lsn).or(inner.newest);
        for record in records {
            if inner.spilled_from.is_some() {
                break;
            }
            let cost = record.payload.len() + RECORD_OVERHEAD_BYTES;
            if inner.bytes + cost > self.0.budget_bytes {
                inner.spilled_from = Some(record.lsn);
                self.0.admission.set_bypass(BypassReason::JournalBacklog, true);
                tracing::info!(
                    lsn = record.lsn,
                    queued_bytes = inner.bytes,
                    budget_bytes = self.0.budget_bytes,
                    "gathering is slower than intake: new chunks wait in the journal only"
                );
                break;
            }
            inner.bytes += cost;
            inner.queue.push_back(record);
        }
        self.0.admission.set_queued_bytes(inner.bytes);
        if inner.consumer_waits {
            inner.consumer_waits = false;
            self.0.not_empty.notify_one();
        }
    }
}

impl RecordQueue {
    /// Keeps at most `budget_bytes` in memory, and tells `admission` how many bytes are queued.
    pub(crate) fn new(budget_bytes: usize, admission: Arc<AdmissionControl>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            not_empty: Condvar::new(),
            budget_bytes,
            admission,
        })
    }

    /// Starts with the records `from..=newest` that the previous run left in the journal. Call it
    /// before the first record is committed.
    pub(crate) fn start_from_journal(&self, from: u64, newest: u64) {
        let mut inner = self.lock();
        inner.spilled_from = Some(from);
        self.admission.set_bypass(BypassReason::JournalBacklog, true);
        inner.newest = inner.newest.max(Some(newest));
    }

    /// Ends the consumer; what is not gathered stays in the journal.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.not_empty.notify_all();
    }

    /// Takes the first of the next [`MAX_OVERTAKEN`] records in memory that `is_short`, out of
    /// order: for others while a long record is being gathered.
    pub(super) fn take_short(&self, is_short: impl Fn(&Record) -> bool) -> Option<Record> {
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        let at = inner.queue.iter().take(MAX_OVERTAKEN).position(is_short)?;
        let record = inner.queue.remove(at)?;
        inner.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
        self.admission.set_queued_bytes(inner.bytes);
        Some(record)
    }

    /// What waits to be gathered.
    pub(crate) fn backlog(&self) -> Backlog {
        let inner = self.lock();
        Backlog {
            bytes: inner.bytes,
            on_disk: inner.spilled_from.is_some(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits to be gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// Bytes that wait in memory.
    pub(crate) bytes: usize,
    /// Whether records wait that are only in the journal.
    pub(crate) on_disk: bool,
}

/// The gathering thread's end of the queue.
pub(crate) struct QueueConsumer {
    queue: Arc<RecordQueue>,
    journal: Journal,
    reader: Option<windrow_journal::Reader>,
    /// The last record (LSN) that was read back.
    read_to: Option<u64>,
}

impl QueueConsumer {
    pub(crate) fn new(queue: Arc<RecordQueue>, journal: Journal) -> Self {
        Self {
            queue,
            journal,
            reader: None,
            read_to: None,
        }
    }

    /// The queue itself, for [`RecordQueue::take_short`].
    pub(super) fn queue(&self) -> Arc<RecordQueue> {
        Arc::clone(&self.queue)
    }

    /// The next record, from memory or from the journal; waits at most `timeout` for one.
    pub(super) fn poll(&mut self, timeout: Duration) -> Polled {
        let mut may_wait = true;
        loop {
            let mut inner = self.queue.lock();
            if inner.closed {
                return Polled::Closed;
            }
            if let Some(record) = inner.queue.pop_front() {
                inner.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
                self.queue.admission.set_queued_bytes(inner.bytes);
                return Polled::Record(record);
            }
            if let Some(from) = inner.spilled_from {
                if self.read_to.is_some() && self.read_to >= inner.newest {
                    // All that is committed after this goes through memory again.
                    inner.spilled_from = None;
                    self.queue
                        .admission
                        .set_bypass(BypassReason::JournalBacklog, false);
                    drop(inner);
                    self.reader = None;
                    self.read_to = None;
                    tracing::info!("gathering has caught up with the journal");
                    continue;
                }
                drop(inner);
                match self.read_back(from) {
                    Some(record) => return Polled::Record(record),
                    None if !std::mem::take(&mut may_wait) => return Polled::Timeout,
                    None => continue,
                }
            }
            if !std::mem::take(&mut may_wait) {
                return Polled::Timeout;
            }
            inner.consumer_waits = true;
            let (guard, _) = self
                .queue
                .not_empty
                .wait_timeout(inner, timeout)
                .unwrap_or_else(PoisonError::into_inner);
            drop(guard);
        }
    }

    /// The next record of the journal; `None` at its end, which `read_to` then includes, and after
    /// an error.
    fn read_back(&mut self, from: u64) -> Option<Record> {
        // Taken before reading: a record that is committed after the reader found the end must not
        // count as read.
        let newest = self.queue.lock().newest;
        let reader = self.reader.get_or_insert_with(|| self.journal.reader(from));
        match reader.next() {
            Ok(Some(record)) => {
                self.read_to = Some(record.lsn);
                Some(record)
            }
            Ok(None) => {
                // The records up to `newest` may be quarantined; then none is left to read.
                self.read_to = self.read_to.max(newest).or(Some(from));
                None
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the journal back; trying again");
                std::thread::sleep(Duration::from_millis(200));
                None
            }
        }
    }
}
