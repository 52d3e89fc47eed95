//! What changes under instances that hand over: the addresses of their name, their certificates, and
//! one of them between the parts of a line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use windrow_testkit::certificates::Certificates;
use windrow_testkit::client::Client;
use windrow_testkit::dns::{Dns, Reply};
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::{check, need, ports, wait};

use crate::{SOON, windrow};

#[track_caller]
fn wait_for_peers(server: &Server, metric: &str, count: f64) {
    wait::until(&format!("{count} in {metric}"), SOON, || {
        match server.metric(metric) {
            found if found == count => Ok(()),
            found => Err(format!("{found}: {}", server.get("/ready").text)),
        }
    });
}

/// A real resolver asks a real server: addresses come and go, the name is gone, nobody answers.
#[test]
fn the_addresses_of_a_name_change() {
    let address = |last: u8| Ipv4Addr::new(127, 0, 0, last);
    let named = |all: &[u8]| Reply::Addresses(all.iter().map(|last| address(*last)).collect());
    let dns = need!(Dns::start(named(&[11, 12])));
    let sink = FakeElasticsearch::start();
    let port = ports::free();
    let start = |last: u8| {
        windrow()
            .elasticsearch(&sink.url(), "named")
            .arg("--idle-timeout", "2s")
            .arg("--cluster-peers", format!("dns:windrow.test:{port}"))
            .under(dns.enter())
            .at(SocketAddr::from((address(last), port)))
            .start()
    };
    let mut servers = [11, 12, 13].map(start);
    let reachable = "windrow_cluster_peers_reachable";
    wait_for_peers(&servers[0], reachable, 1.0);
    wait_for_peers(&servers[1], reachable, 1.0);
    let running = Load {
        addresses: vec![servers[0].forward(), servers[2].forward()],
        traces: 5000,
        open: 300,
        connections: 2,
        chunk_records: 100,
        spread: true,
        rate: 1000,
        ack_timeout: Duration::from_secs(10),
        ..Load::new(servers[0].forward(), "n")
    }
    .start();
    dns.set(named(&[11, 12, 13]));
    servers
        .iter()
        .for_each(|server| wait_for_peers(server, reachable, 2.0));
    for nothing in [Reply::NoSuchName, Reply::Silence] {
        dns.set(nothing);
        wait::until("a note", SOON, || {
            let ready = servers[0].get("/ready");
            let said = ready.text.contains("windrow.test cannot be resolved");
            if ready.status == 200 && said {
                Ok(())
            } else {
                Err(ready.text)
            }
        });
        // The known ones stay in use; on a busy machine one may be slow for a moment.
        wait_for_peers(&servers[0], reachable, 2.0);
    }
    dns.set(named(&[11, 13]));
    wait::until("no note", SOON, || match servers[0].get("/ready").text {
        text if text.contains("resolved") => Err(text),
        _ => Ok(()),
    });
    // One that takes records stays, though it is no longer named.
    wait_for_peers(&servers[0], reachable, 2.0);
    assert!(servers[1].terminate(SOON).success());
    wait_for_peers(&servers[0], "windrow_cluster_peers", 1.0);
    let report = running.finish();
    // The traces that it had open are in its journal.
    servers[1].start_again();
    check::eventually(&report.ledger, 2 * SOON, || sink.documents("named-")).assert_clean();
    assert_eq!(sink.documents("named-").len(), 5000, "and nothing else");
    let handed = |server: &Server| server.metric("windrow_cluster_records_handed_over_total");
    assert!(handed(&servers[0]) > 0.0 && handed(&servers[2]) > 0.0);
}

fn put(certificates: &Certificates, folder: &Path) {
    let (cert, key) = certificates.server();
    for (from, to) in [
        (certificates.authority(), "ca.pem"),
        (cert, "cert.pem"),
        (key, "key.pem"),
    ] {
        std::fs::copy(from, folder.join(to)).unwrap();
    }
}

#[test]
fn a_new_authority_is_trusted_after_a_hangup() {
    let folder = tempfile::tempdir().unwrap();
    put(&Certificates::make(), folder.path());
    let ports = [ports::free(), ports::free()];
    let file = |name: &str| folder.path().join(name).display().to_string();
    let mut servers = ports.map(|port| {
        let setup = windrow()
            .sqlite()
            .port(port)
            .arg("--tls-cert", file("cert.pem"))
            .arg("--tls-key", file("key.pem"))
            .env("WINDROW_CLUSTER_TLS_CA", file("ca.pem"));
        ports
            .iter()
            .fold(setup, |setup, port| {
                setup.arg("--cluster-peers", format!("127.0.0.1:{port}"))
            })
            .start()
    });
    let reachable = "windrow_cluster_peers_reachable";
    wait_for_peers(&servers[0], reachable, 1.0);
    put(&Certificates::make(), folder.path());
    servers[0].process().signal(Signal::HUP);
    wait::until("the reload", SOON, || {
        match servers[0].metric("windrow_reloads_total") {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(servers[0].metric(reachable), 1.0, "the connection goes on");
    servers[1].kill();
    wait_for_peers(&servers[0], reachable, 0.0);
    servers[1].start_again();
    servers
        .iter()
        .for_each(|server| wait_for_peers(server, reachable, 1.0));
}

/// CRI marks all parts but the last, and the last one looks like a whole line, which could go to the
/// owner of its trace.
#[test]
fn the_parts_of_a_line_stay_together_over_a_restart() {
    const LINES: usize = 20;
    let sink = FakeElasticsearch::start();
    let ports = [ports::free(), ports::free()];
    let mut servers = ports.map(|port| {
        let setup = windrow()
            .elasticsearch(&sink.url(), "cri")
            .arg("--idle-timeout", "5m")
            .env("WINDROW_FORWARD_TAG_PREFIX", "edge.")
            .port(port);
        ports
            .iter()
            .fold(setup, |setup, port| {
                setup.arg("--cluster-peers", format!("127.0.0.1:{port}"))
            })
            .start()
    });
    let send = |server: &Server, mark: &str, text: &str| {
        let mut client = Client::connect(server.forward());
        for n in 0..LINES {
            let record =
                json!({"stream": "stdout", "logtag": mark, "log": text, "traceId": format!("line-{n}")});
            client.send(
                &format!("cri.{n}"),
                &format!("{mark}{n}"),
                &[(1_790_000_000, 0, record)],
            );
        }
    };
    wait_for_peers(&servers[0], "windrow_cluster_peers_reachable", 1.0);
    send(&servers[0], "P", "request ");
    servers[0].crash();
    wait_for_peers(&servers[0], "windrow_cluster_peers_reachable", 1.0);
    send(&servers[0], "F", "completed");
    wait::until("the whole lines", SOON, || {
        let documents = sink.documents("cri-");
        let whole = documents.iter().filter(|stored| {
            stored.source["log"] == "request completed" && stored.source["windrow"]["lines"] == 1
        });
        match (whole.count(), documents.len()) {
            (LINES, LINES) => Ok(()),
            other => Err(format!(
                "{other:?}: {:?}",
                documents.first().map(|one| &one.source)
            )),
        }
    });
    let kept = servers[0].metric("windrow_cluster_kept_total{reason=\"part_of_line\"}");
    assert_eq!(kept, LINES as f64);
}
