//! Elasticsearch away while input goes on: acks stay, memory stays bounded, the journal fills to its limit and then
//! sockets are no longer read; when it returns everything is written without a restart.

use std::time::Duration;

use windrow_testkit::check;
use windrow_testkit::load::Load;
use windrow_testkit::sink::Sink;
use windrow_testkit::wait;

use crate::{SOON, windrow};

#[test]
fn the_journal_fills_and_sockets_wait() {
    let mut sink = Sink::stopped();
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
    let resident = server.process().resident_bytes().unwrap();
    assert!(resident < 300 << 20, "{} MiB resident", resident >> 20);
}

/// Away and back several times, with a kill of Windrow while it is away.
#[test]
fn it_comes_and_goes() {
    let mut sink = Sink::start();
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
