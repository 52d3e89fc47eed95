//! Embedded store: a SQLite database with one row per document.
//!
//! Documents of one trace for different destinations are different rows.
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
mod row_key;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use self::files::StoreFiles;
use self::open::connect;
pub use self::reader::{RecentRows, SqliteReader, StoreConnection};
use self::row_key::RowKeys;
pub use self::worker::{WriteObserver, run};

use super::{Destinations, SealedDocument};
use crate::allocator;
use crate::config::SqliteConfig;
use windrow_trace::{BoundedUnion, Union, UnionError, union, union_within};

const SCHEMA_VERSION: i64 = 1;
/// From this size on a document is not kept in statements, and not copied without need.
const LARGE_DOCUMENT_BYTES: usize = 256 << 10;
/// Size to which SQLite truncates its write-ahead log after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 32 << 20;

/// Time that another process may lock the database before a transaction fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// The names of destinations.
    destinations: Option<Arc<Destinations>>,
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
            destinations: None,
            merges_read: None,
        })
    }

    /// Notes which rows are merged, for somebody who reads the table `merged`, until they have read
    /// it.
    pub fn note_merges_for(&mut self, reader: Arc<MergesRead>) {
        self.merges_read = Some(reader);
    }

    /// Documents may go to several destinations.
    pub fn route_to(&mut self, destinations: Arc<Destinations>) {
        self.destinations = Some(destinations);
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
        let mut documents: Vec<_> = documents.into_iter().collect();
        sort(&mut documents);
        let mut done = TransactionSummary::default();
        let mut foreign = Vec::new();
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            let now = unix_seconds();
            {
                let mut create = transaction.prepare_cached(
                    "INSERT INTO documents (written, first, id, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
                )?;
                let mut exists = transaction.prepare_cached("SELECT 1 FROM documents WHERE id = ?1")?;
                let mut find = transaction.prepare_cached("SELECT document FROM documents WHERE id = ?1")?;
                let mut replace = transaction.prepare_cached(
                    "UPDATE documents SET document = ?2, first = min(first, ?3) WHERE id = ?1",
                )?;
                let mut note = transaction.prepare_cached(
                    "INSERT INTO merged (document) SELECT rowid FROM documents WHERE id = ?1",
                )?;
                let noted = self.merges_read.is_some();
                let key = RowKeys(self.destinations.as_deref());
                for document in documents {
                    // Rendered as JSON text, so it is UTF-8 throughout.
                    let json = String::from_utf8_lossy(document.json());
                    done.lines += u64::from(document.lines());
                    done.bytes += json.len() as u64;
                    let row = key.of(document, document.id());
                    let is_large = json.len() >= LARGE_DOCUMENT_BYTES;
                    // SQLite copies what is bound: not for a long document that exists.
                    if !(is_large && exists.exists([&row])?) {
                        let is_new = create.execute(params![now, document.first_ns(), row, json])? == 1;
                        if is_large {
                            create.clear_bindings();
                        }
                        if is_new {
                            done.created += 1;
                            continue;
                        }
                    }
                    if !document.is_trace() {
                        done.unchanged += 1;
                        merged(document, 0);
                        continue;
                    }
                    let (ours, id) = (document.json(), document.id());
                    // Within the query, so that the existing document is not copied.
                    let united = find.query_row([&row], |row| {
                        let existing = row.get_ref(0)?.as_bytes()?;
                        Ok(union_within(existing, ours, id, self.max_document_bytes))
                    });
                    let bounded = match united? {
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
                        replace.execute(params![row, text, first])?;
                        if text.len() >= LARGE_DOCUMENT_BYTES {
                            replace.clear_bindings();
                        }
                        if noted {
                            note.execute([&row])?;
                        }
                        lines += new_lines;
                    }
                    let BoundedUnion { main, continuations } = bounded;
                    let is_unchanged = main == Union::Unchanged;
                    // Each is freed before the next one is written.
                    drop(main);
                    for one in continuations {
                        let json = String::from_utf8_lossy(&one.document);
                        let row = key.of(document, &one.id);
                        if create.execute(params![now, one.first_ns, row, json])? == 1 {
                            lines += one.lines;
                            continue;
                        }
                        let existing: String = find.query_row([&row], |row| row.get(0))?;
                        match union(existing.as_bytes(), &one.document) {
                            Ok(Union::Unchanged) => {}
                            Ok(Union::Merged {
                                document: merged_json,
                                new_lines,
                            }) => {
                                let text = String::from_utf8_lossy(&merged_json);
                                replace.execute(params![row, text, one.first_ns])?;
                                if noted {
                                    note.execute([&row])?;
                                }
                                lines += new_lines;
                            }
                            Err(error) => foreign.push((document, error)),
                        }
                    }
                    if is_unchanged && lines == 0 {
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

/// Orders traces by id, in which a page of the index is written once. What has no trace id keeps its
/// order, which is that of rows with one time; so do parts of one trace.
fn sort(documents: &mut [&SealedDocument]) {
    documents.sort_by(|a, b| match (a.is_trace(), b.is_trace()) {
        (true, true) => a.id().cmp(b.id()),
        (one, other) => one.cmp(&other),
    });
}

fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
