//! The feed: committed journal records on their way to gathering, in order, in bounded memory.
//!
//! Owns the choice between memory and disk. While gathering keeps up, records go on in memory and are never read back.
//! When the bytes that wait reach the budget, later records are only in the journal, and are read back from there once
//! the ones in memory are through. So a slow or absent output costs disk, not memory, and acks stay fast.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::brake::{Brake, Free};
use windrow_journal::{CommitSink, Journal, Record};

/// What the record itself costs in memory besides its payload.
const RECORD_OVERHEAD: usize = 96;

/// The queue between the journal's writer and gathering.
#[derive(Debug)]
pub(crate) struct Feed {
    inner: Mutex<Inner>,
    wake: Condvar,
    budget: usize,
    brake: Arc<Brake>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Record>,
    bytes: usize,
    /// From this record on they are in the journal only.
    behind: Option<u64>,
    /// The newest record that is durable.
    newest: Option<u64>,
    /// The consumer waits.
    waiting: bool,
    closed: bool,
}

/// What the consumer gets.
#[derive(Debug)]
pub(crate) enum Next {
    /// The next record.
    Record(Record),
    /// Nothing came in time.
    Nothing,
    /// There will be no more.
    Closed,
}

/// The journal's end of the feed.
#[derive(Debug)]
pub(crate) struct Intake(pub(crate) Arc<Feed>);

impl CommitSink for Intake {
    fn committed(&mut self, records: Vec<Record>) {
        let mut inner = self.0.lock();
        inner.newest = records.last().map(|record| record.lsn).or(inner.newest);
        for record in records {
            if inner.behind.is_some() {
                break;
            }
            let cost = record.payload.len() + RECORD_OVERHEAD;
            if inner.bytes + cost > self.0.budget {
                inner.behind = Some(record.lsn);
                self.0.brake.set_free(Free::Behind, true);
                tracing::info!(
                    lsn = record.lsn,
                    waiting_bytes = inner.bytes,
                    budget_bytes = self.0.budget,
                    "outputs are slower than intake: from here on chunks wait in the journal only"
                );
                break;
            }
            inner.bytes += cost;
            inner.queue.push_back(record);
        }
        self.0.brake.set_waiting(inner.bytes);
        if inner.waiting {
            inner.waiting = false;
            self.0.wake.notify_one();
        }
    }
}

impl Feed {
    /// `budget` is the number of bytes that may wait in memory; `brake` is told how many do.
    pub(crate) fn new(budget: usize, brake: Arc<Brake>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            wake: Condvar::new(),
            budget,
            brake,
        })
    }

    /// Begins with what an earlier life left in the journal. Call it before the first record is committed.
    pub(crate) fn start_behind(&self, from: u64, newest: u64) {
        let mut inner = self.lock();
        inner.behind = Some(from);
        self.brake.set_free(Free::Behind, true);
        inner.newest = inner.newest.max(Some(newest));
    }

    /// No more records will be asked for, or come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Bytes that wait in memory, and whether there are records that wait on disk only.
    pub(crate) fn waiting(&self) -> (usize, bool) {
        let inner = self.lock();
        (inner.bytes, inner.behind.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The consumer's end of the feed.
pub(crate) struct Outlet {
    feed: Arc<Feed>,
    journal: Journal,
    reader: Option<windrow_journal::Reader>,
    /// The last record that was read from disk.
    read: Option<u64>,
}

impl Outlet {
    pub(crate) fn new(feed: Arc<Feed>, journal: Journal) -> Self {
        Self {
            feed,
            journal,
            reader: None,
            read: None,
        }
    }

    /// The next record, from memory or from disk; waits for one as long as `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> Next {
        let mut may_wait = true;
        loop {
            let mut inner = self.feed.lock();
            if inner.closed {
                return Next::Closed;
            }
            if let Some(record) = inner.queue.pop_front() {
                inner.bytes -= record.payload.len() + RECORD_OVERHEAD;
                self.feed.brake.set_waiting(inner.bytes);
                return Next::Record(record);
            }
            if let Some(from) = inner.behind {
                if self.read.is_some() && self.read >= inner.newest {
                    // Whatever is committed from now on goes through memory again.
                    inner.behind = None;
                    self.feed.brake.set_free(Free::Behind, false);
                    drop(inner);
                    self.reader = None;
                    self.read = None;
                    tracing::info!("gathering has caught up with the journal");
                    continue;
                }
                drop(inner);
                match self.read_back(from) {
                    Some(record) => return Next::Record(record),
                    None if !std::mem::take(&mut may_wait) => return Next::Nothing,
                    None => continue,
                }
            }
            if !std::mem::take(&mut may_wait) {
                return Next::Nothing;
            }
            inner.waiting = true;
            let (guard, _) = self
                .feed
                .wake
                .wait_timeout(inner, patience)
                .unwrap_or_else(PoisonError::into_inner);
            drop(guard);
        }
    }

    /// The next record on disk; `None` when the end was reached (which `self.read` then says).
    fn read_back(&mut self, from: u64) -> Option<Record> {
        // Asked before reading: what is committed after the reader has said "no more" must not count as read.
        let newest = self.feed.lock().newest;
        let reader = self.reader.get_or_insert_with(|| self.journal.reader(from));
        match reader.next() {
            Ok(Some(record)) => {
                self.read = Some(record.lsn);
                Some(record)
            }
            Ok(None) => {
                // The records up to the newest may be gone (quarantined); then nothing is left to be read.
                self.read = self.read.max(newest).or(Some(from));
                None
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read back; trying again");
                std::thread::sleep(Duration::from_millis(200));
                None
            }
        }
    }
}
