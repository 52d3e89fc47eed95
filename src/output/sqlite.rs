//! Embedded store: a SQLite database with one row per document.
//!
//! Owns the file, its schema and its retention. Writes one transaction per group of batches, in WAL
//! mode with full synchronisation, so that a committed document may be confirmed. Reads (`/logs`)
//! use a connection of their own and do not block the writer. Two documents of one trace are merged
//! by `windrow_trace::union`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::sync::mpsc;

use super::{Batch, OutputId, SealedDocument, Watchdog};
use crate::config::SqliteConfig;
use windrow_trace::{Union, UnionError, union};

const SCHEMA_VERSION: i64 = 1;
/// Documents of one transaction, reached by whole batches.
const MAX_TRANSACTION_DOCUMENTS: usize = 10_000;
/// Rows that one retention step deletes at most, so that it delays writing only briefly.
const MAX_RETENTION_ROWS: usize = 2_000;

/// Time that another process may lock the database before a transaction fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed transaction.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between retention runs.
const RETENTION_INTERVAL: Duration = Duration::from_secs(10);

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

/// Writes documents to the store.
#[derive(Debug)]
pub struct SqliteWriter {
    connection: Connection,
    config: SqliteConfig,
}

/// Called for each document that can never be stored; returns once it is durable elsewhere.
pub type RejectFn<'a> = dyn FnMut(&SealedDocument, &UnionError) + 'a;

impl SqliteWriter {
    /// Opens the store, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be opened or created, or has a newer format.
    pub fn open(config: SqliteConfig) -> Result<Self, StoreError> {
        let path = config.path.clone();
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            // Full: a commit is on disk when it returns, as a confirmation requires.
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
            connection.pragma_update(None, "cache_size", -8_000)?;
            let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                connection.execute_batch(
                    "BEGIN;
                     CREATE TABLE IF NOT EXISTS documents (
                       written INTEGER NOT NULL, -- Unix seconds
                       first INTEGER NOT NULL,   -- first event time, Unix ns
                       id TEXT NOT NULL,
                       document TEXT NOT NULL
                     );
                     CREATE UNIQUE INDEX IF NOT EXISTS documents_id ON documents (id);
                     CREATE INDEX IF NOT EXISTS documents_first ON documents (first);
                     PRAGMA user_version = 1;
                     COMMIT;",
                )?;
            }
            connection.set_prepared_statement_cache_capacity(16);
            Ok((connection, version))
        };
        let (connection, found) = open().map_err(|source| StoreError::Sqlite {
            path: config.path.clone(),
            source,
        })?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer {
                path: config.path,
                found,
            });
        }
        Ok(Self { connection, config })
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
                    match union(existing.as_bytes(), document.json()) {
                        Ok(Union::Unchanged) => {
                            done.unchanged += 1;
                            merged(document, 0);
                        }
                        Ok(Union::Merged {
                            document: document_json,
                            new_lines,
                        }) => {
                            let text = String::from_utf8_lossy(&document_json);
                            replace.execute(params![document.id(), text, document.first_ns()])?;
                            done.merged += 1;
                            merged(document, new_lines);
                        }
                        Err(error) => foreign.push((document, error)),
                    }
                }
            }
            transaction.commit()
        };
        write().map_err(|source| StoreError::Sqlite {
            path: path.clone(),
            source,
        })?;
        for (document, error) in &foreign {
            reject(document, error);
        }
        Ok(done)
    }

    /// Deletes a limited number of documents beyond the retention. Returns whether there may be
    /// more.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn retain(&mut self) -> Result<bool, StoreError> {
        let path = self.config.path.clone();
        let retain = || -> rusqlite::Result<bool> {
            let mut deleted = 0;
            if let Some(age) = self.config.retention_age {
                // Row ids grow with time, so the oldest rows are first.
                deleted += self.connection.execute(
                    "DELETE FROM documents WHERE rowid IN (SELECT rowid FROM documents ORDER BY rowid LIMIT ?1) AND written < ?2",
                    params![MAX_RETENTION_ROWS as i64, unix_seconds().saturating_sub_unsigned(age.as_secs())],
                )?;
            }
            if let Some(limit) = self.config.retention_size {
                let used: u64 = self.connection.query_row(
                    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
                    [],
                    |row| row.get::<_, i64>(0).map(|bytes| bytes.unsigned_abs()),
                )?;
                if used > limit {
                    deleted += self.connection.execute(
                        "DELETE FROM documents WHERE rowid IN (SELECT rowid FROM documents ORDER BY rowid LIMIT ?1)",
                        [MAX_RETENTION_ROWS as i64],
                    )?;
                }
            }
            Ok(deleted >= MAX_RETENTION_ROWS)
        };
        retain().map_err(|source| StoreError::Sqlite { path, source })
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

/// Writes batches until the channel closes. Runs on its own thread. A failed transaction is retried
/// until it succeeds or `stop` returns true.
pub fn run(
    mut writer: SqliteWriter,
    id: OutputId,
    mut batches: mpsc::Receiver<Batch>,
    mut observer: impl WriteObserver,
    watchdog: &Watchdog,
    stop: &dyn Fn() -> bool,
) {
    let mut retained = SystemTime::UNIX_EPOCH;
    while let Some(first) = batches.blocking_recv() {
        let mut batch: Vec<SealedDocument> = first.documents().collect();
        while batch.len() < MAX_TRANSACTION_DOCUMENTS
            && let Ok(more) = batches.try_recv()
        {
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
                        return;
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
        if retained.elapsed().is_ok_and(|since| since > RETENTION_INTERVAL) {
            match writer.retain() {
                Ok(true) => {}
                Ok(false) => retained = SystemTime::now(),
                Err(error) => {
                    observer.failed(&error);
                    watchdog.fail(&error);
                }
            }
        }
    }
}

/// Reads documents from the store, for `/logs`.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl SqliteReader {
    /// Opens the store for reading; the writer has created it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`] when the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            Ok(connection)
        };
        let connection = open().map_err(|source| StoreError::Sqlite {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    /// The document with this id, or the newest ones by first event time.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn recent(&self, id: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || -> rusqlite::Result<Vec<String>> {
            if let Some(id) = id {
                let one = connection
                    .prepare_cached("SELECT document FROM documents WHERE id = ?1")?
                    .query_row([id], |row| row.get(0))
                    .optional()?;
                return Ok(one.into_iter().collect());
            }
            connection
                .prepare_cached("SELECT document FROM documents ORDER BY first DESC, rowid DESC LIMIT ?1")?
                .query_map([limit as i64], |row| row.get(0))?
                .collect()
        };
        read().map_err(|source| StoreError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }
}

fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
