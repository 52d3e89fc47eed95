//! Embedded store: a SQLite database with one row per document.
//!
//! Owns the file, its schema and its retention. Writes one transaction per group of batches, in WAL
//! mode with full synchronisation, so that a committed document may be confirmed. Nothing is
//! confirmed when the file at the path is no longer the one that is open. Reads (`/logs`) use a
//! connection of their own and do not block the writer. Two documents of one trace are merged by
//! `windrow_trace::union`.

pub(crate) mod files;
mod open;
mod reader;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::files::StoreFiles;
use self::open::connect;
pub use self::reader::{RecentRows, SqliteReader, StoreConnection};

use super::{Batch, OutputId, SealedDocument, Watchdog};
use crate::allocator;
use crate::config::SqliteConfig;
use windrow_trace::{Union, UnionError, union, union_within};

const SCHEMA_VERSION: i64 = 1;
/// Documents of one transaction, reached by whole batches.
const MAX_TRANSACTION_DOCUMENTS: usize = 10_000;
/// Bytes of the documents of one transaction, reached by whole batches. The store exceeds its
/// limit by no more.
const MAX_TRANSACTION_BYTES: usize = 16 << 20;
/// Size to which SQLite truncates its write-ahead log after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 16 << 20;

/// Time that another process may lock the database before a transaction fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed transaction.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between retention runs, also of an idle store.
const RETENTION_INTERVAL: Duration = if cfg!(test) {
    Duration::from_millis(200)
} else {
    Duration::from_secs(10)
};

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite reports an error.
    #[error("{path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error.
        source: rusqlite::Error,
    },
    /// The file cannot be examined.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The file was written by a newer Windrow.
    #[error(
        "{path} has format {found}, this Windrow knows up to {SCHEMA_VERSION}: use the newer Windrow, or another data folder"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// Another program removed or replaced the file; the writer opens the path again.
    #[error(
        "{path} was removed or replaced while Windrow had it open: documents that only it held are gone; it is opened or created again"
    )]
    Replaced {
        /// The file.
        path: PathBuf,
    },
}

/// Counts of one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionSummary {
    /// New rows.
    pub created: u64,
    /// Rows that were merged with an existing one.
    pub merged: u64,
    /// Documents that were stored before.
    pub unchanged: u64,
    /// Lines of all documents.
    pub lines: u64,
    /// JSON bytes of all documents.
    pub bytes: u64,
}

/// The last number of the table `merged` that was read; what is up to it is deleted.
#[derive(Debug, Default)]
pub struct MergesRead(AtomicI64);

impl MergesRead {
    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number; the reader never asks for what is up to it again.
    pub fn set(&self, number: i64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// Writes documents to the store.
#[derive(Debug)]
pub struct SqliteWriter {
    connection: Connection,
    files: StoreFiles,
    config: SqliteConfig,
    /// Longest document that lines are added to.
    max_document_bytes: usize,
    /// Set if somebody reads the list of merges.
    merges_read: Option<Arc<MergesRead>>,
}

/// Called for each document that can never be stored; returns once it is durable elsewhere.
pub type RejectFn<'a> = dyn FnMut(&SealedDocument, &UnionError) + 'a;

impl SqliteWriter {
    /// Opens the store, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be opened or created, or has a newer format.
    pub fn open(config: SqliteConfig, max_document_bytes: usize) -> Result<Self, StoreError> {
        let (connection, files) = connect(&config.path)?;
        Ok(Self {
            connection,
            files,
            config,
            max_document_bytes,
            merges_read: None,
        })
    }

    /// Notes which rows are merged, for somebody who reads the table `merged`, until they have read
    /// it.
    pub fn note_merges_for(&mut self, reader: Arc<MergesRead>) {
        self.merges_read = Some(reader);
    }

    /// Whether the open files are still those at their paths; if not, they are opened again, and
    /// that is the error.
    fn check_files(&mut self) -> Result<(), StoreError> {
        let Some(path) = self.files.replaced() else {
            return Ok(());
        };
        // If only the write-ahead log is gone, what it held is still readable here.
        let checkpoint = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "the embedded store could not be checkpointed");
        }
        let (connection, files) = connect(&self.config.path)?;
        (self.connection, self.files) = (connection, files);
        Err(StoreError::Replaced { path })
    }

