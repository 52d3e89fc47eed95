//! Queue of committed journal records between the journal's writer and gathering, in order and in
//! bounded memory.
//!
//! Owns the choice between memory and disk. While gathering keeps up, records stay in memory and
//! are never read back. When the queued bytes reach the budget, later records are only in the
//! journal and are read back once the queue is empty. A slow or absent output therefore costs disk,
//! not memory, and acks stay fast. Short records can be taken before long ones, and before those
//! that are only in the journal.

mod express;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::express::{ExpressLane, WaitingTags};
use crate::admission::{AdmissionControl, BypassReason};
use windrow_journal::{CommitSink, Journal, Record};

/// Memory of a queued record besides its payload.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// Records at which one call of [`RecordQueue::take_short`] looks.
const MAX_LOOKED_AT: usize = 256;

/// Share of the budget for short records behind those that are only in the journal.
const EXPRESS_SHARE: usize = 4;

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
    /// Records at the front that are known to be long, or to wait for one.
    overtaken: usize,
    /// Tags of these records, of those that are only in the journal, and of a long one that is
    /// being gathered.
    waiting_tags: WaitingTags,
    express: ExpressLane,
    /// The last record (LSN) that was read back.
    read_to: Option<u64>,
    /// The last record (LSN) that the previous run left, until it is read back.
    recover_to: Option<u64>,
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
                inner.leave_in_journal(record);
                continue;
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
                inner.leave_in_journal(record);
                continue;
            }
            inner.bytes += cost;
            inner.queue.push_back(record);
        }
        self.0.admission.set_queued_bytes(inner.queued_bytes());
        if inner.consumer_waits {
            inner.consumer_waits = false;
            self.0.not_empty.notify_one();
        }
    }
}

impl Inner {
    /// A record beyond the budget: only in the journal, unless it is short and of no tag whose
    /// records wait there.
    #[cold]
    fn leave_in_journal(&mut self, record: Record) {
        // The reader may be ahead of this call.
        let is_read = self.read_to.is_some_and(|read| read >= record.lsn);
        if is_read || self.waiting_tags.contains(&record.payload) {
            return;
        }
        // The tags of what the previous run left are not known.
        if self.recover_to > self.read_to {
            self.waiting_tags.insert(&record.payload);
            return;
        }
        let payload = record.payload.clone();
        if !self.express.push(record) {
            self.waiting_tags.insert(&payload);
        }
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.queue.pop_front()?;
        self.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
        self.overtaken = self.overtaken.saturating_sub(1);
        Some(record)
    }

    fn queued_bytes(&self) -> usize {
        self.bytes + self.express.bytes()
    }

    /// Nothing waits in order.
    fn is_in_order(&self) -> bool {
        self.overtaken == 0 && self.spilled_from.is_none()
    }
}

impl RecordQueue {
    /// Keeps at most `budget_bytes` in memory, and tells `admission` how many bytes are queued.
    pub(crate) fn new(budget_bytes: usize, admission: Arc<AdmissionControl>) -> Arc<Self> {
        let express_bytes = budget_bytes / EXPRESS_SHARE;
        let inner = Inner {
            express: ExpressLane::new(express_bytes),
            ..Inner::default()
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            not_empty: Condvar::new(),
            budget_bytes: budget_bytes - express_bytes,
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
        inner.recover_to = Some(newest);
    }

    /// Ends the consumer; what is not gathered stays in the journal.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.not_empty.notify_all();
    }

    /// Notes that a long record with this tag is being gathered: others of the tag wait for its end.
    pub(super) fn begin_long(&self, tag: &[u8]) {
        self.lock().waiting_tags.insert_tag(tag);
    }

    /// Whether a record waits that is long, or only in the journal.
    pub(super) fn is_held_up(&self, is_short: impl Fn(&Record) -> bool) -> bool {
        let first = {
            let inner = self.lock();
            if inner.overtaken > 0 || inner.spilled_from.is_some() {
                return true;
            }
            inner.queue.front().cloned()
        };
        first.is_some_and(|first| !is_short(&first))
    }

    /// Takes the first record that `is_short` and whose tag has none that wait in order: for
    /// others, before and while long records are gathered.
    pub(super) fn take_short(&self, is_short: impl Fn(&Record) -> bool) -> Option<Record> {
        for _ in 0..MAX_LOOKED_AT {
            let mut inner = self.lock();
            if inner.closed {
                return None;
            }
            let at = inner.overtaken;
            let in_memory = inner.queue.get(at).cloned();
            let candidate = match &in_memory {
                Some(record) => record.clone(),
                None => inner.express.pop()?,
            };
            let waits = inner.waiting_tags.contains(&candidate.payload);
            // Without the lock: it may take a millisecond. Only this thread takes records.
            drop(inner);
            let is_short = !waits && is_short(&candidate);
            let mut inner = self.lock();
            match (in_memory.is_some(), is_short) {
                (true, true) => {
                    // The other handle is dropped first: its buffer goes back to a pool.
                    drop((candidate, in_memory));
                    let record = inner.queue.remove(at)?;
                    inner.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
                    self.admission.set_queued_bytes(inner.queued_bytes());
                    return Some(record);
                }
                (true, false) => {
                    inner.waiting_tags.insert(&candidate.payload);
                    inner.overtaken += 1;
                }
                (false, true) => {
                    self.admission.set_queued_bytes(inner.queued_bytes());
                    return Some(candidate);
                }
                (false, false) if inner.express.give_back(candidate.lsn) => {
                    inner.waiting_tags.insert(&candidate.payload);
                }
                // It is only here.
                (false, false) => return Some(candidate),
            }
        }
        None
    }

    /// What waits to be gathered.
    pub(crate) fn backlog(&self) -> Backlog {
        let inner = self.lock();
        Backlog {
            bytes: inner.queued_bytes(),
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
}

impl QueueConsumer {
    pub(crate) fn new(queue: Arc<RecordQueue>, journal: Journal) -> Self {
        Self {
            queue,
            journal,
            reader: None,
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
            if let Some(record) = inner.pop() {
                self.queue.admission.set_queued_bytes(inner.queued_bytes());
                if inner.is_in_order() {
                    inner.waiting_tags.clear();
                }
                return Polled::Record(record);
            }
            if let Some(from) = inner.spilled_from {
                if inner.read_to.is_some() && inner.read_to >= inner.newest {
                    // All that is committed after this goes through memory again.
                    inner.spilled_from = None;
                    inner.read_to = None;
                    inner.recover_to = None;
                    inner.express.end_reading();
                    inner.waiting_tags.clear();
                    self.queue
                        .admission
                        .set_bypass(BypassReason::JournalBacklog, false);
                    drop(inner);
                    self.reader = None;
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
            if let Some(record) = inner.express.pop() {
                self.queue.admission.set_queued_bytes(inner.queued_bytes());
                return Polled::Record(record);
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
        loop {
            let read = reader.next();
            let mut inner = self.queue.lock();
            match read {
                Ok(Some(record)) => {
                    inner.read_to = Some(record.lsn);
                    if inner.express.leaves_out(record.lsn) {
                        continue;
                    }
                    return Some(record);
                }
                Ok(None) => {
                    // The records up to `newest` may be quarantined; then none is left to read.
                    inner.read_to = inner.read_to.max(newest).or(Some(from));
                    return None;
                }
                Err(error) => {
                    drop(inner);
                    tracing::error!(%error, "cannot read the journal back; trying again");
                    std::thread::sleep(Duration::from_millis(200));
                    return None;
                }
            }
        }
    }
}
