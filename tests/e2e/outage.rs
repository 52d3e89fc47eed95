//! Outage of Elasticsearch under load: chunks are acknowledged, memory stays bounded, the journal
//! fills to its limit, then sockets are no longer read. When Elasticsearch returns, everything is
//! written without a restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use windrow_testkit::check::{self, Stored};
use windrow_testkit::client::{Client, forward};
use windrow_testkit::elasticsearch::{Kind, Node};
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::{Load, trace_number};
use windrow_testkit::server::Server;
use windrow_testkit::{need, wait};

use crate::{SOON, windrow};

const START: u32 = 1_790_000_000;

#[track_caller]
fn wait_blocked(server: &Server) {
    wait::until("the journal to be full", SOON, || {
        let (bytes, blocked) = (
            server.metric("windrow_journal_bytes"),
            server.metric("windrow_journal_blocked"),
        );
        if blocked > 0.5 {
            Ok(())
        } else {
            Err(format!("{bytes} bytes, blocked {blocked}"))
        }
    });
}

#[test]
fn the_journal_fills_and_sockets_wait() {
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "full")
        .arg("--memory-limit", "32MiB")
        .arg("--journal-limit", "8MiB")
        .env("WINDROW_FORWARD_MAX_MESSAGE", "1MiB")
        .start();
    // About 20 MB of messages.
    let running = Load {
        traces: 12_000,
        open: 300,
        chunk_records: 100,
        ack_timeout: Duration::from_secs(300),
        give_up: SOON,
        ..Load::new(server.forward(), "full-")
    }
    .start();
    wait_blocked(&server);
    let acknowledged = wait::settled("acks", Duration::from_secs(1), SOON, || {
        running.ledger().acknowledged()
    });
    assert!(
        acknowledged > 5000 && acknowledged < 60_000,
        "{acknowledged} acknowledged"
    );
    assert!(server.metric("windrow_journal_bytes") <= 8.0 * 1024.0 * 1024.0 * 1.1);
    let answer = server.get("/ready");
    assert_eq!(answer.status, 503);
    assert!(answer.text.to_lowercase().contains("journal"), "{}", answer.text);
    assert_eq!(server.get("/health").status, 200, "it is alive");

    sink.start_again();
    let report = running.finish();
    assert_eq!(report.resent, 0, "clients had only to wait");
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("full-")).assert_clean();
    server.wait_ready();
    let peak = server.process().peak_resident_bytes().unwrap();
    assert!(peak < 200 << 20, "{} MiB resident at most", peak >> 20);
}

/// What waited is written in the order in which it came, and what comes meanwhile is served.
#[test]
fn the_backlog_is_written_in_order_while_new_input_is_served() {
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "backlog")
        // One request after the other, and many of them: only then has what is stored an order.
        .env("WINDROW_ELASTICSEARCH_MAX_IN_FLIGHT", "1")
        .env("WINDROW_ELASTICSEARCH_BULK_SIZE", "64KiB")
        .start();
    let old = Load {
        connections: 1,
        traces: 4000,
        ..Load::new(server.forward(), "old-")
    };
    let old = old.run();
    assert_eq!(
        old.ledger.acknowledged(),
        20_000,
        "acknowledged though it is away"
    );
    wait::until("/ready to say so", SOON, || {
        let answer = server.get("/ready");
        let says = answer.status == 503 && answer.text.contains("elasticsearch");
        if says { Ok(()) } else { Err(answer.text) }
    });
    sink.set(Faults {
        delay: Duration::from_millis(5),
        ..Faults::default()
    });
    sink.start_again();
    wait::until_true("the first of the backlog", SOON, || {
        !sink.order("backlog-").is_empty()
    });
    let new = Load {
        traces: 500,
        ..Load::new(server.forward(), "new-")
    }
    .run();
    check::eventually(&old.ledger, SOON, || sink.documents("backlog-")).assert_clean();
    check::eventually(&new.ledger, SOON, || sink.documents("backlog-")).assert_clean();
    let order = sink.order("backlog-");
    let numbers: Vec<u64> = order
        .iter()
        .filter_map(|id| trace_number(old.ledger.load(), id))
        .collect();
    assert_eq!(numbers.len(), 4000);
    assert!(numbers.is_sorted(), "written in another order than they came");
    server.wait_ready();
    assert!(server.terminate(SOON).success());
}

