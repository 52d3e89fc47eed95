//! Fluency: with and without acks, whole seconds and `EventTime`, over TLS.
//!
//! It has no handshake (`FluencyBuilderForFluentd` knows neither shared key nor user).

use serde_json::json;
use windrow_testkit::loggers::Java;
use windrow_testkit::need;

use super::{Guard, Times, assert_nothing_else, delivers};
use crate::windrow;

#[test]
fn with_and_without_acks() {
    let java = need!(Java::set_up());
    let server = windrow().sqlite().start();
    for (prefix, acks, times) in [
        ("java-seconds-", false, Times::Seconds),
        ("java-fine-", false, Times::Exact),
        ("java-acks-", true, Times::Exact),
    ] {
        let options = json!({"ackResponseMode": acks});
        delivers(&server, prefix, times, |records| {
            java.send(server.forward(), "app", &options, records);
        });
    }
    assert_nothing_else(&server, 3);
}

#[test]
fn over_tls() {
    let java = need!(Java::set_up());
    let guarded = Guard::Tls.start();
    let server = &guarded.server;
    let options = json!({"ackResponseMode": true, "sslEnabled": true, "ca": guarded.ca()});
    delivers(server, "java-tls-", Times::Exact, |records| {
        java.send(server.forward(), "app", &options, records);
    });
    assert_nothing_else(server, 1);
}
