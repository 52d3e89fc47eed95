//! Tests of readiness: whoever does not get on says so within 5 s.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BuildError, Pipeline, Status};
use crate::config::{Config, OutputKind};
use crate::metrics::Metrics;
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};

/// A reason must be there after this time.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A record that completes its trace.
const RECORD: &[u8] = br#"["app", 0, {"traceId":"abc","message":"request completed"}]"#;
/// A PackedForward message whose only entry is nil.
const POISON: &[u8] = b"\x93\xa1t\xc4\x01\xc0\x80";

struct Server {
    address: String,
    status: Status,
    metrics: Arc<Metrics>,
    dead_letter: Arc<DeadLetter>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), BuildError>>,
}

impl Server {
    async fn start(folder: &Path, output: OutputKind, url: Option<String>) -> Self {
        let mut config = Config {
            data_dir: folder.to_owned(),
            outputs: vec![output],
            shutdown_grace: Duration::from_secs(1),
            ..Config::default()
        };
        config.journal.dir = folder.join("journal");
        config.sqlite.path = folder.join("windrow.db");
        config.dead_letter.dir = folder.join("dead-letter");
        config.rejected.dir = folder.join("rejected");
        config.forward.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.trace.linger = Duration::ZERO;
        config.elasticsearch.urls = url.into_iter().collect();
        let metrics = Arc::new(Metrics::new(&config.outputs));
        let pipeline = Pipeline::build(config, Arc::clone(&metrics)).await.unwrap();
        let stop = CancellationToken::new();
        let address = pipeline.addresses().next().unwrap().to_owned();
        Self {
            address,
            status: pipeline.status(),
            metrics,
            dead_letter: Arc::clone(&pipeline.dead_letter),
            running: tokio::spawn(pipeline.run(stop.clone())),
            stop,
        }
    }

    fn send(&self, message: &[u8]) {
        let mut client = TcpStream::connect(&self.address).unwrap();
        client.write_all(message).unwrap();
    }

    /// Puts a document into the dead letter, as an output does.
    fn refuse_document(&self) {
        let dead_letter = Arc::clone(&self.dead_letter);
        let entry = Entry {
            time: jiff::Timestamp::now(),
            source: "sqlite".into(),
            status: None,
            kind: "not_ours".into(),
            reason: "another program's document".into(),
            index: None,
            id: Some("abc".into()),
            is_trace: Some(true),
            first_ns: Some(0),
            lines: Some(1),
            parts: Vec::new(),
            content: EntryContent::Document(b"{}".as_slice().into()),
        };
        std::thread::spawn(move || {
            while dead_letter.put(&entry).is_err() {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }

    /// Waits until there are reasons or none; asking must not block.
    async fn reasons(&self, some: bool, timeout: Duration) -> Vec<String> {
        let end = Instant::now() + timeout;
        loop {
            let asked = Instant::now();
            let reasons = self.status.readiness().reasons;
            assert!(asked.elapsed() < Duration::from_secs(1), "asking blocks");
            if reasons.is_empty() != some || Instant::now() >= end {
                return reasons;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_a_reason_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    let other = rusqlite::Connection::open(folder.path().join("windrow.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    server.send(RECORD);
    let reasons = server.reasons(true, REPORT_TIMEOUT).await;
    assert!(
        reasons.iter().any(|reason| reason.starts_with("sqlite: ")),
        "{reasons:?}"
    );
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(server.reasons(false, REPORT_TIMEOUT).await, Vec::<String>::new());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_database_is_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("windrow.db");
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let length = fs::metadata(&path).unwrap().len() as usize;
    let mut file = File::options().write(true).open(&path).unwrap();
    file.write_all(&vec![0xaa; length]).unwrap();
    server.send(RECORD);
    let reasons = server.reasons(true, REPORT_TIMEOUT).await;
    assert!(
        reasons.iter().any(|reason| reason.starts_with("sqlite: ")),
        "{reasons:?}"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_written_is_a_reason_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    let dead_letter = folder.path().join("dead-letter");
    let away = folder.path().join("away");
    fs::rename(&dead_letter, &away).unwrap();
    server.refuse_document();
    let reasons = server.reasons(true, REPORT_TIMEOUT).await;
    assert!(
        reasons.iter().any(|reason| reason.contains("dead letter")),
        "{reasons:?}"
    );
    fs::rename(&away, &dead_letter).unwrap();
    assert_eq!(server.reasons(false, REPORT_TIMEOUT).await, Vec::<String>::new());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_lock_is_held_is_a_reason_and_blocks_no_probe() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    let lock = File::open(folder.path().join("dead-letter/lock")).unwrap();
    lock.lock().unwrap();
    server.refuse_document();
    let reasons = server.reasons(true, REPORT_TIMEOUT).await;
    drop(lock);
    assert!(
        reasons.iter().any(|reason| reason.contains("dead letter")),
        "{reasons:?}"
    );
    assert_eq!(server.reasons(false, REPORT_TIMEOUT).await, Vec::<String>::new());
    server.end().await;
}

/// Waits until `condition` holds.
#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + REPORT_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_input_that_cannot_be_written_stops_nobody_and_is_kept_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    let rejected = folder.path().join("rejected");
    fs::remove_dir(&rejected).unwrap();
    File::create(&rejected).unwrap();
    server.send(POISON);
    wait_for("a note", || !server.status.readiness().notes.is_empty());
    server.send(RECORD);
    let delivered = || {
        drop(server.metrics.encode());
        server.metrics.records_delivered.get()
    };
    wait_for("the record of another client", || delivered() == 1);
    let readiness = server.status.readiness();
    assert_eq!(readiness.reasons, Vec::<String>::new());
    assert!(
        readiness.notes.iter().any(|note| note.contains("rejected input")),
        "{readiness:?}"
    );
    fs::remove_file(&rejected).unwrap();
    wait_for("the entry", || server.metrics.rejected_entries.get() == 1);
    assert_eq!(server.metrics.rejected_lost.get(), 0);
    assert!(rejected.join("001.ndjson").try_exists().unwrap());
    assert_eq!(server.status.readiness().notes, Vec::<String>::new());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_input_that_can_never_be_written_is_counted_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    let rejected = folder.path().join("rejected");
    fs::remove_dir(&rejected).unwrap();
    File::create(&rejected).unwrap();
    // More than the buffer takes.
    for _ in 0..20 {
        server.send(&POISON.repeat(100));
    }
    wait_for("the loss", || server.metrics.rejected_lost.get() >= 1000);
    server.send(RECORD);
    let delivered = || {
        drop(server.metrics.encode());
        server.metrics.records_delivered.get()
    };
    wait_for("the record of another client", || delivered() == 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elasticsearch_that_never_answers_is_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let server = Server::start(folder.path(), OutputKind::Elasticsearch, Some(url)).await;
    server.send(RECORD);
    let reasons = server.reasons(true, REPORT_TIMEOUT).await;
    assert!(!reasons.is_empty());
    server.end().await;
}
