//! Tests of the embedded store: its limits hold while it writes and while it is idle, and nothing
//! is confirmed that is in no file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::*;
use crate::claim::RecordClaim;
use crate::output::{
    Batch, BatchBuffer, DocumentMeta, DocumentSpan, LineCounters, MemoryCharge, OutputId, Watchdog,
};
use tokio::sync::mpsc;
use windrow_trace::UnionError;

const LONG: Duration = Duration::from_secs(20);

fn config(folder: &Path) -> SqliteConfig {
    let mut config = crate::config::Config::default().sqlite;
    config.path = folder.join("windrow.db");
    (config.retention_age, config.retention_size) = (None, None);
    config
}

/// Longest document that lines are added to.
const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// A batch of `documents` documents of about `bytes` bytes each.
fn batch(prefix: &str, documents: usize, bytes: usize, confirmed: &Arc<AtomicUsize>) -> Batch {
    let (mut text, mut ids, mut rows) = (Vec::new(), String::new(), Vec::new());
    let account = Arc::<LineCounters>::default();
    for n in 0..documents {
        let id_start = ids.len();
        ids += &format!("{prefix}{n}");
        let start = text.len();
        text.extend_from_slice(format!("{{\"pad\":\"{}\"}}", "x".repeat(bytes)).as_bytes());
        let span = DocumentSpan::new(start, start, text.len());
        rows.push(DocumentMeta::new(id_start..ids.len(), false, n as i64, 1, span));
    }
    account.in_flight.store(documents as u64, Ordering::Relaxed);
    let confirmed = Arc::clone(confirmed);
    let claim = RecordClaim::new(
        1,
        1,
        Arc::new(move |_| {
            confirmed.fetch_add(documents, Ordering::Relaxed);
        }),
    );
    let charge = MemoryCharge::new(text.len(), &Arc::default());
    let buffer = BatchBuffer::new(Bytes::from(text), ids, rows);
    Batch::new(buffer, false, vec![claim], charge, &account, 1)
}

#[derive(Clone, Default)]
struct Failures(Arc<AtomicUsize>);

impl WriteObserver for Failures {
    fn written(&mut self, _: &TransactionSummary, _: Duration) {}
    fn failed(&mut self, error: &StoreError) {
        assert!(!error.to_string().is_empty());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn rejected(&mut self, _: &SealedDocument, _: &UnionError) {
        panic!("nothing is rejected here");
    }
}

struct Store {
    batches: Option<mpsc::Sender<Batch>>,
    confirmed: Arc<AtomicUsize>,
    failures: Failures,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    fn run(config: SqliteConfig) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        let writer = SqliteWriter::open(config, MAX_DOCUMENT_BYTES).unwrap();
        let failures = Failures::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = {
            let (failures, stop) = (failures.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                let stop = || stop.load(Ordering::Relaxed);
                let watchdog = Watchdog::default();
                run(
                    writer,
                    OutputId(0),
                    receiver,
                    failures,
                    &watchdog,
                    &runtime,
                    &stop,
                );
            })
        };
        Self {
            batches: Some(sender),
            confirmed: Arc::default(),
            failures,
            stop,
            thread: Some(thread),
        }
    }

    /// Sends a batch and waits until it is confirmed.
    fn write(&self, prefix: &str, documents: usize, bytes: usize) {
        let before = self.confirmed.load(Ordering::Relaxed);
        let batch = batch(prefix, documents, bytes, &self.confirmed);
        self.batches.as_ref().unwrap().blocking_send(batch).unwrap();
        eventually("confirmed", || {
            self.confirmed.load(Ordering::Relaxed) == before + documents
        });
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.batches = None;
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.unwrap().is_ok());
        }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !holds() {
        assert!(std::time::Instant::now() < end, "not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ids(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(LONG).unwrap();
    let mut read = connection
        .prepare("SELECT id FROM documents ORDER BY id")
        .unwrap();
    let rows = read.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn the_size_limit_holds_while_documents_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.retention_size = Some(4 << 20);
    let path = config.path.clone();
    let store = Store::run(config);
    let mut largest = 0;
    for n in 0..30 {
        store.write(&format!("b{n}-"), 100, 10_000);
        let all =
            ["", "-wal"].map(|suffix| fs::metadata(format!("{}{suffix}", path.display())).unwrap().len());
        largest = largest.max(all[0]);
        assert!(all[1] < 40 << 20, "write-ahead log of {} bytes", all[1]);
    }
    assert!(largest < 8 << 20, "{largest} bytes for a limit of 4 MiB");
    drop(store);
    assert!(fs::metadata(&path).unwrap().len() <= 4 << 20);
    let left = ids(&path);
    assert!(
        left.len() > 200 && left.contains(&"b29-99".into()),
        "{}",
        left.len()
    );
}

#[test]
fn an_idle_store_expires_documents_and_gives_back_their_space() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.retention_age = Some(Duration::from_secs(1));
    let path = config.path.clone();
    let store = Store::run(config);
    store.write("a", 3_000, 2_000);
    eventually("expired", || ids(&path).is_empty());
    drop(store);
    let bytes = fs::metadata(&path).unwrap().len();
    assert!(bytes < 3 << 20, "{bytes} bytes without a document");
}

