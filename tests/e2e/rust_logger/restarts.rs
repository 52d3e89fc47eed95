//! Restarts: Windrow is killed, the application is killed, connections move. Every accepted record
//! is in exactly one document.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluent_logger::{Logger, OnFull};
use serde_json::json;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::wait;

use super::{child, documents_by_id, exactly_once, id_of, record};
use crate::{SOON, windrow};

#[test]
fn windrow_killed_and_restarted_twenty_times_under_load() {
    let mut server = windrow().sqlite().start();
    let logger = Logger::builder()
        .address(server.forward().to_string())
        .chunk_limit_events(200)
        .flush_interval(Duration::from_millis(5))
        .retry_wait(Duration::from_millis(5))
        .max_retry_wait(Duration::from_millis(50))
        .ack_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let confirmed = Arc::new(Mutex::new(HashSet::new()));
    let accepted = Arc::new(Mutex::new(HashSet::new()));
    let threads: Vec<_> = (0..4)
        .map(|kind| {
            let (logger, over, next) = (logger.clone(), Arc::clone(&over), Arc::clone(&next));
            let (confirmed, accepted) = (Arc::clone(&confirmed), Arc::clone(&accepted));
            std::thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let id = next.fetch_add(1, Ordering::SeqCst);
                    if kind < 2 {
                        logger.blocking_send("sent", &record(id)).unwrap();
                        confirmed.lock().unwrap().insert(id);
                    } else {
                        if logger.log("logged", &record(id)).is_ok() {
                            accepted.lock().unwrap().insert(id);
                        }
                        std::thread::sleep(Duration::from_micros(500));
                    }
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let before = logger.stats().delivered;
        wait::until("deliveries between two crashes", SOON, || {
            let stats = logger.stats();
            if stats.delivered > before + 200 {
                Ok(())
            } else {
                Err(format!("{stats:?}"))
            }
        });
        server.crash();
    }
    over.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    let returned: HashSet<u64> = logger.blocking_close(SOON).unwrap().iter().map(id_of).collect();
    let confirmed = confirmed.lock().unwrap().clone();
    let accepted = accepted.lock().unwrap().clone();
    let promised: Vec<u64> = confirmed
        .iter()
        .chain(accepted.difference(&returned))
        .copied()
        .collect();
    wait::until("every record in one document", SOON, || {
        exactly_once(&server.stored(), promised.iter().copied())
    });
    let stats = logger.stats();
    assert!(stats.connections > 20 && stats.resent > 0, "{stats:?}");
    assert!(server.terminate(SOON).success());
    exactly_once(&server.stored(), promised.iter().copied()).unwrap();
    println!(
        "{} confirmed by send, {} taken by log, {} returned; {} chunks sent again over {} connections",
        confirmed.len(),
        accepted.len(),
        returned.len(),
        stats.resent,
        stats.connections
    );
}

/// Lines of each trace.
const LINES: u64 = 3;

#[test]
fn reconnecting_every_200_ms_spreads_20_000_traces_evenly_over_two_windrows() {
    const TRACES: u64 = 20_000;
    let sink = FakeElasticsearch::start();
    let servers: Vec<_> = (0..2)
        .map(|_| {
            windrow()
                .elasticsearch(&sink.url(), "even")
                .arg("--idle-timeout", "1s")
                .start()
        })
        .collect();
    let mut builder = Logger::builder()
        .async_reconnect_interval(Duration::from_millis(200))
        .flush_interval(Duration::from_millis(5))
        .on_full(OnFull::Wait(SOON));
    for server in &servers {
        builder = builder.address(server.forward().to_string());
    }
    let logger = builder.build().unwrap();
    // 500 traces at a time are open, so that many are in the middle when the connection moves.
    for block in 0..TRACES / 500 {
        for line in 0..LINES {
            for trace in block * 500..(block + 1) * 500 {
                let message = if line + 1 == LINES {
                    "request completed"
                } else {
                    "step"
                };
                let record = json!({ "traceId": format!("t{trace}"), "id": trace, "message": message });
                logger.log("app", &record).unwrap();
                if trace % 5 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
    assert_eq!(logger.blocking_close(SOON).unwrap(), []);
    let stats = logger.stats();
    assert!(stats.connections > 20, "{stats:?}");
    assert_eq!((stats.resent, stats.connection_losses), (0, 0), "{stats:?}");
    let all = (TRACES * LINES) as f64;
    let shares = || -> Vec<f64> {
        let metric = "windrow_input_records_total";
        servers.iter().map(|server| server.metric(metric)).collect()
    };
    // An acknowledged record is counted when it is gathered, a moment later.
    wait::until_true("all records are counted", SOON, || {
        shares().iter().sum::<f64>() >= all
    });
    let shares = shares();
    assert_eq!(shares.iter().sum::<f64>(), all, "each line came once: {shares:?}");
    assert!(
        shares.iter().all(|share| (0.4 * all..=0.6 * all).contains(share)),
        "even within 20 %: {shares:?}"
    );
    wait::until("20,000 whole documents", 2 * SOON, || {
        let documents = sink.documents("even-");
        let whole = documents
            .iter()
            .filter(|document| document.source["windrow"]["lines"] == LINES)
            .count();
        let traces: HashSet<_> = documents
            .iter()
            .map(|document| document.source["id"].as_u64())
            .collect();
        if (documents.len(), traces.len(), whole) == (20_000, 20_000, 20_000) {
            return Ok(());
        }
        Err(format!(
            "{} documents, {} traces, {whole} whole",
            documents.len(),
            traces.len()
        ))
    });
    println!("{shares:?} lines over {} connections", stats.connections);
}

const KILLED: &str =
    "rust_logger::restarts::an_application_killed_with_a_spool_loses_nothing_that_was_spooled";

/// Logs upward from an id until it is killed, and says up to which id all is in the spool.
fn application(folder: &Path) {
    let get = |name: &str| std::env::var(name).unwrap();
    let logger = Logger::builder()
        .address(get("CHILD_ADDRESS"))
        .spool(folder)
        .flush_interval(Duration::from_millis(2))
        .chunk_limit_events(30)
        .retry_wait(Duration::from_millis(5))
        .max_retry_wait(Duration::from_millis(50))
        .build()
        .unwrap();
    for id in get("CHILD_FIRST").parse::<u64>().unwrap().. {
        while logger.log("app", &record(id)).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if id % 10 == 0 {
            logger.blocking_sync(SOON).unwrap();
            println!("\nspooled {id}");
        }
    }
}

#[test]
fn an_application_killed_with_a_spool_loses_nothing_that_was_spooled() {
    if let Some(folder) = std::env::var_os("CHILD_FOLDER") {
        return application(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut server = windrow().sqlite().start();
    let address = server.forward().to_string();
    let mut promised = Vec::new();
    for life in 0..6u64 {
        let first = life * 1_000_000;
        let mut application = child(
            KILLED,
            &[
                ("CHILD_FOLDER", folder.path().to_str().unwrap()),
                ("CHILD_ADDRESS", &address),
                ("CHILD_FIRST", &first.to_string()),
            ],
        );
        // In some lives the server dies as well, and first.
        if life % 3 == 1 {
            application.line("some spooled", SOON, |line| {
                line.strip_prefix("spooled ").map(drop)
            });
            server.kill();
        }
        let wanted = first + 300 + 77 * life;
        let reached = application.line("enough spooled", SOON, |line| {
            let id: u64 = line.strip_prefix("spooled ")?.parse().ok()?;
            (id >= wanted).then_some(id)
        });
        application.kill();
        if life % 3 == 1 {
            server.start_again();
        }
        promised.extend(first..=reached);
    }
    let logger = Logger::builder()
        .address(address)
        .spool(folder.path())
        .build()
        .unwrap();
    let recovered = logger.stats().recovered;
    assert_eq!(logger.blocking_close(SOON).unwrap(), []);
    assert_eq!(logger.stats().spooled_chunks, 0);
    wait::until("everything spooled in one document", SOON, || {
        exactly_once(&server.stored(), promised.iter().copied())
    });
    let documents = documents_by_id(&server.stored()).unwrap().len();
    println!(
        "{} promised, {documents} documents, {recovered} left to the last logger, {} repeated and recognised",
        promised.len(),
        server.metric("windrow_records_duplicate_total")
    );
    assert!(server.terminate(SOON).success());
    exactly_once(&server.stored(), promised).unwrap();
}
