//! Tests of the disk spool: recovery, resends of the same bytes, full and slow disks.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluent_logger::{BuildError, Builder, FlushError, Fsync, Logger, Mode, OnFull, Rejected, SendError};
use serde_json::json;
use support::{Message, PATIENCE, Peer, Server, events, serve};

/// Nobody listens there: port 9 needs a privilege that no test server has.
const NOWHERE: &str = "127.0.0.1:9";

fn builder(address: &str, folder: &Path) -> Builder {
    Logger::builder()
        .address(address)
        .spool(folder)
        .flush_interval(Duration::from_millis(5))
        .retry_wait(Duration::from_millis(5))
        .max_retry_wait(Duration::from_millis(20))
}

/// Files in the folder that are not the lock.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

fn ids(messages: &[(usize, Message)]) -> Vec<u64> {
    events(messages)
        .iter()
        .map(|event| event["id"].as_u64().unwrap())
        .collect()
}

#[test]
fn what_is_left_is_sent_by_the_next_logger_as_it_was() {
    for fsync in [Fsync::Always, Fsync::Never] {
        for mode in [Mode::Forward, Mode::Packed] {
            let folder = tempfile::tempdir().unwrap();
            // Reads everything, acknowledges nothing.
            let server = Server::start(|peer| while peer.read().is_some() {});
            let logger = builder(&server.address.to_string(), folder.path())
                .mode(mode)
                .spool_fsync(fsync)
                .chunk_limit_events(10)
                .build()
                .unwrap();
            for id in 0..25 {
                logger.log("t", &json!({ "id": id })).unwrap();
            }
            let waiting =
                logger.send_chunk("own", "t", [(std::time::SystemTime::now(), json!({ "id": 25 }))]);
            logger.blocking_sync(PATIENCE).unwrap();
            server.wait_for_events(26);
            assert_eq!(logger.stats().spooled_chunks, files(folder.path()).len() as u64);
            assert_eq!(
                logger.blocking_close(Duration::ZERO).unwrap(),
                [],
                "it is in the spool"
            );
            let runtime = tokio::runtime::Runtime::new().unwrap();
            assert_eq!(runtime.block_on(waiting), Err(SendError::Closed));
            let before = server.messages();

            let second = Server::faithful();
            let logger = builder(&second.address.to_string(), folder.path())
                .build()
                .unwrap();
            logger.log("t", &json!({ "id": 26 })).unwrap();
            logger.blocking_flush(PATIENCE).unwrap();
            let after = second.messages();
            assert_eq!(ids(&after), (0..27).collect::<Vec<_>>(), "the old ones first");
            let raw = |messages: &[(usize, Message)]| -> HashMap<Vec<u8>, Vec<u8>> {
                let raw = messages
                    .iter()
                    .map(|(_, message)| (message.chunk.clone().unwrap(), message.raw.clone()));
                raw.collect()
            };
            let (before, after) = (raw(&before), raw(&after));
            assert!(before.contains_key(&b"own"[..]));
            for (id, bytes) in &before {
                assert_eq!(after.get(id), Some(bytes), "the same bytes under the same id");
            }
            let stats = logger.stats();
            assert_eq!((stats.recovered, stats.accepted, stats.delivered), (26, 1, 27));
            assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
            assert_eq!(
                (files(folder.path()).len(), logger.stats().spooled_chunks),
                (0, 0)
            );
        }
    }
}

#[test]
fn close_leaves_what_it_could_not_deliver_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let logger = builder(NOWHERE, folder.path())
        .flush_interval(Duration::from_secs(3600))
        .build()
        .unwrap();
    for id in 0..1000 {
        logger.log(&format!("t{}", id % 5), &json!({ "id": id })).unwrap();
    }
    assert_eq!(logger.blocking_close(Duration::from_millis(50)).unwrap(), []);
    let server = Server::faithful();
    let logger = builder(&server.address.to_string(), folder.path())
        .build()
        .unwrap();
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let mut ids = ids(&server.messages());
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
    assert_eq!(files(folder.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spools_while_the_server_is_away_and_while_it_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    // Accepts nothing: connects hang or fail.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [NOWHERE.to_owned(), silent.local_addr().unwrap().to_string()] {
        let logger = builder(&address, folder.path())
            .shared_key("the handshake hangs")
            .build()
            .unwrap();
        for id in 0..20 {
            logger.log("t", &json!({ "id": id })).unwrap();
            logger.sync().await.unwrap();
        }
        let stats = logger.stats();
        assert_eq!((stats.delivered, stats.spool_failures), (0, 0));
        assert_eq!(logger.close(Duration::ZERO).await, []);
    }
    assert_eq!(files(folder.path()).len(), 40);
}

