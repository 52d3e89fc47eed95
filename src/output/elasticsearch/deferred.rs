//! Deferred documents: those that wait for an operator leave the memory for a bounded folder, and
//! are written when their index takes documents again.
//!
//! Owns one folder per index, each with files as the dead letter has them. A document is durable
//! there before it is confirmed, so it does not keep its journal records. Writing it again is
//! idempotent, so a crash between any two steps does no harm.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::create_private_folder;
use crate::output::dead_letter::{DeadLetter, Entry};

/// Size at which the next file of an index is begun. Files are rewritten when a part of them is
/// written to the store.
const FILE_BYTES: u64 = 4 << 20;

/// Suffix of the folder of documents that are refused by themselves: none waits for another.
const ALONE: &str = ",alone";

/// Folders at most: beyond that documents wait in memory.
const MAX_FOLDERS: usize = 256;

/// The deferred documents of one output.
#[derive(Debug)]
pub(crate) struct Deferred {
    folder: PathBuf,
    limit_bytes: u64,
    queues: Mutex<BTreeMap<String, Queue>>,
}

/// The deferred documents of one index.
#[derive(Debug, Clone)]
struct Queue {
    files: Arc<DeadLetter>,
    reason: String,
}

/// A queue with documents.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// The index.
    pub(crate) index: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Each of its documents is tried, because none waits for another.
    pub(crate) alone: bool,
    /// Number of documents.
    pub(crate) documents: u64,
    /// Why they wait.
    pub(crate) reason: String,
}

impl Deferred {
    /// Opens the folder, with the documents that an earlier run left.
    ///
    /// # Errors
    /// A folder or file cannot be read or written.
    pub(crate) fn open(folder: &Path, limit_bytes: u64) -> io::Result<Self> {
        create_private_folder(folder)?;
        let opened = Self {
            folder: folder.to_owned(),
            limit_bytes,
            queues: Mutex::default(),
        };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                opened.queue(&mut opened.lock(), name)?;
            }
        }
        Ok(opened)
    }

    /// Adds documents of one index, durably. Blocks.
    ///
    /// # Errors
    /// The limit is reached ([`io::ErrorKind::StorageFull`]), or the file system fails.
    pub(crate) fn put(&self, index: &str, alone: bool, reason: &str, entries: &[Entry]) -> io::Result<()> {
        let name = if alone {
            format!("{index}{ALONE}")
        } else {
            index.to_owned()
        };
        let files = {
            let mut queues = self.lock();
            let bytes: u64 = queues.values().map(|queue| queue.files.usage().bytes).sum();
            if bytes >= self.limit_bytes || (queues.len() >= MAX_FOLDERS && !queues.contains_key(&name)) {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!(
                        "{bytes} of {} bytes (elasticsearch.deferred_limit) in {}",
                        self.limit_bytes,
                        self.folder.display()
                    ),
                ));
            }
            let queue = self.queue(&mut queues, name)?;
            reason.clone_into(&mut queue.reason);
            Arc::clone(&queue.files)
        };
        files.put_all(entries)
    }

    /// The queues with documents. Blocks.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let queues = self.lock().clone();
        let waiting = queues.into_iter().filter_map(|(name, queue)| {
            let documents = queue.files.usage().entries;
            let (index, alone) = match name.strip_suffix(ALONE) {
                Some(index) => (index.to_owned(), true),
                None => (name, false),
            };
            (documents > 0).then(|| Waiting {
                index,
                folder: queue.files.folder().to_owned(),
                alone,
                documents,
                reason: queue.reason,
            })
        });
        waiting.collect()
    }

    /// Notes why the documents of a queue still wait.
    pub(crate) fn still_waits(&self, waiting: &Waiting, reason: &str) {
        let mut queues = self.lock();
        let mut same = queues
            .values_mut()
            .filter(|queue| queue.files.folder() == waiting.folder);
        if let Some(queue) = same.next() {
            reason.clone_into(&mut queue.reason);
        }
    }

    /// Bytes of all files. Blocks.
    pub(crate) fn bytes(&self) -> u64 {
        let queues = self.lock().clone();
        queues.values().map(|queue| queue.files.usage().bytes).sum()
    }

    /// Removes the folders of indices that have no documents left.
    pub(crate) fn remove_empty(&self) {
        self.lock().retain(|_, queue| {
            // Somebody else has it, who may be putting a document there.
            let is_used = Arc::strong_count(&queue.files) > 1;
            if is_used || queue.files.usage().entries > 0 {
                return true;
            }
            fs::remove_dir_all(queue.files.folder()).is_err()
        });
    }

    fn queue<'q>(&self, queues: &'q mut BTreeMap<String, Queue>, name: String) -> io::Result<&'q mut Queue> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        Ok(match queues.entry(name) {
            Occupied(known) => known.into_mut(),
            Vacant(new) => {
                let files = DeadLetter::open(self.folder.join(new.key()), FILE_BYTES, self.limit_bytes)?;
                new.insert(Queue {
                    files: Arc::new(files),
                    reason: "they were left by an earlier run".into(),
                })
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The first document, to find out whether its index takes documents again.
    pub(crate) fn first(&self) -> Option<Entry> {
        let mut names: Vec<PathBuf> = fs::read_dir(&self.folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let extensions: HashSet<_> = ["ndjson", "replay"].into();
                path.extension()
                    .and_then(|extension| extension.to_str())
                    .is_some_and(|extension| extensions.contains(extension))
            })
            .collect();
        names.sort();
        names.iter().find_map(|path| {
            let mut line = Vec::new();
            BufReader::new(fs::File::open(path).ok()?)
                .read_until(b'\n', &mut line)
                .ok()?;
            Entry::parse(&line).ok()
        })
    }
}
