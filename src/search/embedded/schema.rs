//! File of the index and its tables.
//!
//! The key of a trace is its time, so that terms, traces and summaries are in time order: a page of
//! the newest traces reads no other, however many a query finds.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use windrow_query::{FTS5_TOKENIZER, Names};

use super::IndexError;
use crate::output::sqlite::files::{self, StoreFiles};

/// Changes with the tables and with what is in them.
const FORMAT: u32 = 1;
/// Bits of a key below the millisecond.
const NUMBER_BITS: u32 = 16;
/// Size to which SQLite truncates its write-ahead log after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 16 << 20;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The value of `level` for a trace without one.
pub(super) const NO_LEVEL: i64 = 6;

/// What `counts` and `labels` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub(super) enum Facet {
    Level = 0,
    Service = 1,
    Tag = 2,
}

/// The first key of a millisecond.
pub(super) fn first_key(time_ms: i64) -> i64 {
    let limit = i64::MAX >> NUMBER_BITS;
    time_ms.clamp(-limit, limit) << NUMBER_BITS
}

/// The last key of a millisecond.
pub(super) fn last_key(time_ms: i64) -> i64 {
    first_key(time_ms) | ((1 << NUMBER_BITS) - 1)
}

/// The millisecond of a key.
pub(super) fn time_of(key: i64) -> i64 {
    key >> NUMBER_BITS
}

/// An open index.
#[derive(Debug)]
pub(super) struct IndexFile {
    pub(super) connection: Connection,
    files: StoreFiles,
}

/// Where the indexer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The last row of the store.
    pub(super) document: i64,
    /// Its id, to notice another store.
    pub(super) id: String,
    /// The last entry of the store's list of merges.
    pub(super) merge: i64,
}

impl IndexFile {
    /// Opens the index for writing. It is created if there is none, and made empty if it is of
    /// another format or for other names.
    ///
    /// FTS5 collects terms of `buffer_bytes` before it writes them.
    pub(super) fn open(path: &Path, names: &Names, buffer_bytes: usize) -> Result<Self, IndexError> {
        let index = Self::open_file(path, names)?;
        let connection = &index.connection;
        let cache_kib = (buffer_bytes / 2048).clamp(2_000, 8_000) as i64;
        connection
            .pragma_update(None, "cache_size", -cache_kib)
            .and_then(|()| {
                let sql = "INSERT INTO terms (terms, rank) VALUES ('hashsize', ?1)";
                connection.execute(sql, [buffer_bytes as i64])
            })
            .map_err(|source| sqlite_error(path, source))?;
        Ok(index)
    }

    fn open_file(path: &Path, names: &Names) -> Result<Self, IndexError> {
        let made_for = format!("{FORMAT} {} {}", names.key, names.text.join(" "));
        match Self::try_open(path, &made_for) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => {}
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "the search index is damaged and made again");
            }
            Err(error) => return Err(error),
        }
        remove(path)?;
        let index = Self::try_open(path, &made_for)?;
        index.ok_or_else(|| IndexError::Sqlite {
            path: path.to_owned(),
            source: rusqlite::Error::InvalidQuery,
        })
    }

    /// `None` if the file is of another format.
    fn try_open(path: &Path, made_for: &str) -> Result<Option<Self>, IndexError> {
        files::prepare(path).map_err(|source| file_error(path, source))?;
        let open = || -> rusqlite::Result<Option<Connection>> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // These have an effect on a new file only.
            connection.pragma_update(None, "page_size", 8192)?;
            connection.pragma_update(None, "auto_vacuum", "incremental")?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            // A commit may be lost with the power, and is made again.
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.pragma_update(None, "wal_autocheckpoint", 2_000)?;
            connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
            connection.set_prepared_statement_cache_capacity(32);
            let tables: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                create(&connection, made_for)?;
            }
            let found: Option<String> = connection
                .query_row("SELECT made_for FROM progress", [], |row| row.get(0))
                .optional()?;
            Ok((found.as_deref() == Some(made_for)).then_some(connection))
        };
        let connection = match open() {
            Ok(Some(connection)) => connection,
            // Another format has other tables.
            Ok(None) | Err(rusqlite::Error::SqlInputError { .. }) => return Ok(None),
            Err(source) => return Err(sqlite_error(path, source)),
        };
        let files = StoreFiles::opened(path).map_err(|source| file_error(path, source))?;
        Ok(Some(Self { connection, files }))
    }

    /// Opens the index for reading; `None` if there is none yet.
    pub(super) fn open_read_only(path: &Path) -> Result<Option<Self>, IndexError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "cache_size", -8_000)?;
            connection.set_prepared_statement_cache_capacity(32);
            connection.query_row("SELECT count(*) FROM progress", [], |_| Ok(()))?;
            Ok(connection)
        };
        match open() {
            Ok(connection) => {
                let files = StoreFiles::opened(path).map_err(|source| file_error(path, source))?;
                Ok(Some(Self { connection, files }))
            }
            // Not created yet.
            Err(rusqlite::Error::SqlInputError { .. }) => Ok(None),
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::CannotOpen =>
            {
                Ok(None)
            }
            Err(source) => Err(sqlite_error(path, source)),
        }
    }

    /// Whether the files at the path are still those that are open.
    pub(super) fn is_current(&self) -> bool {
        self.files.replaced().is_none()
    }

    pub(super) fn position(&self) -> rusqlite::Result<Position> {
        self.connection
            .query_row("SELECT document, id, merge FROM progress", [], |row| {
                Ok(Position {
                    document: row.get(0)?,
                    id: row.get(1)?,
                    merge: row.get(2)?,
                })
            })
    }

    /// Size of the file, bytes.
    pub(super) fn bytes(&self) -> rusqlite::Result<u64> {
        let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        self.connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map(|bytes| bytes.unsigned_abs())
    }
}

