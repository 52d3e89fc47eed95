//! Errors, one type per operation. Each message names the cause and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the folder open.
    #[error(
        "the journal folder {} is in use by another process{}: stop it, or give each its own data folder",
        dir.display(),
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
        /// The process that has the folder open, if its number could be read.
        pid: Option<u32>,
    },
    /// This user has no permission for the folder or a file in it.
    #[error(
        "no permission to {action} {}: give the folder and all in it to the user that runs Windrow (uid {uid}), for \
         instance with chown -R",
        path.display()
    )]
    Denied {
        /// The operation that failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The user id of this process.
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
        /// The version in its header.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// The file system returned an error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// A record was not made durable: it must not be acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload is larger than
    /// [`Journal::max_payload_bytes`](crate::Journal::max_payload_bytes).
    #[error("a record of {bytes} bytes is larger than the journal accepts ({max} bytes)")]
    TooLarge {
        /// Size of the payload, in bytes.
        bytes: u64,
        /// Size of the largest payload, in bytes.
        max: u64,
    },
    /// Writing or syncing failed. Whether the record is on disk is unknown; the caller should
    /// append it again.
    #[error("the disk failed while the record was written: {0}")]
    Disk(Arc<str>),
    /// The journal was closed before the record was written.
    #[error("the journal is closed")]
    Closed,
}

/// A record could not be read, for a reason that may pass (too many open files, no memory, a device
/// error).
///
/// The next call tries the same record again. After five device errors in a row the reader gives up
/// the segment and quarantines it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ReadError {
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

impl OpenError {
    /// Converts an I/O error of an action, a verb, on a path.
    pub(crate) fn during(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied {
                action,
                path,
                uid: rustix::process::geteuid().as_raw(),
            },
            _ => Self::Io { action, path, source },
        }
    }
}
