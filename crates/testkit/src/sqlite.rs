//! Reader of the embedded store's database file.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::check::Stored;

/// All documents of a database file.
///
/// # Panics
/// When the file is missing or no database of the embedded store, or a document is not JSON.
#[track_caller]
pub fn documents(file: &Path) -> Vec<Stored> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = Connection::open_with_flags(file, flags);
    let store = store.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    store
        .busy_timeout(std::time::Duration::from_secs(20))
        .expect("a timeout");
    let mut query = store
        .prepare("SELECT id, document FROM documents")
        .expect("the table of documents");
    let rows = query
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .expect("readable rows");
    rows.map(|row| {
        let (id, text) = row.expect("a readable row");
        let source = serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
        Stored {
            index: String::new(),
            id,
            source,
        }
    })
    .collect()
}
