//! Records without a trace id: one document each, also when a client sends its chunk again with
//! the same id and bytes, at once or after the server was killed.

use windrow_testkit::load::{Load, Mode};
use windrow_testkit::{check, elasticsearch, need};

use crate::{SOON, assert_stored, windrow};

fn plain(load: Load) -> Load {
    Load {
        trace_ids: false,
        traces: 400,
        repeat: 2,
        ..load
    }
}

#[test]
fn each_is_one_document_in_the_embedded_store() {
    let mut server = windrow().sqlite().start();
    for mode in [Mode::Forward, Mode::Packed, Mode::Gzip] {
        let load = plain(Load {
            mode,
            ..Load::new(server.forward(), &format!("{mode:?}-"))
        });
        let report = load.clone().run();
        assert_stored(&server, &report);
        server.crash();
        assert_stored(&server, &load.run());
    }
    assert!(server.terminate(SOON).success());
    assert_eq!(server.stored().len(), 3 * 2000);
}

#[test]
fn each_is_one_document_in_a_real_elasticsearch() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let mut server = windrow().elasticsearch(&node.url(), "plain").start();
    let load = plain(Load::new(server.forward(), "p"));
    let report = load.clone().run();
    check::eventually(&report.ledger, SOON, || client.documents("plain-*")).assert_clean();
    server.crash();
    let report = load.run();
    check::eventually(&report.ledger, SOON, || client.documents("plain-*")).assert_clean();
    assert!(server.terminate(SOON).success());
    assert_eq!(client.count("plain-*"), 2000);
}

/// Two clients log the same words with the same chunk id: two events of life, so two documents.
#[test]
fn equal_records_of_two_chunks_are_two_documents() {
    use serde_json::json;
    use windrow_testkit::client::Client;

    let mut server = windrow().sqlite().start();
    let record = json!({"message": "disk is full"});
    let mut client = Client::connect(server.forward());
    client.send(
        "host.a",
        "1",
        &[
            (1_790_000_000, 0, record.clone()),
            (1_790_000_000, 0, record.clone()),
        ],
    );
    client.send("host.b", "1", &[(1_790_000_000, 0, record)]);
    assert!(server.terminate(SOON).success());
    server.start_again();
    windrow_testkit::wait::until_true("three documents", SOON, || server.stored().len() == 3);
    for stored in server.stored() {
        assert_eq!(stored.source["message"], "disk is full");
        assert_eq!(stored.source.get("traceId"), None);
    }
}
