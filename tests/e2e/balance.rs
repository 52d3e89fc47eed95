//! Load balancing over several Windrows behind one TCP balancer: the maximum age of connections,
//! the recycling of a client and a connection for each chunk spread clients evenly, and lose and
//! duplicate nothing.
//!
//! Each test begins with all clients on one server, as after the other's restart, and then lets the
//! balancer deal to both. Without spreading, the other would never get a record.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use windrow_testkit::balancer::Balancer;
use windrow_testkit::check;
use windrow_testkit::client::{Client, forward};
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::Load;
use windrow_testkit::server::{Server, Setup};
use windrow_testkit::{fluent_bit, need, wait};

use crate::{SOON, windrow};

/// Two servers with one store behind one balancer, which at first knows only one of them.
struct Two {
    sink: FakeElasticsearch,
    servers: [Server; 2],
    balancer: Balancer,
}

impl Two {
    fn start(with: impl Fn(Setup) -> Setup) -> Self {
        let sink = FakeElasticsearch::start();
        // A part without the completing line waits for the idle timeout.
        let setup = || {
            windrow()
                .elasticsearch(&sink.url(), "balance")
                .arg("--idle-timeout", "2s")
        };
        let server = || with(setup()).start();
        let servers = [server(), server()];
        let balancer = Balancer::start(&[servers[0].forward()]);
        Self {
            sink,
            servers,
            balancer,
        }
    }

    fn taken(&self) -> [f64; 2] {
        [0, 1].map(|n: usize| self.servers[n].metric("windrow_input_records_total"))
    }

    /// Lets the balancer deal to both, waits until the second one has a share, runs `rest`, and
    /// holds the shares of everything since then to 20 % of one half.
    #[track_caller]
    fn spreads<T>(&self, rest: impl FnOnce() -> T) -> T {
        wait::until_true("records on the first server", SOON, || self.taken()[0] >= 500.0);
        assert_eq!(self.taken()[1], 0.0, "the balancer deals to the first one only");
        let both: Vec<SocketAddr> = self.servers.iter().map(Server::forward).collect();
        self.balancer.deal_to(&both);
        wait::until("records on the second server", SOON, || {
            let taken = self.taken();
            if taken[1] >= 300.0 {
                Ok(())
            } else {
                Err(format!("{taken:?}"))
            }
        });
        let before = self.taken();
        let done = rest();
        let after = self.taken();
        let (first, second) = (after[0] - before[0], after[1] - before[1]);
        let half = (first + second) / 2.0;
        assert!(half >= 500.0, "too few records to judge by: {first} and {second}");
        assert!((first - half).abs() <= half * 0.2, "{first} and {second} records");
        done
    }

    /// A load through the balancer, slow enough to see the second server join.
    #[track_caller]
    fn load(&self, load: Load) {
        let load = Load {
            addresses: vec![self.balancer.address()],
            traces: 2000,
            open: 100,
            connections: 8,
            chunk_records: 20,
            rate: 2000,
            ..load
        };
        let running = load.start();
        let report = self.spreads(|| running.finish());
        check::eventually(&report.ledger, SOON, || self.sink.documents("balance-")).assert_clean();
        assert_eq!(self.sink.documents("balance-").len(), 2000, "and nothing else");
    }
}

/// Clients that would keep their connections for ever, one chunk at a time.
#[test]
fn by_the_age_of_connections() {
    let two = Two::start(|setup| setup.arg("--max-connection-age", "300ms"));
    two.load(Load::new(two.balancer.address(), "aged-"));
    let aged: f64 = two
        .servers
        .iter()
        .map(|server| server.metric("windrow_input_connections_aged_total"))
        .sum();
    assert!(aged >= 8.0, "{aged} connections closed for their age");
}

/// Clients that send ahead of their acks: what is on its way when the connection ends is sent again
/// elsewhere.
#[test]
fn by_the_age_of_connections_under_clients_that_send_ahead() {
    let two = Two::start(|setup| setup.arg("--max-connection-age", "300ms"));
    two.load(Load {
        window: 8,
        ..Load::new(two.balancer.address(), "ahead-")
    });
}

