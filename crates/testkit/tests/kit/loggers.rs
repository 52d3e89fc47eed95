//! Tests of the official loggers and of Fluent Bit: each sends a record to a [`Capture`].

use std::time::Duration;

use serde_json::{Value, json};
use windrow_testkit::capture::Capture;
use windrow_testkit::loggers::{Go, Java, Node, Package, Python, Sender};
use windrow_testkit::need;

use super::{entries, field};

/// Sends one record and gives the tag and record that arrived.
fn through(capture: &Capture, send: impl FnOnce(&[Value])) -> (String, rmpv::Value) {
    send(&[json!({"traceId": "abc", "message": "hi", "status": 200})]);
    windrow_testkit::wait::until("the record", Duration::from_secs(10), || {
        let messages = capture.messages();
        let Some(message) = messages.first() else {
            return Err("nothing".to_owned());
        };
        let entry = match &message[1] {
            // Fluency packs entries into a string.
            rmpv::Value::String(text) => rmpv::decode::read_value(&mut text.as_bytes()).unwrap(),
            _ => entries(message).remove(0),
        };
        Ok((message[0].as_str().unwrap().to_owned(), entry[1].clone()))
    })
}

fn assert_arrived((tag, record): &(String, rmpv::Value)) {
    assert_eq!(tag, "app");
    assert_eq!(field(record, "traceId").unwrap().as_str(), Some("abc"));
    assert_eq!(field(record, "message").unwrap().as_str(), Some("hi"));
    let status = field(record, "status").unwrap();
    assert_eq!(status.as_f64(), Some(200.0), "{record}");
}

#[test]
fn python_sends() {
    let python = need!(Python::set_up());
    let capture = Capture::start();
    assert_arrived(&through(&capture, |records| {
        let options = json!({"nanosecond_precision": true});
        python.send(Sender::Sender, capture.address(), "app", &options, records);
    }));
}

#[test]
fn node_sends_in_every_mode() {
    let node = need!(Node::set_up());
    for package in [Package::FluentLogger, Package::FluentOrg] {
        for mode in ["Message", "Forward", "PackedForward", "CompressedPackedForward"] {
            if (package, mode) == (Package::FluentLogger, "Forward") {
                continue; // it has no such mode
            }
            let capture = Capture::start();
            let arrived = through(&capture, |records| {
                node.send(package, capture.address(), "app", &package.acked(mode), records);
            });
            assert_arrived(&arrived);
        }
    }
}

#[test]
fn go_sends() {
    let go = need!(Go::set_up());
    let capture = Capture::start();
    assert_arrived(&through(&capture, |records| {
        let options = json!({"request_ack": true, "sub_second_precision": true});
        go.send(capture.address(), "app", &options, None, records);
    }));
}

#[test]
fn java_sends() {
    let java = need!(Java::set_up());
    let capture = Capture::start();
    assert_arrived(&through(&capture, |records| {
        java.send(
            capture.address(),
            "app",
            &json!({"ackResponseMode": true}),
            records,
        );
    }));
}

#[test]
fn fluent_bit_sends_what_is_appended_to_a_file() {
    let fluent_bit = need!(windrow_testkit::fluent_bit::find());
    let capture = Capture::start();
    let configuration = format!(
        "[SERVICE]\n    Flush 0.2\n[INPUT]\n    Name tail\n    Path @FOLDER@/app.log\n    Tag app\n    Refresh_Interval 1\n    \
         Read_from_Head On\n[OUTPUT]\n    Name forward\n    Match *\n    Host 127.0.0.1\n    Port {}\n    \
         Require_ack_response true\n",
        capture.address().port()
    );
    let running = fluent_bit.start_with(&configuration, &[("app.log", "first\n")]);
    let lines = |wanted: &[&str]| {
        windrow_testkit::wait::until("the lines", Duration::from_secs(20), || {
            let found: Vec<String> = capture
                .messages()
                .iter()
                .flat_map(entries)
                .map(|entry| field(&entry[1], "log").unwrap().as_str().unwrap().to_owned())
                .collect();
            if found == wanted {
                Ok(())
            } else {
                Err(format!("{found:?}\n{}", running.log()))
            }
        });
    };
    lines(&["first"]);
    running.append("app.log", "second\n");
    lines(&["first", "second"]);
}
