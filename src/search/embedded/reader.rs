//! Pages and documents from the index and the store.
//!
//! Everything that may find much is read in steps and ends at a limit of rows or time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::value::RawValue;
use windrow_query::{Document, Level, Names, Query, level_term};

use super::entry::MAX_READ_BYTES;
use super::schema::{IndexFile, first_key, last_key, sqlite_error};
use super::{IndexConfig, IndexError};
use crate::output::document_id;
use crate::output::sqlite::SqliteReader;
use crate::search::{Cursor, FoundDocument, Page, PageRequest, Selection, Sort, TraceSummary};

/// Time after which a search that has to see every match ends with what it has.
const SEARCH_TIME: Duration = Duration::from_secs(2);
/// Rows between two looks at the clock.
const ROWS_PER_LOOK: u32 = 1024;
/// Connections that are kept open.
const MAX_IDLE_CONNECTIONS: usize = 2;

/// Reads index and store.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    pub(super) names: Names,
    store: Arc<SqliteReader>,
    idle: Mutex<Vec<IndexFile>>,
}

/// When a search ends.
pub(super) struct Deadline {
    at: Instant,
    rows: u32,
}

impl Deadline {
    pub(super) fn new() -> Self {
        Self {
            at: Instant::now() + SEARCH_TIME,
            rows: 0,
        }
    }

    /// Counts a row; `true` when the time is over.
    pub(super) fn passed(&mut self) -> bool {
        self.rows += 1;
        self.rows.is_multiple_of(ROWS_PER_LOOK) && Instant::now() >= self.at
    }
}

/// Keys of a selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyRange {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl KeyRange {
    pub(super) fn of(selection: &Selection) -> Self {
        Self {
            first: first_key(selection.from_ms),
            last: last_key(selection.to_ms),
        }
    }
}

/// The keys of a page.
#[derive(Default)]
struct Found {
    /// Key, and what the order sorts by before it.
    keys: Vec<(i64, i64)>,
    more: bool,
    partial: bool,
}

impl Reader {
    pub(super) fn new(config: &IndexConfig, store: Arc<SqliteReader>) -> Self {
        Self {
            path: config.path(),
            names: config.names.clone(),
            store,
            idle: Mutex::default(),
        }
    }

    /// Reads from the index; the default while there is none.
    pub(super) fn read<T: Default>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop().filter(IndexFile::is_current);
        let index = match kept {
            Some(index) => index,
            None => match IndexFile::open_read_only(&self.path)? {
                Some(index) => index,
                None => return Ok(T::default()),
            },
        };
        let result = read(&index.connection).map_err(|source| sqlite_error(&self.path, source));
        let mut idle = idle();
        if result.is_ok() && idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push(index);
        }
        result
    }

    /// The documents of a trace id, or with this `_id`.
    pub(super) fn documents(&self, id: &str, max_bytes: usize) -> Result<Vec<FoundDocument>, IndexError> {
        let key = document_id(id.as_bytes());
        let found = self.store.recent(Some(&key), 1, max_bytes)?;
        let documents = found.documents.into_iter().filter_map(|json| {
            Some(FoundDocument {
                id: key.clone(),
                index: None,
                // A row that is no JSON was written by another program.
                json: RawValue::from_string(json).ok()?,
            })
        });
        Ok(documents.collect())
    }

    /// A page of summaries.
    pub(super) fn page(&self, request: &PageRequest) -> Result<Page, IndexError> {
        let expression = request.selection.query.to_fts5(&self.names);
        let found = self.read(|index| {
            let mut range = KeyRange::of(&request.selection);
            let after = request.after.as_ref();
            match request.sort {
                Sort::Newest => {
                    range.last =
                        after.map_or(range.last, |cursor| range.last.min(cursor.time.saturating_sub(1)));
                    in_time_order(index, expression.as_deref(), range, true, request.limit)
                }
                Sort::Oldest => {
                    range.first = after.map_or(range.first, |cursor| {
                        range.first.max(cursor.time.saturating_add(1))
                    });
                    in_time_order(index, expression.as_deref(), range, false, request.limit)
                }
                Sort::Worst => worst(index, expression.as_deref(), range, after, request.limit),
                Sort::Slowest => slowest(index, expression.as_deref(), range, after, request.limit),
            }
        })?;
        let last = found.keys.last().filter(|_| found.more);
        let next = last.map(|(key, rank)| Cursor::new(request.sort, *rank, *key, Vec::new()).encode());
        let keys: Vec<i64> = found.keys.iter().map(|(key, _)| *key).collect();
        Ok(Page {
            traces: self.summaries(&keys, &request.selection.query)?,
            next,
            partial: found.partial,
            ..Page::default()
        })
    }

    /// The summaries of these traces; those that were deleted meanwhile are missing.
    fn summaries(&self, keys: &[i64], query: &Query) -> Result<Vec<TraceSummary>, IndexError> {
        let kept = self.read(|index| {
            let mut row = index.prepare_cached("SELECT document FROM traces WHERE time = ?1")?;
            let mut summary = index.prepare_cached("SELECT summary FROM summaries WHERE time = ?1")?;
            let mut kept: Vec<(i64, Option<String>)> = Vec::with_capacity(keys.len());
            for key in keys {
                if let Some(document) = row.query_row([key], |row| row.get(0)).optional()? {
                    kept.push((document, summary.query_row([key], |row| row.get(0)).optional()?));
                }
            }
            Ok(kept)
        })?;
        let rows: Vec<i64> = kept.iter().map(|(document, _)| *document).collect();
        let mut documents = self.store.documents(&rows, MAX_READ_BYTES)?;
        let summaries = kept.into_iter().filter_map(|(row, summary)| {
            if let Some(summary) = summary {
                return serde_json::from_str(&summary).ok();
            }
            let (id, json) = documents.remove(&row)?;
            let document = Document::parse(&id, json.as_bytes(), &self.names)?;
            Some(TraceSummary::of(&document, None, query))
        });
        Ok(summaries.collect())
    }
}

