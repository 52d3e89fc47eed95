//! Replay of the dead letter: sends its entries again, after the cause of their rejection was
//! fixed.
//!
//! Owns the order of steps that makes it safe to stop at any moment; how an entry is sent is a
//! parameter.
//!
//! 1. A lock on the file `replay-lock` admits one replay at a time.
//! 2. Under the folder's lock each `NNN.ndjson` is renamed to `NNN.replay`: a running Windrow
//!    begins a new file, and this replay owns the claimed ones, including those of a replay that
//!    crashed.
//! 3. Each file is read and sent in batches. Entries that are refused again, with the new reason,
//!    and entries that were not attempted are written to `NNN.tmp`, which is synced and renamed to
//!    `NNN.ndjson`; then the claimed file is removed.
//!
//! After a crash between sending and renaming, entries are sent again: each write is idempotent.
//! After a crash between renaming and removing, both files remain: the next replay sends the
//! claimed one again, and what it leaves replaces the older `NNN.ndjson`, which is a subset.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::dead_letter::{
    CLAIMED_EXTENSION, ENTRIES_EXTENSION, Entry, files, lock_folder, open_lock, sync_folder,
};
use crate::files::{give_to_owner_of, private_file};

/// Extension of a file of remaining entries that is being written.
const UNFINISHED_EXTENSION: &str = "tmp";

/// Entries of one batch.
const MAX_BATCH_ENTRIES: usize = 500;
/// Bytes of the entries of one batch.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Outcome of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It is written, and removed from the dead letter.
    Written,
    /// It is refused again; it stays, with the new reason.
    Refused {
        /// HTTP status, where there is one.
        status: Option<u16>,
        /// Short name of the reason.
        kind: String,
        /// The reason in words.
        reason: String,
    },
    /// It could not be written now (Elasticsearch down, index read-only); it stays unchanged. The
    /// reason.
    Postponed(String),
    /// It is not a document of this output; it stays unchanged.
    NotReplayable,
}

/// Counts of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplaySummary {
    /// Entries found.
    pub entries: u64,
    /// Entries that were written.
    pub written: u64,
    /// Entries that were refused again.
    pub refused: u64,
    /// Entries that stay because they could not be written now.
    pub postponed: u64,
    /// Entries that stay because they are not documents of this output.
    pub not_replayable: u64,
    /// Lines that cannot be parsed; they stay.
    pub unreadable: u64,
    /// The first reason of a refusal or delay.
    pub first_reason: Option<String>,
    /// Entries found, by source and kind of reason.
    pub kinds: BTreeMap<String, u64>,
}

/// What to do after an entry could not be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPostponed {
    /// Send nothing more: the cause affects the next entries too.
    Stop,
    /// Send the next entries: each has a cause of its own.
    GoOn,
}

/// Counts what a replay would send. Changes nothing.
///
/// # Errors
/// A file cannot be read.
pub fn dry_run(folder: &Path) -> io::Result<ReplaySummary> {
    let mut summary = ReplaySummary::default();
    for ending in [CLAIMED_EXTENSION, ENTRIES_EXTENSION] {
        for path in files(folder, ending)? {
            for line in lines(&path)? {
                match Entry::parse(&line?) {
                    Ok(entry) => {
                        summary.add_entry(&entry);
                    }
                    Err(_) => summary.unreadable += 1,
                }
            }
        }
    }
    Ok(summary)
}

/// Sends every entry again. `send` gets a batch and gives one outcome per entry; `progress` gets
/// the numbers so far after each batch. After a batch with a [`ReplayOutcome::Postponed`] nothing
/// more is sent: its cause affects the next batches too.
///
/// # Errors
/// Another replay is running ([`io::ErrorKind::WouldBlock`]), or a file cannot be read or written.
/// Every entry that is not known to be written is still in the dead letter.
pub async fn replay(
    folder: &Path,
    send: impl AsyncFnMut(&[Entry]) -> Vec<ReplayOutcome>,
    progress: impl FnMut(&ReplaySummary),
) -> io::Result<ReplaySummary> {
    replay_with(folder, OnPostponed::Stop, send, progress).await
}