/// The journal's last part is for short messages.
#[test]
#[expect(clippy::disallowed_methods, reason = "what is written is counted")]
fn small_clients_go_on_beside_some_that_fill_the_journal() {
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "beside")
        .arg("--memory-limit", "32MiB")
        .arg("--journal-limit", "32MiB")
        .start();
    let (to, stop) = (server.forward(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for flooder in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                for number in 0.. {
                    let record = json!({"message": "x".repeat(400_000)});
                    let chunk = format!("flood-{flooder}-{number}");
                    let message = forward("flood", Some(&chunk), &[(START, number, record)]);
                    let stream = TcpStream::connect(to).unwrap();
                    stream.set_nonblocking(true).unwrap();
                    let (mut sent, mut ack) = (0, [0; 64]);
                    // Until it is acknowledged, as an impatient client with its own buffer.
                    while !stop.load(Ordering::Relaxed) {
                        sent += (&stream).write(&message[sent..]).unwrap_or_default();
                        if sent == message.len() && (&stream).read(&mut ack).is_ok() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        wait_blocked(&server);
        let small = scope.spawn(|| {
            for number in 0..50 {
                let mut client = Client::connect(to);
                let record = json!({"traceId": format!("small-{number}"), "message": "request completed"});
                client.send("app", &format!("small-{number}"), &[(START, 0, record)]);
            }
            assert!(server.metric("windrow_journal_blocked") > 0.5);
        });
        let result = small.join();
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(server.metric("windrow_journal_bytes") <= f64::from(32 << 20));
    sink.start_again();
    wait::until("the small clients' traces", SOON, || {
        let small = |stored: &Stored| stored.id.starts_with("small-");
        match sink
            .documents("beside-")
            .iter()
            .filter(|stored| small(stored))
            .count()
        {
            50 => Ok(()),
            count => Err(format!("{count} documents")),
        }
    });
    server.kill();
}

/// Connections of one client fill the journal with short messages; others have its last part.
#[tokio::test(flavor = "multi_thread")]
async fn others_go_on_beside_a_client_that_fills_the_journal_with_short_messages() {
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "short")
        .arg("--memory-limit", "32MiB")
        .arg("--journal-limit", "16MiB")
        .start();
    let to = server.forward();
    let mut flooders = tokio::task::JoinSet::new();
    for flooder in 0..20 {
        flooders.spawn(async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut stream = socket.connect(to).await.unwrap();
            for number in 0.. {
                let record = json!({"message": "x".repeat(50_000)});
                let chunk = format!("flood-{flooder}-{number}");
                let message = forward("flood", Some(&chunk), &[(START, number, record)]);
                stream.write_all(&message).await.unwrap();
                _ = stream.read(&mut [0; 64]).await.unwrap();
            }
        });
    }
    wait_blocked(&server);
    for number in 0..50 {
        let mut client = Client::connect(to);
        let record = json!({"traceId": format!("small-{number}"), "message": "request completed"});
        client.send("app", &format!("small-{number}"), &[(START, 0, record)]);
    }
    assert!(server.metric("windrow_journal_blocked") > 0.5);
    assert!(server.metric("windrow_journal_bytes") <= f64::from(16 << 20));
    flooders.shutdown().await;
    sink.start_again();
    wait::until("the small clients' traces", SOON, || {
        let small = |stored: &&Stored| stored.id.starts_with("small-");
        match sink.documents("short-").iter().filter(small).count() {
            50 => Ok(()),
            count => Err(format!("{count} documents")),
        }
    });
    server.kill();
}

/// The real one, killed while lines come, away until the journal is full, and back.
#[test]
fn the_real_one_is_away_until_the_journal_is_full() {
    let mut node = need!(Node::start(Kind::ELASTICSEARCH));
    let client = node.client();
    let mut server = windrow()
        .elasticsearch(&node.url(), "dead")
        .arg("--memory-limit", "32MiB")
        .arg("--journal-limit", "8MiB")
        .env("WINDROW_FORWARD_MAX_MESSAGE", "1MiB")
        .start();
    // Its first requests take long.
    let warm = Load {
        traces: 200,
        ..Load::new(server.forward(), "warm-")
    }
    .run();
    check::eventually(&warm.ledger, SOON, || client.documents("dead-*")).assert_clean();
    let running = Load {
        traces: 10_000,
        open: 300,
        chunk_records: 100,
        rate: 10_000,
        ack_timeout: Duration::from_secs(300),
        give_up: 3 * SOON,
        ..Load::new(server.forward(), "dead-")
    }
    .start();
    running.wait_acknowledged(3000);
    node.kill();
    wait_blocked(&server);
    let answer = server.get("/ready");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text.contains("journal") && answer.text.contains("elasticsearch"),
        "{}",
        answer.text
    );
    let acknowledged = wait::settled("acks", Duration::from_secs(1), SOON, || {
        running.ledger().acknowledged()
    });
    assert!(acknowledged < 50_000, "{acknowledged} acknowledged");
    node.start_again();
    let report = running.finish();
    assert_eq!(report.resent, 0, "clients had only to wait");
    check::eventually(&report.ledger, 2 * SOON, || client.documents("dead-*")).assert_clean();
    server.wait_ready();
    let peak = server.process().peak_resident_bytes().unwrap();
    assert!(peak < 200 << 20, "{} MiB resident at most", peak >> 20);
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &client.documents("dead-*")).assert_clean();
}

/// Away and back several times, with a kill of Windrow while it is away.
#[test]
fn it_comes_and_goes() {
    let mut sink = FakeElasticsearch::start();
    let mut server = windrow().elasticsearch(&sink.url(), "gone").start();
    let running = Load {
        traces: 8000,
        open: 300,
        chunk_records: 200,
        rate: 12_000,
        spread: true,
        ..Load::new(server.forward(), "gone-")
    }
    .start();
    for part in 1..=3 {
        running.wait_acknowledged(part * 9000);
        sink.stop();
        running.wait_acknowledged(part * 9000 + 4000);
        if part == 2 {
            server.crash();
        }
        sink.start_again();
    }
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("gone-")).assert_clean();
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &sink.documents("gone-")).assert_clean();
}
