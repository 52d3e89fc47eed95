//! Tail of one log file through growth, rotation (rename and create) and truncation.
//!
//! Returns batches of whole lines and advances only when a batch was delivered. A rotated file is
//! read to its end beside the new one, and watched for some time, because the application may still
//! write to it. Bytes that were truncated before they were read are lost. Sends nothing.

use std::{
    collections::VecDeque,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use twox_hash::XxHash3_64;

use super::{
    CHUNK_LINES,
    state::{FileId, Finished, Pending, Position},
};

/// Whole lines of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// The file.
    pub file: FileId,
    /// Where the first byte stands in it.
    pub start: u64,
    /// The bytes, as a rule ending with a newline: not when a line is too long, or the last of a
    /// rotated file.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// The place after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// A hash of the bytes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        XxHash3_64::oneshot(&self.bytes)
    }
}

/// An event that the operator should know of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The file became shorter, or its bytes are others: read from its beginning.
    Truncated(PathBuf),
    /// A file of the last run is missing: its bytes beyond the position were not delivered.
    Gone(Position),
}

/// Tail of a log file and of the files rotated from it.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    followed: Vec<Followed>,
    finished: VecDeque<Finished>,
    notices: Vec<Notice>,
    rotate_wait: Duration,
    batch_bytes: usize,
}

#[derive(Debug)]
struct Followed {
    file: File,
    position: Position,
    length: u64,
    /// Since when the path has named another file, and this one has not grown.
    quiet_since: Option<Instant>,
}

impl Tail {
    /// Continues from the state of the previous run. `rotate_wait` is how long a rotated file is
    /// watched after its last growth; `batch_bytes` bounds a batch, and so a line.
    ///
    /// # Errors
    /// When a file cannot be opened for another reason than that it is not there.
    pub fn resume(
        path: &Path,
        files: &[Position],
        finished: &[Finished],
        rotate_wait: Duration,
        batch_bytes: usize,
    ) -> io::Result<Self> {
        let finished = finished.iter().cloned().collect();
        let mut tail = Self {
            path: path.to_owned(),
            followed: Vec::new(),
            finished,
            notices: Vec::new(),
            rotate_wait,
            batch_bytes,
        };
        let siblings = tail.siblings()?;
        for position in files {
            let there = siblings
                .iter()
                .find(|(_, metadata)| id(metadata) == position.file);
            match there {
                Some((path, _)) => tail.follow(path, Some(position))?,
                None => tail.notices.push(Notice::Gone(position.clone())),
            }
        }
        // Rotated while the sidecar was not running: files changed since then have not been read.
        let last_change = files.iter().map(|position| position.modified_ns).max();
        tail.discover(last_change)?;
        Ok(tail)
    }

    /// The next lines, oldest file first; none when all that is complete was delivered. The same
    /// again until [`Tail::delivered`].
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_batch(&mut self) -> io::Result<Option<Batch>> {
        let last_change = self
            .followed
            .iter()
            .map(|followed| followed.position.modified_ns)
            .max();
        self.discover(last_change)?;
        let current = fs::metadata(&self.path).ok().map(|metadata| id(&metadata));
        let mut index = 0;
        while let Some(followed) = self.followed.get_mut(index) {
            if followed.refresh()? {
                self.notices.push(Notice::Truncated(self.path.clone()));
            }
            let rotated = current != Some(followed.position.file);
            let done = rotated && followed.is_quiet_for(self.rotate_wait);
            let (bytes, at_end) = followed.read(self.batch_bytes, done)?;
            if !bytes.is_empty() {
                let batch = Batch {
                    file: followed.position.file,
                    start: followed.position.delivered,
                    bytes,
                };
                return Ok(Some(batch));
            }
            // The last file at the path may come back under another name; it is given up only for a
            // new one.
            if done && at_end && current.is_some() {
                let followed = self.followed.remove(index);
                self.remember(&followed);
            } else {
                index += 1;
            }
        }
        Ok(None)
    }

