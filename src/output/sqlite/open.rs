//! Opening of the embedded store for writing, with its settings and its schema.

use std::path::Path;

use rusqlite::Connection;

use super::files::{self, StoreFiles};
use super::{BUSY_TIMEOUT, SCHEMA_VERSION, StoreError, WAL_LIMIT_BYTES};

/// Opens a database for writing, and creates it if there is none.
pub(super) fn connect(path: &Path) -> Result<(Connection, StoreFiles), StoreError> {
    files::prepare(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    let open = || -> rusqlite::Result<(Connection, i64)> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // These have an effect on a new file only.
        connection.pragma_update(None, "page_size", 8192)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // Full: a commit is on disk when it returns, as a confirmation requires.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
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
        if version <= SCHEMA_VERSION {
            // Rows that were merged, for the search index. Numbers are not used again.
            connection.execute_batch(
                "CREATE INDEX IF NOT EXISTS documents_written ON documents (written);
                 CREATE TABLE IF NOT EXISTS merged (
                   number INTEGER PRIMARY KEY AUTOINCREMENT,
                   document INTEGER NOT NULL
                 );",
            )?;
        }
        connection.set_prepared_statement_cache_capacity(16);
        Ok((connection, version))
    };
    let failed = |source| StoreError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let (connection, found) = open().map_err(failed)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    let files = StoreFiles::opened(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok((connection, files))
}
