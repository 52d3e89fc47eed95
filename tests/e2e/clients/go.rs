//! `fluent-logger-golang`: synchronous and asynchronous, with acks, whole seconds and fractions, as
//! JSON, over TLS and a unix socket.
//!
//! It knows no handshake, so no shared key and no user; of TLS it has one option, not to verify the
//! server. Go's own trust store can be pointed at an authority (`SSL_CERT_FILE`), which is tried as
//! well. A client certificate it cannot show. Its JSON carries whole seconds only.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;
use windrow_testkit::certificates::Certificates;
use windrow_testkit::loggers::Go;
use windrow_testkit::{need, wait};

use super::{Guard, Guarded, Times, assert_nothing_else, delivers};
use crate::{SOON, windrow};

#[test]
fn every_form() {
    let go = need!(Go::set_up());
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("windrow.sock");
    let listen = format!("unix:{}", socket.display());
    let server = windrow().sqlite().arg("--listen", listen).start();
    let cases = [
        ("go-sync-", json!({}), Times::Seconds),
        ("go-fine-", json!({"sub_second_precision": true}), Times::Exact),
        ("go-acks-", json!({"request_ack": true}), Times::Seconds),
        (
            "go-acks-fine-",
            json!({"request_ack": true, "sub_second_precision": true}),
            Times::Exact,
        ),
        (
            "go-async-",
            json!({"async": true, "sub_second_precision": true}),
            Times::Exact,
        ),
        (
            "go-async-acks-",
            json!({"async": true, "request_ack": true, "sub_second_precision": true}),
            Times::Exact,
        ),
        ("go-json-", json!({"marshal_as_json": true}), Times::Seconds),
        (
            "go-json-acks-",
            json!({"marshal_as_json": true, "request_ack": true}),
            Times::Seconds,
        ),
        (
            "go-json-async-acks-",
            json!({"marshal_as_json": true, "request_ack": true, "async": true}),
            Times::Seconds,
        ),
        (
            "go-unix-",
            json!({"fluent_network": "unix", "fluent_socket_path": socket, "request_ack": true}),
            Times::Seconds,
        ),
    ];
    for (prefix, options, times) in &cases {
        delivers(&server, prefix, *times, |records| {
            go.send(server.forward(), "app", options, None, records);
        });
    }
    assert_nothing_else(&server, cases.len());
}

#[test]
fn over_tls() {
    let go = need!(Go::set_up());
    let guarded = Guard::Tls.start();
    let (server, authority) = (&guarded.server, guarded.certificates.authority());
    let tls = json!({"fluent_network": "tls", "request_ack": true, "sub_second_precision": true});
    delivers(server, "go-verified-", Times::Exact, |records| {
        go.send(server.forward(), "app", &tls, Some(&authority), records);
    });
    let unverified = super::with(tls, json!({"tls_insecure_skip_verify": true, "async": true}));
    delivers(server, "go-unverified-", Times::Exact, |records| {
        go.send(server.forward(), "app", &unverified, None, records);
    });
    let json = json!({"fluent_network": "tls", "marshal_as_json": true, "request_ack": true});
    delivers(server, "go-json-", Times::Seconds, |records| {
        go.send(server.forward(), "app", &json, Some(&authority), records);
    });
    assert_nothing_else(server, 3);
}

/// SIGHUP: connections from now on get the certificate that stands in the files now.
#[test]
fn over_tls_with_a_certificate_that_is_renewed() {
    let go = need!(Go::set_up());
    let mut guarded = Guard::Tls.start();
    let renewed = Certificates::make();
    let (old, new) = (guarded.certificates.server(), renewed.server());
    std::fs::copy(&new.0, &old.0).unwrap();
    std::fs::copy(&new.1, &old.1).unwrap();
    let tls = json!({"fluent_network": "tls", "request_ack": true, "sub_second_precision": true});
    let send = |guarded: &Guarded, prefix: &str, authority: &Path| {
        delivers(&guarded.server, prefix, Times::Exact, |records| {
            go.send(guarded.server.forward(), "app", &tls, Some(authority), records);
        });
    };
    // Until the server is told it shows the old one, which is not signed by the new authority.
    send(&guarded, "go-before-", &guarded.certificates.authority());
    guarded.server.process().signal(Signal::HUP);
    wait::until_true("the certificate to be read again", SOON, || {
        let said = guarded.server.process().stderr().join("\n");
        said.contains("certificates, secrets and log level reloaded")
    });
    send(&guarded, "go-after-", &renewed.authority());
    assert_nothing_else(&guarded.server, 2);
}
