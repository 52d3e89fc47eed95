//! Several Windrows that hand records over to the owners of their traces: each receives a part of
//! every trace, one of them gathers it.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use windrow_testkit::balancer::Balancer;
use windrow_testkit::certificates::Certificates;
use windrow_testkit::check;
use windrow_testkit::client::{Client, forward};
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::{Load, Report};
use windrow_testkit::server::{Server, Setup};
use windrow_testkit::{ports, wait};

use crate::{SOON, windrow};

/// Instances that know each other, with one store.
struct Cluster {
    sink: FakeElasticsearch,
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts `count` instances and waits until all hand over to all.
    #[track_caller]
    fn start(count: usize) -> Self {
        let sink = FakeElasticsearch::start();
        let ports: Vec<u16> = (0..count).map(|_| ports::free()).collect();
        let start = |port: &u16| {
            let setup = windrow()
                .elasticsearch(&sink.url(), "cluster")
                .arg("--idle-timeout", "2s")
                .port(*port);
            let setup = ports.iter().fold(setup, |setup, peer| {
                setup.arg("--cluster-peers", format!("127.0.0.1:{peer}"))
            });
            setup.start()
        };
        let servers = ports.iter().map(start).collect();
        let cluster = Self { sink, servers };
        cluster.wait_together(&(0..count).collect::<Vec<_>>());
        cluster
    }

    /// Waits until each of these instances reaches all others of them, and nobody else.
    #[track_caller]
    fn wait_together(&self, running: &[usize]) {
        let others = (running.len() - 1) as f64;
        for server in running {
            let server = &self.servers[*server];
            wait::until("its peers", SOON, || {
                match server.metric("windrow_cluster_peers_reachable") {
                    reached if reached == others => Ok(()),
                    reached => Err(format!("{reached} of {others}: {}", server.get("/ready").text)),
                }
            });
        }
    }

    fn load(&self, name: &str, traces: u64) -> Load {
        Load {
            addresses: self.servers.iter().map(Server::forward).collect(),
            traces,
            open: 300,
            connections: 3,
            chunk_records: 100,
            spread: true,
            ack_timeout: Duration::from_secs(10),
            ..Load::new(self.servers[0].forward(), name)
        }
    }

    fn sum(&self, metric: &str) -> f64 {
        self.servers.iter().map(|server| server.metric(metric)).sum()
    }

    #[track_caller]
    fn assert_exact(&self, report: &Report, traces: usize) {
        check::eventually(&report.ledger, 2 * SOON, || self.sink.documents("cluster-")).assert_clean();
        assert_eq!(self.sink.documents("cluster-").len(), traces, "and nothing else");
    }

    /// No record is counted twice or not at all.
    #[track_caller]
    fn assert_balanced(&self) {
        for server in &self.servers {
            wait::until_true("a balanced account", SOON, || {
                server.metric("windrow_audit_difference") == 0.0
            });
        }
    }
}

#[test]
fn each_trace_is_gathered_by_one_of_three() {
    let cluster = Cluster::start(3);
    let report = cluster.load("o", 3000).run();
    cluster.assert_exact(&report, 3000);
    cluster.assert_balanced();
    let handed = cluster.sum("windrow_cluster_records_handed_over_total");
    let sent = 3000.0 * 5.0;
    println!(
        "{:.3} of the records handed over; {} conflicts; kept {}",
        handed / sent,
        cluster.sink.counts().conflicts,
        cluster.sum("windrow_cluster_kept_total"),
    );
    assert!(
        handed > 0.4 * sent,
        "two thirds are expected, and some may be kept on a busy machine"
    );
    // One hop: a record that a client sent once is gathered once, unless it was kept after a timeout
    // and the owner took it as well.
    let gathered = cluster.sum("windrow_input_records_total");
    assert!(gathered >= sent, "{gathered}");
    if cluster.sum("windrow_cluster_kept_total") == 0.0 {
        assert_eq!(gathered, sent);
    }
}

#[test]
fn one_is_killed_again_and_again() {
    let mut cluster = Cluster::start(3);
    let running = Load {
        rate: 6000,
        ..cluster.load("k", 5000)
    }
    .start();
    for kill in 1..=4 {
        running.wait_acknowledged(kill * 5000);
        cluster.servers[kill as usize % 3].crash();
    }
    let report = running.finish();
    cluster.assert_exact(&report, 5000);
    println!("{} conflicts in 5000 traces", cluster.sink.counts().conflicts);
}

