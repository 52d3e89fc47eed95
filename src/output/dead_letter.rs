//! Dead letter: documents that an output refuses for good, with the reason; durable and bounded.
//!
//! Owns the files `NNN.ndjson` of its folder: one JSON object per line, in order of arrival.
//!
//! ```text
//! {"time":"2026-11-21T09:20:00Z","source":"elasticsearch","status":400,
//!  "type":"document_parsing_exception","reason":"…","index":"requests-2026-11-21","id":"abc",
//!  "trace":true,"firstNs":…,"lines":2,"parts":["…"],"document":{…}}
//! ```
//!
//! Content that is not one line of JSON has `"raw":"<base64>"` instead of `document`. Input that is
//! no record has a folder of its own, see [`RejectedStore`].
//!
//! A put is durable when it returns. At the size limit it fails until an operator makes room with
//! `windrow replay` or removes files; the caller must retry, nothing is dropped.
//!
//! Windrow and `windrow replay` may use the folder at the same time: each put and each rename holds
//! a lock on the file `lock`, and a replay first claims files by renaming them (see
//! [`super::replay`]). A put compares the file that it has open with the one that has its name:
//! nothing is written to a file that was claimed, replaced or removed.

mod browse;
mod entry;
mod known_parts;
mod rejected;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

pub use browse::{DeadLetterBrowser, EntryPage, PageCursor, ReasonCount};
pub use entry::{Entry, EntryContent};
pub use rejected::{Overwritten, RejectedStore, count_rejected};

use self::known_parts::KnownParts;
use super::Watchdog;
use crate::files::{FileIdentity, close_to_others, create_private_folder, give_to_owner_of, private_file};

/// Default size at which the next file is begun: 16 MiB.
pub const FILE_BYTES: u64 = 16 << 20;

/// Default limit of all files together: 1 GiB.
pub const LIMIT_BYTES: u64 = 1 << 30;

/// Extension of a file of entries.
pub(super) const ENTRIES_EXTENSION: &str = "ndjson";
/// Extension of a file that a replay has claimed.
pub(super) const CLAIMED_EXTENSION: &str = "replay";

/// The dead letter of a data folder.
#[derive(Debug)]
pub struct DeadLetter {
    folder: PathBuf,
    file_bytes: u64,
    limit_bytes: u64,
    inner: Mutex<DeadLetterState>,
    /// The last known size.
    last_usage: Mutex<DeadLetterUsage>,
    watchdog: Watchdog,
}

#[derive(Debug, Default)]
struct DeadLetterState {
    active: Option<ActiveFile>,
    /// The highest number ever used.
    number: u64,
    known: BTreeMap<PathBuf, FileSize>,
    parts: KnownParts,
    full: bool,
}

#[derive(Debug)]
struct ActiveFile {
    file: File,
    path: PathBuf,
    length: u64,
}

/// Size and entries of one file.
#[derive(Debug, Clone, Copy, Default)]
struct FileSize {
    bytes: u64,
    entries: u64,
}

/// Size of the dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeadLetterUsage {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The limit of `bytes`.
    pub limit: u64,
    /// Files.
    pub files: u64,
    /// The last put failed because of the limit.
    pub full: bool,
}

impl DeadLetter {
    /// Opens the folder, and creates it if there is none. Truncates a torn last line, left by a
    /// crash during a put that did not return.
    ///
    /// # Errors
    /// The folder cannot be created, read or written.
    pub fn open(folder: impl Into<PathBuf>, file_bytes: u64, limit_bytes: u64) -> io::Result<Self> {
        let folder = folder.into();
        create_private_folder(&folder)?;
        close_to_others(&folder)?;
        let opened = Self {
            folder,
            file_bytes: file_bytes.max(1),
            limit_bytes,
            inner: Mutex::default(),
            last_usage: Mutex::default(),
            watchdog: Watchdog::default(),
        };
        {
            let _lock = opened.lock_folder()?;
            for path in files(&opened.folder, ENTRIES_EXTENSION)? {
                close_to_others(&path)?;
                truncate_torn_line(&path)?;
            }
            let mut inner = opened.lock();
            opened.refresh(&mut inner)?;
        }
        Ok(opened)
    }

