//! Standard clients against the server, unchanged, with and without security: each sends 200 traces
//! of 5 lines, and each trace must be one document with every line once, in order, with the fields
//! and the time that the client was given.
//!
//! One file for each language. What a library cannot do stands in its file.

mod fluent_bit;
mod fluent_bit_records;
mod go;
mod java;
mod kubernetes;
mod node;
mod python;

use std::path::Path;

use serde_json::{Value, json};
use windrow_testkit::certificates::Certificates;
use windrow_testkit::check;
use windrow_testkit::load::{Load, Time};
use windrow_testkit::server::{Server, Setup};

use crate::{SOON, windrow};

const TRACES: u64 = 200;
const LINES: u32 = 5;

const KEY: &str = "a shared key";
const USER: (&str, &str) = ("alice", "s3cret");

/// How exact the event times are that a client sends.
#[derive(Clone, Copy)]
enum Times {
    /// Whole seconds.
    Seconds,
    /// Milliseconds at least.
    Exact,
}

/// A server with whatever it asks of clients.
struct Guarded {
    server: Server,
    certificates: Certificates,
}

/// What a server asks of its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Key,
    KeyAndUser,
    Tls,
    TlsKeyAndUser,
    ClientCertificate,
}

impl Guard {
    fn start(self) -> Guarded {
        let certificates = Certificates::make();
        let mut setup = windrow().sqlite();
        if matches!(self, Self::Key | Self::KeyAndUser | Self::TlsKeyAndUser) {
            setup = setup.arg("--shared-key", KEY);
        }
        if matches!(self, Self::KeyAndUser | Self::TlsKeyAndUser) {
            let (name, password) = USER;
            // Several, so that the right one must be found.
            setup = setup
                .arg("--user", "bob:other")
                .arg("--user", format!("{name}:{password}"));
        }
        if matches!(self, Self::Tls | Self::TlsKeyAndUser | Self::ClientCertificate) {
            setup = with_tls(setup, &certificates);
        }
        if self == Self::ClientCertificate {
            setup = setup.arg("--tls-client-ca", shown(&certificates.authority()));
        }
        Guarded {
            server: setup.start(),
            certificates,
        }
    }
}

impl Guarded {
    /// The PEM text of the authority that clients must trust.
    fn ca(&self) -> String {
        std::fs::read_to_string(self.certificates.authority()).unwrap()
    }
}

fn with_tls(setup: Setup, certificates: &Certificates) -> Setup {
    let (cert, key) = certificates.server();
    setup
        .arg("--tls-cert", shown(&cert))
        .arg("--tls-key", shown(&key))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Has a logger send the records of a load, and holds the store to them.
#[track_caller]
fn delivers(server: &Server, prefix: &str, times: Times, send: impl FnOnce(&[Value])) {
    let load = Load {
        traces: TRACES,
        lines: LINES,
        open: TRACES,
        time: match times {
            Times::Seconds => Time::Integer,
            Times::Exact => Time::EventTime,
        },
        per_second: match times {
            Times::Seconds => 1,
            Times::Exact => 1000,
        },
        ..Load::new(server.forward(), prefix)
    };
    let (records, ledger) = load.by_logger();
    send(&records);
    check::eventually(&ledger, SOON, || server.stored()).assert_clean();
}

/// So many clients have sent to this server: their documents are there, and nothing else, neither
/// stored nor put aside.
#[track_caller]
fn assert_nothing_else(server: &Server, clients: usize) {
    let documents = clients * usize::try_from(TRACES).unwrap();
    assert_eq!(server.stored().len(), documents, "and nothing else");
    assert_eq!(server.metric("windrow_input_violations_total"), 0.0);
    assert_eq!(server.metric("windrow_records_dead_letter_total"), 0.0);
}

/// One JSON object over another, inner objects too.
fn with(mut options: Value, more: Value) -> Value {
    if let (Value::Object(options), Value::Object(more)) = (&mut options, more) {
        for (name, value) in more {
            let inner = options.remove(&name).unwrap_or_else(|| json!({}));
            let merged = if value.is_object() {
                with(inner, value)
            } else {
                value
            };
            options.insert(name, merged);
        }
    }
    options
}
