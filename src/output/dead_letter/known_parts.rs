//! Parts of the documents in the files of the dead letter: after a restart, records that a journal
//! segment still holds are gathered again, and their documents are refused again. They are added
//! once.
//!
//! Looks only at files that no replay has claimed: what a replay holds may leave the dead letter.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::entry::{Entry, EntryContent};
use crate::files::FileIdentity;

/// Bytes of files that are read; of more, only the newest are known.
const MAX_READ_BYTES: u64 = 256 << 20;

/// The parts in each file.
#[derive(Debug, Default)]
pub(super) struct KnownParts {
    files: BTreeMap<PathBuf, FileParts>,
}

#[derive(Debug)]
struct FileParts {
    identity: FileIdentity,
    bytes: u64,
    parts: HashSet<u64>,
}

impl KnownParts {
    /// Reads what has changed: `files` with their sizes, the oldest first.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn refresh<'a>(
        &mut self,
        files: impl DoubleEndedIterator<Item = (&'a Path, u64)>,
    ) -> io::Result<()> {
        let mut fresh = BTreeMap::new();
        let mut read = 0;
        for (path, bytes) in files.rev() {
            read += bytes;
            if read > MAX_READ_BYTES {
                break;
            }
            let Some(identity) = FileIdentity::at(path)? else {
                continue;
            };
            let known = self
                .files
                .remove(path)
                .filter(|known| known.identity == identity && known.bytes == bytes);
            let known = match known {
                Some(known) => known,
                None => FileParts {
                    identity,
                    bytes,
                    parts: parts_of_file(path)?,
                },
            };
            fresh.insert(path.to_owned(), known);
        }
        self.files = fresh;
        Ok(())
    }

    /// Whether everything of an entry is in the files.
    pub(super) fn contains(&self, entry: &Entry) -> bool {
        let keys = keys(entry);
        let known = |key: &u64| self.files.values().any(|file| file.parts.contains(key));
        !keys.is_empty() && keys.iter().all(known)
    }

    /// Entries were added to a file, which has `bytes` bytes now.
    pub(super) fn added<'a>(
        &mut self,
        path: &Path,
        identity: FileIdentity,
        bytes: u64,
        entries: impl Iterator<Item = &'a Entry>,
    ) {
        let file = self.files.entry(path.to_owned()).or_insert_with(|| FileParts {
            identity,
            bytes,
            parts: HashSet::new(),
        });
        file.identity = identity;
        file.bytes = bytes;
        file.parts.extend(entries.flat_map(keys));
    }
}

fn parts_of_file(path: &Path) -> io::Result<HashSet<u64>> {
    let mut parts = HashSet::new();
    let mut lines = BufReader::new(fs::File::open(path)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Ok(entry) = Entry::parse(&line) {
            parts.extend(keys(&entry));
        }
        line.clear();
    }
    Ok(parts)
}

/// One key for each part of the document; for a document without parts, one for its content. None
/// for what has no id.
fn keys(entry: &Entry) -> Vec<u64> {
    let Some(id) = &entry.id else {
        return Vec::new();
    };
    let hash = |text: &[u8]| {
        // The documents of one trace for two destinations share parts.
        let mut seed = twox_hash::XxHash3_64::oneshot(id.as_bytes());
        if let Some(destination) = &entry.destination {
            seed = twox_hash::XxHash3_64::oneshot_with_seed(seed, destination.as_bytes());
        }
        twox_hash::XxHash3_64::oneshot_with_seed(seed, text)
    };
    if entry.parts.is_empty() {
        let (EntryContent::Document(bytes) | EntryContent::Raw(bytes)) = &entry.content;
        return vec![hash(bytes)];
    }
    entry.parts.iter().map(|part| hash(part.as_bytes())).collect()
}
