//! Readers of the embedded store, for `/logs` and the search.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::StoreError;
use super::files::StoreFiles;
use super::row_key::document_id_of_row;

/// Time that another process may lock the database before a read fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Documents that a read returned.
#[derive(Debug, Default)]
pub struct RecentRows {
    /// The first ones, up to the bound in bytes.
    pub documents: Vec<String>,
    /// Their ids.
    pub ids: Vec<String>,
    /// Number of the others.
    pub omitted: usize,
}

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

    /// The document with this id and its continuations, or the newest ones by first event time, up
    /// to `max_bytes`. Reads no document that is not returned.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn recent(&self, id: Option<&str>, limit: usize, max_bytes: usize) -> Result<RecentRows, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.1.replaced().is_some() {
            *opened = connect(&self.path)?;
        }
        let connection = &opened.0;
        let read = || -> rusqlite::Result<RecentRows> {
            let lengths = match id {
                // The id of a continuation is that of the trace, "~" and its part; behind both may
                // be a destination.
                Some(id) => lengths(
                    connection,
                    "SELECT rowid, octet_length(document) FROM documents WHERE id = ?1
                     OR (id > ?1 || char(31) AND id < ?1 || ' ')
                     OR (id > ?1 || '~' AND id < ?1 || char(127)) ORDER BY id",
                    id,
                )?,
                None => lengths(
                    connection,
                    "SELECT rowid, octet_length(document) FROM documents ORDER BY first DESC, rowid DESC LIMIT ?1",
                    limit as i64,
                )?,
            };
            let mut found = RecentRows::default();
            let mut document =
                connection.prepare_cached("SELECT id, document FROM documents WHERE rowid = ?1")?;
            let mut bytes = 0;
            for (n, (row, length)) in lengths.iter().take(limit).enumerate() {
                bytes += length;
                if bytes > max_bytes {
                    found.omitted = lengths.len() - n;
                    break;
                }
                // Retention may have deleted it meanwhile.
                let read = document.query_row([row], |row| Ok((row.get(0)?, row.get(1)?)));
                let (id, document): (Option<String>, Option<String>) = read.optional()?.unzip();
                found.ids.extend(id.map(|id| document_id_of_row(&id).to_owned()));
                found.documents.extend(document);
            }
            Ok(found)
        };
        read().map_err(|source| StoreError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }

    /// Ids and documents of these rows; those that are longer than `max_bytes` or deleted are
    /// missing.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn documents(
        &self,
        rows: &[i64],
        max_bytes: usize,
    ) -> Result<HashMap<i64, (String, String)>, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.1.replaced().is_some() {
            *opened = connect(&self.path)?;
        }
        let read = || -> rusqlite::Result<HashMap<_, _>> {
            let mut read = opened.0.prepare_cached(
                "SELECT id, document FROM documents WHERE rowid = ?1 AND octet_length(document) <= ?2",
            )?;
            let mut found = HashMap::with_capacity(rows.len());
            for row in rows {
                let document = read
                    .query_row([*row, max_bytes as i64], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                found.extend(document.map(|(id, document): (String, String)| {
                    (*row, (document_id_of_row(&id).to_owned(), document))
                }));
            }
            Ok(found)
        };
        read().map_err(|source| StoreError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }
}

/// A connection for reading that follows the store when its file is replaced.
#[derive(Debug)]
pub struct StoreConnection {
    path: PathBuf,
    connection: Connection,
    files: StoreFiles,
}

impl StoreConnection {
    /// Opens the store; its writer has created it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (connection, files) = connect(path)?;
        Ok(Self {
            path: path.to_owned(),
            connection,
            files,
        })
    }

    /// Opens the file again if it was replaced, and returns whether it was.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be opened.
    pub fn reopen_if_replaced(&mut self) -> Result<bool, StoreError> {
        let replaced = self.files.replaced().is_some();
        if replaced {
            (self.connection, self.files) = connect(&self.path)?;
        }
        Ok(replaced)
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        read(&self.connection).map_err(|source| StoreError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }
}

/// Row ids and lengths of documents, without their content.
fn lengths(
    connection: &Connection,
    sql: &str,
    parameter: impl rusqlite::ToSql,
) -> rusqlite::Result<Vec<(i64, usize)>> {
    let mut read = connection.prepare_cached(sql)?;
    let rows = read.query_map([parameter], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs() as usize))
    })?;
    rows.collect()
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
