//! The dead letter: what can never be accepted, with its reason, durable and bounded. Owns the files
//! `NNN.ndjson` of its folder: one JSON object a line, in the order in which they came.
//!
//! ```text
//! {"time":"2026-11-21T09:20:00Z","source":"elasticsearch","status":400,"type":"document_parsing_exception",
//!  "reason":"…","index":"requests-2026-11-21","id":"abc","trace":true,"firstNs":…,"lines":2,
//!  "parts":["…"],"document":{…}}                                   (or "raw":"<base64>" for what is no JSON)
//! ```
//!
//! A put is durable when it returns. When the bound is reached it fails, and goes on failing until an operator makes
//! room with `windrow replay` or by taking files away; the caller must wait, nothing is dropped.
//!
//! Windrow and `windrow replay` may work on the folder at the same time: each put and each change of names is made
//! under a lock of the file `lock`, and a replay first takes files away by renaming them (see [`super::replay`]).

mod entry;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use entry::{Entry, EntryContent};

/// A file is closed and the next one begun at this length, by default 16 MiB.
pub const FILE_BYTES: u64 = 16 << 20;

/// All files together, by default 1 GiB.
pub const LIMIT_BYTES: u64 = 1 << 30;

/// Ending of a file of entries.
pub(super) const ENDING: &str = "ndjson";
/// Ending of a file that a replay has taken away.
pub(super) const TAKEN: &str = "replay";

/// The dead letter of a data folder.
#[derive(Debug)]
pub struct DeadLetter {
    folder: PathBuf,
    file_bytes: u64,
    limit_bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    active: Option<Active>,
    /// The highest number ever used.
    number: u64,
    known: BTreeMap<PathBuf, Known>,
    full: bool,
}

#[derive(Debug)]
struct Active {
    file: File,
    path: PathBuf,
    length: u64,
}

/// What is in one file.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    bytes: u64,
    entries: u64,
}

/// How much is in the dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeadLetterUsage {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The bound on `bytes`.
    pub limit: u64,
    /// Files.
    pub files: u64,
    /// The last put failed for lack of room.
    pub full: bool,
}

impl DeadLetter {
    /// Opens the folder, and makes it if there is none. A torn last line, left by a crash in the middle of a put that
    /// never returned, is cut off.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub fn open(folder: impl Into<PathBuf>, file_bytes: u64, limit_bytes: u64) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        let opened = Self {
            folder,
            file_bytes: file_bytes.max(1),
            limit_bytes,
            inner: Mutex::default(),
        };
        {
            let _alone = opened.lock_folder()?;
            for path in files(&opened.folder, ENDING)? {
                cut_torn_line(&path)?;
            }
            let mut inner = opened.lock();
            opened.look(&mut inner)?;
        }
        Ok(opened)
    }

    /// Adds an entry; durable when it returns. Blocks: not for a reactor thread.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when the bound is reached, else what the file system says. The entry is not in
    /// the dead letter then.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        self.put_all(std::slice::from_ref(entry))
    }

    /// Adds entries with one sync: all or, on an error, none (a crash in between may leave some, which then come twice).
    ///
    /// # Errors
    /// As [`DeadLetter::put`].
    pub fn put_all(&self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for entry in entries {
            entry.write_line(&mut lines);
        }
        let mut inner = self.lock();
        let _alone = self.lock_folder()?;
        let result = self.append(&mut inner, &lines, entries.len() as u64);
        inner.full = matches!(&result, Err(error) if error.kind() == io::ErrorKind::StorageFull);
        result
    }

    /// How much is there. Looks at the folder: a replay in another process may have emptied it.
    pub fn usage(&self) -> DeadLetterUsage {
        let mut inner = self.lock();
        // What cannot be looked at now is reported as it was last known.
        if let Err(error) = self.look(&mut inner) {
            tracing::debug!(%error, "the dead-letter folder cannot be looked at");
        }
        let bytes = inner.bytes();
        DeadLetterUsage {
            entries: inner.known.values().map(|k| k.entries).sum(),
            bytes,
            limit: self.limit_bytes,
            files: inner.known.len() as u64,
            full: inner.full && bytes > 0,
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn append(&self, inner: &mut Inner, lines: &[u8], entries: u64) -> io::Result<()> {
        let more = lines.len() as u64;
        if inner.bytes() + more > self.limit_bytes {
            self.look(inner)?;
            let there = inner.bytes();
            if there + more > self.limit_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!(
                        "the dead letter {} is full: {there} of {} bytes, {more} more do not fit; mend what its entries say and run `windrow replay`",
                        self.folder.display(),
                        self.limit_bytes
                    ),
                ));
            }
        }
        // A replay may have taken the file away; what is written to it then would be lost with it.
        if let Some(active) = &inner.active
            && (active.length >= self.file_bytes || !active.path.try_exists()?)
        {
            inner.active = None;
        }
        let mut active = match inner.active.take() {
            Some(active) => active,
            None => self.begin(inner)?,
        };
        let written = active
            .file
            .write_all(lines)
            .and_then(|()| active.file.sync_data());
        if let Err(error) = written {
            // After a failed sync the file's state is not known: it is cut back and never written again.
            let cut = active
                .file
                .set_len(active.length)
                .and_then(|()| active.file.sync_all());
            if let Err(cut) = cut {
                tracing::warn!(file = %active.path.display(), %cut, "the dead-letter file could not be cut back");
            }
            return Err(error);
        }
        active.length += more;
        let known = inner.known.entry(active.path.clone()).or_default();
        known.bytes = active.length;
        known.entries += entries;
        inner.active = Some(active);
        Ok(())
    }

    /// Begins the next file; it is in the folder durably before anything is written to it.
    fn begin(&self, inner: &mut Inner) -> io::Result<Active> {
        for ending in [ENDING, TAKEN] {
            for path in files(&self.folder, ending)? {
                inner.number = inner.number.max(number(&path).unwrap_or(0));
            }
        }
        inner.number += 1;
        let path = self.folder.join(format!("{:03}.{ENDING}", inner.number));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        sync_folder(&self.folder)?;
        Ok(Active {
            file,
            path,
            length: 0,
        })
    }

    /// Brings `known` up to date with the folder.
    fn look(&self, inner: &mut Inner) -> io::Result<()> {
        let mut seen = BTreeMap::new();
        for ending in [ENDING, TAKEN] {
            for path in files(&self.folder, ending)? {
                let bytes = match fs::metadata(&path) {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let known = match inner.known.get(&path) {
                    Some(known) if known.bytes == bytes => *known,
                    _ => Known {
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_folder(&self) -> io::Result<File> {
        lock_folder(&self.folder)
    }
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.known.values().map(|known| known.bytes).sum()
    }
}

/// Takes the lock of the folder until the file is dropped.
pub(super) fn lock_folder(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// Makes changes of names durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Files with an ending, in the order of their numbers.
pub(super) fn files(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|its| its == ending) && number(&path).is_some() {
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

/// Cuts a file back to the end of its last whole line.
fn cut_torn_line(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
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
        tracing::warn!(file = %path.display(), bytes = length - end, "torn last line of the dead letter cut off");
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