    /// Adds an entry; durable when it returns. Blocks: not for a reactor thread.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] at the limit, or an error of the file system. The entry is
    /// then not in the dead letter.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        self.put_all(std::slice::from_ref(entry))
    }

    /// Adds entries with one sync: all or, on an error, none (after a crash some may remain). An
    /// entry whose document is there already, with all its parts, is not added again.
    ///
    /// # Errors
    /// As [`DeadLetter::put`].
    pub fn put_all(&self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut inner = self.lock();
        self.watchdog.begin();
        let result = self
            .lock_folder()
            .and_then(|_lock| self.append(&mut inner, entries));
        inner.full = matches!(&result, Err(error) if error.kind() == io::ErrorKind::StorageFull);
        match &result {
            Ok(()) => self.watchdog.succeed(),
            Err(error) => self.watchdog.fail(error),
        }
        result
    }

    /// Why entries wait, if they do: their writers try again until they are durable.
    pub fn wait_reason(&self) -> Option<String> {
        self.watchdog.wait_reason()
    }

    /// The current size; during a put, the last one that was known. Reads the folder: a replay in
    /// another process may have emptied it.
    pub fn usage(&self) -> DeadLetterUsage {
        let mut last = self.last_usage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return *last,
        };
        // On an error the last known size is reported.
        if let Err(error) = self.refresh(&mut inner) {
            tracing::debug!(%error, "the dead-letter folder cannot be read");
        }
        let bytes = inner.bytes();
        *last = DeadLetterUsage {
            entries: inner.known.values().map(|k| k.entries).sum(),
            bytes,
            limit: self.limit_bytes,
            files: inner.known.len() as u64,
            full: inner.full && bytes > 0,
        };
        *last
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn append(&self, inner: &mut DeadLetterState, entries: &[Entry]) -> io::Result<()> {
        self.refresh(inner)?;
        let DeadLetterState { parts, known, .. } = inner;
        let unclaimed = known
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|its| its == ENTRIES_EXTENSION));
        parts.refresh(unclaimed.map(|(path, size)| (path.as_path(), size.bytes)))?;
        let new: Vec<&Entry> = entries.iter().filter(|entry| !parts.contains(entry)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for entry in &new {
            entry.write_line(&mut lines);
        }
        let more = lines.len() as u64;
        if inner.bytes() + more > self.limit_bytes {
            let used = inner.bytes();
            if used + more > self.limit_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!(
                        "the dead letter {} is full: {used} of {} bytes used, {more} more do not fit; fix the causes of its entries and run `windrow replay`",
                        self.folder.display(),
                        self.limit_bytes
                    ),
                ));
            }
        }
        // A replay may have claimed the file, and will remove it with everything that is written to
        // it. When it has ended, another file with what it left over may have the same name.
        if let Some(active) = &inner.active
            && (active.length >= self.file_bytes
                || FileIdentity::at(&active.path)? != Some(FileIdentity::of(&active.file)?))
        {
            inner.active = None;
        }
        let mut active = match inner.active.take() {
            Some(active) => active,
            None => self.begin(inner)?,
        };
        let written = active
            .file
            .write_all(&lines)
            .and_then(|()| active.file.sync_data());
        if let Err(error) = written {
            // After a failed sync the file's content is unknown: it is truncated and never written
            // again.
            let cut = active
                .file
                .set_len(active.length)
                .and_then(|()| active.file.sync_all());
            if let Err(cut) = cut {
                tracing::warn!(file = %active.path.display(), %cut, "the dead-letter file could not be truncated");
            }
            return Err(error);
        }
        active.length += more;
        let known = inner.known.entry(active.path.clone()).or_default();
        known.bytes = active.length;
        known.entries += new.len() as u64;
        let identity = FileIdentity::of(&active.file)?;
        inner
            .parts
            .added(&active.path, identity, active.length, new.into_iter());
        inner.active = Some(active);
        Ok(())
    }

    /// Creates the next file; its directory entry is durable before anything is written to it.
    fn begin(&self, inner: &mut DeadLetterState) -> io::Result<ActiveFile> {
        for extension in [ENTRIES_EXTENSION, CLAIMED_EXTENSION] {
            for path in files(&self.folder, extension)? {
                inner.number = inner.number.max(number(&path).unwrap_or(0));
            }
        }
        inner.number += 1;
        let path = self
            .folder
            .join(format!("{:03}.{ENTRIES_EXTENSION}", inner.number));
        let file = private_file().append(true).create_new(true).open(&path)?;
        sync_folder(&self.folder)?;
        Ok(ActiveFile {
            file,
            path,
            length: 0,
        })
    }

    /// Updates `known` from the folder.
    fn refresh(&self, inner: &mut DeadLetterState) -> io::Result<()> {
        let mut seen = BTreeMap::new();
        for extension in [ENTRIES_EXTENSION, CLAIMED_EXTENSION] {
            for path in files(&self.folder, extension)? {
                let bytes = match fs::metadata(&path) {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let known = match inner.known.get(&path) {
                    Some(known) if known.bytes == bytes => *known,
                    _ => FileSize {
                        bytes,
                        entries: count_lines(&path)?,
                    },
                };
                seen.insert(path, known);
            }
        }
        inner.known = seen;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, DeadLetterState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_folder(&self) -> io::Result<File> {
        lock_folder(&self.folder)
    }
}

impl DeadLetterState {
    fn bytes(&self) -> u64 {
        self.known.values().map(|known| known.bytes).sum()
    }
}

/// Locks the folder until the returned file is dropped.
pub(super) fn lock_folder(folder: &Path) -> io::Result<File> {
    let path = folder.join("lock");
    loop {
        let file = open_lock(folder, "lock")?;
        file.lock()?;
        // An operator may have removed the file during the wait: it excludes nobody any more.
        if FileIdentity::at(&path)? == Some(FileIdentity::of(&file)?) {
            return Ok(file);
        }
    }
}

/// Opens a lock file of the folder, for its owner too.
pub(super) fn open_lock(folder: &Path, name: &str) -> io::Result<File> {
    let mut options = private_file();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(name))?;
    give_to_owner_of(&file, &fs::metadata(folder)?)?;
    Ok(file)
}

/// Makes renames and new files durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Files with an extension, in the order of their numbers.
pub(super) fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|its| its == extension) && number(&path).is_some() {
            files.push(path);
        }
    }
    files.sort_by_key(|path| number(path));
    Ok(files)
}

fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn count_lines(path: &Path) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut buffer = vec![0; 256 << 10];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            n => lines += buffer[..n].iter().filter(|&&b| b == b'\n').count() as u64,
        }
    }
}

/// Truncates a file to the end of its last complete line.
fn truncate_torn_line(path: &Path) -> io::Result<()> {
    let mut file = private_file().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut end = length;
    let mut buffer = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let block = &mut buffer[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(at) = block.iter().rposition(|&b| b == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        tracing::warn!(file = %path.display(), bytes = length - end, "torn last line of the dead letter truncated");
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
