//! Indexer: a thread of low priority that follows the store.
//!
//! It reads rows that are newer than its position, rows that were merged since, and the oldest row
//! that retention has left. Position and entries change in one transaction, so that after a crash
//! it goes on where it was.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _};

use super::entry::{Entry, EntryWriter, Labels};
use super::schema::{self, IndexFile, Position, sqlite_error};
use super::{IndexConfig, IndexError, IndexProgress};
use crate::allocator::{self, IdleCollector};
use crate::output::sqlite::StoreConnection;
use crate::runtime;

/// Documents of one transaction.
const MAX_STEP_DOCUMENTS: i64 = 10_000;
/// Entries that one transaction removes for retention.
const MAX_STEP_REMOVED: i64 = 2_000;
/// What is indexed of one document, as a multiple of what a step takes: more than a trace can have.
const MAX_DOCUMENT_STEPS: usize = 2;
/// Free pages that one step gives back.
const MAX_STEP_PAGES: u32 = 2_000;
/// Pause when there is nothing to do.
const IDLE_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 200 });
/// Pause after an error.
const ERROR_PAUSE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// Niceness of the thread: it runs when nothing else does.
const NICENESS: i32 = 15;

/// Fills the index of a store.
#[derive(Debug)]
pub struct Indexer {
    config: IndexConfig,
    path: PathBuf,
    store: StoreConnection,
    index: IndexFile,
    labels: Labels,
    position: Position,
    progress: Arc<IndexProgress>,
}

/// The thread of an [`Indexer`]; dropping it stops the thread.
#[derive(Debug)]
pub struct RunningIndexer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for RunningIndexer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has logged its panic.
            let _ = thread.join();
        }
    }
}

impl Indexer {
    /// Opens the store, which its writer has created, and the index, which is created.
    ///
    /// # Errors
    ///
    /// A file cannot be opened.
    pub fn open(config: IndexConfig, progress: Arc<IndexProgress>) -> Result<Self, IndexError> {
        let path = config.path();
        let store = StoreConnection::open(&config.store)?;
        let index = IndexFile::open(&path, &config.names, config.buffer_bytes)?;
        let position = index.position().map_err(|source| sqlite_error(&path, source))?;
        Ok(Self {
            config,
            path,
            store,
            index,
            labels: Labels::default(),
            position,
            progress,
        })
    }

