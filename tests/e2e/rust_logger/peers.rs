//! Other servers: Fluent Bit, the OpenTelemetry Collector and Windrow, with every security option,
//! acknowledge every event once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluent_logger::{Builder, Logger, Mode};
use serde_json::{Value, json};
use windrow_testkit::fluent_bit::Running;
use windrow_testkit::otel::Receiver;
use windrow_testkit::{fluent_bit, need, ports, wait};

use super::{exactly_once, record, tls};
use crate::{SOON, windrow};

const EVENTS: u64 = 500;

const MODES: [Mode; 4] = [Mode::Message, Mode::Forward, Mode::Packed, Mode::PackedGzip];

fn builder(address: impl Into<String>) -> Builder {
    Logger::builder()
        .address(address)
        .tag_prefix("app")
        .self_hostname("an-application")
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(200))
        .chunk_limit_events(64)
}

/// Logs events with ids from `first` on and waits until all are acknowledged.
#[track_caller]
fn log(builder: Builder, first: u64) {
    let troubles = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&troubles);
    let logger = builder
        .on_connection_error(move |error| told.lock().unwrap().push(error.to_string()))
        .build()
        .unwrap();
    for id in first..first + EVENTS {
        logger.log("web", &record(id)).unwrap();
    }
    let returned = logger.blocking_close(SOON).unwrap().len();
    assert_eq!(returned, 0, "not acknowledged; {:?}", troubles.lock().unwrap());
    assert_eq!(logger.stats().delivered, EVENTS);
}

/// What the logger says of a server that does not let it in.
#[track_caller]
fn trouble(builder: Builder, expected: &str) {
    let logger = builder.build().unwrap();
    logger.log("web", &record(0)).unwrap();
    wait::until(expected, SOON, || match logger.stats().last_error {
        Some(error) if error.contains(expected) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(logger.blocking_close(Duration::ZERO).unwrap().len(), 1);
}

/// TLS with the authority of the tests.
fn trusted(address: SocketAddr) -> Builder {
    builder(format!("tls://localhost:{}", address.port())).tls_ca_file(tls("ca.pem"))
}

fn with_client(builder: Builder) -> Builder {
    builder.tls_client_cert(tls("client.pem"), tls("client.key"))
}

#[test]
fn windrow_with_every_lock_it_has() {
    let file = |name: &str| tls(name).to_str().unwrap().to_owned();
    let mut server = windrow()
        .sqlite()
        .arg("--shared-key", "secret")
        .arg("--user", "shop:word")
        .arg("--tls-cert", file("server.pem"))
        .arg("--tls-key", file("server.key"))
        .arg("--tls-client-ca", file("ca.pem"))
        .start();
    let to = server.forward();
    let locked = |builder: Builder| with_client(builder).shared_key("secret").user("shop", "word");
    for (turn, mode) in (0..).zip(MODES) {
        log(locked(trusted(to)).mode(mode), turn * EVENTS);
    }
    let all = MODES.len() as u64 * EVENTS;
    wait::until("every record", SOON, || exactly_once(&server.stored(), 0..all));
    trouble(locked(trusted(to)).shared_key("wrong"), "shared");
    trouble(locked(trusted(to)).user("shop", "wrong"), "user");
    trouble(with_client(trusted(to)), "shared key");
    trouble(
        trusted(to).shared_key("secret").user("shop", "word"),
        "ertificate",
    );
    trouble(
        locked(builder(format!("tls://localhost:{}", to.port()))),
        "UnknownIssuer",
    );
    assert!(server.terminate(SOON).success());
    assert_eq!(
        server.stored().len() as u64,
        all,
        "and nothing from those without a key"
    );
}

#[test]
fn windrow_with_a_shared_key_or_with_tls_alone() {
    let mut keyed = windrow().sqlite().arg("--shared-key", "secret").start();
    log(builder(keyed.forward().to_string()).shared_key("secret"), 0);
    wait::until("every record", SOON, || exactly_once(&keyed.stored(), 0..EVENTS));
    assert!(keyed.terminate(SOON).success());
    let file = |name: &str| tls(name).to_str().unwrap().to_owned();
    let mut covered = windrow()
        .sqlite()
        .arg("--tls-cert", file("server.pem"))
        .arg("--tls-key", file("server.key"))
        .start();
    log(trusted(covered.forward()), 0);
    wait::until("every record", SOON, || {
        exactly_once(&covered.stored(), 0..EVENTS)
    });
    assert!(covered.terminate(SOON).success());
}

/// Ids in records that a server wrote, each once.
fn complete(received: &[Value], events: u64) -> Result<(), String> {
    let ids: Vec<u64> = received
        .iter()
        .filter_map(|record| record["id"].as_u64())
        .collect();
    let distinct: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "some came twice");
    if distinct == (0..events).collect() {
        Ok(())
    } else {
        Err(format!("{} of {events}", ids.len()))
    }
}

/// A Fluent Bit whose forward input has these options, after one round of all modes.
#[track_caller]
fn fluent_bit(
    program: &fluent_bit::FluentBit,
    options: &str,
    open: impl Fn(SocketAddr) -> Builder,
) -> (Running, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let configuration = format!(
        "[SERVICE]
    Flush 0.1
    Log_Level info
[INPUT]
    Name forward
    Listen 127.0.0.1
    Port {}
{options}
[OUTPUT]
    Name file
    Match *
    Path @FOLDER@
    File out.json
    Format plain
",
        address.port()
    );
    let files: Vec<(&str, String)> = ["ca.pem", "server.pem", "server.key"]
        .map(|name| (name, std::fs::read_to_string(tls(name)).unwrap()))
        .into();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, &**text)).collect();
    let running = program.start_with(&configuration, &files);
    for (turn, mode) in (0..).zip(MODES) {
        log(open(address).mode(mode), turn * EVENTS);
    }
    let all = MODES.len() as u64 * EVENTS;
    wait::until("everything in its file", SOON, || {
        let text = std::fs::read_to_string(running.folder().join("out.json")).unwrap_or_default();
        let received: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        complete(&received, all).map_err(|error| format!("{error}\n{}", running.log()))
    });
    (running, address)
}