#[test]
fn one_hangs_for_a_while() {
    let mut cluster = Cluster::start(3);
    let running = Load {
        // The clients of the one that hangs wait for it.
        addresses: vec![cluster.servers[0].forward(), cluster.servers[1].forward()],
        rate: 5000,
        ..cluster.load("h", 4000)
    }
    .start();
    running.wait_acknowledged(4000);
    cluster.servers[2].process().signal(Signal::STOP);
    running.wait_acknowledged(14_000);
    cluster.servers[2].process().signal(Signal::CONT);
    let report = running.finish();
    cluster.assert_exact(&report, 4000);
    assert!(
        cluster.sum("windrow_cluster_kept_total") > 0.0,
        "what was on its way to it was kept"
    );
    cluster.wait_together(&[0, 1, 2]);
    println!("{} conflicts in 4000 traces", cluster.sink.counts().conflicts);
}

#[test]
fn one_joins_and_another_leaves() {
    let mut cluster = Cluster::start(3);
    assert!(cluster.servers[2].terminate(SOON).success());
    cluster.wait_together(&[0, 1]);
    let ready = cluster.servers[0].get("/ready");
    assert_eq!(ready.status, 200);
    assert!(ready.text.contains("is away"), "{}", ready.text);
    let running = Load {
        addresses: vec![cluster.servers[0].forward(), cluster.servers[1].forward()],
        rate: 5000,
        ..cluster.load("j", 5000)
    }
    .start();
    running.wait_acknowledged(5000);
    cluster.servers[2].start_again();
    cluster.wait_together(&[0, 1, 2]);
    running.wait_acknowledged(15_000);
    assert!(cluster.servers[1].terminate(SOON).success());
    cluster.wait_together(&[0, 2]);
    cluster.servers[1].start_again();
    let report = running.finish();
    cluster.assert_exact(&report, 5000);
    println!("{} conflicts in 5000 traces", cluster.sink.counts().conflicts);
}

/// Each reaches the third one, and for a while not each other.
#[test]
fn two_cannot_reach_each_other() {
    let sink = FakeElasticsearch::start();
    let ports: Vec<u16> = (0..3).map(|_| ports::free()).collect();
    let address = |n: usize| SocketAddr::from(([127, 0, 0, 1], ports[n]));
    let ways = [Balancer::start(&[address(0)]), Balancer::start(&[address(1)])];
    let start = |own: usize, peers: [SocketAddr; 2]| {
        let setup = windrow()
            .elasticsearch(&sink.url(), "cluster")
            .arg("--idle-timeout", "2s")
            .port(ports[own]);
        let setup = peers.iter().fold(setup, |setup, peer| {
            setup.arg("--cluster-peers", peer.to_string())
        });
        setup.start()
    };
    let servers = vec![
        start(0, [ways[1].address(), address(2)]),
        start(1, [ways[0].address(), address(2)]),
        start(2, [address(0), address(1)]),
    ];
    let cluster = Cluster { sink, servers };
    cluster.wait_together(&[0, 1, 2]);
    let running = Load {
        rate: 5000,
        ..cluster.load("p", 5000)
    }
    .start();
    running.wait_acknowledged(5000);
    ways.iter().for_each(Balancer::cut);
    running.wait_acknowledged(15_000);
    for server in &cluster.servers[..2] {
        assert_eq!(server.metric("windrow_cluster_peers_reachable"), 1.0);
        assert_eq!(server.get("/ready").status, 200);
    }
    ways[0].deal_to(&[address(0)]);
    ways[1].deal_to(&[address(1)]);
    let report = running.finish();
    cluster.assert_exact(&report, 5000);
    cluster.wait_together(&[0, 1, 2]);
    println!("{} conflicts in 5000 traces", cluster.sink.counts().conflicts);
}