#[test]
fn the_buffer_bounds_the_spool_and_refusals_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let address = Server::faithful().address;
    let logger = builder(&address.to_string(), folder.path())
        .buffer_limit(100)
        .build()
        .unwrap();
    let mut refused = 0;
    for id in 0..150 {
        match logger.log("t", &json!({ "id": id })) {
            Ok(()) => assert!(id < 100),
            Err(Rejected::Full { events: 100, .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((refused, logger.stats().rejected), (50, 50));
    logger.blocking_sync(PATIENCE).unwrap();
    // A second life takes all of it over, although its own limit is smaller, and then has no room.
    assert_eq!(logger.blocking_close(Duration::ZERO).unwrap(), []);
    let logger = builder(&address.to_string(), folder.path())
        .buffer_limit(50)
        .build()
        .unwrap();
    assert!(matches!(
        logger.log("t", &json!({})),
        Err(Rejected::Full { events: 100, .. })
    ));
    let server = Server::start_at(address, serve);
    logger.blocking_flush(PATIENCE).unwrap();
    assert_eq!(ids(&server.messages()), (0..100).collect::<Vec<_>>());
    logger.log("t", &json!({ "id": 100 })).unwrap();
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
}

#[test]
fn a_folder_is_for_one_logger_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = builder(NOWHERE, folder.path()).build().unwrap();
    match builder(NOWHERE, folder.path()).build() {
        Err(error @ BuildError::SpoolInUse { .. }) => {
            assert!(error.to_string().contains("in use by another logger"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    first.log("t", &json!({ "id": 1 })).unwrap();
    assert_eq!(first.blocking_close(Duration::ZERO).unwrap(), []);
    // Free as soon as the first is closed, every time.
    for _ in 0..20 {
        let next = builder(NOWHERE, folder.path()).build().unwrap();
        assert_eq!(next.stats().recovered, 1);
        assert_eq!(next.blocking_close(Duration::ZERO).unwrap(), []);
    }
}

#[test]
fn when_its_runtime_ends_the_spooled_stays_and_the_rest_is_returned() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let logger = runtime.block_on(async {
        builder(NOWHERE, folder.path())
            .flush_interval(Duration::from_secs(3600))
            .own_thread(false)
            .build()
            .unwrap()
    });
    for id in 0..5 {
        logger.log("t", &json!({ "id": id })).unwrap();
    }
    logger.blocking_sync(PATIENCE).unwrap();
    for id in 5..8 {
        logger.log("t", &json!({ "id": id })).unwrap();
    }
    drop(runtime);
    let returned = logger.blocking_close(PATIENCE).unwrap();
    let returned: Vec<serde_json::Value> = returned
        .iter()
        .map(|event| event.deserialize().unwrap())
        .collect();
    assert_eq!(returned, (5..8).map(|id| json!({ "id": id })).collect::<Vec<_>>());
    assert_eq!(logger.blocking_sync(PATIENCE), Err(FlushError::Closed));
    let next = builder(NOWHERE, folder.path()).build().unwrap();
    assert_eq!(next.stats().recovered, 5);
}

#[test]
fn a_spool_that_cannot_be_made_is_said_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    match builder(NOWHERE, file.path()).build() {
        Err(BuildError::Spool { folder, .. }) => assert_eq!(folder, file.path()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn contradictions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = || builder(NOWHERE, folder.path());
    for bad in [
        good().request_ack(false),
        good().mode(Mode::Message),
        good().on_full(OnFull::DropOldest),
        good().max_retry(3),
    ] {
        assert!(matches!(bad.build(), Err(BuildError::Conflict { .. })));
    }
    let without = Logger::builder().address(NOWHERE).build().unwrap();
    without.log("t", &json!({})).unwrap();
    assert_eq!(
        without.blocking_sync(PATIENCE),
        Err(FlushError::NotSpooled { events: 1 })
    );
}

#[test]
fn a_disk_that_fails_is_said_and_delivery_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let errors = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&errors);
    let address = Server::faithful().address;
    let logger = builder(&address.to_string(), &path)
        .on_spool_error(move |error| told.lock().unwrap().push(error.to_string()))
        .build()
        .unwrap();
    fs::remove_dir_all(&path).unwrap();
    for id in 0..10 {
        logger.log("t", &json!({ "id": id })).unwrap();
    }
    assert_eq!(
        logger.blocking_sync(PATIENCE),
        Err(FlushError::NotSpooled { events: 10 })
    );
    assert!(errors.lock().unwrap()[0].contains("a chunk of 10 events is in memory only"));
    let server = Server::start_at(address, serve);
    logger.blocking_flush(PATIENCE).unwrap();
    assert_eq!(ids(&server.messages()), (0..10).collect::<Vec<_>>());
    assert_eq!(logger.blocking_sync(PATIENCE), Ok(()), "delivered is as good");
    server.kill();
    logger.log("t", &json!({ "id": 10 })).unwrap();
    let left = logger.blocking_close(Duration::from_millis(50)).unwrap();
    assert_eq!(left.len(), 1, "what the disk refused is returned");
    assert_eq!(logger.stats().spool_failures, 2);
}

#[test]
fn a_damaged_file_is_set_aside_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let logger = builder(NOWHERE, folder.path()).build().unwrap();
    for id in 0..3 {
        logger.log("t", &json!({ "id": id })).unwrap();
        logger.blocking_sync(PATIENCE).unwrap();
    }
    assert_eq!(logger.blocking_close(Duration::ZERO).unwrap(), []);
    let names = files(folder.path());
    assert_eq!(names.len(), 3);
    let path = folder.path().join(&names[1]);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();

    let errors = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&errors);
    let server = Server::faithful();
    let logger = builder(&server.address.to_string(), folder.path())
        .on_spool_error(move |error| told.lock().unwrap().push(error.to_string()))
        .build()
        .unwrap();
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    assert_eq!(ids(&server.messages()), [0, 2]);
    let errors = errors.lock().unwrap();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains(".damaged: its checksum does not fit"),
        "{errors:?}"
    );
    assert_eq!(files(folder.path()).len(), 1, "kept for a human");
}

/// The name of the test that is a child when it is started as one.
const CHILD: &str = "killed_again_and_again_everything_spooled_arrives_in_exactly_one_chunk";

/// The process that the tests below kill or starve. Logs ids upward and says which are spooled.
fn child() {
    let get = |name: &str| std::env::var(name).unwrap();
    let logger = builder(&get("SPOOL_ADDRESS"), Path::new(&get("SPOOL_FOLDER")))
        .chunk_limit_events(20)
        .ack_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let pad = "x".repeat(get("SPOOL_PAD").parse().unwrap());
    let first: u64 = get("SPOOL_FIRST").parse().unwrap();
    for id in first..first + get("SPOOL_COUNT").parse::<u64>().unwrap() {
        while logger.log("t", &json!({ "id": id, "pad": pad })).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if id % 7 == 0 {
            match logger.blocking_sync(PATIENCE) {
                Ok(()) => println!("\nspooled {id}"),
                Err(error) => println!("\nnot spooled {id}: {error}"),
            }
        }
    }
    println!("\nfailures {}", logger.stats().spool_failures);
    println!("\nreturned {}", logger.blocking_close(PATIENCE).unwrap().len());
}

fn start_child(shell: &str, address: &str, folder: &Path, (first, count, pad): (u64, u64, usize)) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" {CHILD} --exact --nocapture")])
        .arg(program)
        .env("SPOOL_ADDRESS", address)
        .env("SPOOL_FOLDER", folder)
        .env("SPOOL_FIRST", first.to_string())
        .env("SPOOL_COUNT", count.to_string())
        .env("SPOOL_PAD", pad.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads and acknowledges, but loses every fourth ack and the connection with it.
fn forgetful(peer: &mut Peer) {
    let mut turn = peer.number;
    while let Some(message) = peer.read() {
        turn += 1;
        if turn % 4 == 0 {
            return;
        }
        peer.ack(&message.chunk.unwrap());
    }
}

#[test]
fn killed_again_and_again_everything_spooled_arrives_in_exactly_one_chunk() {
    if std::env::var_os("SPOOL_ADDRESS").is_some() {
        return child();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut server = Some(Server::start(forgetful));
    let address = server.as_ref().unwrap().address;
    let mut histories = vec![server.as_ref().unwrap().history()];
    let mut spooled = 0;
    let mut promised: Vec<std::ops::RangeInclusive<u64>> = Vec::new();
    for round in 0..8u64 {
        // Every third process has no server.
        if round % 3 == 2 {
            server.take().unwrap().kill();
        } else if server.is_none() {
            let back = Server::start_at(address, forgetful);
            histories.push(back.history());
            server = Some(back);
        }
        let first = round * 1_000_000;
        let mut child = start_child("", &address.to_string(), folder.path(), (first, 1_000_000, 50));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reached = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("spooled ")?.parse::<u64>().ok())
            .find(|id| *id >= first + 100 + round * 37)
            .expect("the child spools");
        child.kill().unwrap();
        child.wait().unwrap();
        promised.push(first..=reached);
        spooled += reached - first + 1;
    }
    let server = server.unwrap_or_else(|| {
        let back = Server::start_at(address, serve);
        histories.push(back.history());
        back
    });
    let logger = builder(&address.to_string(), folder.path()).build().unwrap();
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    assert_eq!(files(folder.path()), [""; 0]);
    server.kill();

    // A repetition is one chunk, as it is for a server that recognises it: the same id and the same
    // bytes.
    let mut chunks: HashMap<Vec<u8>, Message> = HashMap::new();
    let mut repeated = 0;
    for (_, message) in histories.iter().flat_map(|history| history.messages()) {
        let id = message.chunk.clone().unwrap();
        if let Some(other) = chunks.insert(id, message.clone()) {
            assert_eq!(other.raw, message.raw);
            repeated += 1;
        }
    }
    let mut found: HashMap<u64, usize> = HashMap::new();
    for (_, record) in chunks.values().flat_map(|message| &message.events) {
        *found.entry(record["id"].as_u64().unwrap()).or_default() += 1;
    }
    assert!(found.values().all(|count| *count == 1), "no event in two chunks");
    for id in promised.into_iter().flatten() {
        assert!(found.contains_key(&id), "{id} was spooled and is nowhere");
    }
    assert!(repeated > 0, "nothing was sent twice, so nothing is shown");
    assert!(spooled > 1000, "{spooled}");
}

/// A limit on the size of files stands for a full disk: the write fails in the middle of a chunk.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_chunk_loses_nothing_but_the_spooling() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::faithful();
    // 8 blocks of 512 bytes (or 1024 with other shells): a chunk with an event of 20,000 does not
    // fit.
    let shell = "trap '' XFSZ; ulimit -f 8;";
    let child = start_child(shell, &server.address.to_string(), folder.path(), (0, 50, 20_000));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let failures = said
        .lines()
        .find_map(|line| line.strip_prefix("failures "))
        .unwrap();
    assert!(failures.parse::<u64>().unwrap() > 0, "{said}");
    assert!(said.contains("\nreturned 0"), "{said}");
    assert_eq!(ids(&server.messages()), (0..50).collect::<Vec<_>>());
    assert_eq!(files(folder.path()), [""; 0], "no half chunk stays");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_spool() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("new").join("spool");
    let logger = Logger::builder().address(NOWHERE).spool(&spool).build().unwrap();
    logger.log("t", &json!({ "n": 1 })).unwrap();
    logger.blocking_sync(PATIENCE).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&spool), 0o700);
    let files: Vec<_> = fs::read_dir(&spool)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2, "the chunk and the lock: {files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    assert_eq!(logger.blocking_close(Duration::ZERO).unwrap(), []);
}
