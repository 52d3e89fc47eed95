//! What can go wrong, one type per operation. Each says whose fault it is and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the folder.
    #[error(
        "the journal folder {} is in use by another process{}: stop it, or give each its own data folder",
        dir.display(),
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
        /// The process that wrote its number into the lock file, if that could be read.
        pid: Option<u32>,
    },
    /// This user may not read or write the folder.
    #[error(
        "no permission to {what} {}: give the folder and all in it to the user that runs Windrow (uid {uid}), for \
         instance with chown -R",
        path.display()
    )]
    Denied {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The user that this process runs as.
        uid: u32,
    },
    /// A segment was written by a newer Windrow.
    #[error(
        "{} has journal format {found}, this program reads up to {supported}: start a newer Windrow here, or empty \
         the journal with the one that wrote it (stop it after all is delivered)",
        path.display()
    )]
    NewerFormat {
        /// The segment file.
        path: PathBuf,
        /// The version found in it.
        found: u32,
        /// The newest version that is known here.
        supported: u32,
    },
    /// The file system answered with an error.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

/// A record was not made durable. Nothing may be acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// It can never be stored.
    #[error("a record of {bytes} bytes is larger than the journal takes ({max} bytes)")]
    TooLarge {
        /// The payload's size.
        bytes: u64,
        /// The largest payload.
        max: u64,
    },
    /// Writing or syncing failed; whether the bytes are on the disk is not known. Sending the same again is
    /// right.
    #[error("the disk failed while the record was written: {0}")]
    Disk(Arc<str>),
    /// The journal was closed before the record was written.
    #[error("the journal is closed")]
    Closed,
}

/// A record could not be read for a reason that may pass (too many open files, no memory, an error of the
/// device). The next call tries the same again. After several errors of the device itself the reader gives
/// the segment up and quarantines it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ReadError {
    pub(super) path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}