#[test]
fn documents_of_a_clock_that_was_ahead_expire_and_hold_up_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.retention_age = Some(Duration::from_secs(1));
    let mut writer = SqliteWriter::open(config, MAX_DOCUMENT_BYTES).unwrap();
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO documents (written, first, id, document) SELECT ?2, 0, ?3 || i, '{}' FROM n";
    for (rows, written, prefix) in [(3_000, unix_seconds() + 86_400 * 365, "ahead"), (3_000, 5, "old")] {
        writer
            .connection
            .execute(insert, params![rows, written, prefix])
            .unwrap();
    }
    let count = |writer: &SqliteWriter, pattern: &str| -> i64 {
        let sql = "SELECT count(*) FROM documents WHERE id LIKE ?1";
        writer
            .connection
            .query_row(sql, [pattern], |row| row.get(0))
            .unwrap()
    };
    while writer.retain().unwrap() {}
    assert_eq!(count(&writer, "old%"), 0);
    assert_eq!(count(&writer, "ahead%"), 3_000, "as old as their discovery");
    std::thread::sleep(Duration::from_millis(2_100));
    while writer.retain().unwrap() {}
    assert_eq!(count(&writer, "ahead%"), 0);
}

#[test]
fn what_is_confirmed_after_the_database_was_removed_is_in_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let path = config.path.clone();
    let store = Store::run(config);
    let reader = SqliteReader::open(&path).unwrap();
    store.write("a", 2, 10);
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    store.write("b", 2, 10);
    assert_eq!(ids(&path), ["b0", "b1"]);
    assert_eq!(
        reader.recent(Some("b1"), 1, 1000).unwrap().documents.len(),
        1,
        "the reader too"
    );
    assert!(store.failures.0.load(Ordering::Relaxed) > 0, "and it is said");
}

#[test]
fn an_idle_store_notices_that_the_database_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let path = config.path.clone();
    let store = Store::run(config);
    store.write("a", 2, 10);
    fs::remove_file(&path).unwrap();
    eventually("said", || store.failures.0.load(Ordering::Relaxed) > 0);
}

#[test]
fn nothing_is_lost_with_a_write_ahead_log_that_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let path = config.path.clone();
    let store = Store::run(config);
    store.write("a", 2, 10);
    fs::remove_file(folder.path().join("windrow.db-wal")).unwrap();
    store.write("b", 2, 10);
    // What a kill would leave.
    let left = tempfile::tempdir().unwrap();
    for file in ["windrow.db", "windrow.db-wal"] {
        fs::copy(folder.path().join(file), left.path().join(file)).ok();
    }
    let all = ["a0", "a1", "b0", "b1"];
    assert_eq!(ids(&left.path().join("windrow.db")), all);
    drop(store);
    assert_eq!(ids(&path), all);
}

#[test]
fn a_read_stops_at_its_bound_in_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let path = config.path.clone();
    let store = Store::run(config);
    store.write("a", 10, 1_000);
    let reader = SqliteReader::open(&path).unwrap();
    let read = |limit, bytes| {
        let found = reader.recent(None, limit, bytes).unwrap();
        (found.documents.len(), found.omitted)
    };
    assert_eq!(read(1_000, 1 << 20), (10, 0));
    assert_eq!(read(5, 1 << 20), (5, 0));
    assert_eq!(read(1_000, 3_500), (3, 7));
    let found = reader.recent(Some("a1"), 1, 500).unwrap();
    assert_eq!((found.documents.len(), found.omitted), (0, 1));
}