    fn open_index(&self) -> Result<IndexFile, IndexError> {
        IndexFile::open(&self.path, &self.config.names, self.config.buffer_bytes)
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(mut self) -> std::io::Result<RunningIndexer> {
        let stop = Arc::<AtomicBool>::default();
        let seen = Arc::clone(&stop);
        let run = move || {
            runtime::lower_priority(NICENESS);
            let mut failing = false;
            let mut collector = IdleCollector::default();
            while !seen.load(Ordering::Relaxed) {
                let pause = match self.step(&seen) {
                    Ok(true) => {
                        collector.busy();
                        Duration::ZERO
                    }
                    Ok(false) => {
                        if collector.is_due(Instant::now()) {
                            self.shrink_memory();
                        }
                        IDLE_PAUSE
                    }
                    Err(error) => {
                        // Once per failure, not once per attempt.
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "the search index cannot be filled; trying again");
                        }
                        if error.is_damage() {
                            self.rebuild().ok();
                        }
                        std::thread::park_timeout(ERROR_PAUSE);
                        continue;
                    }
                };
                failing = false;
                std::thread::park_timeout(pause);
            }
        };
        let thread = std::thread::Builder::new().name("search".into()).spawn(run)?;
        Ok(RunningIndexer {
            stop,
            thread: Some(thread),
        })
    }

    /// Indexes some documents, and returns whether there may be more.
    pub(super) fn step(&mut self, stop: &AtomicBool) -> Result<bool, IndexError> {
        if self.store.reopen_if_replaced()? {
            self.rebuild()?;
        }
        if !self.index.is_current() {
            self.index = self.open_index()?;
            self.load_position()?;
        }
        let ends = self.store.read(ends)?;
        if self.is_of_another_store(&ends)? {
            self.rebuild()?;
        }
        // Also when nothing can be written below.
        self.report_lag(&ends);
        // Merges first: what a merge changes later has a greater number.
        let merged = self
            .store
            .read(|store| merged_since(store, self.position.merge))?;
        let after = self.position.document;
        let max_bytes = self.config.buffer_bytes;
        let rows = self.store.read(|store| rows_after(store, after, max_bytes))?;
        let mut entries = Vec::new();
        let mut position = self.position.clone();
        let mut removed = self.index_merged(&merged, &mut entries, &mut position)?;
        let indexed = rows.len() + merged.len();
        let more_rows = !rows.is_empty();
        // Each is freed before the next one is taken apart.
        for row in rows {
            if stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            entries.extend(self.entry(&row));
            (position.document, position.id) = (row.row, row.id);
        }
        let expired = self.expired(ends.first)?;
        let more = more_rows || !merged.is_empty() || expired.len() as i64 == MAX_STEP_REMOVED;
        let gone = !expired.is_empty();
        removed.extend(expired);
        if !removed.is_empty() || position != self.position {
            self.write(&removed, &mut entries, &position)?;
            self.position = position;
        }
        if gone && !more {
            self.vacuum()?;
        }
        self.report(&ends, indexed)?;
        Ok(more)
    }

    /// Makes entries of rows that were merged, up to the bytes of a step: each once, as it is by now.
    /// Returns the rows of which there are entries.
    fn index_merged(
        &self,
        merged: &[(i64, i64)],
        entries: &mut Vec<Entry>,
        position: &mut Position,
    ) -> Result<Vec<i64>, IndexError> {
        let (mut done, mut bytes) = (HashSet::new(), 0);
        for &(number, row) in merged {
            if row <= self.position.document && !done.contains(&row) {
                if bytes >= self.config.buffer_bytes {
                    break;
                }
                if let Some(row) = self.store.read(|store| one_row(store, row))? {
                    bytes += row.json.len();
                    entries.extend(self.entry(&row));
                }
                done.insert(row);
            }
            position.merge = number;
        }
        Ok(done.into_iter().collect())
    }

    /// Frees memory that is only kept for reuse.
    fn shrink_memory(&self) {
        let free = |connection: &Connection| connection.execute_batch("PRAGMA shrink_memory");
        let freed = free(&self.index.connection).map_err(|source| sqlite_error(&self.path, source));
        let freed = freed.and_then(|()| Ok(self.store.read(free)?));
        if let Err(error) = freed {
            tracing::debug!(%error, "the cache of the search index could not be freed");
        }
        allocator::collect();
    }

    fn entry(&self, row: &Row) -> Option<Entry> {
        let max_bytes = MAX_DOCUMENT_STEPS * self.config.buffer_bytes;
        Entry::of(
            row.row,
            &row.id,
            row.json.as_bytes(),
            &self.config.names,
            max_bytes,
        )
    }

    fn write(
        &mut self,
        removed: &[i64],
        entries: &mut [Entry],
        position: &Position,
    ) -> Result<(), IndexError> {
        let labels = &mut self.labels;
        let connection = &mut self.index.connection;
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            let mut writer = EntryWriter::new(&transaction, labels);
            for document in removed {
                writer.remove(*document)?;
            }
            // After a crash of the store's machine, rows may be written again under known numbers.
            for entry in entries.iter().filter(|entry| entry.document <= position.document) {
                writer.remove(entry.document)?;
            }
            writer.add(entries)?;
            writer.finish()?;
            schema::set_position(&transaction, position)?;
            transaction.commit()
        };
        write().map_err(|source| {
            self.labels.clear();
            sqlite_error(&self.path, source)
        })
    }

    /// Entries of documents that retention has deleted: it deletes the oldest rows.
    fn expired(&self, first: Option<i64>) -> Result<Vec<i64>, IndexError> {
        let read = || -> rusqlite::Result<Vec<i64>> {
            let mut read = self.index.connection.prepare_cached(
                "SELECT document FROM traces WHERE document < ?1 ORDER BY document LIMIT ?2",
            )?;
            let first = first.unwrap_or(i64::MAX);
            read.query_map([first, MAX_STEP_REMOVED], |row| row.get(0))?
                .collect()
        };
        read().map_err(|source| sqlite_error(&self.path, source))
    }

    /// Whether the store has restarted its row numbers, or is another one than was indexed.
    fn is_of_another_store(&self, ends: &Ends) -> Result<bool, IndexError> {
        let at = self.position.document;
        if at == 0 {
            return Ok(false);
        }
        if ends.last.unwrap_or(0) < at {
            return Ok(true);
        }
        let id = self.store.read(|store| {
            store
                .prepare_cached("SELECT id FROM documents WHERE rowid = ?1")?
                .query_row([at], |row| row.get::<_, String>(0))
                .optional()
        })?;
        Ok(id.is_some_and(|id| id != self.position.id))
    }

    /// Makes the index again.
    fn rebuild(&mut self) -> Result<(), IndexError> {
        tracing::info!(index = %self.path.display(), "the search index is made again");
        self.progress.rebuilds.fetch_add(1, Ordering::Relaxed);
        schema::remove(&self.path)?;
        self.index = self.open_index()?;
        self.load_position()
    }

    fn load_position(&mut self) -> Result<(), IndexError> {
        self.labels.clear();
        self.position = self
            .index
            .position()
            .map_err(|source| sqlite_error(&self.path, source))?;
        Ok(())
    }

    /// Gives free pages back.
    fn vacuum(&self) -> Result<(), IndexError> {
        let vacuum = || -> rusqlite::Result<()> {
            let mut vacuum = self
                .index
                .connection
                .prepare(&format!("PRAGMA incremental_vacuum({MAX_STEP_PAGES})"))?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
            Ok(())
        };
        vacuum().map_err(|source| sqlite_error(&self.path, source))
    }

    fn report(&self, ends: &Ends, indexed: usize) -> Result<(), IndexError> {
        let progress = &self.progress;
        let bytes = self
            .index
            .bytes()
            .map_err(|source| sqlite_error(&self.path, source))?;
        progress.bytes.store(bytes, Ordering::Relaxed);
        progress.merges.set(self.position.merge);
        progress.indexed.fetch_add(indexed as u64, Ordering::Relaxed);
        self.report_lag(ends);
        Ok(())
    }

    fn report_lag(&self, ends: &Ends) {
        // Row numbers have no gaps behind the position.
        let rows = ends
            .last
            .unwrap_or(0)
            .saturating_sub(self.position.document)
            .max(0);
        let merges = ends.merges.saturating_sub(self.position.merge).max(0);
        let lag = (rows + merges).unsigned_abs();
        self.progress.lag.store(lag, Ordering::Relaxed);
    }
}

