//! Reader of the embedded store, for `/logs`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::StoreError;
use super::files::StoreFiles;

/// Time that another process may lock the database before a read fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads documents from the store.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    opened: Mutex<(Connection, StoreFiles)>,
}

impl SqliteReader {
    /// Opens the store for reading; the writer has created it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            opened: Mutex::new(connect(path)?),
        })
    }

    /// The document with this id, or the newest ones by first event time.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn recent(&self, id: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.1.replaced().is_some() {
            *opened = connect(&self.path)?;
        }
        let connection = &opened.0;
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

fn connect(path: &Path) -> Result<(Connection, StoreFiles), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Opens the write-ahead log.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let connection = open().map_err(|source| StoreError::Sqlite {
        path: path.to_owned(),
        source,
    })?;
    let files = StoreFiles::opened(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok((connection, files))
}