    /// Frees memory that is only kept for reuse.
    fn shrink_memory(&self) {
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "the cache of the embedded store could not be freed");
        }
        allocator::collect();
    }

    /// Writes documents in one transaction; on success all of them are durable. Calls `reject` for
    /// those that meet a foreign row with their id, and `merged` for those that meet a row of their
    /// own, with the number of lines that are new in it.
    ///
    /// # Errors
    ///
    /// An error of SQLite: nothing of this call is stored, and it may be repeated.
    pub fn write<'a>(
        &mut self,
        documents: impl IntoIterator<Item = &'a SealedDocument>,
        reject: &mut RejectFn<'_>,
        merged: &mut dyn FnMut(&SealedDocument, u32),
    ) -> Result<TransactionSummary, StoreError> {
        self.check_files()?;
        let path = &self.config.path;
        let mut done = TransactionSummary::default();
        let mut foreign = Vec::new();
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            let now = unix_seconds();
            {
                let mut create = transaction.prepare_cached(
                    "INSERT INTO documents (written, first, id, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
                )?;
                let mut find = transaction.prepare_cached("SELECT document FROM documents WHERE id = ?1")?;
                let mut replace = transaction.prepare_cached(
                    "UPDATE documents SET document = ?2, first = min(first, ?3) WHERE id = ?1",
                )?;
                let mut note = transaction.prepare_cached(
                    "INSERT INTO merged (document) SELECT rowid FROM documents WHERE id = ?1",
                )?;
                let noted = self.merges_read.is_some();
                for document in documents {
                    // Rendered as JSON text, so it is UTF-8 throughout.
                    let json = String::from_utf8_lossy(document.json());
                    done.lines += u64::from(document.lines());
                    done.bytes += json.len() as u64;
                    if create.execute(params![now, document.first_ns(), document.id(), json])? == 1 {
                        done.created += 1;
                        continue;
                    }
                    if !document.is_trace() {
                        done.unchanged += 1;
                        merged(document, 0);
                        continue;
                    }
                    let existing: String = find.query_row([document.id()], |row| row.get(0))?;
                    let bounded = match union_within(
                        existing.as_bytes(),
                        document.json(),
                        document.id(),
                        self.max_document_bytes,
                    ) {
                        Ok(bounded) => bounded,
                        Err(error) => {
                            foreign.push((document, error));
                            continue;
                        }
                    };
                    let mut lines = 0;
                    if let Union::Merged {
                        document: merged_json,
                        new_lines,
                    } = &bounded.main
                    {
                        let text = String::from_utf8_lossy(merged_json);
                        // Without new lines its time stays.
                        let first = if *new_lines > 0 {
                            document.first_ns()
                        } else {
                            i64::MAX
                        };
                        replace.execute(params![document.id(), text, first])?;
                        if noted {
                            note.execute([document.id()])?;
                        }
                        lines += new_lines;
                    }
                    for one in &bounded.continuations {
                        let json = String::from_utf8_lossy(&one.document);
                        if create.execute(params![now, one.first_ns, one.id, json])? == 1 {
                            lines += one.lines;
                            continue;
                        }
                        let existing: String = find.query_row([&one.id], |row| row.get(0))?;
                        match union(existing.as_bytes(), &one.document) {
                            Ok(Union::Unchanged) => {}
                            Ok(Union::Merged {
                                document: merged_json,
                                new_lines,
                            }) => {
                                let text = String::from_utf8_lossy(&merged_json);
                                replace.execute(params![one.id, text, one.first_ns])?;
                                if noted {
                                    note.execute([&one.id])?;
                                }
                                lines += new_lines;
                            }
                            Err(error) => foreign.push((document, error)),
                        }
                    }
                    if bounded.main == Union::Unchanged && lines == 0 {
                        done.unchanged += 1;
                    } else {
                        done.merged += 1;
                    }
                    merged(document, lines);
                }
            }
            transaction.commit()
        };
        write().map_err(|source| StoreError::Sqlite {
            path: path.clone(),
            source,
        })?;
        // Removed during the transaction: what was committed is in no file.
        if let Some(path) = self.files.replaced() {
            return Err(StoreError::Replaced { path });
        }
        for (document, error) in &foreign {
            reject(document, error);
        }
        Ok(done)
    }
}

