//! Folder of the spool: its lock, its file names, and recovery at the start.
//!
//! Owns names and durability. A chunk is written as `N.new` and renamed to `N.chunk` when it is
//! complete, so that a crash leaves no partial chunk under its final name; a damaged file is
//! renamed to
//! `N.damaged` and kept for inspection.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::chunk::Chunk;
use crate::error::{BuildError, SpoolError};
use crate::options::Fsync;
use crate::spool::file;

pub(crate) struct Folder {
    path: PathBuf,
    fsync: Fsync,
    /// Number of the next file.
    next: u64,
    lock: File,
}

impl Drop for Folder {
    /// Closing the file would do, but for a child process between its fork and its exec: it has the
    /// file open too.
    fn drop(&mut self) {
        // If this fails, closing the file remains.
        let _ = fs4::FileExt::unlock(&self.lock);
    }
}

impl Folder {
    /// Creates the folder if needed and locks it.
    pub(crate) fn lock(path: &Path, fsync: Fsync) -> Result<Self, BuildError> {
        let failed = |error| BuildError::Spool {
            folder: path.to_owned(),
            error,
        };
        let is_new = !path.try_exists().map_err(failed)?;
        create_private_dir(path).map_err(failed)?;
        if is_new && fsync == Fsync::Always {
            sync(&path.join("..")).map_err(failed)?;
        }
        let lock = create_private(&path.join("lock")).map_err(failed)?;
        // Named in full: the standard library's own `try_lock` is younger than this crate's oldest
        // Rust.
        match fs4::FileExt::try_lock(&lock) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                return Err(BuildError::SpoolInUse {
                    folder: path.to_owned(),
                });
            }
            Err(fs4::TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self {
            path: path.to_owned(),
            fsync,
            next: 0,
            lock,
        })
    }

    /// The chunks of an earlier process, oldest first. Damaged files are set aside.
    pub(crate) fn read(&mut self, errors: &mut Vec<SpoolError>) -> Result<Vec<Chunk>, BuildError> {
        let failed = |error| BuildError::Spool {
            folder: self.path.clone(),
            error,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            self.next = self.next.max(number.saturating_add(1));
            match kind {
                "chunk" => found.push((number, true)),
                "new" => found.push((number, false)),
                _ => {}
            }
        }
        found.sort_unstable();
        let mut chunks = Vec::new();
        for (number, whole) in found {
            let path = self.file(number, if whole { "chunk" } else { "new" });
            let read = fs::read(&path)
                .map_err(|error| format!("cannot be read: {error}"))
                .and_then(|bytes| file::read(&bytes));
            match read {
                Ok(mut chunk) => {
                    // The process ended between write and rename.
                    if !whole {
                        fs::rename(&path, self.file(number, "chunk")).map_err(failed)?;
                    }
                    chunk.file = Some(number);
                    chunks.push(chunk);
                }
                Err(reason) if whole => {
                    let aside = self.file(number, "damaged");
                    let path = match fs::rename(&path, &aside) {
                        Ok(()) => aside,
                        Err(_) => path,
                    };
                    errors.push(SpoolError::Damaged { path, reason });
                }
                // The process ended during the write: the chunk never counted as spooled.
                Err(_) => drop(fs::remove_file(&path)),
            }
        }
        Ok(chunks)
    }

    /// Writes a chunk and notes in it where it is.
    pub(crate) fn write(&mut self, chunk: &mut Chunk) -> Result<(), SpoolError> {
        let number = self.next;
        self.next += 1;
        let (new, path) = (self.file(number, "new"), self.file(number, "chunk"));
        let write = || {
            let mut file = create_private(&new)?;
            file.write_all(&file::header(chunk))?;
            file.write_all(&chunk.message)?;
            if self.fsync == Fsync::Always {
                file.sync_data()?;
            }
            fs::rename(&new, &path)?;
            if self.fsync == Fsync::Always {
                sync(&self.path)?;
            }
            Ok(())
        };
        match write() {
            Ok(()) => {
                chunk.file = Some(number);
                Ok(())
            }
            Err(error) => {
                // Remove either: a chunk that counts as not spooled must not be recovered later.
                let _ = (fs::remove_file(&new), fs::remove_file(&path));
                Err(SpoolError::Write {
                    path,
                    events: chunk.events,
                    error,
                })
            }
        }
    }

    /// The chunk in it was acknowledged. Not synced: if the machine dies now, the chunk is sent
    /// once more, with the same id.
    pub(crate) fn remove(&self, number: u64) -> Result<(), SpoolError> {
        let path = self.file(number, "chunk");
        fs::remove_file(&path).map_err(|error| SpoolError::Remove { path, error })
    }

    fn file(&self, number: u64, kind: &str) -> PathBuf {
        self.path.join(format!("{number:020}.{kind}"))
    }
}

/// Creates a folder, and those above it, that only its owner can enter: logs hold personal data.
fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates a file, or empties it, that only its owner can read.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the names in a folder durable.
#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be synced, and need not be.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on unix")]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
