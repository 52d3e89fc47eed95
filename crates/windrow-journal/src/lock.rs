//! One process per folder: the lock file, and the making of the folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::OpenError;

const LOCK_FILE: &str = "LOCK";

/// Held as long as the journal is open. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder if needed and locks it.
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        make_folder(dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(about("write", &path))?;
        // `inspect` looks at the lock for an instant; a predecessor that is just ending gets a moment too.
        for _ in 0..20 {
            match file.try_lock() {
                Ok(()) => {
                    // The number only serves the message to the next one who comes.
                    let _ = file
                        .set_len(0)
                        .and_then(|()| writeln!(file, "{}", std::process::id()));
                    return Ok(Self { _file: file });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
                Err(TryLockError::Error(error)) => return Err(about("lock", &path)(error)),
            }
        }
        Err(OpenError::Locked {
            dir: dir.to_owned(),
            pid: read_pid(&mut file),
        })
    }

    /// Who holds the lock at the moment, without taking it: `Some(pid)` if somebody does.
    pub(super) fn holder(dir: &Path) -> Option<Option<u32>> {
        let mut file = File::open(dir.join(LOCK_FILE)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(read_pid(&mut file)),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.take(20).read_to_string(&mut text))
        .ok()?;
    text.trim().parse().ok()
}

fn make_folder(dir: &Path) -> Result<(), OpenError> {
    std::fs::create_dir_all(dir).map_err(about("make the folder", dir))?;
    // So that a new folder is still there after a power failure. A parent that cannot be opened was not made by us.
    if let Some(parent) = dir.parent()
        && let Ok(parent) = File::open(if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        })
    {
        let _ = parent.sync_all();
    }
    Ok(())
}

/// Says what was tried with which file.
pub(super) fn about(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Denied {
            what,
            path,
            uid: rustix::process::geteuid().as_raw(),
        },
        _ => OpenError::Io { what, path, source },
    }
}
