//! Histograms and facets.
//!
//! Without a query they come from counts per minute, apart from the minutes at both ends. With one,
//! its matches are counted, the newest first, for a limited time.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use windrow_query::Level;

use super::IndexError;
use super::entry::{MINUTE_MS, label_ids};
use super::reader::{Deadline, KeyRange, Reader, levels, with_level};
use super::schema::{Facet, first_key, last_key, time_of};
use crate::search::{Buckets, FacetValue, Facets, Histogram, MAX_FACET_VALUES, Selection, level_name};

impl Reader {
    /// Counts by time and level.
    pub(super) fn histogram(&self, selection: &Selection, buckets: Buckets) -> Result<Histogram, IndexError> {
        let expression = selection.query.to_fts5(&self.names);
        let range = KeyRange::of(selection);
        self.read(|index| match &expression {
            Some(expression) => matches_by_level(index, expression, range, buckets),
            None if buckets.width_ms % MINUTE_MS == 0 => stored_by_level(index, selection, buckets),
            None => {
                let mut histogram = Histogram::default();
                histogram.partial = scan_levels(index, range, &mut Deadline::new(), |time_ms, level| {
                    histogram.add(buckets.start_of(time_ms), level, 1);
                })?;
                Ok(histogram)
            }
        })
    }

    /// Counts by service, level and tag.
    pub(super) fn facets(&self, selection: &Selection) -> Result<Facets, IndexError> {
        let expression = selection.query.to_fts5(&self.names);
        self.read(|index| {
            let mut counts = FacetCounts::default();
            let mut deadline = Deadline::new();
            match &expression {
                Some(expression) => {
                    counts.partial =
                        counts.matches(index, expression, KeyRange::of(selection), &mut deadline)?;
                }
                None => {
                    let minutes = Minutes::of(selection);
                    counts.stored(index, minutes)?;
                    for edge in minutes.edges(selection).into_iter().flatten() {
                        counts.partial |= counts.scan(index, edge, &mut deadline)?;
                    }
                }
            }
            counts.into_facets(index)
        })
    }
}

/// The whole minutes of a selection: first and last, which may be before the first.
#[derive(Clone, Copy)]
struct Minutes {
    first: i64,
    last: i64,
}

impl Minutes {
    fn of(selection: &Selection) -> Self {
        // The last minute is whole if the selection reaches to its last millisecond.
        Self {
            first: selection.from_ms.div_euclid(MINUTE_MS)
                + i64::from(selection.from_ms.rem_euclid(MINUTE_MS) != 0),
            last: selection.to_ms.saturating_add(1).div_euclid(MINUTE_MS) - 1,
        }
    }

    /// The keys of the selection that are in none of the minutes.
    fn edges(self, selection: &Selection) -> [Option<KeyRange>; 2] {
        let range = |from_ms: i64, to_ms: i64| {
            (from_ms <= to_ms).then(|| KeyRange {
                first: first_key(from_ms),
                last: last_key(to_ms),
            })
        };
        let (from, to) = (selection.from_ms, selection.to_ms);
        if self.first > self.last {
            return [range(from, to), None];
        }
        let start = self.first.saturating_mul(MINUTE_MS);
        let end = self.last.saturating_add(1).saturating_mul(MINUTE_MS);
        // Without bounds there are no edges.
        let before = if from == i64::MIN {
            None
        } else {
            range(from, start.saturating_sub(1))
        };
        let behind = if to == i64::MAX { None } else { range(end, to) };
        [before, behind]
    }
}

