//! Tests of readiness: whoever does not get on says so within 5 s; and of the permissions of files.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
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
    async fn build(folder: &Path, output: OutputKind, url: Option<String>) -> Result<Pipeline, BuildError> {
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
        Pipeline::build(config, metrics).await
    }

    async fn start(folder: &Path, output: OutputKind, url: Option<String>) -> Self {
        let pipeline = Self::build(folder, output, url).await.unwrap();
        let stop = CancellationToken::new();
        let address = pipeline.addresses().next().unwrap().to_owned();
        Self {
            address,
            status: pipeline.status(),
            metrics: Arc::clone(&pipeline.metrics),
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
            destination: None,
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
async fn a_dead_letter_that_cannot_be_read_is_a_reason_and_blocks_no_probe() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    // Opening a named pipe blocks, as does a file on a file system that does not answer.
    let pipe = folder.path().join("dead-letter/999.ndjson");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let begin = Instant::now();
    let status = server.status.clone();
    let (sender, asked) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        while begin.elapsed() < REPORT_TIMEOUT && status.readiness().reasons.is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        sender.send(status.readiness().reasons).ok();
    });
    let asked = tokio::time::timeout(2 * REPORT_TIMEOUT, asked).await;
    // The writer's end lets the readers go on.
    let writer = File::options().write(true).open(&pipe).unwrap();
    fs::remove_file(&pipe).unwrap();
    let reasons = asked.expect("no probe is blocked").unwrap();
    assert!(
        reasons.iter().any(|reason| reason.contains("dead letter")),
        "{reasons:?}"
    );
    drop(writer);
    assert_eq!(server.reasons(false, REPORT_TIMEOUT).await, Vec::<String>::new());
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

/// Every folder and file under `folder`, with its permissions.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut modes = vec![(folder.to_owned(), mode(folder))];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            modes.extend(self::modes(&path));
        } else {
            modes.push((path.clone(), mode(&path)));
        }
    }
    modes
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_open_what_the_server_creates() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let server = Server::start(&folder, OutputKind::Sqlite, None).await;
    server.send(RECORD);
    server.send(POISON);
    let expected = [
        folder.join("rejected/001.ndjson"),
        folder.join("windrow.db.search"),
    ];
    let end = Instant::now() + REPORT_TIMEOUT;
    while !expected.iter().all(|path| path.try_exists().unwrap()) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let modes = modes(&folder);
    for name in [
        "windrow.db",
        "windrow.db-wal",
        "windrow.db-shm",
        "windrow.db.search",
        "manifest",
        "001.ndjson",
        "lock",
        "LOCK",
    ] {
        assert!(modes.iter().any(|(path, _)| path.ends_with(name)), "no {name}");
    }
    for (path, mode) in modes {
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{}: {mode:o}", path.display());
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_could_read_is_closed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    Server::start(folder.path(), OutputKind::Sqlite, None)
        .await
        .end()
        .await;
    let entries = folder.path().join("dead-letter/001.ndjson");
    fs::write(&entries, "").unwrap();
    for (name, open) in [("journal", 0o755), ("dead-letter", 0o755), ("windrow.db", 0o644)] {
        let path = folder.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
    }
    fs::set_permissions(&entries, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start(folder.path(), OutputKind::Sqlite, None).await;
    // The data folder itself may be anything, such as a home folder: it stays as it is.
    for (path, mode) in modes(folder.path()).split_off(1) {
        assert_eq!(mode & 0o007, 0, "{}: {mode:o}", path.display());
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_leads_no_write_elsewhere() {
    for (name, starts) in [
        (".windrow-write-test", true),
        ("windrow.db", false),
        ("windrow.db-wal", false),
        ("dead-letter/lock", false),
        ("dead-letter/001.ndjson", false),
        ("journal/LOCK", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o644)).unwrap();
        let link = folder.path().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let built = Server::build(folder.path(), OutputKind::Sqlite, None).await;
        assert_eq!(built.is_ok(), starts, "{name}: {:?}", built.err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
        assert_eq!(mode(&victim), 0o644, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_everybody_can_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, starts) in [(0o777, false), (0o1777, false), (0o2775, true), (0o770, true)] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        let built = Server::build(folder.path(), OutputKind::Sqlite, None).await;
        assert_eq!(built.is_ok(), starts, "{mode:o}");
        if let Err(error) = built {
            assert!(error.to_string().contains("every user can write"), "{error}");
        }
    }
}
