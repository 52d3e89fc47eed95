//! Store of rejected input: a bounded folder of entries that overwrites its oldest file.
//!
//! Owns the files `NNN.ndjson` of its folder, whose lines have the format of the dead letter. A put
//! is durable when it returns. It never waits for room: at the limit the oldest file is removed, and
//! its entries are counted. Only the server writes to the folder, so there is no lock.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ENTRIES_EXTENSION, Entry, count_lines, files, number, sync_folder, truncate_torn_line};
use crate::files::{FileIdentity, close_to_others, create_private_folder, private_file};
use crate::output::Watchdog;

/// Files that the limit is divided into: one of them is overwritten at a time.
const FILES_PER_LIMIT: u64 = 8;

/// The rejected entries of a data folder.
#[derive(Debug)]
pub struct RejectedStore {
    folder: PathBuf,
    limit_bytes: u64,
    /// In the order of their numbers.
    files: VecDeque<StoredFile>,
    /// The last of `files`, if entries are appended to it.
    active: Option<File>,
    /// The highest number ever used.
    number: u64,
    overwritten: Overwritten,
    watchdog: Arc<Watchdog>,
}

/// Entries that were overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overwritten {
    /// How many.
    pub entries: u64,
    /// Their bytes in the files.
    pub bytes: u64,
}

#[derive(Debug)]
struct StoredFile {
    path: PathBuf,
    bytes: u64,
    entries: u64,
}

impl RejectedStore {
    /// Opens the folder, and creates it if there is none. Truncates torn last lines, and overwrites
    /// what exceeds the limit.
    ///
    /// # Errors
    /// The folder cannot be created, read or written.
    pub fn open(folder: impl Into<PathBuf>, limit_bytes: u64) -> io::Result<Self> {
        let mut opened = Self {
            folder: folder.into(),
            limit_bytes,
            files: VecDeque::new(),
            active: None,
            number: 0,
            overwritten: Overwritten::default(),
            watchdog: Arc::default(),
        };
        create_private_folder(&opened.folder)?;
        close_to_others(&opened.folder)?;
        for path in files(&opened.folder, ENTRIES_EXTENSION)? {
            close_to_others(&path)?;
            truncate_torn_line(&path)?;
            opened.number = opened.number.max(number(&path).unwrap_or(0));
            opened.files.push_back(StoredFile {
                bytes: fs::metadata(&path)?.len(),
                entries: count_lines(&path)?,
                path,
            });
        }
        opened.make_room(0)?;
        if let Some(last) = opened.files.back() {
            opened.active = Some(private_file().append(true).open(&last.path)?);
        }
        Ok(opened)
    }

    /// Bytes of the content of one entry. Longer content is to be cut by the caller: otherwise one
    /// entry would overwrite all others.
    pub fn max_content_bytes(&self) -> usize {
        // In base64 a quarter of the limit.
        usize::try_from(self.limit_bytes / 16 * 3).unwrap_or(usize::MAX)
    }

    /// Adds entries; durable when it returns. Blocks: not for a reactor thread.
    ///
    /// # Errors
    /// An error of the file system. Some of the entries may be stored then, and are stored again by
    /// the next attempt.
    pub fn put_all(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.watchdog.begin();
        let result = self.append_all(entries);
        match &result {
            Ok(()) => self.watchdog.succeed(),
            Err(error) => {
                // After a failed write or sync the file's content is unknown.
                self.active = None;
                self.watchdog.fail(error);
            }
        }
        result
    }

    /// The entries that were overwritten since the last call.
    pub fn take_overwritten(&mut self) -> Overwritten {
        std::mem::take(&mut self.overwritten)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The limit of [`RejectedStore::bytes`].
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Whether entries can be written, for `/ready`.
    pub fn watchdog(&self) -> Arc<Watchdog> {
        Arc::clone(&self.watchdog)
    }

    /// Splits the lines of entries into files.
    fn append_all(&mut self, entries: &[Entry]) -> io::Result<()> {
        let file_bytes = self.limit_bytes / FILES_PER_LIMIT;
        let (mut lines, mut count) = (Vec::new(), 0);
        for entry in entries {
            let start = lines.len();
            entry.write_line(&mut lines);
            let active = self.active.as_ref().and_then(|_| self.files.back());
            let length = active.map_or(0, |file| file.bytes);
            if length + lines.len() as u64 > file_bytes && length + start as u64 > 0 {
                let next = lines.split_off(start);
                self.append(&lines, count)?;
                self.active = None;
                (lines, count) = (next, 0);
            }
            count += 1;
        }
        self.append(&lines, count)
    }

    /// Appends lines to the active file.
    fn append(&mut self, lines: &[u8], entries: u64) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        // An operator may have removed the file.
        if let (Some(active), Some(last)) = (&self.active, self.files.back())
            && FileIdentity::at(&last.path)? != Some(FileIdentity::of(active)?)
        {
            self.active = None;
        }
        self.make_room(lines.len() as u64)?;
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        let written = active.write_all(lines).and_then(|()| active.sync_data());
        if let Some(last) = self.files.back_mut() {
            if let Err(error) = written {
                let cut = active.set_len(last.bytes).and_then(|()| active.sync_all());
                if let Err(cut) = cut {
                    tracing::warn!(file = %last.path.display(), %cut, "the file of rejected entries could not be truncated");
                }
                return Err(error);
            }
            last.bytes += lines.len() as u64;
            last.entries += entries;
        }
        self.active = Some(active);
        Ok(())
    }

    /// Removes the oldest files until `more` bytes fit.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        while bytes + more > self.limit_bytes
            && let Some(oldest) = self.files.front()
        {
            match fs::remove_file(&oldest.path) {
                Ok(()) => {
                    self.overwritten.entries += oldest.entries;
                    self.overwritten.bytes += oldest.bytes;
                }
                // An operator was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            bytes -= oldest.bytes;
            self.files.pop_front();
            if self.files.is_empty() {
                self.active = None;
            }
        }
        Ok(())
    }

    /// Creates the next file; its directory entry is durable before anything is written to it.
    fn begin(&mut self) -> io::Result<File> {
        create_private_folder(&self.folder)?;
        self.files.retain(|file| file.path.try_exists().unwrap_or(true));
        self.number += 1;
        let path = self
            .folder
            .join(format!("{:03}.{ENTRIES_EXTENSION}", self.number));
        let file = private_file().append(true).create_new(true).open(&path)?;
        sync_folder(&self.folder)?;
        self.files.push_back(StoredFile {
            path,
            bytes: 0,
            entries: 0,
        });
        Ok(file)
    }
}

/// Entries in a folder of rejected input; 0 if there is none.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn count_rejected(folder: &Path) -> io::Result<u64> {
    let paths = match files(folder, ENTRIES_EXTENSION) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    paths.iter().map(|path| count_lines(path)).sum()
}

#[cfg(test)]
mod tests;
