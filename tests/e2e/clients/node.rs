//! The two loggers of npm: `@fluent-org/logger` and `fluent-logger`, both with acks, shared key,
//! user and TLS.
//!
//! `fluent-logger` has no Forward mode. In its packed modes it asks for acks even with
//! `requireAckResponse` off and does not read them; when its process ends, the kernel answers those
//! bytes with a reset, which may overtake what it sent. So these modes are tried with acks only.
//! Its time is whole seconds unless the caller gives an `EventTime`.

use serde_json::{Value, json};
use windrow_testkit::loggers::{Node, Package};
use windrow_testkit::need;

use super::{Guard, Guarded, KEY, Times, USER, assert_nothing_else, delivers, with};
use crate::windrow;

const ALL: [(Package, &str); 7] = [
    (Package::FluentOrg, "Message"),
    (Package::FluentOrg, "Forward"),
    (Package::FluentOrg, "PackedForward"),
    (Package::FluentOrg, "CompressedPackedForward"),
    (Package::FluentLogger, "Message"),
    (Package::FluentLogger, "PackedForward"),
    (Package::FluentLogger, "CompressedPackedForward"),
];

#[test]
fn every_mode_with_and_without_acks() {
    let node = need!(Node::set_up());
    let server = windrow().sqlite().start();
    let mut clients = 0;
    for (package, mode) in ALL {
        let without = json!({"eventMode": mode});
        let mut forms = vec![
            ("acks-", package.acked(mode), Times::Exact),
            ("seconds-", package.acked(mode), Times::Seconds),
        ];
        if (package, mode) != (Package::FluentLogger, "PackedForward")
            && (package, mode) != (Package::FluentLogger, "CompressedPackedForward")
        {
            forms.push(("", without, Times::Exact));
        }
        for (form, options, times) in forms {
            delivers(&server, &format!("{package:?}-{mode}-{form}"), times, |records| {
                node.send(package, server.forward(), "app", &options, records);
            });
            clients += 1;
        }
    }
    assert_nothing_else(&server, clients);
}

/// Both packages name the options of the handshake alike.
fn security(user: bool) -> Value {
    let key = json!({"security": {"clientHostname": "client.example", "sharedKey": KEY}});
    let (username, password) = USER;
    let named = json!({"security": {"username": username, "password": password}});
    if user { with(key, named) } else { key }
}

fn tls(package: Package, guarded: &Guarded) -> Value {
    match package {
        Package::FluentLogger => json!({"tls": true, "tlsOptions": {"ca": guarded.ca()}}),
        Package::FluentOrg => json!({"socket": {"tls": {"ca": guarded.ca()}}}),
    }
}

#[track_caller]
fn behind(guard: Guard, modes: &[(Package, &str)], options: impl Fn(Package, &Guarded) -> Value) {
    let node = need!(Node::set_up());
    let guarded = guard.start();
    let server = &guarded.server;
    for &(package, mode) in modes {
        let options = with(package.acked(mode), options(package, &guarded));
        delivers(server, &format!("{package:?}-{mode}-"), Times::Exact, |records| {
            node.send(package, server.forward(), "app", &options, records);
        });
    }
    assert_nothing_else(server, modes.len());
}

const ONE_EACH: [(Package, &str); 2] = [
    (Package::FluentOrg, "PackedForward"),
    (Package::FluentLogger, "Message"),
];

#[test]
fn with_a_shared_key() {
    behind(Guard::Key, &ALL, |_, _| security(false));
}

#[test]
fn with_a_shared_key_and_a_user() {
    behind(Guard::KeyAndUser, &ONE_EACH, |_, _| security(true));
}

#[test]
fn over_tls() {
    behind(Guard::Tls, &ALL, tls);
}

#[test]
fn over_tls_with_a_shared_key_and_a_user() {
    behind(Guard::TlsKeyAndUser, &ONE_EACH, |package, guarded| {
        with(tls(package, guarded), security(true))
    });
}

#[test]
fn over_tls_with_a_client_certificate() {
    behind(Guard::ClientCertificate, &ONE_EACH, |package, guarded| {
        let (cert, key) = guarded.certificates.client();
        let read = |path| std::fs::read_to_string(path).unwrap();
        let own = json!({"cert": read(cert), "key": read(key)});
        let place = match package {
            Package::FluentLogger => json!({"tlsOptions": own}),
            Package::FluentOrg => json!({"socket": {"tls": own}}),
        };
        with(tls(package, guarded), place)
    });
}
