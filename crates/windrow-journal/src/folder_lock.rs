//! Folder lock: one process per journal folder. Creates the folder.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::error::OpenError;

const LOCK_FILE: &str = "LOCK";
/// [`inspect`](crate::inspect) holds the lock for an instant, and a process that is ending holds it
/// for a moment.
const LOCK_ATTEMPTS: usize = 20;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Held while the journal is open. The kernel releases it however the process ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Creates the folder if needed and locks it.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, OpenError> {
        create_folder(dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::during("write", &path))?;
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => {
                    // Only for the message of a process that finds the folder locked.
                    let _ = file
                        .set_len(0)
                        .and_then(|()| writeln!(file, "{}", std::process::id()));
                    return Ok(Self { _file: file });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_INTERVAL),
                Err(TryLockError::Error(error)) => return Err(OpenError::during("lock", &path)(error)),
            }
        }
        Err(OpenError::Locked {
            dir: dir.to_owned(),
            pid: read_pid(&mut file),
        })
    }

    /// The process that holds the lock: `Some` if there is one, with its number if that is known.
    pub(crate) fn holder(dir: &Path) -> Option<Option<u32>> {
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

/// Takes the permissions of others away from a folder of this user. Those of the group stay:
/// Kubernetes' `fsGroup` relies on them.
fn close_to_others(dir: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(dir)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o007 == 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    std::fs::set_permissions(dir, Permissions::from_mode(mode & !0o007))
}

fn create_folder(dir: &Path) -> Result<(), OpenError> {
    let create = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        close_to_others(dir)
    };
    create().map_err(OpenError::during("create the folder", dir))?;
    // A new folder must survive a power failure. A parent that cannot be opened is not new.
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
