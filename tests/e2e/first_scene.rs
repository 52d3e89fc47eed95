//! First scene: two lines that share a trace id, logged with each language's official logger,
//! become exactly one document with the documented fields.

use serde_json::{Value, json};
use windrow_testkit::check::Stored;
use windrow_testkit::loggers::{Go, Java, Node, Package, Python, Sender};
use windrow_testkit::server::Server;
use windrow_testkit::{elasticsearch, need, wait};

use crate::{SOON, windrow};

/// The two lines of a request, and a line of another that must stay out of it.
fn lines(trace: &str) -> Vec<Value> {
    vec![
        json!({"traceId": trace, "message": "handler finished"}),
        json!({"traceId": format!("{trace}-other"), "message": "handler finished"}),
        json!({"traceId": trace, "message": "request completed", "method": "GET", "path": "/hello",
            "status": 200, "latencyMs": 52}),
    ]
}

/// The document is exactly that of the scene, plus `@timestamp` and `windrow`.
#[track_caller]
fn assert_is_the_scene(trace: &str, mut document: Value) {
    let fields = document.as_object_mut().unwrap();
    let time: jiff::Timestamp = fields
        .remove("@timestamp")
        .unwrap()
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(time > jiff::Timestamp::UNIX_EPOCH);
    let windrow = fields.remove("windrow").unwrap();
    assert_eq!(windrow["lines"], 2, "{windrow}");
    assert_eq!(windrow["reason"], "completed", "{windrow}");
    assert_eq!(
        document,
        json!({"traceId": trace, "message": "handler finished\nrequest completed", "method": "GET",
            "path": "/hello", "status": 200, "latencyMs": 52})
    );
}

/// Waits for the documents of a trace in `/logs`.
#[track_caller]
fn shown(server: &Server, trace: &str) -> Vec<Value> {
    wait::until(&format!("{trace} in /logs"), SOON, || {
        let found = server.logs(&format!("traceId={trace}"));
        if found.is_empty() {
            Err("nothing".to_owned())
        } else {
            Ok(found)
        }
    })
}

#[test]
fn the_python_logger_and_the_embedded_store() {
    let python = need!(Python::set_up());
    let server = windrow().sqlite().start();
    python.send(Sender::Sender, server.forward(), "app", &json!({}), &lines("abc"));
    let mut found = shown(&server, "abc");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_is_the_scene("abc", found.remove(0));
}

#[test]
fn the_python_logger_and_a_real_elasticsearch() {
    let python = need!(Python::set_up());
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let mut server = windrow().elasticsearch(&node.url(), "scene").start();
    python.send(
        Sender::Sender,
        server.forward(),
        "app",
        &json!({"nanosecond_precision": true}),
        &lines("abc"),
    );
    let mut found: Vec<Stored> = wait::until("the document", SOON, || {
        let found = client.term("scene-*", "traceId.keyword", "abc");
        if found.is_empty() {
            Err("nothing".to_owned())
        } else {
            Ok(found)
        }
    });
    assert_eq!(found.len(), 1, "{found:?}");
    let document = found.remove(0);
    assert_eq!(document.id, "abc");
    let day = document.source["@timestamp"].as_str().unwrap()[..10].to_owned();
    assert_eq!(
        document.index,
        format!("scene-{day}"),
        "the index of the first event's day"
    );
    assert_is_the_scene("abc", document.source);
    assert_eq!(
        client.term("scene-*", "traceId", "abc").len(),
        1,
        "traceId itself is a keyword too"
    );
    assert!(server.terminate(SOON).success());
    assert_eq!(client.term("scene-*", "traceId.keyword", "abc").len(), 1);
}

#[test]
fn the_node_loggers() {
    let node = need!(Node::set_up());
    let server = windrow().sqlite().start();
    for (package, mode) in [
        (Package::FluentLogger, "Message"),
        (Package::FluentLogger, "PackedForward"),
        (Package::FluentLogger, "CompressedPackedForward"),
        (Package::FluentOrg, "Message"),
        (Package::FluentOrg, "Forward"),
        (Package::FluentOrg, "PackedForward"),
        (Package::FluentOrg, "CompressedPackedForward"),
    ] {
        let trace = format!("{package:?}-{mode}");
        node.send(
            package,
            server.forward(),
            "app",
            &package.acked(mode),
            &lines(&trace),
        );
        let mut found = shown(&server, &trace);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_is_the_scene(&trace, found.remove(0));
    }
}

#[test]
fn the_go_logger() {
    let go = need!(Go::set_up());
    let server = windrow().sqlite().start();
    for asynchronous in [false, true] {
        let trace = format!("go-{asynchronous}");
        let options = json!({"request_ack": true, "sub_second_precision": true, "async": asynchronous});
        go.send(server.forward(), "app", &options, None, &lines(&trace));
        let mut found = shown(&server, &trace);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_is_the_scene(&trace, found.remove(0));
    }
}

#[test]
fn the_java_logger() {
    let java = need!(Java::set_up());
    let server = windrow().sqlite().start();
    java.send(
        server.forward(),
        "app",
        &json!({"ackResponseMode": true}),
        &lines("java"),
    );
    let mut found = shown(&server, "java");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_is_the_scene("java", found.remove(0));
}
