//! Handle of an open journal, and the threads behind it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::error::{AppendError, OpenError};
use crate::folder_lock::FolderLock;
use crate::maintenance::Maintenance;
use crate::options::JournalOptions;
use crate::queue::{Append, PendingAppend};
use crate::reader::Reader;
use crate::record::CommitSink;
use crate::recovery::{Recovery, recover};
use crate::shared::Shared;
use crate::storage::{DiskStorage, Storage};
use crate::sync::lock;
use crate::usage::Usage;
use crate::writer::Writer;

/// An open journal. Clones are cheap and share it; dropping the last one closes it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

impl Journal {
    /// Locks the folder (created if needed), recovers its state and starts the threads.
    ///
    /// Only the newest segment is read; a [`Reader`] checks older ones when it comes to them. To
    /// continue where the previous run ended, read from [`Recovery::first_lsn`] or
    /// [`Recovery::first_unreleased_lsn`].
    ///
    /// # Errors
    /// The folder is locked, unreadable, without permission or of a newer format. Damage is no
    /// error: see [`Recovery::quarantined`].
    pub fn open(options: JournalOptions, sink: Box<dyn CommitSink>) -> Result<(Self, Recovery), OpenError> {
        let folder_lock = FolderLock::acquire(&options.dir)?;
        let storage = DiskStorage::open(&options.dir).map_err(OpenError::during("open", &options.dir))?;
        let (journal, recovery) = Self::open_on(Arc::new(storage), options, sink)?;
        *lock(&journal.threads.folder_lock) = Some(folder_lock);
        Ok((journal, recovery))
    }

    fn open_on(
        storage: Arc<dyn Storage>,
        options: JournalOptions,
        sink: Box<dyn CommitSink>,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir = options.dir.clone();
        let (shared, writer, recovery) = recover(storage, options, sink)?;
        let maintenance = Maintenance::new(Arc::clone(&shared));
        let threads = Threads::start(&shared, writer, maintenance, &dir)?;
        Ok((
            Self {
                shared,
                threads: Arc::new(threads),
            },
            recovery,
        ))
    }

    /// Queues a record, in the order of the calls. The future resolves when the record is durable.
    ///
    /// The checksum is computed in this call, at about 16 GiB/s. `payload` can be empty. The future
    /// waits without a time limit while the journal is at its limit or the disk is full or failing:
    /// see [`Usage::blocked`]. Dropping the future withdraws the record unless it is being written.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, kind: u8, payload: Bytes) -> Append {
        self.append_from(0, kind, payload)
    }

    /// Queues a record of one of several sources, as [`Journal::append`] does.
    ///
    /// Near the limit, where long records wait, none of the sources can take all that is left: each
    /// gets as much as remains free. `source` is any number, evenly distributed over its low bits.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_from(&self, source: u64, kind: u8, payload: Bytes) -> Append {
        let bytes = payload.len() as u64;
        let max = self.shared.max_payload_bytes();
        if bytes > max {
            return Append::refused(AppendError::TooLarge { bytes, max });
        }
        let (pending, append) = PendingAppend::new(source, kind, payload);
        match self.shared.queue.push(pending) {
            true => append,
            false => Append::refused(AppendError::Closed),
        }
    }

    /// Size of the largest payload that is accepted, in bytes: 1 GiB, or half of the limit if that
    /// is less.
    pub fn max_payload_bytes(&self) -> u64 {
        self.shared.max_payload_bytes()
    }

    /// Reads records in lsn order, starting with the first whose lsn is `from_lsn` or more.
    pub fn reader(&self, from_lsn: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), from_lsn)
    }

    /// Declares that a record will not be needed again. Unknown and released records are ignored.
    ///
    /// A release is logged within about 200 ms and never synced: after a crash, a record may come
    /// back unreleased.
    pub fn release(&self, lsn: u64) {
        self.shared.release(&[lsn]);
    }

    /// [`Journal::release`] for many records at once.
    pub fn release_many(&self, lsns: &[u64]) {
        self.shared.release(lsns);
    }

    /// State and counters, for metrics, readiness checks and back-pressure.
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }

    /// Random number drawn when the folder was created. With the lsn it names a record globally.
    pub fn instance(&self) -> u64 {
        self.shared.instance
    }

    /// Writes what is queued, stops the threads and unlocks the folder. Blocks until the disk has
    /// finished.
    ///
    /// Appends that cannot be written at once (limit, full disk) and later ones end with
    /// [`AppendError::Closed`]. Open readers stay usable.
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

/// The two threads and the folder's lock, until the journal is closed.
struct Threads {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    folder_lock: Mutex<Option<FolderLock>>,
}

impl Threads {
    fn start(
        shared: &Arc<Shared>,
        writer: Writer,
        maintenance: Maintenance,
        dir: &Path,
    ) -> Result<Self, OpenError> {
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(OpenError::during("start a thread for", dir))
        };
        let threads = Self {
            shared: Arc::clone(shared),
            writer: Mutex::new(None),
            maintenance: Mutex::new(None),
            folder_lock: Mutex::new(None),
        };
        // Linux truncates thread names to 15 bytes.
        *lock(&threads.writer) = Some(spawn("journal-writer", Box::new(|| writer.run()))?);
        *lock(&threads.maintenance) = Some(spawn("journal-maint", Box::new(|| maintenance.run()))?);
        Ok(threads)
    }

    /// Stops the writer first: its last commits can still seal segments.
    fn stop(&self) {
        self.shared.queue.close();
        // A panic was logged when it happened.
        if let Some(thread) = lock(&self.writer).take() {
            let _ = thread.join();
        }
        self.shared.signals.request_stop();
        if let Some(thread) = lock(&self.maintenance).take() {
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