/// Calls `each` for the traces of a range, the newest first; `true` if the time was over before the
/// last.
fn scan_levels(
    index: &Connection,
    range: KeyRange,
    deadline: &mut Deadline,
    mut each: impl FnMut(i64, Option<Level>),
) -> rusqlite::Result<bool> {
    let mut read = index
        .prepare_cached("SELECT time, level FROM traces WHERE time BETWEEN ?1 AND ?2 ORDER BY time DESC")?;
    let mut rows = read.query([range.first, range.last])?;
    while let Some(row) = rows.next()? {
        each(time_of(row.get(0)?), level_of(row.get(1)?));
        if deadline.passed() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn level_of(number: i64) -> Option<Level> {
    Level::ALL.into_iter().find(|level| *level as i64 == number)
}

/// Counts all traces by whole minutes, and those of the minutes at both ends one by one.
fn stored_by_level(
    index: &Connection,
    selection: &Selection,
    buckets: Buckets,
) -> rusqlite::Result<Histogram> {
    let mut histogram = Histogram::default();
    let minutes = Minutes::of(selection);
    let mut read = index.prepare_cached(
        "SELECT minute, value, count FROM counts WHERE kind = ?1 AND minute BETWEEN ?2 AND ?3",
    )?;
    let mut rows = read.query(params![Facet::Level as i64, minutes.first, minutes.last])?;
    while let Some(row) = rows.next()? {
        let minute: i64 = row.get(0)?;
        let count = row.get::<_, i64>(2)?.max(0).unsigned_abs();
        histogram.add(
            buckets.start_of(minute.saturating_mul(MINUTE_MS)),
            level_of(row.get(1)?),
            count,
        );
    }
    let mut deadline = Deadline::new();
    for edge in minutes.edges(selection).into_iter().flatten() {
        histogram.partial |= scan_levels(index, edge, &mut deadline, |time_ms, level| {
            histogram.add(buckets.start_of(time_ms), level, 1);
        })?;
    }
    Ok(histogram)
}

/// Counts the matches of each level, the worst first: the index knows levels, so no trace is read.
fn matches_by_level(
    index: &Connection,
    expression: &str,
    range: KeyRange,
    buckets: Buckets,
) -> rusqlite::Result<Histogram> {
    let mut histogram = Histogram::default();
    let mut deadline = Deadline::new();
    let mut read = index.prepare_cached(
        "SELECT rowid FROM terms WHERE terms MATCH ?1 AND rowid BETWEEN ?2 AND ?3 ORDER BY rowid DESC",
    )?;
    for (_, level) in levels() {
        let mut rows = read.query(params![
            with_level(Some(expression), level),
            range.first,
            range.last
        ])?;
        // Neighbours are mostly in one bucket.
        let (mut start, mut count) = (0, 0);
        while let Some(row) = rows.next()? {
            let bucket = buckets.start_of(time_of(row.get(0)?));
            if bucket != start {
                histogram.add(start, level, count);
                (start, count) = (bucket, 0);
            }
            count += 1;
            if deadline.passed() {
                histogram.partial = true;
                break;
            }
        }
        histogram.add(start, level, count);
        if histogram.partial {
            break;
        }
    }
    Ok(histogram)
}

/// Counts by level and by label.
#[derive(Default)]
struct FacetCounts {
    levels: HashMap<i64, u64>,
    labels: HashMap<i64, u64>,
    partial: bool,
}

impl FacetCounts {
    /// The counts of whole minutes.
    fn stored(&mut self, index: &Connection, minutes: Minutes) -> rusqlite::Result<()> {
        let mut read = index.prepare_cached(
            "SELECT value, sum(count) FROM counts WHERE kind = ?1 AND minute BETWEEN ?2 AND ?3 GROUP BY value",
        )?;
        for facet in [Facet::Level, Facet::Service, Facet::Tag] {
            let mut rows = read.query(params![facet as i64, minutes.first, minutes.last])?;
            let counts = if facet == Facet::Level {
                &mut self.levels
            } else {
                &mut self.labels
            };
            while let Some(row) = rows.next()? {
                *counts.entry(row.get(0)?).or_default() += row.get::<_, i64>(1)?.max(0).unsigned_abs();
            }
        }
        Ok(())
    }

    fn matches(
        &mut self,
        index: &Connection,
        expression: &str,
        range: KeyRange,
        deadline: &mut Deadline,
    ) -> rusqlite::Result<bool> {
        let mut read = index.prepare_cached(
            "SELECT t.level, t.labels FROM terms CROSS JOIN traces t ON t.time = terms.rowid \
             WHERE terms MATCH ?1 AND terms.rowid BETWEEN ?2 AND ?3 ORDER BY terms.rowid DESC",
        )?;
        let mut rows = read.query(params![expression, range.first, range.last])?;
        self.count_rows(&mut rows, deadline)
    }

    fn scan(
        &mut self,
        index: &Connection,
        range: KeyRange,
        deadline: &mut Deadline,
    ) -> rusqlite::Result<bool> {
        let mut read = index.prepare_cached(
            "SELECT level, labels FROM traces WHERE time BETWEEN ?1 AND ?2 ORDER BY time DESC",
        )?;
        let mut rows = read.query([range.first, range.last])?;
        self.count_rows(&mut rows, deadline)
    }

    fn count_rows(
        &mut self,
        rows: &mut rusqlite::Rows<'_>,
        deadline: &mut Deadline,
    ) -> rusqlite::Result<bool> {
        while let Some(row) = rows.next()? {
            *self.levels.entry(row.get(0)?).or_default() += 1;
            for id in label_ids(row.get_ref(1)?.as_str().unwrap_or_default()) {
                *self.labels.entry(id).or_default() += 1;
            }
            if deadline.passed() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn into_facets(self, index: &Connection) -> rusqlite::Result<Facets> {
        let levels = self
            .levels
            .into_iter()
            .map(|(level, count)| (level_name(level_of(level)).to_owned(), count));
        let mut name = index.prepare_cached("SELECT kind, value FROM labels WHERE id = ?1")?;
        let (mut services, mut tags) = (Vec::new(), Vec::new());
        let mut labels: Vec<_> = self.labels.into_iter().filter(|(_, count)| *count > 0).collect();
        labels.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (id, count) in labels {
            if services.len() >= MAX_FACET_VALUES && tags.len() >= MAX_FACET_VALUES {
                break;
            }
            let found: Option<(i64, String)> = name
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match found {
                Some((kind, value)) if kind == Facet::Service as i64 => services.push((value, count)),
                Some((_, value)) => tags.push((value, count)),
                None => {}
            }
        }
        Ok(Facets {
            services: FacetValue::top(services),
            levels: FacetValue::top(levels),
            tags: FacetValue::top(tags),
            partial: self.partial,
        })
    }
}
