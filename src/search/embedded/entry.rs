//! What the index keeps of a document, and how it is written and removed.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use windrow_query::{Document, Names, ParseLimits, Query, index_terms_within};

use super::schema::{Facet, NO_LEVEL, first_key, time_of};
use crate::search::TraceSummary;

/// The summary of a longer document is kept, so that a list need not read it.
pub(super) const MAX_READ_BYTES: usize = 64 << 10;
/// Services or tags of one trace that are counted.
const MAX_LABELS: usize = 64;
/// Different services and tags that are counted; more could be found, and would fill memory.
const MAX_KNOWN_LABELS: usize = 100_000;
/// Minutes, ms.
pub(super) const MINUTE_MS: i64 = 60_000;

/// What is kept of a document.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) document: i64,
    time_ms: i64,
    level: i64,
    duration_ms: i64,
    services: Vec<String>,
    tags: Vec<String>,
    terms: String,
    summary: Option<String>,
}

impl Entry {
    /// `None` for what is no JSON object, such as a row of another program. Of a long document
    /// `max_bytes` of texts and of other values count, and twice as many of terms.
    pub(super) fn of(document: i64, id: &str, json: &[u8], names: &Names, max_bytes: usize) -> Option<Self> {
        let limits = ParseLimits {
            value_bytes: max_bytes,
            text_bytes: max_bytes,
        };
        let parsed = Document::parse_within(id, json, names, limits)?;
        let summary = (json.len() > MAX_READ_BYTES).then(|| {
            // Without a query there are no parse errors.
            let everything = Query::parse("", 0).ok()?;
            serde_json::to_string(&TraceSummary::of(&parsed, None, &everything)).ok()
        });
        let own = |values: &mut dyn Iterator<Item = &str>| {
            let mut values: Vec<_> = values.take(MAX_LABELS).map(str::to_owned).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        Some(Self {
            document,
            time_ms: parsed.time_ms(),
            level: parsed.level().map_or(NO_LEVEL, |level| level as i64),
            duration_ms: parsed.number("durationMs").map_or(0, |duration| duration as i64),
            services: own(&mut parsed.services()),
            tags: own(&mut parsed.tags()),
            terms: index_terms_within(&parsed, 2 * max_bytes),
            summary: summary.flatten(),
        })
    }
}

/// Writes entries in one transaction, and counts them.
pub(super) struct EntryWriter<'a> {
    connection: &'a Connection,
    labels: &'a mut Labels,
    counts: HashMap<(Facet, i64, i64), i64>,
    /// The last key that was given in each millisecond.
    keys: HashMap<i64, i64>,
}

/// Known services and tags with their ids.
#[derive(Debug, Default)]
pub(super) struct Labels(HashMap<(Facet, String), i64>);

impl<'a> EntryWriter<'a> {
    pub(super) fn new(connection: &'a Connection, labels: &'a mut Labels) -> Self {
        Self {
            connection,
            labels,
            counts: HashMap::new(),
            keys: HashMap::new(),
        }
    }

