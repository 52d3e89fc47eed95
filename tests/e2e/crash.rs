//! Crash recovery: SIGKILL in the middle of a load and a restart. What was acknowledged is stored
//! once, complete and in order, whatever else fails at the same time.

use std::time::Duration;

use windrow_testkit::check;
use windrow_testkit::elasticsearch::{self, Kind, Node};
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::{Load, Mode, Running};
use windrow_testkit::need;
use windrow_testkit::server::Server;

use crate::{SOON, assert_stored, windrow};

/// A load of about 20,000 records a second that resends until all is acknowledged.
fn load(server: &Server, prefix: &str, traces: u64) -> Load {
    Load {
        traces,
        open: 300,
        connections: 3,
        chunk_records: 200,
        window: 2,
        rate: 20_000,
        spread: true,
        ack_timeout: Duration::from_secs(10),
        ..Load::new(server.forward(), prefix)
    }
}

/// Kills the server at `times` moments spread over the load, each after another number of
/// milliseconds since something was last acknowledged, so that all of the server's steps are hit.
#[track_caller]
fn kill_along(server: &mut Server, running: &Running, times: u64) {
    let records = running.ledger().load().records();
    for kill in 1..=times {
        running.wait_acknowledged(records * kill / (times + 1));
        std::thread::sleep(Duration::from_millis(kill * 37 % 90));
        server.crash();
    }
}

#[test]
fn with_the_embedded_store() {
    let mut server = windrow().sqlite().start();
    let running = load(&server, "s", 20_000).start();
    kill_along(&mut server, &running, 20);
    let report = running.finish();
    assert!(report.resent > 0, "no kill was noticed, so nothing is shown");
    assert_stored(&server, &report);
    server.crash();
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &server.stored()).assert_clean();
}

#[test]
fn with_a_sink_that_refuses_delays_and_forgets() {
    let sink = FakeElasticsearch::with(Faults {
        refuse_every: 7,
        unavailable_every: 11,
        drop_before_every: 13,
        lose_answer_every: 5,
        cut_answer_every: 17,
        item_429_every: 50,
        item_503_every: 70,
        delay: Duration::from_millis(15),
        ..Faults::default()
    });
    // Small requests, so that each life of the server sends some and meets the faults.
    let mut server = windrow()
        .elasticsearch(&sink.url(), "f")
        .env("WINDROW_ELASTICSEARCH_BULK_DELAY", "20ms")
        .start();
    let running = load(&server, "f", 30_000).start();
    kill_along(&mut server, &running, 20);
    let report = running.finish();
    let (resent, faults) = (report.resent, sink.counts().faults);
    assert!(
        resent > 0 && faults > 0,
        "nothing went wrong, so nothing is shown: {resent} resent, {faults} faults"
    );
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("f-")).assert_clean();
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &sink.documents("f-")).assert_clean();
}

/// Segments so small, and traces so short, that files of segments that are done with are used again
/// between kills.
#[test]
fn with_journal_files_that_are_used_again() {
    let sink = FakeElasticsearch::start();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "again")
        .env("WINDROW_ELASTICSEARCH_BULK_DELAY", "20ms")
        .env("WINDROW_JOURNAL_SEGMENT_SIZE", "1MiB")
        .start();
    let running = Load {
        rate: 40_000,
        ..load(&server, "a", 40_000)
    }
    .start();
    let records = running.ledger().load().records();
    let mut spares = 0;
    for kill in 1..=8 {
        running.wait_acknowledged(records * kill / 9);
        let files = std::fs::read_dir(server.data().join("journal")).unwrap();
        let is_spare = |file: &std::io::Result<std::fs::DirEntry>| {
            file.as_ref()
                .is_ok_and(|file| file.path().extension().is_some_and(|its| its == "spare"))
        };
        spares += files.filter(is_spare).count();
        server.crash();
    }
    assert!(spares > 0, "no file was kept, so nothing is shown");
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("again-")).assert_clean();
    assert_eq!(server.metric("windrow_journal_quarantined_total"), 0.0);
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &sink.documents("again-")).assert_clean();
}

#[test]
fn with_a_real_elasticsearch() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let mut server = windrow().elasticsearch(&node.url(), "killed").start();
    let running = Load {
        mode: Mode::Gzip,
        ..load(&server, "k", 20_000)
    }
    .start();
    kill_along(&mut server, &running, 20);
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || client.documents("killed-*")).assert_clean();
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &client.documents("killed-*")).assert_clean();
}

#[test]
fn with_elasticsearch_killed_too() {
    let mut node = need!(Node::start(Kind::ELASTICSEARCH));
    let client = node.client();
    let mut server = windrow().elasticsearch(&node.url(), "both").start();
    let running = load(&server, "b", 12_000).start();
    running.wait_acknowledged(10_000);
    node.kill();
    running.wait_acknowledged(25_000);
    server.kill();
    node.start_again();
    server.start_again();
    running.wait_acknowledged(40_000);
    node.kill();
    node.start_again();
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || client.documents("both-*")).assert_clean();
    assert!(server.terminate(SOON).success());
    check::compare(&report.ledger, &client.documents("both-*")).assert_clean();
}

/// Open traces are in the journal only; a kill must not close or forget them.
#[test]
fn open_traces_go_on_after_a_kill() {
    let mut server = windrow().sqlite().arg("--idle-timeout", "1h").start();
    let first = Load {
        traces: 200,
        open: 200,
        connections: 1,
        lines: 4,
        ..Load::new(server.forward(), "open-")
    };
    let running = Load {
        rate: 400,
        chunk_records: 50,
        ..first
    }
    .start();
    for quarter in 1..=3 {
        running.wait_acknowledged(quarter * 200);
        server.crash();
    }
    let report = running.finish();
    assert_stored(&server, &report);
}
