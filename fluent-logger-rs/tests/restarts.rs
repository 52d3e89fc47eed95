//! Tests of the delivery guarantees while servers stop and restart.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluent_logger::{Event, Logger, Mode, Outcome};
use serde_json::{Value, json};
use support::{Message, PATIENCE, Peer, Server, events, serve};

/// Reads and acknowledges, with the weaknesses of a server that is about to die: now and then an
/// ack is late or only half written, or the connection ends between reading and acknowledging.
fn shaky(peer: &mut Peer) {
    let mut turn = peer.number;
    while let Some(message) = peer.read() {
        turn += 1;
        let Some(chunk) = message.chunk else { continue };
        match turn % 17 {
            5 => std::thread::sleep(Duration::from_millis(3)),
            11 => return,
            13 => {
                peer.write(b"\x81\xa3ac");
                return;
            }
            _ => {}
        }
        peer.ack(&chunk);
    }
}

/// Events by id: in how many different chunks they came. A resent chunk counts once, as for a
/// server that recognises it.
fn chunks_by_id(messages: &[(usize, Message)]) -> HashMap<u64, usize> {
    let mut seen = HashSet::new();
    let mut found = HashMap::new();
    for (_, message) in messages {
        if seen.insert(message.chunk.clone().unwrap()) {
            for (_, record) in &message.events {
                *found.entry(record["id"].as_u64().unwrap()).or_default() += 1;
            }
        }
    }
    found
}

fn id_of(event: &Event) -> u64 {
    event.deserialize::<Value>().unwrap()["id"].as_u64().unwrap()
}

#[test]
fn a_server_killed_and_restarted_twenty_times_under_load_loses_and_doubles_nothing() {
    for mode in [Mode::Packed, Mode::Forward, Mode::Message] {
        let mut server = Server::start(shaky);
        let address = server.address;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&acknowledged);
        let logger = Logger::builder()
            .address(address.to_string())
            .mode(mode)
            .flush_interval(Duration::from_millis(2))
            .chunk_limit_events(50)
            .ack_timeout(Duration::from_secs(1))
            .retry_wait(Duration::from_millis(1))
            .max_retry_wait(Duration::from_millis(10))
            .buffer_limit(5000)
            .on_delivery(move |report| {
                assert!(matches!(report.outcome, Outcome::Acknowledged));
                counted.fetch_add(report.events as u64, Ordering::SeqCst);
            })
            .build()
            .unwrap();

        let over = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let accepted = Arc::new(Mutex::new(HashSet::new()));
        let confirmed = Arc::new(Mutex::new(HashSet::new()));
        let mut threads = Vec::new();
        for kind in 0..4 {
            let (logger, over, next) = (logger.clone(), Arc::clone(&over), Arc::clone(&next));
            let (accepted, confirmed) = (Arc::clone(&accepted), Arc::clone(&confirmed));
            threads.push(std::thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let id = next.fetch_add(1, Ordering::SeqCst);
                    let record = json!({ "id": id, "pad": "x".repeat(100) });
                    if kind < 2 {
                        if logger.blocking_send("a", &record).is_ok() {
                            confirmed.lock().unwrap().insert(id);
                        }
                    } else {
                        if logger.log("b", &record).is_ok() {
                            accepted.lock().unwrap().insert(id);
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            }));
        }

        let mut histories = vec![server.history()];
        for round in 0..20 {
            let before = acknowledged.load(Ordering::SeqCst);
            support::until("some deliveries", || {
                acknowledged.load(Ordering::SeqCst) >= before + 20
            });
            server.kill();
            if round % 3 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            server = Server::start_at(address, shaky);
            histories.push(server.history());
        }
        over.store(true, Ordering::SeqCst);
        // Senders still wait for their acks: let the server answer before the close.
        for thread in threads {
            thread.join().unwrap();
        }
        let returned: HashSet<u64> = logger
            .blocking_close(PATIENCE)
            .unwrap()
            .iter()
            .map(id_of)
            .collect();
        server.kill();

        let messages: Vec<_> = histories.iter().flat_map(|history| history.messages()).collect();
        let found = chunks_by_id(&messages);
        let doubled: Vec<_> = found.iter().filter(|(_, count)| **count != 1).collect();
        assert!(doubled.is_empty(), "{mode:?}: in several chunks: {doubled:?}");
        for id in confirmed.lock().unwrap().iter() {
            assert!(found.contains_key(id), "{mode:?}: send confirmed {id}");
        }
        for id in accepted.lock().unwrap().iter() {
            assert!(
                found.contains_key(id) || returned.contains(id),
                "{mode:?}: log took {id}"
            );
        }
        let stats = logger.stats();
        assert!(stats.connections > 20 && stats.resent > 0, "{stats:?}");
        assert_eq!(
            stats.delivered + returned.len() as u64,
            stats.accepted,
            "{stats:?}"
        );
    }
}

#[test]
fn a_short_reconnect_interval_spreads_the_load_evenly_and_neither_loses_nor_doubles() {
    let servers = [Server::faithful(), Server::faithful()];
    let mut builder = Logger::builder()
        .async_reconnect_interval(Duration::from_millis(20))
        .flush_interval(Duration::from_millis(1))
        .chunk_limit_events(20);
    for server in &servers {
        builder = builder.address(server.address.to_string());
    }
    let logger = builder.build().unwrap();
    for id in 0..20_000u64 {
        while logger.log("t", &json!({ "id": id })).is_err() {
            std::thread::yield_now();
        }
        if id % 10 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let shares: Vec<usize> = servers
        .iter()
        .map(|server| events(&server.messages()).len())
        .collect();
    let messages: Vec<_> = servers.iter().flat_map(Server::messages).collect();
    let found = chunks_by_id(&messages);
    assert_eq!(
        (found.len(), shares.iter().sum::<usize>()),
        (20_000, 20_000),
        "none lost, none twice"
    );
    assert!(
        shares.iter().all(|share| (8_000..=12_000).contains(share)),
        "within 20 %: {shares:?}"
    );
    let stats = logger.stats();
    assert_eq!(
        (stats.resent, stats.connection_losses),
        (0, 0),
        "reconnects are no failures: {stats:?}"
    );
    assert!(stats.connections > 20, "{stats:?}");
}

#[test]
fn when_one_of_two_servers_dies_the_other_gets_everything() {
    let (one, two) = (Server::faithful(), Server::faithful());
    let logger = Logger::builder()
        .address(one.address.to_string())
        .address(two.address.to_string())
        .balance(fluent_logger::Balance::Failover)
        .flush_interval(Duration::from_millis(1))
        .build()
        .unwrap();
    logger.blocking_send("t", &json!({ "id": 0 })).unwrap();
    assert_eq!(
        (events(&one.messages()).len(), events(&two.messages()).len()),
        (1, 0)
    );
    one.kill();
    logger.blocking_send("t", &json!({ "id": 1 })).unwrap();
    assert_eq!(events(&two.messages()).len(), 1);
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
}

#[test]
fn a_server_that_comes_late_gets_everything_in_order() {
    let address = Server::faithful().address;
    let logger = Logger::builder()
        .address(address.to_string())
        .retry_wait(Duration::from_millis(5))
        .max_retry_wait(Duration::from_millis(20))
        .build()
        .unwrap();
    for id in 0..1000u64 {
        logger.log("t", &json!({ "id": id })).unwrap();
    }
    support::until("attempts", || logger.stats().connect_failures > 3);
    let server = Server::start_at(address, serve);
    logger.blocking_flush(PATIENCE).unwrap();
    let ids: Vec<u64> = events(&server.messages())
        .iter()
        .map(|event| event["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
}
