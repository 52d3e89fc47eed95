//! Persistent state of the logging sidecar: how far each file was delivered, and the chunk in
//! flight.
//!
//! One small JSON file, replaced atomically (temporary file, sync, rename, sync of the folder). It
//! is written before a chunk is sent and after it was acknowledged, so that after a crash the same
//! bytes can be sent again under the same id. Reads no log files.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Identity of a file that stays the same when it is renamed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct FileId {
    /// The device that it is on.
    pub device: u64,
    /// Its number there. Used again after the file was removed, therefore the fingerprint.
    pub inode: u64,
}

/// How far a file was delivered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// Which file.
    pub file: FileId,
    /// Bytes delivered from its beginning.
    pub delivered: u64,
    /// A hash of the bytes just before `delivered`: other bytes there mean another file, or one
    /// that was rewritten.
    pub fingerprint: u64,
    /// Its last change, Unix nanoseconds: rotated files that changed later have not been read.
    pub modified_ns: i128,
}

/// A rotated file that was read to its end and is not read again while it is unchanged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finished {
    /// Which file.
    pub file: FileId,
    /// Its length and last change when it was finished.
    pub length: u64,
    /// Unix nanoseconds.
    pub modified_ns: i128,
}

/// A chunk that was about to be sent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pending {
    /// The file that it comes from.
    pub file: FileId,
    /// Its first byte and the one after its last.
    pub start: u64,
    /// See `start`.
    pub end: u64,
    /// Hash of its bytes: when they are others now, the chunk cannot be made again.
    pub hash: u64,
    /// The id that it was sent with.
    pub chunk: String,
    /// The time of its lines that carry none, Unix nanoseconds.
    pub read_at_ns: i64,
}

/// The whole state.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct State {
    /// Files being read, oldest first.
    pub files: Vec<Position>,
    /// Rotated files that were read to their end, oldest first.
    pub finished: Vec<Finished>,
    /// The chunk in flight.
    pub pending: Option<Pending>,
}

/// The state file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    temporary: PathBuf,
}

impl StateFile {
    /// A state file at `path`; its folder is created.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn new(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(format!(
                "cannot create the folder of the state file {}",
                path.display()
            )))?;
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        Ok(Self {
            path: path.to_owned(),
            temporary: temporary.into(),
        })
    }

    /// The state of the last run; an empty one when there was none.
    ///
    /// # Errors
    /// When it cannot be read or parsed: starting over would deliver everything again, so that is
    /// the operator's decision.
    pub fn load(&self) -> Result<State, Error> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => {
                return Err(Error::io(format!(
                    "cannot read the state file {}",
                    self.path.display()
                ))(error));
            }
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::io(format!(
                "the state file {} is damaged; remove it to read the log from its beginning again",
                self.path.display()
            ))(error.into())
        })
    }

    /// Replaces the state; durable on return.
    ///
    /// # Errors
    /// When it cannot be written; the old state remains then.
    pub fn save(&self, state: &State) -> io::Result<()> {
        let mut file = File::create(&self.temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(&folder.path().join("deep/state.json")).unwrap();
        assert_eq!(file.load().unwrap(), State::default());
        let id = FileId {
            device: 1,
            inode: u64::MAX,
        };
        let state = State {
            files: vec![Position {
                file: id,
                delivered: 7,
                fingerprint: u64::MAX,
                modified_ns: 1 << 70,
            }],
            finished: vec![Finished {
                file: id,
                length: 9,
                modified_ns: -1,
            }],
            pending: Some(Pending {
                file: id,
                start: 7,
                end: 9,
                hash: 1,
                chunk: "c".to_owned(),
                read_at_ns: -5,
            }),
        };
        file.save(&state).unwrap();
        assert_eq!(file.load().unwrap(), state);
        file.save(&State::default()).unwrap();
        assert_eq!(file.load().unwrap(), State::default());
    }

    #[test]
    fn a_damaged_state_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, "{\"files\":[").unwrap();
        let error = StateFile::new(&path).unwrap().load().unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