pub(super) fn set_position(connection: &Connection, position: &Position) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE progress SET document = ?1, id = ?2, merge = ?3")?
        .execute(params![position.document, position.id, position.merge])?;
    Ok(())
}

fn create(connection: &Connection, made_for: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE progress (
           made_for TEXT NOT NULL,
           document INTEGER NOT NULL, -- last rowid of the store
           id TEXT NOT NULL,          -- its id
           merge INTEGER NOT NULL     -- last number of its list of merges
         );
         CREATE TABLE traces (
           time INTEGER PRIMARY KEY,  -- Unix ms << {NUMBER_BITS}, and a number that makes it unique
           document INTEGER NOT NULL, -- rowid in the store
           level INTEGER NOT NULL,    -- 0 trace to 5 fatal, {NO_LEVEL} none
           duration INTEGER NOT NULL, -- ms
           labels TEXT NOT NULL       -- ids of services and tags, separated by spaces
         );
         CREATE UNIQUE INDEX traces_document ON traces (document);
         CREATE VIRTUAL TABLE terms USING fts5 (
           body, content = '', contentless_delete = 1, tokenize = \"{FTS5_TOKENIZER}\"
         );
         INSERT INTO terms (terms, rank) VALUES ('automerge', 8);
         CREATE TABLE summaries (     -- of documents that are too long to be read for a list
           time INTEGER PRIMARY KEY,
           summary TEXT NOT NULL
         );
         CREATE TABLE counts (        -- traces per minute
           kind INTEGER NOT NULL,     -- level, service, tag
           minute INTEGER NOT NULL,   -- Unix ms / 60000
           value INTEGER NOT NULL,    -- level, or id of a label
           count INTEGER NOT NULL,
           PRIMARY KEY (kind, minute, value)
         ) WITHOUT ROWID;
         CREATE TABLE labels (
           id INTEGER PRIMARY KEY,
           kind INTEGER NOT NULL,
           value TEXT NOT NULL,
           UNIQUE (kind, value)
         );
         INSERT INTO progress VALUES ('{}', 0, '', 0);
         COMMIT;",
        made_for.replace('\'', "''")
    ))
}

/// Removes the index.
///
/// # Errors
///
/// A file cannot be removed.
pub(super) fn remove(path: &Path) -> Result<(), IndexError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = PathBuf::from(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(&path, error)),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn sqlite_error(path: &Path, source: rusqlite::Error) -> IndexError {
    IndexError::Sqlite {
        path: path.to_owned(),
        source,
    }
}

fn file_error(path: &Path, source: io::Error) -> IndexError {
    IndexError::File {
        path: path.to_owned(),
        source,
    }
}
