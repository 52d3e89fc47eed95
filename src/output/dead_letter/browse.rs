//! Dead letter for readers: counts by reason, and entries page by page.
//!
//! Reads files that a put or a replay may change at the same time: what is gone is skipped. Counts
//! are kept per file and read again only when the file has another size. Blocks: not for a reactor
//! thread.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{CLAIMED_EXTENSION, ENTRIES_EXTENSION, Entry, files, number};

/// Bytes of the entries of a page, beyond which it ends.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// Longest entry that is shown whole; of a longer one only the reason is.
const MAX_ENTRY_BYTES: u64 = 1 << 20;

/// Entries with one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// The output that refused them.
    pub source: String,
    /// Short name of the reason.
    pub kind: String,
    /// Entries.
    pub entries: u64,
    /// Bytes of their lines.
    pub bytes: u64,
}

/// A page of entries.
#[derive(Debug, Default)]
pub struct EntryPage {
    /// The entries, in order of arrival.
    pub entries: Vec<Entry>,
    /// Entries too long to be shown.
    pub omitted: usize,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageCursor>,
}

/// A place in the dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCursor {
    /// Number of the file.
    pub file: u64,
    /// Byte offset in it.
    pub offset: u64,
}

/// A reader of a dead-letter folder.
#[derive(Debug)]
pub struct DeadLetterBrowser {
    folder: PathBuf,
    /// Counts of each file, with its size when it was read.
    counted: Mutex<BTreeMap<PathBuf, CountedFile>>,
}

#[derive(Debug, Default, Clone)]
struct CountedFile {
    bytes: u64,
    counts: BTreeMap<(String, String), (u64, u64)>,
}

impl DeadLetterBrowser {
    /// A reader of `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            counted: Mutex::default(),
        }
    }

    /// Counts by output and reason, the most frequent first.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn reasons(&self) -> io::Result<Vec<ReasonCount>> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = BTreeMap::new();
        let mut sums: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for path in self.paths()? {
            let Some(bytes) = size(&path)? else { continue };
            let file = match counted.remove(&path) {
                Some(file) if file.bytes == bytes => file,
                // A file only grows until it is replayed: what was counted is counted.
                Some(file) if file.bytes < bytes => count_from(&path, file)?,
                _ => count_from(&path, CountedFile::default())?,
            };
            for (key, (entries, bytes)) in &file.counts {
                let sum = sums.entry(key.clone()).or_default();
                *sum = (sum.0 + entries, sum.1 + bytes);
            }
            seen.insert(path, file);
        }
        *counted = seen;
        let mut reasons: Vec<_> = sums
            .into_iter()
            .map(|((source, kind), (entries, bytes))| ReasonCount {
                source,
                kind,
                entries,
                bytes,
            })
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.entries));
        Ok(reasons)
    }

    /// At most `limit` entries from `from` on, with the reason `kind` if one is given.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn page(&self, from: PageCursor, kind: Option<&str>, limit: usize) -> io::Result<EntryPage> {
        let mut page = EntryPage::default();
        let mut page_bytes = 0;
        for path in self.paths()? {
            let file_number = number(&path).unwrap_or(0);
            if file_number < from.file {
                continue;
            }
            let mut offset = if file_number == from.file { from.offset } else { 0 };
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            file.seek(SeekFrom::Start(offset))?;
            let mut lines = BufReader::new(file);
            loop {
                if page.entries.len() >= limit || page_bytes >= MAX_PAGE_BYTES {
                    page.next = Some(PageCursor {
                        file: file_number,
                        offset,
                    });
                    return Ok(page);
                }
                let mut line = Vec::new();
                let read = (&mut lines).take(MAX_ENTRY_BYTES).read_until(b'\n', &mut line)?;
                if read == 0 {
                    break;
                }
                offset += read as u64;
                if line.last() != Some(&b'\n') && read as u64 == MAX_ENTRY_BYTES {
                    offset += skip_line(&mut lines)?;
                    page.omitted += 1;
                    continue;
                }
                let Ok(entry) = Entry::parse(line.trim_ascii_end()) else {
                    continue;
                };
                if kind.is_none_or(|kind| kind == entry.kind) {
                    page_bytes += line.len();
                    page.entries.push(entry);
                }
            }
        }
        Ok(page)
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for extension in [CLAIMED_EXTENSION, ENTRIES_EXTENSION] {
            match files(&self.folder, extension) {
                Ok(paths) => all.extend(paths),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|path| number(path));
        Ok(all)
    }
}

fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Skips to the end of a line; returns the number of bytes skipped.
fn skip_line(lines: &mut BufReader<File>) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = lines.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let read = end.unwrap_or(buffer.len());
        lines.consume(read);
        skipped += read as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// Counts the complete lines of a file behind those that are counted.
