//! The write-ahead log: bytes in, [`Receipt`] out. It is also the queue between intake and gathering: what is
//! not processed at once is read back from here.
//!
//! It owns the journal folder and everything in it. It knows nothing of Forward, chunks or traces, and it never
//! looks into a payload.
//!
//! # What it promises
//! * A [`Receipt`] exists only for a record that was synced to disk, and nothing else can make one.
//! * Every record with a receipt comes back from a [`Reader`], unchanged and in order, after any crash, until it is
//!   released; unless the disk itself damaged it, which is counted, logged and kept in `quarantine/`.
//! * A record is never read back damaged.
//! * `received_us` ascends strictly over the life of the folder, and so do lsns; neither is given twice.
//! * The files together stay within [`Options::limit_bytes`] (plus at most one segment that is not in use).
//!
//! # On disk
//! `LOCK` (one process per folder), `instance` (16 hex digits), `<number>.seg` (records, see `format.rs`),
//! `<number>.notes` (what is released, see `notes.rs`), `<number>.spare` (the file of a segment that is done with, to be
//! used again in this life), `quarantine/` (damaged segment files, never removed by us).
//!
//! # How it works
//! Appends wait in a queue. One *writer* thread takes all that waits, writes it as whole blocks past the page cache (see
//! `blocks.rs`; through it where the file system offers nothing else), syncs once, tells the [`Committed`] sink and then
//! hands out the receipts: the slower the disk, the larger the groups. One
//! *keeper* thread does what must not hold the writer up: it allocates the next segment, writes notes, removes
//! segments of which every record is released, or keeps their files for new ones: to write over blocks costs half of
//! what it costs to fill new ones. What such a file held before can never pass for a record of the new segment, since
//! checksums cover the segment's number.
//!
//! After an error of a write or a sync nothing more is confirmed from that file and it is never synced again (the
//! kernel may have dropped what it could not write): it ends at its last synced byte, and a new segment begins. A
//! full disk is no error: records wait until there is space.
//!
//! A segment header names the lsn that it continues at. So whatever stands in an older file from there on was
//! never confirmed, and is not read.

mod ahead;
mod blocks;
mod company;
mod error;
mod format;
mod inspect;
mod instance;
mod keeper;
mod lock;
mod notes;
mod queue;
mod reader;
mod recovery;
mod scan;
mod segments;
mod shared;
mod storage;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use blocks::BLOCK;
pub use error::{AppendError, OpenError, ReadError};
pub use inspect::{Each, Report, SegmentReport, inspect, inspect_with};
pub use queue::Append;
pub use reader::Reader;
pub use recovery::Recovery;
pub use usage::{Blocked, OldestSegment, SYNC_BUCKETS, Usage};

use keeper::Keeper;
use lock::Lock;
use queue::Pending;
use shared::{Shared, lock};
use storage::{Disk, Storage};
use writer::Writer;

/// Where the journal is and how large it may become.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; made if it does not exist.
    pub dir: PathBuf,
    /// Bytes of one segment file. At most an eighth of `limit_bytes` is used: whole segments are freed, so there
    /// must be several. A record that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Bytes that all segment files together may have. Appends wait when they are reached. On disk there can be up to
    /// one segment more, allocated ahead or kept to be used again, and the small notes of released records.
    pub limit_bytes: u64,
}

impl Options {
    /// 64 MiB segments, 10 GiB in all.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            limit_bytes: 10 << 30,
        }
    }
}

/// One record, as it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number: ascending, never given twice. There can be gaps.
    pub lsn: u64,
    /// The segment that it is in; see [`Usage::oldest_segment`].
    pub segment: u64,
    /// When it was received, Unix microseconds: strictly ascending with the lsn. Comes back as it was first given.
    pub received_us: i64,
    /// What the caller gave it; the journal does not look at it.
    pub kind: u8,
    /// The bytes, unchanged.
    pub payload: Bytes,
    /// It was released (in this life or the one before), but its segment is still there.
    pub released: bool,
}

/// Proof that a record is durable. Only the journal makes one, once per record.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a receipt is what an acknowledgement is made from"]
pub struct Receipt {
    lsn: u64,
    segment: u64,
    received_us: i64,
}

impl Receipt {
    /// The record's number.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// The segment that the record is in.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The time that the record was stamped with, Unix microseconds.
    pub fn received_us(&self) -> i64 {
        self.received_us
    }
}

/// Gets each record once it is durable.
pub trait Committed: Send + 'static {
    /// Called on the writer thread, in lsn order, after the sync and before the receipts are handed out. A [`Reader`]
    /// sees these records from the moment on that this returns, not before: a record that a reader gave is one that
    /// came by here, and one that came by here is never missed by a reader that is asked afterwards.
    ///
    /// It must be quick (all appends wait for it), and it must not call the journal or a reader: they wait for it too.
    fn committed(&mut self, records: Vec<Record>);
}

