//! Routes with outputs other than Elasticsearch, and through the dead letter: lines of one trace with
//! different destinations stay apart, wherever a document waits or is written.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use windrow_testkit::client::Client;
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

const T: u32 = 1_790_000_000;
const ROUTES: &str = r#"[
{ when = { namespace = "noise" }, drop = true },
{ when = { namespace = "billing" }, index = "billing-%Y.%m.%d" },
]"#;

fn send(server: &Server) {
    send_to(server.forward());
}

/// Sends lines of one trace in three namespaces, one of which is dropped.
fn send_to(address: SocketAddr) {
    let line =
        |namespace: &str, text: &str| json!({"traceId": "t1", "namespace": namespace, "message": text});
    let lines = [
        (T, 1, line("shop", "begins")),
        (T, 2, line("billing", "charges")),
        (T, 3, line("noise", "pings")),
        (T, 4, line("billing", "request completed")),
        (T, 5, line("shop", "request completed")),
    ];
    Client::connect(address).send("app", "c1", &lines);
}

const SHOP: &str = "begins\nrequest completed";
const BILLING: &str = "charges\nrequest completed";

/// Waits until the store has these texts of the trace, in the order of the destinations.
#[track_caller]
fn wait_for_rows(server: &Server, wanted: &[&str]) {
    wait::until("a document for each destination", SOON, || {
        let found = server.logs("traceId=t1");
        let texts: Vec<_> = found
            .iter()
            .filter_map(|found| found["message"].as_str())
            .collect();
        if texts == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

#[test]
fn each_destination_is_a_row_of_the_embedded_store() {
    let mut server = windrow().sqlite().env("WINDROW_ROUTE", ROUTES).start();
    send(&server);
    wait_for_rows(&server, &[SHOP, BILLING]);
    // Sent again after a crash, and a late line: still one row for each.
    server.crash();
    send(&server);
    let late = json!({"traceId": "t1", "namespace": "billing", "message": "receipt"});
    Client::connect(server.forward()).send("app", "c2", &[(T, 9, late)]);
    wait_for_rows(&server, &[SHOP, &format!("{BILLING}\nreceipt")]);
    let found = server.get("/api/v1/traces/t1").json();
    assert_eq!(found["traces"].as_array().unwrap().len(), 2, "{found}");
    assert!(server.terminate(SOON).success());
}

#[test]
fn standard_output_names_the_index_of_a_route() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args([
            "serve",
            "--output",
            "stdout",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "none",
        ])
        .args(["--linger", "200ms", "--data-dir"])
        .arg(folder.path())
        .env("WINDROW_ROUTE", ROUTES)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // With this output the addresses go to standard error.
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = said
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("forward listening on ")?.parse().ok())
        .unwrap();
    send_to(address);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let documents: Vec<String> = lines.map_while(Result::ok).take(2).collect();
    assert_eq!(documents.len(), 2, "{documents:?}");
    for document in documents {
        let is_billing = document.contains("charges");
        assert_eq!(
            document.starts_with(r#"{"_index":"billing-2026.09.21","#),
            is_billing
        );
        let document: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["message"], if is_billing { BILLING } else { SHOP });
        assert_eq!(document.get("_index").is_some(), is_billing, "{document}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_refused_document_is_replayed_to_its_destination() {
    let sink = FakeElasticsearch::with(Faults {
        poison: Some("charges".to_owned()),
        ..Faults::default()
    });
    let mut server = windrow()
        .elasticsearch(&sink.url(), "shop")
        .env("WINDROW_ROUTE", ROUTES)
        .start();
    send(&server);
    wait::until("the dead letter", SOON, || {
        match server.metric("windrow_dead_letter_documents_total") {
            dead if (dead - 1.0).abs() < 0.5 => Ok(()),
            dead => Err(format!("{dead} dead")),
        }
    });
    sink.set(Faults::default());
    let output = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args([
            "replay",
            "--output",
            "elasticsearch",
            "--elasticsearch-url",
            &sink.url(),
        ])
        .args(["--index", "shop-%Y-%m-%d", "--data-dir"])
        .arg(server.data())
        .env("WINDROW_ROUTE", ROUTES)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let texts = |prefix: &str| -> Vec<Value> {
        let found = sink.documents(prefix);
        found
            .into_iter()
            .map(|mut found| found.source["message"].take())
            .collect()
    };
    assert_eq!(
        (texts("shop-"), texts("billing-")),
        (vec![json!(SHOP)], vec![json!(BILLING)])
    );
    assert!(server.terminate(SOON).success());
}