    /// Writes entries, of which none is in the index. FTS5 writes a segment whenever keys descend,
    /// so they are written in time order.
    pub(super) fn add(&mut self, entries: &mut [Entry]) -> rusqlite::Result<()> {
        entries.sort_by_key(|entry| entry.time_ms);
        for entry in entries {
            let key = self.key(entry.time_ms)?;
            let mut labels = String::new();
            for (facet, values) in [(Facet::Service, &entry.services), (Facet::Tag, &entry.tags)] {
                for value in values {
                    if let Some(id) = self.labels.id(self.connection, facet, value)? {
                        self.count(facet, key, id, 1);
                        if !labels.is_empty() {
                            labels.push(' ');
                        }
                        labels += &id.to_string();
                    }
                }
            }
            self.count(Facet::Level, key, entry.level, 1);
            self.connection
                .prepare_cached(
                    "INSERT INTO traces (time, document, level, duration, labels) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![key, entry.document, entry.level, entry.duration_ms, labels])?;
            self.connection
                .prepare_cached("INSERT INTO terms (rowid, body) VALUES (?1, ?2)")?
                .execute(params![key, entry.terms])?;
            if let Some(summary) = &entry.summary {
                self.connection
                    .prepare_cached("INSERT INTO summaries (time, summary) VALUES (?1, ?2)")?
                    .execute(params![key, summary])?;
            }
        }
        Ok(())
    }

    /// Removes the entry of a document; `false` if there is none.
    pub(super) fn remove(&mut self, document: i64) -> rusqlite::Result<bool> {
        let found = self
            .connection
            .prepare_cached("SELECT time, level, labels FROM traces WHERE document = ?1")?
            .query_row([document], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, String>(2)?,
                ))
            })
            .optional()?;
        let Some((key, level, labels)) = found else {
            return Ok(false);
        };
        for sql in [
            "DELETE FROM terms WHERE rowid = ?1",
            "DELETE FROM traces WHERE time = ?1",
            "DELETE FROM summaries WHERE time = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute([key])?;
        }
        self.count(Facet::Level, key, level, -1);
        for id in label_ids(&labels) {
            // Ids are unique over services and tags.
            if let Some(facet) = self.labels.facet(self.connection, id)? {
                self.count(facet, key, id, -1);
            }
        }
        Ok(true)
    }

    fn count(&mut self, facet: Facet, key: i64, value: i64, change: i64) {
        let minute = time_of(key).div_euclid(MINUTE_MS);
        *self.counts.entry((facet, minute, value)).or_default() += change;
    }

    /// Writes the counts.
    pub(super) fn finish(self) -> rusqlite::Result<()> {
        let mut add = self.connection.prepare_cached(
            "INSERT INTO counts (kind, minute, value, count) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (kind, minute, value) DO UPDATE SET count = count + excluded.count",
        )?;
        let mut counts: Vec<_> = self
            .counts
            .into_iter()
            .filter(|(_, change)| *change != 0)
            .collect();
        counts.sort_unstable_by_key(|((facet, minute, value), _)| (*facet as i64, *minute, *value));
        let shrunk = counts.iter().any(|(_, change)| *change < 0);
        for ((facet, minute, value), change) in counts {
            add.execute(params![facet as i64, minute, value, change])?;
        }
        if shrunk {
            let oldest: Option<i64> =
                self.connection
                    .query_row("SELECT min(time) FROM traces", [], |row| row.get(0))?;
            let minute = oldest.map_or(i64::MAX, |key| time_of(key).div_euclid(MINUTE_MS));
            for facet in [Facet::Level, Facet::Service, Facet::Tag] {
                self.connection
                    .prepare_cached("DELETE FROM counts WHERE kind = ?1 AND minute < ?2")?
                    .execute(params![facet as i64, minute])?;
            }
        }
        Ok(())
    }

    /// A key that no other trace has: the next one of its millisecond, or of a later one if 65,536
    /// traces begin in it.
    fn key(&mut self, time_ms: i64) -> rusqlite::Result<i64> {
        let first = first_key(time_ms);
        let mut key = match self.keys.get(&time_ms) {
            Some(last) => last + 1,
            None => {
                let last: Option<i64> = self
                    .connection
                    .prepare_cached("SELECT max(time) FROM traces WHERE time BETWEEN ?1 AND ?2")?
                    .query_row([first, first | 0xffff], |row| row.get(0))?;
                last.map_or(first, |last| last + 1)
            }
        };
        // Into a later millisecond.
        while time_of(key) != time_ms
            && self
                .connection
                .prepare_cached("SELECT 1 FROM traces WHERE time = ?1")?
                .exists([key])?
        {
            key += 1;
        }
        self.keys.insert(time_ms, key);
        Ok(key)
    }
}

/// The ids of a list in `traces.labels`.
pub(super) fn label_ids(labels: &str) -> impl Iterator<Item = i64> {
    labels.split(' ').filter_map(|id| id.parse().ok())
}

impl Labels {
    /// The id of a service or tag, which is made known; `None` if there are too many.
    fn id(&mut self, connection: &Connection, facet: Facet, value: &str) -> rusqlite::Result<Option<i64>> {
        let key = (facet, value.to_owned());
        if let Some(id) = self.0.get(&key) {
            return Ok(Some(*id));
        }
        let known = connection
            .prepare_cached("SELECT id FROM labels WHERE kind = ?1 AND value = ?2")?
            .query_row(params![facet as i64, value], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None if self.0.len() >= MAX_KNOWN_LABELS => return Ok(None),
            None => {
                connection
                    .prepare_cached("INSERT INTO labels (kind, value) VALUES (?1, ?2)")?
                    .execute(params![facet as i64, value])?;
                connection.last_insert_rowid()
            }
        };
        self.0.insert(key, id);
        Ok(Some(id))
    }

    fn facet(&self, connection: &Connection, id: i64) -> rusqlite::Result<Option<Facet>> {
        let kind: Option<i64> = connection
            .prepare_cached("SELECT kind FROM labels WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        let facets = [Facet::Service, Facet::Tag];
        Ok(facets.into_iter().find(|facet| Some(*facet as i64) == kind))
    }

    /// Forgets everything: a transaction with new labels failed, or the index is another one.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
