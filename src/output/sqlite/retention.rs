//! Retention of the embedded store: deletes the oldest documents beyond an age or a size, in short
//! steps, and gives their pages back to the file system.

use rusqlite::{Connection, params};

use super::{SqliteWriter, StoreError, unix_seconds};

/// Rows that one step deletes at most, so that it delays writing only briefly.
const MAX_STEP_ROWS: i64 = 2_000;
/// Pages that one step gives back at most.
const MAX_STEP_PAGES: i64 = 2_000;
/// Free pages that the file may keep for new documents, beside a quarter of its size.
const MIN_FREE_PAGES: i64 = 128;
/// A document that was written later than this from the current time was written by a wrong clock.
const MAX_CLOCK_SKEW_SECONDS: i64 = 60;

/// Pages of the file.
struct Pages {
    all: i64,
    free: i64,
    bytes: i64,
}

impl SqliteWriter {
    /// Deletes a limited number of documents beyond the retention, and returns whether there may be
    /// more.
    ///
    /// # Errors
    ///
    /// An error of SQLite, or [`StoreError::Replaced`].
    pub fn retain(&mut self) -> Result<bool, StoreError> {
        self.check_files()?;
        let retain = || -> rusqlite::Result<bool> {
            self.forget_merges()?;
            let aged = self.expire()?;
            let sized = self.shrink()?;
            let vacuumed = self.vacuum()?;
            Ok(aged || sized || vacuumed)
        };
        retain().map_err(|source| self.failed(source))
    }

    /// Whether the documents take more than `retention_size`.
    ///
    /// # Errors
    ///
    /// An error of SQLite.
    pub fn is_beyond_limit(&self) -> Result<bool, StoreError> {
        Ok(self.excess_bytes().map_err(|source| self.failed(source))? > 0)
    }

    /// Deletes what was read of the list of merges.
    fn forget_merges(&self) -> rusqlite::Result<()> {
        if let Some(read) = &self.merges_read {
            self.connection.execute(
                "DELETE FROM merged WHERE number IN (SELECT number FROM merged WHERE number <= ?1 LIMIT ?2)",
                params![read.get(), MAX_STEP_ROWS],
            )?;
        }
        Ok(())
    }

    /// Deletes documents by age.
    fn expire(&self) -> rusqlite::Result<bool> {
        let Some(age) = self.config.retention_age else {
            return Ok(false);
        };
        let now = unix_seconds();
        // Written by a clock that was ahead: they are as old as their discovery.
        let corrected = self.connection.execute(
            "UPDATE documents SET written = ?1 WHERE rowid IN (SELECT rowid FROM documents WHERE written > ?2 LIMIT ?3)",
            params![now, now + MAX_CLOCK_SKEW_SECONDS, MAX_STEP_ROWS],
        )?;
        let deleted = self.connection.execute(
            "DELETE FROM documents WHERE rowid IN (SELECT rowid FROM documents WHERE written < ?1 ORDER BY written LIMIT ?2)",
            params![now.saturating_sub_unsigned(age.as_secs()), MAX_STEP_ROWS],
        )?;
        Ok(corrected as i64 >= MAX_STEP_ROWS || deleted as i64 >= MAX_STEP_ROWS)
    }

    /// Deletes documents by size.
    fn shrink(&self) -> rusqlite::Result<bool> {
        let excess = self.excess_bytes()?;
        if excess <= 0 {
            return Ok(false);
        }
        // Row ids grow with time, so the oldest rows are first.
        let mut oldest = self
            .connection
            .prepare_cached("SELECT rowid, octet_length(document) FROM documents ORDER BY rowid LIMIT ?1")?;
        let (mut last, mut bytes) = (None, 0);
        let mut rows = oldest.query([MAX_STEP_ROWS])?;
        while bytes < excess
            && let Some(row) = rows.next()?
        {
            last = Some(row.get::<_, i64>(0)?);
            bytes += row.get::<_, i64>(1)?;
        }
        drop(rows);
        let Some(last) = last else {
            return Ok(false);
        };
        self.connection
            .execute("DELETE FROM documents WHERE rowid <= ?1", [last])?;
        Ok(true)
    }

    /// Gives free pages back. Has no effect on a database that was created without
    /// `auto_vacuum`; its free pages are used again.
    fn vacuum(&self) -> rusqlite::Result<bool> {
        let pages = pages(&self.connection)?;
        let mut give = pages.free - pages.all / 4 - MIN_FREE_PAGES;
        if let Some(limit) = self.limit_bytes() {
            give = give.max((pages.all - limit / pages.bytes).min(pages.free));
        }
        if give <= 0 {
            return Ok(false);
        }
        let give = give.min(MAX_STEP_PAGES);
        let mut vacuum = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({give})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        Ok(self::pages(&self.connection)?.free < pages.free && give == MAX_STEP_PAGES)
    }

    fn excess_bytes(&self) -> rusqlite::Result<i64> {
        let Some(limit) = self.limit_bytes() else {
            return Ok(0);
        };
        let pages = pages(&self.connection)?;
        Ok((pages.all - pages.free) * pages.bytes - limit)
    }

    fn limit_bytes(&self) -> Option<i64> {
        let limit = self.config.retention_size?;
        Some(i64::try_from(limit).unwrap_or(i64::MAX))
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite {
            path: self.config.path.clone(),
            source,
        }
    }
}

fn pages(connection: &Connection) -> rusqlite::Result<Pages> {
    let mut read = connection.prepare_cached(
        "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
    )?;
    read.query_row([], |row| {
        Ok(Pages {
            all: row.get(0)?,
            free: row.get(1)?,
            bytes: row.get(2)?,
        })
    })
}