/// [`replay`], for entries that may wait for causes of their own.
///
/// # Errors
/// As [`replay`].
pub async fn replay_with(
    folder: &Path,
    on_postponed: OnPostponed,
    mut send: impl AsyncFnMut(&[Entry]) -> Vec<ReplayOutcome>,
    mut progress: impl FnMut(&ReplaySummary),
) -> io::Result<ReplaySummary> {
    let lock = open_lock(folder, "replay-lock")?;
    if lock.try_lock().is_err() {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("another replay is running on {}", folder.display()),
        ));
    }
    // Left by a replay that crashed: a claimed file still contains their entries.
    for unfinished in files(folder, UNFINISHED_EXTENSION)? {
        fs::remove_file(unfinished)?;
        step()?;
    }
    let mut summary = ReplaySummary::default();
    let mut stopped = false;
    for claimed in claim(folder)? {
        let kept = claimed.with_extension(UNFINISHED_EXTENSION);
        let remaining = private_file().write(true).create_new(true).open(&kept)?;
        give_to_owner_of(&remaining, &fs::metadata(&claimed)?)?;
        let mut keep = BufWriter::new(remaining);
        step()?;
        let mut has_remaining = false;
        let mut source = lines(&claimed)?;
        loop {
            let (batch, unreadable, end) = next_batch(&mut source)?;
            for line in unreadable {
                summary.unreadable += 1;
                has_remaining = true;
                keep.write_all(&line)?;
                keep.write_all(b"\n")?;
            }
            batch.iter().for_each(|entry| summary.add_entry(entry));
            let outcomes = if stopped || batch.is_empty() {
                vec![ReplayOutcome::Postponed(String::new()); batch.len()]
            } else {
                send(&batch).await
            };
            // A sender that gives too few outcomes has said nothing of the rest: it stays.
            let outcomes = outcomes
                .into_iter()
                .chain(std::iter::repeat(ReplayOutcome::NotReplayable));
            for (mut entry, outcome) in batch.into_iter().zip(outcomes) {
                summary.add_outcome(&outcome);
                match outcome {
                    ReplayOutcome::Written => continue,
                    ReplayOutcome::Refused { status, kind, reason } => {
                        (entry.status, entry.kind, entry.reason) = (status, kind, reason);
                    }
                    ReplayOutcome::Postponed(_) => stopped |= on_postponed == OnPostponed::Stop,
                    ReplayOutcome::NotReplayable => {}
                }
                has_remaining = true;
                let mut line = Vec::new();
                entry.write_line(&mut line);
                keep.write_all(&line)?;
            }
            step()?;
            progress(&summary);
            if end {
                break;
            }
        }
        let file = keep.into_inner().map_err(io::IntoInnerError::into_error)?;
        finish(folder, &claimed, &kept, &file, has_remaining)?;
    }
    Ok(summary)
}

/// Replaces a claimed file by its remaining entries, durably.
fn finish(folder: &Path, claimed: &Path, kept: &Path, file: &File, has_remaining: bool) -> io::Result<()> {
    if has_remaining {
        file.sync_all()?;
        step()?;
        let _lock = lock_folder(folder)?;
        fs::rename(kept, claimed.with_extension(ENTRIES_EXTENSION))?;
        step()?;
        sync_folder(folder)?;
        step()?;
        fs::remove_file(claimed)?;
    } else {
        let _lock = lock_folder(folder)?;
        fs::remove_file(claimed)?;
        step()?;
        fs::remove_file(kept)?;
    }
    step()?;
    sync_folder(folder)
}

/// A point at which a test ends the replay, as a kill would.
#[cfg(test)]
fn step() -> io::Result<()> {
    tests::step()
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "as in tests")]
fn step() -> io::Result<()> {
    Ok(())
}

/// Claims all files.
fn claim(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let _lock = lock_folder(folder)?;
    let mut claimed = files(folder, CLAIMED_EXTENSION)?;
    for path in files(folder, ENTRIES_EXTENSION)? {
        let to = path.with_extension(CLAIMED_EXTENSION);
        // A replay that crashed after renaming its remaining entries left a claimed file of the
        // same number: that one is sent now, this one by the next replay.
        if !claimed.contains(&to) {
            fs::rename(&path, &to)?;
            step()?;
            claimed.push(to);
        }
    }
    sync_folder(folder)?;
    claimed.sort();
    Ok(claimed)
}

type Lines = io::Split<BufReader<File>>;

fn lines(path: &Path) -> io::Result<Lines> {
    Ok(BufReader::new(File::open(path)?).split(b'\n'))
}

/// The next entries, the unreadable lines between them, and whether the file has ended.
fn next_batch(source: &mut Lines) -> io::Result<(Vec<Entry>, Vec<Vec<u8>>, bool)> {
    let (mut batch, mut unreadable, mut bytes) = (Vec::new(), Vec::new(), 0);
    while batch.len() < MAX_BATCH_ENTRIES && bytes < MAX_BATCH_BYTES {
        let Some(line) = source.next().transpose()? else {
            return Ok((batch, unreadable, true));
        };
        if line.is_empty() {
            continue;
        }
        bytes += line.len();
        match Entry::parse(&line) {
            Ok(entry) => batch.push(entry),
            Err(_) => unreadable.push(line),
        }
    }
    Ok((batch, unreadable, false))
}

impl ReplaySummary {
    fn add_entry(&mut self, entry: &Entry) {
        self.entries += 1;
        *self
            .kinds
            .entry(format!("{}: {}", entry.source, entry.kind))
            .or_default() += 1;
    }

    fn add_outcome(&mut self, outcome: &ReplayOutcome) {
        let (counter, reason) = match outcome {
            ReplayOutcome::Written => (&mut self.written, None),
            ReplayOutcome::Refused { reason, .. } => (&mut self.refused, Some(reason)),
            ReplayOutcome::Postponed(reason) => (&mut self.postponed, Some(reason)),
            ReplayOutcome::NotReplayable => (&mut self.not_replayable, None),
        };
        *counter += 1;
        if let Some(reason) = reason.filter(|reason| !reason.is_empty())
            && self.first_reason.is_none()
        {
            self.first_reason = Some(reason.clone());
        }
    }
}

#[cfg(test)]
mod tests;
