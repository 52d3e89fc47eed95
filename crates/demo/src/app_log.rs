//! Application log: one JSON object per line of a file, or records sent to a Forward server.
//!
//! Each line reaches the kernel in one write before the call returns, so there is nothing to flush
//! when the process is killed. When the file at the path has been renamed or removed, a new one is
//! opened (log rotation by rename needs no signal). Does not rotate, and does not know where the
//! lines go afterwards.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use serde_json::{Map, Value};

use crate::Error;

mod direct;

pub use direct::{DirectLog, Options as DirectOptions};

/// The log of one application.
#[derive(Debug)]
pub enum AppLog {
    /// Lines of a file, for a sidecar or an agent to carry on.
    File(FileLog),
    /// Records to a Forward server.
    Direct(DirectLog),
}

impl AppLog {
    /// A log file; see [`FileLog::open`].
    ///
    /// # Errors
    /// [`Error::LogFile`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        FileLog::open(path).map(Self::File)
    }

    /// Writes one line: the time, `level`, `traceId`, `message` and then the given fields.
    ///
    /// # Errors
    /// When the line could not be written or queued.
    pub fn write(
        &self,
        level: &str,
        trace_id: &str,
        message: &str,
        fields: &[(&str, Value)],
    ) -> io::Result<()> {
        let mut record = Map::new();
        record.insert("level".to_owned(), level.into());
        record.insert("traceId".to_owned(), trace_id.into());
        record.insert("message".to_owned(), message.into());
        for (name, value) in fields {
            record.insert((*name).to_owned(), value.clone());
        }
        match self {
            Self::File(file) => file.write(record),
            Self::Direct(direct) => direct.write(record),
        }
    }

    /// Finishes the log: syncs a file; delivers records in flight, for at most `grace`.
    ///
    /// # Errors
    /// When the file cannot be synced, or records were not delivered: how many.
    pub async fn finish(&self, grace: Duration) -> Result<(), Error> {
        match self {
            Self::File(file) => file
                .sync()
                .map_err(Error::io("the log file cannot be made durable")),
            Self::Direct(direct) => direct.finish(grace).await,
        }
    }
}

/// A log file.
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    /// The last write failed half-way: the next line must begin on a line of its own.
    torn: bool,
}

impl FileLog {
    /// Opens the file for appending; creates it and its folder where they are missing.
    ///
    /// # Errors
    /// [`Error::LogFile`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::LogFile {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let open = Mutex::new(Open::new(path).map_err(failed)?);
        Ok(Self {
            path: path.to_owned(),
            open,
        })
    }

    fn write(&self, record: Map<String, Value>) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("time".to_owned(), format!("{:.6}", jiff::Timestamp::now()).into());
        line.extend(record);
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        self.write_line(&line)
    }

    /// Syncs what was written.
    fn sync(&self) -> io::Result<()> {
        self.lock().file.sync_data()
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.lock();
        if !open.is_still_at(&self.path) {
            *open = Open::new(&self.path)?;
        }
        if open.torn {
            open.file.write_all(b"\n")?;
            open.torn = false;
        }
        let written = open.file.write_all(line);
        open.torn = written.is_err();
        written
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // A panic while the lock was held leaves at worst a torn line, which the next write
        // repairs.
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            file,
            device: metadata.dev(),
            inode: metadata.ino(),
            torn: false,
        })
    }

    fn is_still_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|there| there.dev() == self.device && there.ino() == self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_in_the_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/app.log");
        let log = AppLog::open(&path).unwrap();
        log.write("info", "abc", "handler \"finished\"\n", &[("status", 200.into())])
            .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        assert_eq!(line["traceId"], "abc");
        assert_eq!(line["message"], "handler \"finished\"\n");
        assert_eq!(line["status"], 200);
        assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn a_renamed_file_is_followed_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let log = AppLog::open(&path).unwrap();
        log.write("info", "a", "one", &[]).unwrap();
        fs::rename(&path, folder.path().join("app.log.1")).unwrap();
        log.write("info", "a", "two", &[]).unwrap();
        assert!(
            fs::read_to_string(folder.path().join("app.log.1"))
                .unwrap()
                .contains("one")
        );
        let new = fs::read_to_string(&path).unwrap();
        assert!(new.contains("two") && !new.contains("one"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain");
        fs::write(&file, "").unwrap();
        let error = AppLog::open(&file.join("app.log")).unwrap_err().to_string();
        assert!(
            error.contains("plain/app.log") && error.contains("--log-path"),
            "{error}"
        );
    }
}
