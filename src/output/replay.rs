//! `windrow replay`: what lies in the dead letter is sent again, after the cause was mended. Owns the order of steps
//! that makes it safe at any moment; how an entry is sent is a parameter.
//!
//! 1. One replay at a time: lock of the file `replay-lock`.
//! 2. Under the folder's lock each `NNN.ndjson` is renamed to `NNN.replay`. From then on a running Windrow begins a new
//!    file, and the taken ones are this replay's own. Files left by a replay that died are among them.
//! 3. Each file is read in batches and sent. What failed again, with its new reason, and what was not reached is
//!    written to `NNN.tmp`, synced and renamed to `NNN.ndjson`; then the taken file goes. With nothing left over the
//!    taken file just goes.
//!
//! A crash between sending and renaming sends entries again: each write is idempotent, so that is harmless. A crash
//! between renaming and removing leaves both files: the next replay sends the taken one again, and its new rest replaces
//! the older one, all of which was among what it sent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::dead_letter::{ENDING, Entry, TAKEN, files, lock_folder, sync_folder};

/// Ending of a rest that is being written.
const UNFINISHED: &str = "tmp";

/// Entries and bytes sent at once.
const BATCH_ENTRIES: usize = 500;
const BATCH_BYTES: usize = 4 << 20;

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It is written: it leaves the dead letter.
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
    /// It could not be tried to an end (Elasticsearch away, index read-only); it stays as it is.
    Postponed(String),
    /// Not an entry that can be sent; it stays as it is.
    NotReplayable,
}

/// Numbers of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplaySummary {
    /// Entries found.
    pub entries: u64,
    /// Entries that are written now.
    pub written: u64,
    /// Entries that were refused again.
    pub refused: u64,
    /// Entries that stay since they could not be tried to an end.
    pub postponed: u64,
    /// Entries that stay since they are not for this output.
    pub not_replayable: u64,
    /// Lines that cannot be read; they stay.
    pub unreadable: u64,
    /// The first reason of a refusal or delay.
    pub first_reason: Option<String>,
    /// How many entries there were of each source and kind of reason (as found, not as left).
    pub kinds: BTreeMap<String, u64>,
}

/// Counts what a replay would send, changing nothing: entries by source and kind of reason.
///
/// # Errors
/// A file cannot be read.
pub fn dry_run(folder: &Path) -> io::Result<ReplaySummary> {
    let mut summary = ReplaySummary::default();
    for ending in [TAKEN, ENDING] {
        for path in files(folder, ending)? {
            for line in lines(&path)? {
                match Entry::parse(&line?) {
                    Ok(entry) => {
                        summary.found(&entry);
                    }
                    Err(_) => summary.unreadable += 1,
                }
            }
        }
    }
    Ok(summary)
}

/// Sends every entry again. `send` gets a batch and gives one outcome for each entry; `progress` gets the numbers so far
/// after each batch. After a batch with a [`ReplayOutcome::Postponed`] nothing more is sent: what is away for one is away for the next.
///
/// # Errors
/// Another replay is at work ([`io::ErrorKind::WouldBlock`]), or a file cannot be read or written: every entry that is
/// not known to be written is still there.
pub async fn replay(
    folder: &Path,
    mut send: impl AsyncFnMut(&[Entry]) -> Vec<ReplayOutcome>,
    mut progress: impl FnMut(&ReplaySummary),
) -> io::Result<ReplaySummary> {
    let alone = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("replay-lock"))?;
    if alone.try_lock().is_err() {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("another replay is at work on {}", folder.display()),
        ));
    }
    // Left by a replay that died: what they hold is in a taken file still, or was not left over.
    for unfinished in files(folder, UNFINISHED)? {
        fs::remove_file(unfinished)?;
    }
    let mut summary = ReplaySummary::default();
    let mut stopped = false;
    for taken in take(folder)? {
        let kept = taken.with_extension(UNFINISHED);
        let mut keep = BufWriter::new(File::create(&kept)?);
        let mut left_over = false;
        let mut source = lines(&taken)?;
        loop {
            let (batch, unreadable, end) = next_batch(&mut source)?;
            for line in unreadable {
                summary.unreadable += 1;
                left_over = true;
                keep.write_all(&line)?;
                keep.write_all(b"\n")?;
            }
            batch.iter().for_each(|entry| summary.found(entry));
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
                summary.count(&outcome);
                match outcome {
                    ReplayOutcome::Written => continue,
                    ReplayOutcome::Refused { status, kind, reason } => {
                        (entry.status, entry.kind, entry.reason) = (status, kind, reason);
                    }
                    ReplayOutcome::Postponed(_) => stopped = true,
                    ReplayOutcome::NotReplayable => {}
                }
                left_over = true;
                let mut line = Vec::new();
                entry.write_line(&mut line);
                keep.write_all(&line)?;
            }
            progress(&summary);
            if end {
                break;
            }
        }
        let file = keep.into_inner().map_err(io::IntoInnerError::into_error)?;
        finish(folder, &taken, &kept, &file, left_over)?;
    }
    Ok(summary)
}

/// Makes the outcome of one file durable.
fn finish(folder: &Path, taken: &Path, kept: &Path, file: &File, left_over: bool) -> io::Result<()> {
    if left_over {
        file.sync_all()?;
        let _alone = lock_folder(folder)?;
        fs::rename(kept, taken.with_extension(ENDING))?;
        sync_folder(folder)?;
        fs::remove_file(taken)?;
    } else {
        let _alone = lock_folder(folder)?;
        fs::remove_file(taken)?;
        fs::remove_file(kept)?;
    }
    sync_folder(folder)
}

/// Takes all files away from a running Windrow.
fn take(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let _alone = lock_folder(folder)?;
    let mut taken = files(folder, TAKEN)?;
    for path in files(folder, ENDING)? {
        let to = path.with_extension(TAKEN);
        // A replay that died after renaming its rest left a taken file of the same number: that one first, this
        // one by the next replay.
        if !taken.contains(&to) {
            fs::rename(&path, &to)?;
            taken.push(to);
        }
    }
    sync_folder(folder)?;
    taken.sort();
    Ok(taken)
}

type Lines = io::Split<BufReader<File>>;

fn lines(path: &Path) -> io::Result<Lines> {
    Ok(BufReader::new(File::open(path)?).split(b'\n'))
}

/// The next entries, the lines between them that are none, and whether the file is at its end.
fn next_batch(source: &mut Lines) -> io::Result<(Vec<Entry>, Vec<Vec<u8>>, bool)> {
    let (mut batch, mut unreadable, mut bytes) = (Vec::new(), Vec::new(), 0);
    while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
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
    fn found(&mut self, entry: &Entry) {
        self.entries += 1;
        *self
            .kinds
            .entry(format!("{}: {}", entry.source, entry.kind))
            .or_default() += 1;
    }

    fn count(&mut self, outcome: &ReplayOutcome) {
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
