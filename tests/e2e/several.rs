//! Traces spread over several Windrows: each receives a part of every trace, Elasticsearch holds
//! one document.

use std::time::Duration;

use windrow_testkit::check;
use windrow_testkit::elasticsearch;
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::Load;
use windrow_testkit::need;

use crate::{SOON, windrow};

/// A trace's completion record comes to one of them; the others have to wait for this.
const IDLE: &str = "2s";

#[test]
fn three_of_them_one_killed() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let mut servers: Vec<_> = (0..3)
        .map(|_| {
            windrow()
                .elasticsearch(&node.url(), "several")
                .arg("--idle-timeout", IDLE)
                .start()
        })
        .collect();
    let running = Load {
        addresses: servers.iter().map(|server| server.forward()).collect(),
        traces: 6000,
        open: 300,
        connections: 3,
        chunk_records: 100,
        spread: true,
        rate: 8000,
        ack_timeout: Duration::from_secs(10),
        ..Load::new(servers[0].forward(), "v")
    }
    .start();
    for kill in 1..=3 {
        running.wait_acknowledged(kill * 7000);
        servers[1].crash();
    }
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || client.documents("several-*")).assert_clean();
    for server in &mut servers {
        assert!(server.terminate(SOON).success());
    }
    check::compare(&report.ledger, &client.documents("several-*")).assert_clean();
    assert_eq!(client.count("several-*"), 6000, "and nothing else");
}

/// The completion record of a trace comes to one of two, lines of it to both. Nothing is written for
/// being idle: the other finds the complete document, and merges what it has at once.
#[test]
fn what_is_complete_elsewhere_is_not_waited_for() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let mut servers: Vec<_> = (0..2)
        .map(|_| {
            windrow()
                .elasticsearch(&node.url(), "elsewhere")
                .arg("--idle-timeout", "30m")
                .start()
        })
        .collect();
    let running = Load {
        addresses: servers.iter().map(|server| server.forward()).collect(),
        traces: 3000,
        open: 300,
        connections: 2,
        chunk_records: 100,
        spread: true,
        rate: 4000,
        ack_timeout: Duration::from_secs(10),
        ..Load::new(servers[0].forward(), "y")
    }
    .start();
    for kill in 1..=2 {
        running.wait_acknowledged(kill * 4000);
        servers[kill as usize % 2].crash();
    }
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || client.documents("elsewhere-*")).assert_clean();
    assert_eq!(client.count("elsewhere-*"), 3000, "and nothing else");
    for server in &servers {
        let merged = server.metric("windrow_traces_flushed_total{reason=\"completed_elsewhere\"}");
        assert!(merged > 0.0);
        assert_eq!(
            server.metric("windrow_traces_flushed_total{reason=\"idle\"}"),
            0.0
        );
        let (asked, found) = (
            server.metric("windrow_traces_looked_up_total"),
            server.metric("windrow_traces_found_complete_total"),
        );
        println!("{asked} looked up, {found} found complete, {merged} merged");
        assert!(found <= asked && merged <= found);
    }
}

/// All of them write the same documents at the same time, and answers get lost.
#[test]
fn they_meet_at_every_document() {
    let sink = FakeElasticsearch::with(Faults {
        lose_answer_every: 4,
        item_429_every: 30,
        ..Faults::default()
    });
    let servers: Vec<_> = (0..3)
        .map(|_| {
            windrow()
                .elasticsearch(&sink.url(), "meet")
                .arg("--idle-timeout", IDLE)
                .start()
        })
        .collect();
    let load = Load {
        addresses: servers.iter().map(|server| server.forward()).collect(),
        traces: 3000,
        connections: 3,
        spread: true,
        ..Load::new(servers[0].forward(), "w")
    };
    let report = load.run();
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("meet-")).assert_clean();
    assert!(sink.counts().conflicts > 0, "they never met, so nothing is shown");
}

/// A client that resends to another instance after losing an ack: the same chunk on both, every
/// line once.
#[test]
fn the_same_chunks_on_two_of_them() {
    let sink = FakeElasticsearch::start();
    let servers: Vec<_> = (0..2)
        .map(|_| windrow().elasticsearch(&sink.url(), "same").start())
        .collect();
    let mut reports = Vec::new();
    for server in &servers {
        for trace_ids in [true, false] {
            let prefix = if trace_ids { "traced-" } else { "plain-" };
            reports.push(
                Load {
                    traces: 500,
                    trace_ids,
                    ..Load::new(server.forward(), prefix)
                }
                .run(),
            );
        }
    }
    for report in reports {
        check::eventually(&report.ledger, SOON, || sink.documents("same-")).assert_clean();
    }
    assert_eq!(sink.documents("same-").len(), 500 + 2500, "and nothing else");
}
