//! Loads into a real Elasticsearch: every trace one document with every line once and in order.

use windrow_testkit::check;
use windrow_testkit::load::{Entries, Load, Mode};
use windrow_testkit::{elasticsearch, need};

use crate::{SOON, windrow};

#[test]
fn twenty_thousand_traces() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let server = windrow().elasticsearch(&node.url(), "load").start();
    let load = Load {
        traces: 20_000,
        open: 700,
        chunk_records: 1000,
        ..Load::new(server.forward(), "big")
    };
    let report = load.run();
    check::eventually(&report.ledger, SOON, || client.documents("load-*")).assert_clean();
    assert_eq!(client.count("load-*"), 20_000, "and nothing else");
}

#[test]
fn modes_repeats_and_reconnects() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let server = windrow().elasticsearch(&node.url(), "modes").start();
    let base = |prefix: &str| Load {
        traces: 2000,
        open: 300,
        chunk_records: 200,
        ..Load::new(server.forward(), prefix)
    };
    let loads = [
        Load {
            mode: Mode::Message,
            window: 64,
            ..base("message-")
        },
        Load {
            mode: Mode::Forward,
            entries: Entries::V2,
            ..base("forward-v2-")
        },
        Load {
            mode: Mode::Gzip,
            repeat: 2,
            ..base("gzip-twice-")
        },
        Load {
            repeat: 2,
            reconnect: 10,
            ..base("twice-")
        },
        Load {
            spread: true,
            connections: 4,
            ..base("spread-")
        },
    ];
    let running: Vec<_> = loads.into_iter().map(Load::start).collect();
    let reports: Vec<_> = running.into_iter().map(|load| load.finish()).collect();
    for report in &reports {
        check::eventually(&report.ledger, SOON, || client.documents("modes-*")).assert_clean();
    }
    assert_eq!(
        client.count("modes-*"),
        reports.len() as u64 * 2000,
        "and nothing else"
    );
    for document in client.documents("modes-*") {
        assert_eq!(
            document.source["traceId"],
            document.id.as_str(),
            "the trace id is the document's id"
        );
    }
}

#[test]
fn opensearch_too() {
    use windrow_testkit::elasticsearch::{Kind, Node};
    let node = need!(Node::start(Kind::OPENSEARCH));
    let client = node.client();
    let mut server = windrow().elasticsearch(&node.url(), "open").start();
    let load = Load {
        traces: 2000,
        repeat: 2,
        spread: true,
        ..Load::new(server.forward(), "o")
    };
    let report = load.clone().run();
    check::eventually(&report.ledger, SOON, || client.documents("open-*")).assert_clean();
    // The same chunks after a kill: documents that exist are joined, not doubled.
    server.crash();
    let report = load.run();
    check::eventually(&report.ledger, SOON, || client.documents("open-*")).assert_clean();
    assert_eq!(client.count("open-*"), 2000, "and nothing else");
}