/// With everything that the Forward port can ask for.
#[test]
fn peers_prove_themselves_as_clients_do() {
    let certificates = Certificates::make();
    let sink = FakeElasticsearch::start();
    let ports = [ports::free(), ports::free()];
    let shown = |path: std::path::PathBuf| path.display().to_string();
    let (cert, key) = certificates.server();
    let setup = |setup: Setup| {
        let setup = setup
            .elasticsearch(&sink.url(), "cluster")
            .arg("--shared-key", "secret")
            .arg("--user", "shop:word")
            .arg("--tls-cert", shown(cert.clone()))
            .arg("--tls-key", shown(key.clone()))
            .env("WINDROW_CLUSTER_TLS_CA", shown(certificates.authority()))
            .env("WINDROW_FORWARD_PROXY_PROTOCOL", "true");
        ports.iter().fold(setup, |setup, port| {
            setup.arg("--cluster-peers", format!("127.0.0.1:{port}"))
        })
    };
    let servers = ports
        .iter()
        .map(|port| setup(windrow()).port(*port).start())
        .collect();
    let cluster = Cluster { sink, servers };
    cluster.wait_together(&[0, 1]);
    let stranger = windrow()
        .sqlite()
        .arg("--shared-key", "other")
        .arg("--cluster-peers", cluster.servers[0].forward().to_string())
        .start();
    wait::until("a note", SOON, || {
        let ready = stranger.get("/ready");
        if ready.text.contains("is away") {
            Ok(())
        } else {
            Err(ready.text)
        }
    });
    assert_eq!(stranger.metric("windrow_cluster_peers_reachable"), 0.0);
}

/// A name that has no address, and one that is found: what is known stays in use.
#[test]
fn a_name_without_an_address_is_said_and_harms_nothing() {
    let sink = FakeElasticsearch::start();
    let port = ports::free();
    let server = windrow()
        .elasticsearch(&sink.url(), "cluster")
        .arg("--cluster-peers", "dns:no-such-name.invalid:24224")
        .arg("--cluster-peers", format!("dns:localhost:{port}"))
        .port(port)
        .start();
    let report = Load::new(server.forward(), "d").run();
    check::eventually(&report.ledger, SOON, || sink.documents("cluster-")).assert_clean();
    wait::until("a note", SOON, || {
        let ready = server.get("/ready");
        let said = ready.text.contains("no-such-name.invalid cannot be resolved");
        if ready.status == 200 && said {
            Ok(())
        } else {
            Err(ready.text)
        }
    });
    assert_eq!(
        server.metric("windrow_cluster_records_handed_over_total"),
        0.0,
        "it knows itself"
    );
}

/// A server that is no member acknowledges a hello as it does any chunk.
#[test]
fn one_without_the_key_is_handed_nothing() {
    let sink = FakeElasticsearch::start();
    let other = windrow().elasticsearch(&sink.url(), "cluster").start();
    let server = windrow()
        .elasticsearch(&sink.url(), "cluster")
        .arg("--cluster-peers", other.forward().to_string())
        .start();
    wait::until("a note", SOON, || {
        let ready = server.get("/ready");
        if ready.text.contains("set cluster.peers there") {
            Ok(())
        } else {
            Err(ready.text)
        }
    });
    let report = Load::new(server.forward(), "f").run();
    check::eventually(&report.ledger, SOON, || sink.documents("cluster-")).assert_clean();
    assert_eq!(other.metric("windrow_input_records_total"), 0.0);
}

/// The option that names a record's place in its chunk is not taken from a client.
#[test]
fn a_client_cannot_choose_the_identity_of_its_records() {
    let cluster = Cluster::start(2);
    let mut client = Client::connect(cluster.servers[0].forward());
    let event = |n: u32| {
        (
            1_790_000_000,
            n,
            serde_json::json!({"traceId": "t", "message": n}),
        )
    };
    for n in 0..3u32 {
        let mut message = forward("app", Some(&n.to_string()), &[event(n)]);
        // One more pair than the option map had.
        let at = message
            .windows(6)
            .position(|bytes| bytes == b"\xa5chunk")
            .unwrap()
            - 1;
        message[at] += 1;
        let mut value = vec![1];
        value.extend_from_slice(&[7; 28]);
        value.push(0);
        message.extend_from_slice(b"\xadwindrow_share\xc4");
        message.push(value.len() as u8);
        message.extend_from_slice(&value);
        client.write(&message);
        assert_eq!(client.ack(), Some(n.to_string()));
    }
    wait::until("three lines", SOON, || {
        let documents = cluster.sink.documents("cluster-");
        let lines = documents
            .iter()
            .map(|stored| stored.source["windrow"]["lines"].as_u64());
        match lines.flatten().sum::<u64>() {
            3 => Ok(()),
            lines => Err(format!("{lines} lines")),
        }
    });
}