/// Takes no notice: for callers that read everything back.
impl Committed for () {
    fn committed(&mut self, _: Vec<Record>) {}
}

/// A journal that is open. Cheap to clone; the last clone to go closes it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

impl Journal {
    /// Locks the folder (made if needed), finds out what is in it, and starts the threads.
    ///
    /// Only the newest segment is read here; older ones are checked as a [`Reader`] comes to them. To continue
    /// where the last life ended, read from [`Recovery::first_lsn`] (or `first_unreleased_lsn`) on.
    ///
    /// # Errors
    /// The folder is locked, not permitted, unreadable, or of a newer format. Damage is no error: see
    /// [`Recovery::quarantined`].
    pub fn open(options: Options, sink: Box<dyn Committed>) -> Result<(Self, Recovery), OpenError> {
        let folder_lock = Lock::take(&options.dir)?;
        let disk = Disk::open(&options.dir).map_err(lock::about("open", &options.dir))?;
        let (journal, recovery) = Self::open_on(Arc::new(disk), options, sink, now_us)?;
        *lock(&journal.threads.folder_lock) = Some(folder_lock);
        Ok((journal, recovery))
    }

    fn open_on(
        storage: Arc<dyn Storage>,
        options: Options,
        sink: Box<dyn Committed>,
        now_us: fn() -> i64,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir = options.dir.clone();
        let (shared, writer, recovery) = recovery::recover(storage, options, sink, now_us)?;
        let keeper = Keeper::new(Arc::clone(&shared));
        let threads = Threads::start(&shared, writer, keeper, &dir)?;
        Ok((
            Self {
                shared,
                threads: Arc::new(threads),
            },
            recovery,
        ))
    }

    /// Queues a record now, in the order of the calls; the future resolves when it is durable. Its checksum is computed here, a
    /// millisecond for some 16 MiB.
    ///
    /// It waits, as long as it takes, while the journal is at its limit or the disk is full or failing: see
    /// [`Usage::blocked`]. Dropping the future does not take the record back once it is being written. `payload` can
    /// be empty. The future needs no runtime; [`Append::wait`] blocks a thread instead.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, kind: u8, payload: Bytes) -> Append {
        let bytes = payload.len() as u64;
        let max = self.shared.max_payload();
        if bytes > max {
            return Append::refused(AppendError::TooLarge { bytes, max });
        }
        let (pending, append) = Pending::new(kind, payload);
        match self.shared.push(pending) {
            true => append,
            false => Append::refused(AppendError::Closed),
        }
    }

    /// The largest payload that is taken, in bytes: 1 GiB, or half of the limit if that is less.
    pub fn max_payload(&self) -> u64 {
        self.shared.max_payload()
    }

    /// Reads records in order, beginning with the first whose lsn is `from_lsn` or more.
    pub fn reader(&self, from_lsn: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), from_lsn)
    }

    /// Every output has confirmed everything of this record; it will not be needed again. Released twice, or
    /// unknown: no effect.
    pub fn release(&self, lsn: u64) {
        self.shared.release(&[lsn]);
    }

    /// As [`Journal::release`], cheaper for many.
    pub fn release_many(&self, lsns: &[u64]) {
        self.shared.release(lsns);
    }

    /// Numbers for metrics, readiness and early sealing.
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }

    /// A random number that was drawn when the folder was made: with the lsn it names a record for ever.
    pub fn instance(&self) -> u64 {
        self.shared.instance
    }

    /// Writes what waits, stops the threads, unlocks the folder. Appends that cannot be written now (limit, full
    /// disk) and later ones end with [`AppendError::Closed`]; readers go on. Blocks for as long as the disk needs.
    pub fn close(self) {
        self.threads.stop();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

/// The two threads and the lock on the folder, until the journal is closed.
struct Threads {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    folder_lock: Mutex<Option<Lock>>,
}

impl Threads {
    fn start(
        shared: &Arc<Shared>,
        writer: Writer,
        keeper: Keeper,
        dir: &std::path::Path,
    ) -> Result<Self, OpenError> {
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(lock::about("start a thread for", dir))
        };
        let threads = Self {
            shared: Arc::clone(shared),
            writer: Mutex::new(None),
            keeper: Mutex::new(None),
            folder_lock: Mutex::new(None),
        };
        *lock(&threads.writer) = Some(spawn("journal-writer", Box::new(|| writer.run()))?);
        *lock(&threads.keeper) = Some(spawn("journal-keeper", Box::new(|| keeper.run()))?);
        Ok(threads)
    }

    fn stop(&self) {
        self.shared.close_queue();
        // A thread that panicked has said so itself.
        if let Some(thread) = lock(&self.writer).take() {
            let _ = thread.join();
        }
        self.shared.stop_keeper();
        if let Some(thread) = lock(&self.keeper).take() {
            let _ = thread.join();
        }
        drop(lock(&self.folder_lock).take());
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The clock of the received times: Unix microseconds.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