/// The first and the last row of the store, and the last number of its list of merges.
struct Ends {
    first: Option<i64>,
    last: Option<i64>,
    merges: i64,
}

fn ends(store: &Connection) -> rusqlite::Result<Ends> {
    store
        .prepare_cached(
            "SELECT (SELECT min(rowid) FROM documents), (SELECT max(rowid) FROM documents), \
             (SELECT coalesce(max(number), 0) FROM merged)",
        )?
        .query_row([], |row| {
            Ok(Ends {
                first: row.get(0)?,
                last: row.get(1)?,
                merges: row.get(2)?,
            })
        })
}

struct Row {
    row: i64,
    id: String,
    json: String,
}

fn rows_after(store: &Connection, after: i64, max_bytes: usize) -> rusqlite::Result<Vec<Row>> {
    let mut read = store.prepare_cached(
        "SELECT rowid, id, document FROM documents WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
    )?;
    let mut rows = read.query([after, MAX_STEP_DOCUMENTS])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while bytes < max_bytes
        && let Some(row) = rows.next()?
    {
        let row = read_row(row)?;
        bytes += row.json.len();
        found.push(row);
    }
    Ok(found)
}

fn one_row(store: &Connection, row: i64) -> rusqlite::Result<Option<Row>> {
    store
        .prepare_cached("SELECT rowid, id, document FROM documents WHERE rowid = ?1")?
        .query_row([row], read_row)
        .optional()
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        row: row.get(0)?,
        id: row.get(1)?,
        json: row.get(2)?,
    })
}

/// Numbers and rows of merges, in the order of the numbers.
fn merged_since(store: &Connection, number: i64) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut read = store
        .prepare_cached("SELECT number, document FROM merged WHERE number > ?1 ORDER BY number LIMIT ?2")?;
    let rows = read.query_map([number, MAX_STEP_REMOVED], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