#[test]
fn by_clients_that_reconnect_for_every_chunk() {
    let two = Two::start(|setup| setup);
    two.load(Load {
        reconnect: 1,
        ..Load::new(two.balancer.address(), "each-")
    });
}

/// Fluent Bit with keepalive, which gives a connection up after a few uses.
#[test]
fn by_recycling_in_fluent_bit() {
    const ROUNDS: usize = 40;
    const FILES: usize = 8;
    const TRACES: usize = 10;
    let fluent_bit = need!(fluent_bit::find());
    let two = Two::start(|setup| setup);
    let configuration = format!(
        "[SERVICE]\n    Flush 0.2\n    Parsers_File @FOLDER@/parsers.conf\n    scheduler.base 1\n    scheduler.cap 2\n\
         [INPUT]\n    Name tail\n    Path @FOLDER@/*.log\n    Tag app.*\n    Parser json\n    Read_from_Head On\n    \
         Refresh_Interval 1\n\
         [OUTPUT]\n    Name forward\n    Match *\n    Host 127.0.0.1\n    Port {}\n    Require_ack_response true\n    \
         Retry_Limit no_limits\n    net.keepalive on\n    net.keepalive_max_recycle 2\n",
        two.balancer.address().port()
    );
    let parsers = ("parsers.conf", "[PARSER]\n    Name json\n    Format json\n");
    let running = fluent_bit.start_with(&configuration, &[parsers]);
    // Each round is a chunk of its own for every file, so that connections are used often.
    let write = || {
        for round in 0..ROUNDS {
            for file in 0..FILES {
                let mut text = String::new();
                for trace in 0..TRACES {
                    for line in ["step", "request completed"] {
                        let id = format!("recycled-{round}-{file}-{trace}");
                        writeln!(text, "{}", json!({"traceId": id, "message": line})).unwrap();
                    }
                }
                running.append(&format!("{file}.log"), &text);
            }
            let expected = ((round + 1) * FILES * TRACES * 2) as f64;
            wait::until("the round on the servers", SOON, || {
                let taken: f64 = two.taken().iter().sum();
                if taken >= expected {
                    Ok(())
                } else {
                    Err(format!("{taken} of {expected} records\n{}", running.log()))
                }
            });
        }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        two.spreads(|| writer.join().unwrap());
    });
    wait::until("whole documents", SOON, || {
        let documents = two.sink.documents("balance-");
        let whole = documents
            .iter()
            .filter(|stored| stored.source["message"] == "step\nrequest completed")
            .count();
        if (documents.len(), whole) == (ROUNDS * FILES * TRACES, documents.len()) {
            Ok(())
        } else {
            Err(format!("{} documents, {whole} whole", documents.len()))
        }
    });
}

/// A message that has begun is read to its end and acknowledged, however old the connection is
/// meanwhile.
#[test]
fn an_old_connection_is_not_closed_inside_a_message() {
    let server = windrow().sqlite().arg("--max-connection-age", "200ms").start();
    let mut client = Client::connect(server.forward());
    let event = |n: u32| (1_790_000_000, n, json!({"n": n}));
    let first = forward("app", Some("first"), &[event(1)]);
    let second = forward("app", Some("second"), &[event(2), event(3)]);
    let (begin, rest) = second.split_at(second.len() / 2);
    client.write(&[&first, begin].concat());
    assert_eq!(client.ack().as_deref(), Some("first"));
    // Five times the age: had it been counted inside the message, the connection would be gone.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.metric("windrow_input_connections_aged_total"), 0.0);
    client.write(rest);
    assert_eq!(client.ack().as_deref(), Some("second"));
    assert_eq!(client.ack(), None, "and closed behind the ack");
    wait::until_true("the closing counted", SOON, || {
        server.metric("windrow_input_connections_aged_total") == 1.0
    });
    wait::until_true("three records", SOON, || server.stored().len() == 3);
}