const TLS: &str = "    tls on
    tls.crt_file @FOLDER@/server.pem
    tls.key_file @FOLDER@/server.key
";

#[test]
fn fluent_bit_acknowledges() {
    let program = need!(fluent_bit::find());
    fluent_bit(&program, "", |to| builder(to.to_string()));
}

#[test]
fn fluent_bit_with_a_shared_key_and_users() {
    let program = need!(fluent_bit::find());
    let options = "    Shared_Key secret
    Self_Hostname the-server
    Security.Users shop word
";
    fluent_bit(&program, options, |to| {
        builder(to.to_string()).shared_key("secret").user("shop", "word")
    });
}

#[test]
fn fluent_bit_over_tls_with_a_shared_key() {
    let program = need!(fluent_bit::find());
    let options = format!("    Shared_Key secret\n    Self_Hostname the-server\n{TLS}");
    let (_running, to) = fluent_bit(&program, &options, |to| trusted(to).shared_key("secret"));
    trouble(
        builder(format!("tls://localhost:{}", to.port())).shared_key("secret"),
        "UnknownIssuer",
    );
    trouble(trusted(to).shared_key("wrong"), "shared");
}

#[test]
fn fluent_bit_that_demands_a_client_certificate() {
    let program = need!(fluent_bit::find());
    let options = format!("{TLS}    tls.ca_file @FOLDER@/ca.pem\n    tls.verify_client_cert on\n");
    let (_running, to) = fluent_bit(&program, &options, |to| with_client(trusted(to)));
    trouble(trusted(to), "ertificate");
}

#[test]
fn the_opentelemetry_collector_acknowledges() {
    let receiver = need!(Receiver::set_up());
    let running = receiver.start();
    for (turn, mode) in (0..).zip(MODES) {
        log(builder(running.address().to_string()).mode(mode), turn * EVENTS);
    }
    let all = MODES.len() as u64 * EVENTS;
    wait::until("everything in its file", SOON, || {
        complete(&running.received(), all).map_err(|error| format!("{error}\n{}", running.log()))
    });
    let first = running.received().swap_remove(0);
    assert_eq!(
        (&first["fluent.tag"], &first["log"]),
        (&json!("app.web"), &json!("request completed")),
        "{first}"
    );
}
