//! Files of an open database, and whether they are still the ones at their paths.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{FileIdentity, close_to_others, private_file, refuse_symlink};

/// What SQLite appends to the name of the database for its write-ahead log and the log's index.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Creates an empty database that only its owner can open, if there is none; the files that SQLite
/// creates beside it get its permissions.
///
/// An existing file is not opened: to close it would release the locks that this process has on it.
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    match private_file().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => drop(other?),
    }
    for suffix in SUFFIXES {
        let path = with_suffix(path, suffix);
        refuse_symlink(&path)?;
        close_to_others(&path)?;
    }
    Ok(())
}

/// The files that a connection has open. SQLite does not notice when one of them is unlinked.
#[derive(Debug)]
pub(crate) struct StoreFiles(Vec<(PathBuf, FileIdentity)>);

impl StoreFiles {
    /// Examines the files right after a connection has opened them.
    pub(crate) fn opened(path: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for suffix in SUFFIXES {
            let path = with_suffix(path, suffix);
            if let Some(identity) = FileIdentity::at(&path)? {
                files.push((path, identity));
            }
        }
        Ok(Self(files))
    }

    /// The first file that is no longer at its path.
    pub(crate) fn replaced(&self) -> Option<PathBuf> {
        let replaced = self
            .0
            .iter()
            .find(|(path, identity)| !matches!(FileIdentity::at(path), Ok(Some(at)) if at == *identity));
        replaced.map(|(path, _)| path.clone())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