fn count_from(path: &Path, mut counted: CountedFile) -> io::Result<CountedFile> {
    /// The part of a line that has source and reason: the document is its last field.
    const HEAD_BYTES: u64 = 16 << 10;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(counted.bytes))?;
    let mut lines = BufReader::with_capacity(256 << 10, file);
    let mut head = Vec::new();
    loop {
        head.clear();
        let mut length = (&mut lines).take(HEAD_BYTES).read_until(b'\n', &mut head)? as u64;
        if length == 0 {
            return Ok(counted);
        }
        if head.last() != Some(&b'\n') {
            let rest = skip_line(&mut lines)?;
            if rest == 0 {
                // A put is in progress; the line is counted once it is complete.
                return Ok(counted);
            }
            length += rest;
        }
        let key = match Entry::parse(head.trim_ascii_end()) {
            Ok(entry) => (entry.source, entry.kind),
            Err(_) => (text_field(&head, "source"), text_field(&head, "type")),
        };
        let count = counted.counts.entry(key).or_default();
        *count = (count.0 + 1, count.1 + length);
        counted.bytes += length;
    }
}

/// The text of a field in the beginning of a JSON object, as far as it has no escapes.
fn text_field(head: &[u8], name: &str) -> String {
    let pattern = format!("\"{name}\":\"");
    let from = memchr::memmem::find(head, pattern.as_bytes()).map(|at| at + pattern.len());
    let rest = from.and_then(|from| head.get(from..)).unwrap_or_default();
    let end = memchr::memchr(b'"', rest).unwrap_or(0);
    String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::dead_letter::{DeadLetter, EntryContent};

    fn entry(kind: &str, id: &str, bytes: usize) -> Entry {
        Entry {
            time: jiff::Timestamp::UNIX_EPOCH,
            source: "elasticsearch".into(),
            status: Some(400),
            kind: kind.into(),
            reason: format!("refused {id}"),
            index: Some("requests".into()),
            destination: None,
            id: Some(id.into()),
            is_trace: Some(true),
            first_ns: Some(1),
            lines: Some(1),
            parts: Vec::new(),
            content: EntryContent::Document(format!("{{\"x\":\"{}\"}}", "y".repeat(bytes)).into()),
        }
    }

    fn ids(page: &EntryPage) -> Vec<&str> {
        page.entries
            .iter()
            .map(|entry| entry.id.as_deref().unwrap())
            .collect()
    }

    #[test]
    fn entries_are_counted_by_reason_and_read_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let browser = DeadLetterBrowser::new(folder.path());
        assert_eq!(browser.reasons().unwrap(), []);
        // Small files, so that pages cross them.
        let dead = DeadLetter::open(folder.path(), 600, 1 << 30).unwrap();
        for number in 0..7 {
            let kind = if number % 3 == 0 { "mapping" } else { "too_large" };
            dead.put(&entry(kind, &number.to_string(), 10)).unwrap();
        }
        let reasons = browser.reasons().unwrap();
        let counts: Vec<_> = reasons
            .iter()
            .map(|reason| (&*reason.kind, reason.entries))
            .collect();
        assert_eq!(counts, [("too_large", 4), ("mapping", 3)]);

        let first = browser.page(PageCursor::default(), None, 3).unwrap();
        assert_eq!(ids(&first), ["0", "1", "2"]);
        let second = browser.page(first.next.unwrap(), None, 3).unwrap();
        assert_eq!(ids(&second), ["3", "4", "5"]);
        let third = browser.page(second.next.unwrap(), None, 3).unwrap();
        assert_eq!((ids(&third), third.next), (vec!["6"], None));
        let some = browser.page(PageCursor::default(), Some("mapping"), 10).unwrap();
        assert_eq!(ids(&some), ["0", "3", "6"]);

        dead.put(&entry("mapping", "7", 10)).unwrap();
        assert_eq!(
            browser.reasons().unwrap()[1].entries,
            4,
            "what was added is counted"
        );
    }

    #[test]
    fn an_entry_longer_than_a_page_is_counted_and_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let dead = DeadLetter::open(folder.path(), 1 << 30, 1 << 30).unwrap();
        dead.put(&entry("too_large", "long", 3 << 20)).unwrap();
        dead.put(&entry("mapping", "short", 1)).unwrap();
        let browser = DeadLetterBrowser::new(folder.path());
        let page = browser.page(PageCursor::default(), None, 10).unwrap();
        assert_eq!((ids(&page), page.omitted, page.next), (vec!["short"], 1, None));
        let counts: Vec<_> = browser
            .reasons()
            .unwrap()
            .into_iter()
            .map(|reason| (reason.kind, reason.entries, reason.bytes > 3 << 20))
            .collect();
        assert_eq!(
            counts,
            [("mapping".into(), 1, false), ("too_large".into(), 1, true)]
        );
    }
}
