//! Reads the embedded store from outside, as a user with `sqlite3` would.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::check::Stored;

/// All documents of a database file: of each row of each table the first column that holds a JSON object with
/// a `windrow` object in it. No such file yet: no documents.
///
/// # Panics
/// When the file is no database or cannot be read.
#[track_caller]
pub fn documents(file: &Path) -> Vec<Stored> {
    if !file.is_file() {
        return Vec::new();
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = Connection::open_with_flags(file, flags).expect("the database opens");
    store
        .busy_timeout(std::time::Duration::from_secs(20))
        .expect("a timeout");
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables: Vec<String> = store
        .prepare(names)
        .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
        .expect("the schema can be read");
    tables.iter().flat_map(|table| rows(&store, table)).collect()
}

fn rows(store: &Connection, table: &str) -> Vec<Stored> {
    let mut query = store
        .prepare(&format!("SELECT * FROM \"{table}\""))
        .expect("a table");
    let columns = query.column_count();
    let mut rows = query.query([]).expect("a readable table");
    let mut found = Vec::new();
    while let Some(row) = rows.next().expect("a readable row") {
        let column = |index| match row.get_ref(index) {
            Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => bytes,
            _ => &[][..],
        };
        let source = (0..columns)
            .filter_map(|index| serde_json::from_slice::<Value>(column(index)).ok())
            .find(|value| value["windrow"].is_object());
        if let Some(source) = source {
            let id = String::from_utf8_lossy(column(0)).into_owned();
            found.push(Stored {
                index: String::new(),
                id,
                source,
            });
        }
    }
    found
}
