//! Tests of name resolution: several addresses, and addresses that change. On Linux every address
//! in 127.0.0.0/8 is this machine.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::Logger;
use crate::support::{PATIENCE, Server, events, serve, until};

/// Servers on 127.0.0.1, .2, … with the same port, as behind a headless service.
fn service(count: u8) -> (Vec<Server>, u16) {
    // Another address may have the port taken: then with another port.
    for _ in 0..50 {
        let first = Server::faithful();
        let port = first.address.port();
        let others: Vec<_> = (2..=count)
            .map(|last| SocketAddr::from(([127, 0, 0, last], port)))
            .collect();
        if others
            .iter()
            .all(|address| std::net::TcpListener::bind(address).is_ok())
        {
            let others = others.into_iter().map(|address| Server::start_at(address, serve));
            return (std::iter::once(first).chain(others).collect(), port);
        }
    }
    panic!("no port that is free on {count} addresses");
}

/// A resolver that gives what `pods` holds at the moment, in an order of its own every time.
fn lookup(pods: &Arc<Mutex<Vec<IpAddr>>>, lookups: &Arc<AtomicUsize>) -> Resolver {
    let (pods, lookups) = (Arc::clone(pods), Arc::clone(lookups));
    Arc::new(move |host, port| {
        assert_eq!(host, "windrow.logs.svc");
        let turn = lookups.fetch_add(1, Ordering::SeqCst);
        let mut found = pods.lock().expect("not poisoned").clone();
        let count = found.len().max(1);
        found.rotate_left(turn % count);
        Box::pin(async move { Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()) })
    })
}

#[test]
fn a_name_is_looked_up_for_every_connection_and_all_its_addresses_take_their_turn() {
    let (servers, port) = service(4);
    let pods = |range: std::ops::RangeInclusive<u8>| -> Vec<IpAddr> {
        range.map(|last| IpAddr::from([127, 0, 0, last])).collect()
    };
    let behind = Arc::new(Mutex::new(pods(1..=3)));
    let lookups = Arc::new(AtomicUsize::new(0));
    let logger = Logger::builder()
        .address(format!("windrow.logs.svc:{port}"))
        .lookup(lookup(&behind, &lookups))
        .async_reconnect_interval(Duration::from_millis(10))
        .build()
        .unwrap();
    let counts = || -> Vec<usize> {
        servers
            .iter()
            .map(|server| events(&server.messages()).len())
            .collect()
    };
    let send_while = |what: &str, go_on: &dyn Fn() -> bool| {
        let began = Instant::now();
        while go_on() {
            assert!(began.elapsed() < PATIENCE, "not {what}: {:?}", counts());
            logger.blocking_send("t", &json!({})).unwrap();
        }
    };
    send_while("all three served", &|| {
        counts()[..3].iter().any(|count| *count < 20)
    });
    assert_eq!(counts()[3], 0);
    // The service moves: two of its addresses are gone, one is new.
    *behind.lock().unwrap() = pods(3..=4);
    let connections = logger.stats().connections;
    send_while("moved", &|| logger.stats().connections < connections + 2);
    let before = counts();
    send_while("the new one served", &|| {
        let now = counts();
        now[3] < 40 || now[2] < before[2] + 40
    });
    assert_eq!(counts()[..2], before[..2], "nobody asks those that left");
    let stats = logger.stats();
    assert_eq!(
        (
            lookups.load(Ordering::SeqCst) as u64,
            stats.connect_failures,
            stats.resent
        ),
        (stats.connections, 0, 0),
        "one lookup per connection"
    );
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
}

#[test]
fn a_dead_address_behind_a_name_is_passed_over_and_a_name_without_any_is_said() {
    let (mut servers, port) = service(3);
    servers.remove(1).kill();
    let behind = Arc::new(Mutex::new(Vec::new()));
    let logger = Logger::builder()
        .address(format!("windrow.logs.svc:{port}"))
        .lookup(lookup(&behind, &Arc::default()))
        .async_reconnect_interval(Duration::from_millis(10))
        .retry_wait(Duration::from_millis(5))
        .max_retry_wait(Duration::from_millis(10))
        .build()
        .unwrap();
    logger.log("t", &json!({})).unwrap();
    until("an error", || logger.stats().last_error.is_some());
    let said = logger.stats().last_error.unwrap();
    assert!(said.contains("the name has no address"), "{said}");
    *behind.lock().unwrap() = (1..=3).map(|last| IpAddr::from([127, 0, 0, last])).collect();
    let began = Instant::now();
    let counts = || -> Vec<usize> {
        servers
            .iter()
            .map(|server| events(&server.messages()).len())
            .collect()
    };
    while counts().iter().any(|count| *count < 20) {
        assert!(began.elapsed() < PATIENCE, "{:?}", counts());
        logger.blocking_send("t", &json!({})).unwrap();
    }
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
}