/// Receives the results of transactions.
pub trait WriteObserver: Send {
    /// A transaction is on disk.
    fn written(&mut self, done: &TransactionSummary, took: Duration);
    /// A transaction failed and is retried after a pause.
    fn failed(&mut self, error: &StoreError);
    /// A document can never be stored; returns once it is durable elsewhere.
    fn rejected(&mut self, document: &SealedDocument, why: &UnionError);
}

/// Writes batches until the channel closes. Runs on its own thread; `runtime` is its clock. A
/// failed transaction is retried until it succeeds or `stop` returns true.
pub fn run(
    mut writer: SqliteWriter,
    id: OutputId,
    mut batches: mpsc::Receiver<Batch>,
    mut observer: impl WriteObserver,
    watchdog: &Watchdog,
    runtime: &Runtime,
    stop: &dyn Fn() -> bool,
) {
    let mut retain_at = Instant::now();
    let mut has_written = false;
    loop {
        let next = async { tokio::time::timeout_at(retain_at, batches.recv()).await };
        match runtime.block_on(next) {
            Ok(Some(first)) => {
                has_written = true;
                if !write_batches(
                    &mut writer,
                    id,
                    &first,
                    &mut batches,
                    &mut observer,
                    watchdog,
                    stop,
                ) {
                    return;
                }
            }
            Ok(None) => return,
            Err(_elapsed) => {
                if !std::mem::take(&mut has_written) {
                    writer.shrink_memory();
                }
            }
        }
        let step = if Instant::now() >= retain_at {
            watchdog.begin();
            writer.retain()
        } else {
            Ok(false)
        };
        let step = step.and_then(|more| {
            // Writing waits while the store is beyond its limit.
            while writer.is_beyond_limit()? && writer.retain()? && !stop() {}
            Ok(more)
        });
        match step {
            Ok(more) => {
                watchdog.succeed();
                let now = Instant::now();
                if more {
                    retain_at = now;
                } else if now >= retain_at {
                    retain_at = now + RETENTION_INTERVAL;
                }
            }
            Err(error) => {
                observer.failed(&error);
                watchdog.fail(&error);
                retain_at = Instant::now() + RETENTION_INTERVAL;
            }
        }
    }
}

/// Writes a batch and those that wait behind it in one transaction, and confirms them; `false` when
/// `stop` ends the attempts.
fn write_batches(
    writer: &mut SqliteWriter,
    id: OutputId,
    first: &Batch,
    batches: &mut mpsc::Receiver<Batch>,
    observer: &mut impl WriteObserver,
    watchdog: &Watchdog,
    stop: &dyn Fn() -> bool,
) -> bool {
    let mut batch: Vec<SealedDocument> = first.documents().collect();
    let mut bytes = first.bytes();
    while batch.len() < MAX_TRANSACTION_DOCUMENTS
        && bytes < MAX_TRANSACTION_BYTES
        && let Ok(more) = batches.try_recv()
    {
        bytes += more.bytes();
        batch.extend(more.documents());
    }
    let began = SystemTime::now();
    let mut dead: HashSet<_> = HashSet::new();
    let mut new_lines_of: HashMap<_, u32> = HashMap::new();
    watchdog.begin();
    loop {
        let documents = batch.iter();
        let mut reject = |document: &SealedDocument, why: &UnionError| {
            observer.rejected(document, why);
            dead.insert(document.key());
        };
        let mut merged = |document: &SealedDocument, new_lines| {
            new_lines_of.insert(document.key(), new_lines);
        };
        match writer.write(documents, &mut reject, &mut merged) {
            Ok(done) => {
                observer.written(&done, began.elapsed().unwrap_or_default());
                watchdog.succeed();
                break;
            }
            Err(error) => {
                observer.failed(&error);
                watchdog.fail(&error);
                if stop() {
                    return false;
                }
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
    for document in &batch {
        let at = document.key();
        if dead.contains(&at) {
            document.confirm_dead(id);
        } else {
            if let Some(new_lines) = new_lines_of.get(&at) {
                document.note_merged(*new_lines);
            }
            document.confirm(id);
        }
    }
    true
}

fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
