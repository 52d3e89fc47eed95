//! `fluent-logger` of PyPI: the sender and the `logging` handler, each also in its asynchronous
//! form.
//!
//! It knows no acks, no handshake and no TLS (`fluent/sender.py` opens a plain socket and never
//! waits for an answer), so there is nothing to try with security; unix sockets it has.

use serde_json::json;
use windrow_testkit::loggers::{Python, Sender};
use windrow_testkit::need;

use super::{Times, assert_nothing_else, delivers};
use crate::windrow;

#[test]
fn seconds_nanoseconds_and_asynchronous() {
    let python = need!(Python::set_up());
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("windrow.sock").display());
    let server = windrow().sqlite().arg("--listen", &socket).start();
    let plain = json!({});
    let nanoseconds = json!({"nanosecond_precision": true});
    let unix = json!({"host": socket.replacen("unix:", "unix://", 1), "nanosecond_precision": true});
    let cases = [
        ("py-seconds-", Sender::Sender, &plain, Times::Seconds),
        ("py-nanos-", Sender::Sender, &nanoseconds, Times::Exact),
        ("py-async-", Sender::AsyncSender, &nanoseconds, Times::Exact),
        ("py-handler-", Sender::Handler, &plain, Times::Seconds),
        (
            "py-async-handler-",
            Sender::AsyncHandler,
            &nanoseconds,
            Times::Exact,
        ),
        ("py-unix-", Sender::Sender, &unix, Times::Exact),
    ];
    for (prefix, sender, options, times) in &cases {
        delivers(&server, prefix, *times, |records| {
            python.send(*sender, server.forward(), "app", options, records);
        });
    }
    assert_nothing_else(&server, cases.len());
}