/// The first keys in order of time. Reads no more than the page.
fn in_time_order(
    index: &Connection,
    expression: Option<&str>,
    range: KeyRange,
    descending: bool,
    limit: usize,
) -> rusqlite::Result<Found> {
    let order = if descending { "DESC" } else { "ASC" };
    let wanted = limit.saturating_add(1) as i64;
    let mut keys: Vec<i64> = match expression {
        Some(expression) => index
            .prepare_cached(&format!(
                "SELECT rowid FROM terms WHERE terms MATCH ?1 AND rowid BETWEEN ?2 AND ?3 ORDER BY rowid {order} LIMIT ?4"
            ))?
            .query_map(params![expression, range.first, range.last, wanted], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?,
        None => index
            .prepare_cached(&format!(
                "SELECT time FROM traces WHERE time BETWEEN ?1 AND ?2 ORDER BY time {order} LIMIT ?3"
            ))?
            .query_map(params![range.first, range.last, wanted], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?,
    };
    let more = keys.len() > limit;
    keys.truncate(limit);
    Ok(Found {
        keys: keys.into_iter().map(|key| (key, 0)).collect(),
        more,
        partial: false,
    })
}

/// The expression with a level.
pub(super) fn with_level(expression: Option<&str>, level: Option<Level>) -> String {
    let level = format!("\"{}\"", level_term(level));
    match expression {
        Some(expression) => format!("({expression}) AND {level}"),
        None => level,
    }
}

/// Levels from the worst to none, with their ranks, which are greater than 0.
pub(super) fn levels() -> impl Iterator<Item = (i64, Option<Level>)> {
    let levels = Level::ALL
        .into_iter()
        .rev()
        .map(|level| (level as i64 + 2, Some(level)));
    levels.chain([(1, None)])
}

/// The first keys by level, then time.
fn worst(
    index: &Connection,
    expression: Option<&str>,
    range: KeyRange,
    after: Option<&Cursor>,
    limit: usize,
) -> rusqlite::Result<Found> {
    let mut found = Found::default();
    for (rank, level) in levels() {
        let mut range = range;
        match after {
            Some(cursor) if rank > cursor.rank => continue,
            Some(cursor) if rank == cursor.rank => range.last = range.last.min(cursor.time.saturating_sub(1)),
            _ => {}
        }
        let expression = with_level(expression, level);
        // One more, so that it is known whether there are more of any level.
        let missing = limit + 1 - found.keys.len();
        let of_level = in_time_order(index, Some(&expression), range, true, missing)?;
        found
            .keys
            .extend(of_level.keys.into_iter().map(|(key, _)| (key, rank)));
        if found.keys.len() > limit {
            found.keys.truncate(limit);
            found.more = true;
            break;
        }
    }
    Ok(found)
}

/// The first keys by duration, then time. Every match has to be seen.
fn slowest(
    index: &Connection,
    expression: Option<&str>,
    range: KeyRange,
    after: Option<&Cursor>,
    limit: usize,
) -> rusqlite::Result<Found> {
    let mut read = index.prepare_cached(match expression {
        Some(_) => {
            "SELECT t.time, t.duration FROM terms CROSS JOIN traces t ON t.time = terms.rowid \
             WHERE terms MATCH ?3 AND terms.rowid BETWEEN ?1 AND ?2 ORDER BY terms.rowid DESC"
        }
        None => {
            "SELECT time, duration FROM traces WHERE time BETWEEN ?1 AND ?2 AND ?3 IS NULL ORDER BY time DESC"
        }
    })?;
    let mut rows = read.query(params![range.first, range.last, expression])?;
    let mut deadline = Deadline::new();
    let mut best = BinaryHeap::with_capacity(limit + 2);
    let mut partial = false;
    while let Some(row) = rows.next()? {
        let (key, duration): (i64, i64) = (row.get(0)?, row.get(1)?);
        if after.is_none_or(|cursor| (duration, key) < (cursor.rank, cursor.time)) {
            best.push(Reverse((duration, key)));
            if best.len() > limit + 1 {
                best.pop();
            }
        }
        if deadline.passed() {
            partial = true;
            break;
        }
    }
    let mut keys: Vec<_> = best
        .into_iter()
        .map(|Reverse((duration, key))| (key, duration))
        .collect();
    keys.sort_unstable_by_key(|(key, duration)| Reverse((*duration, *key)));
    let more = keys.len() > limit;
    keys.truncate(limit);
    Ok(Found { keys, more, partial })
}