    /// The chunk that was under way at the end of the last run, when its bytes are still there.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn again(&self, pending: &Pending) -> io::Result<Option<Batch>> {
        let Some(followed) = self
            .followed
            .iter()
            .find(|followed| followed.position.file == pending.file)
        else {
            return Ok(None);
        };
        let length = pending.end.saturating_sub(pending.start);
        if followed.position.delivered != pending.start || length > self.batch_bytes as u64 {
            return Ok(None);
        }
        let bytes = read_at(&followed.file, pending.start, length as usize)?;
        let batch = Batch {
            file: pending.file,
            start: pending.start,
            bytes,
        };
        Ok((batch.hash() == pending.hash && batch.end() == pending.end).then_some(batch))
    }

    /// The batch has arrived: its file is read on behind it.
    ///
    /// # Errors
    /// When the bytes before the new position cannot be read.
    pub fn delivered(&mut self, batch: &Batch) -> io::Result<()> {
        if let Some(followed) = self
            .followed
            .iter_mut()
            .find(|followed| followed.position.file == batch.file)
        {
            followed.position.delivered = batch.end();
            let tail = batch.bytes.len().saturating_sub(FINGERPRINT_BYTES);
            followed.position.fingerprint = match batch.bytes.get(tail..) {
                Some(last) if last.len() == FINGERPRINT_BYTES => XxHash3_64::oneshot(last),
                _ => fingerprint(&followed.file, batch.end())?,
            };
        }
        Ok(())
    }

    /// How far each file was delivered, for the state file.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.followed
            .iter()
            .map(|followed| followed.position.clone())
            .collect()
    }

    /// The rotated files that are done, for the state file.
    #[must_use]
    pub fn finished(&self) -> Vec<Finished> {
        self.finished.iter().cloned().collect()
    }

    /// Bytes not delivered, as of the last poll.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.followed
            .iter()
            .map(|f| f.length.saturating_sub(f.position.delivered))
            .sum()
    }

    /// Events since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Begins to follow the file at the path when that is a new one, and with it the files that
    /// were rotated away between two polls: those that changed at or after `last_change`.
    fn discover(&mut self, last_change: Option<i128>) -> io::Result<()> {
        let current = match fs::metadata(&self.path) {
            Ok(metadata) => id(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.follows(current) {
            return Ok(());
        }
        if let Some(last_change) = last_change {
            for (path, metadata) in self.siblings()? {
                let stamp = stamp(&metadata);
                let new = stamp.modified_ns >= last_change && !self.follows(stamp.file);
                if new && stamp.file != current && !self.finished.contains(&stamp) {
                    self.follow(&path, None)?;
                }
            }
        }
        let path = self.path.clone();
        self.follow(&path, None)
    }

    fn follows(&self, file: FileId) -> bool {
        self.followed
            .iter()
            .any(|followed| followed.position.file == file)
    }

    fn follow(&mut self, path: &Path, from: Option<&Position>) -> io::Result<()> {
        let file = match File::open(path) {
            Ok(file) => file,
            // Renamed between listing and opening: it is found at the next poll.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let stamp = stamp(&file.metadata()?);
        if self.follows(stamp.file) {
            return Ok(());
        }
        let start = Position {
            file: stamp.file,
            delivered: 0,
            fingerprint: 0,
            modified_ns: stamp.modified_ns,
        };
        let position = from
            .filter(|from| from.file == stamp.file)
            .cloned()
            .unwrap_or(start);
        self.followed.push(Followed {
            file,
            position,
            length: stamp.length,
            quiet_since: None,
        });
        Ok(())
    }

    fn remember(&mut self, followed: &Followed) {
        if let Ok(metadata) = followed.file.metadata() {
            self.finished.push_back(stamp(&metadata));
        }
        while self.finished.len() > MAX_FINISHED {
            self.finished.pop_front();
        }
    }

    /// The file and those that were rotated from it (`app.log`, `app.log.1`, `app.log-20261121`),
    /// oldest change first. Compressed ones cannot be read and are left out.
    fn siblings(&self) -> io::Result<Vec<(PathBuf, Metadata)>> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut siblings = Vec::new();
        for entry in entries {
            let entry = entry?;
            let other = entry.file_name();
            let other = other.to_string_lossy();
            let Some(suffix) = other.strip_prefix(&*name) else {
                continue;
            };
            let rotated = suffix.is_empty() || suffix.starts_with(['.', '-', '_']);
            let compressed = [".gz", ".zst", ".bz2", ".xz"]
                .iter()
                .any(|end| suffix.ends_with(end));
            let Ok(metadata) = fs::metadata(entry.path()) else {
                continue;
            };
            if rotated && !compressed && metadata.is_file() {
                siblings.push((entry.path(), metadata));
            }
        }
        siblings.sort_by_key(|(path, metadata)| (modified_ns(metadata), path.clone()));
        Ok(siblings)
    }
}

impl Followed {
    /// Checks the file; true when its content is another one, and reading restarts at its
    /// beginning.
    fn refresh(&mut self) -> io::Result<bool> {
        let stamp = stamp(&self.file.metadata()?);
        if stamp.length != self.length || stamp.modified_ns != self.position.modified_ns {
            self.quiet_since = None;
        }
        self.length = stamp.length;
        self.position.modified_ns = stamp.modified_ns;
        let delivered = self.position.delivered;
        let same = delivered == 0
            || (delivered <= self.length && fingerprint(&self.file, delivered)? == self.position.fingerprint);
        if !same {
            self.position.delivered = 0;
            self.position.fingerprint = 0;
        }
        Ok(!same)
    }

    fn is_quiet_for(&mut self, wait: Duration) -> bool {
        self.quiet_since.get_or_insert_with(Instant::now).elapsed() >= wait
    }

    /// Whole lines from the position on, at most [`CHUNK_LINES`], and whether the end of the file
    /// was reached. With `all` the line without a newline at the end of the file counts as whole:
    /// it will not be continued.
    fn read(&self, limit: usize, all: bool) -> io::Result<(Vec<u8>, bool)> {
        let mut bytes = read_at(&self.file, self.position.delivered, limit)?;
        let at_end = bytes.len() < limit;
        let mut newlines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        if let Some((last, _)) = newlines.nth(CHUNK_LINES - 1) {
            bytes.truncate(last + 1);
            return Ok((bytes, false));
        }
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => bytes.truncate(newline + 1),
            None if at_end && !all => bytes.clear(),
            // A line longer than a batch goes in pieces.
            None => {}
        }
        Ok((bytes, at_end))
    }
}

/// Up to `limit` bytes from `offset`; fewer only at the end of the file.
fn read_at(file: &File, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
    let available = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; limit.min(usize::try_from(available).unwrap_or(limit))];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// A hash of the last bytes before `end`.
fn fingerprint(file: &File, end: u64) -> io::Result<u64> {
    let start = end.saturating_sub(FINGERPRINT_BYTES as u64);
    Ok(XxHash3_64::oneshot(&read_at(
        file,
        start,
        (end - start) as usize,
    )?))
}

fn id(metadata: &Metadata) -> FileId {
    FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn stamp(metadata: &Metadata) -> Finished {
    Finished {
        file: id(metadata),
        length: metadata.len(),
        modified_ns: modified_ns(metadata),
    }
}

/// Bytes of a fingerprint: enough to hold a time stamp or a trace id, so that two files differ in
/// them.
const FINGERPRINT_BYTES: usize = 256;

/// Rotated files that are remembered; more are hardly kept beside a log.
const MAX_FINISHED: usize = 32;

#[cfg(test)]
mod tests;
