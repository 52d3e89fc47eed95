//! Data streams of real stores: two instances that both see a part of every trace, forced rollovers,
//! kills. One document per trace with every line once.
//!
//! `WINDROW_TEST_STREAM_ROUNDS=10` repeats it with more rollovers and kills on Elasticsearch 8, 9 and
//! OpenSearch.

use std::time::Duration;

use windrow_testkit::elasticsearch::{self, Kind, Node};
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::{check, need, wait};

use crate::{SOON, windrow};

const TRACES: u64 = 3000;

fn instance(node: &Node, stream: &str) -> Server {
    windrow()
        .arg("--output", "elasticsearch")
        .arg("--elasticsearch-url", node.url())
        .env("WINDROW_ELASTICSEARCH_DATA_STREAM", stream)
        .env("WINDROW_ELASTICSEARCH_ROLLOVER_SETTLE", "2s")
        .env("WINDROW_ELASTICSEARCH_TEMPLATE_NAME", stream)
        .env("WINDROW_ELASTICSEARCH_TEMPLATE_REPLICAS", "0")
        .arg("--linger", "200ms")
        // A trace's completion record comes to one of them; the other has to wait for this.
        .arg("--idle-timeout", "2s")
        .start()
}

/// A load over two instances with `rollovers`; after each one of them is killed.
fn over_rollovers(node: &Node, stream: &str, rollovers: u64) {
    let client = node.client();
    let mut servers = [instance(node, stream), instance(node, stream)];
    let load = Load {
        addresses: servers.iter().map(Server::forward).collect(),
        traces: TRACES,
        open: 300,
        connections: 2,
        chunk_records: 100,
        spread: true,
        rate: 4000,
        ack_timeout: Duration::from_secs(10),
        ..Load::new(servers[0].forward(), "s")
    };
    let records = load.records();
    let running = load.start();
    for n in 1..=rollovers {
        running.wait_acknowledged(n * records / (rollovers + 1));
        wait::until("a rollover", SOON, || {
            let rolled = client.request("POST", &format!("{stream}/_rollover"), None)?;
            // Not before the first document.
            if rolled.status == 200 {
                Ok(())
            } else {
                Err(rolled.text)
            }
        });
        servers[usize::from(n % 2 == 0)].crash();
    }
    let report = running.finish();
    check::eventually(&report.ledger, 2 * SOON, || client.documents(stream)).assert_clean();
    for server in &mut servers {
        assert!(server.terminate(SOON).success());
    }
    // What was not settled is written again by the next start, and changes nothing.
    for server in &mut servers {
        server.start_again();
    }
    check::eventually(&report.ledger, 2 * SOON, || client.documents(stream)).assert_clean();
    for server in &mut servers {
        assert!(server.terminate(SOON).success());
    }
    check::compare(&report.ledger, &client.documents(stream)).assert_clean();
    assert_eq!(client.count(stream), TRACES, "and nothing else");
    let generations = client.indices(&format!(".ds-{stream}-*"));
    assert!(generations.len() as u64 > rollovers, "{generations:?}");
}

#[test]
fn two_instances_over_rollovers_and_kills() {
    let node = need!(elasticsearch::shared());
    over_rollovers(node, "two-instances", 3);
}

#[test]
fn many_rounds_on_every_store() {
    let Some(rounds) = std::env::var("WINDROW_TEST_STREAM_ROUNDS").ok() else {
        return;
    };
    let rounds: u64 = rounds.parse().unwrap();
    for kind in [Kind::ELASTICSEARCH, Kind::ELASTICSEARCH_9, Kind::OPENSEARCH] {
        let node = need!(Node::start(kind));
        for round in 0..rounds {
            over_rollovers(&node, &format!("round-{round}"), 6);
            eprintln!("{}: round {round} is exact", kind.title());
        }
    }
}
