//! The 40 client cases: scripted servers for a client library behind an adapter program.
//!
//! Each case starts its own listeners, runs the adapter once, sends it commands (JSON lines on
//! stdin), receives events (JSON lines on stdout), and checks these and the bytes on the wire. The
//! adapter contract is in `README.md`.

mod adapter;
mod basics;
mod delivery;
mod limits;
mod network;
mod resilience;
mod security;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::case_result::{CaseError, RunningCase};
use crate::report::{Expectations, Finding, Outcome, Report};
use crate::run::{run_to_outcome, selected};
use adapter::Adapter;

/// Options of a run of the client cases.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The adapter, run with `sh -c`.
    pub command: String,
    /// Which cases: numbers, ranges and name globs, separated by commas; empty means all.
    pub filter: String,
    /// Certificate, key and authority for the TLS case; none: it is skipped.
    pub tls: Option<ServerTls>,
    /// How long to wait for an expected action of the client.
    pub reply_timeout: Duration,
    /// How many cases may run at once.
    pub parallel: usize,
}

impl ClientOptions {
    /// Options with the default timeouts for this adapter command.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            filter: String::new(),
            tls: None,
            reply_timeout: Duration::from_secs(10),
            parallel: 4,
        }
    }
}

/// PEM files for TLS of the scripted server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate chain of the server; its name must be `server.example`.
    pub chain: PathBuf,
    /// Key of the server.
    pub key: PathBuf,
    /// The certificate authority that the client trusts.
    pub ca: PathBuf,
    /// Certificate and key for the client, signed by `ca`; none: client certificates are not tried.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A client case: one expectation of the protocol.
#[derive(Clone)]
pub struct ClientCase {
    /// The number in the list of client cases; stable.
    pub number: u16,
    /// A short name; stable.
    pub name: &'static str,
    /// Where the expectation comes from (keys: README).
    pub source: &'static str,
    /// The expectation in words.
    pub text: &'static str,
    run: fn(ClientContext) -> RunningCase,
}

impl std::fmt::Debug for ClientCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCase")
            .field("number", &self.number)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Rows of `number name source expectation => function;`
macro_rules! client_cases {
    ($($number:literal $name:literal $source:literal $text:literal => $run:path;)*) => {
        pub(super) fn cases() -> Vec<$crate::client_cases::ClientCase> {
            vec![$($crate::client_cases::ClientCase {
                number: $number,
                name: $name,
                source: $source,
                text: $text,
                run: |ctx| Box::pin($run(ctx)),
            }),*]
        }
    };
}
use client_cases;

/// All client cases in order of number.
pub fn all() -> Vec<ClientCase> {
    let mut cases = [
        basics::cases(),
        delivery::cases(),
        resilience::cases(),
        limits::cases(),
        security::cases(),
        network::cases(),
    ]
    .concat();
    cases.sort_by_key(|c| c.number);
    cases
}

/// The context of one run of a client case.
#[derive(Clone)]
struct ClientContext {
    options: Arc<ClientOptions>,
    number: u16,
    name: &'static str,
}

/// Default event time of the client cases: seconds and nanoseconds.
const TIME: [i64; 2] = [1_700_000_000, 123_456_789];

impl ClientContext {
    fn reply_timeout(&self) -> Duration {
        self.options.reply_timeout
    }

    /// Starts the adapter and opens a client on these endpoints; `more` overrides the default
    /// options.
    async fn open(&self, endpoints: &[String], more: Value) -> Result<Adapter, CaseError> {
        let mut client: Map<String, Value> = Map::new();
        for key in [
            "shared_key",
            "username",
            "password",
            "salt",
            "tls",
            "connect_timeout_ms",
            "handshake_timeout_ms",
            "write_timeout_ms",
            "retry_limit",
            "max_batch_bytes",
            "max_batch_events",
            "max_event_bytes",
            "buffer_bytes",
            "buffer_events",
            "overflow",
            "block_timeout_ms",
            "max_connection_age_ms",
            "pipeline",
        ] {
            client.insert(key.into(), Value::Null);
        }
        let usual = json!({
            "endpoints": endpoints, "mode": "forward", "ack": true, "tag": "t.a", "self_hostname": "client.example",
            "flush_interval_ms": 10, "ack_timeout_ms": 5000, "retry_initial_ms": 50, "retry_max_ms": 400,
        });
        for part in [usual, more] {
            if let Value::Object(part) = part {
                client.extend(part);
            }
        }
        let open = json!({ "do": "open", "case": self.number, "name": self.name, "client": client });
        Adapter::start(&self.options.command, endpoints, open, self.reply_timeout()).await
    }
}

/// Runs the client cases that the options select.
pub async fn run(options: &ClientOptions, expectations: &Expectations) -> Report {
    let options = Arc::new(options.clone());
    let permits = Arc::new(tokio::sync::Semaphore::new(options.parallel.max(1)));
    let mut tasks = tokio::task::JoinSet::new();
    let mut findings = Vec::new();
    for case in all()
        .into_iter()
        .filter(|c| selected(&options.filter, c.number, c.name))
    {
        if let Some(reason) = expectations.skip(case.number) {
            findings.push(finding(&case, Outcome::Skip(reason.to_owned()), Duration::ZERO));
            continue;
        }
        let (options, permits) = (options.clone(), permits.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            run_one(&case, options).await
        });
    }
    findings.extend(tasks.join_all().await);
    findings.sort_by_key(|f| f.number);
    let mut report = Report { findings };
    report.mark_expected(expectations);
    report
}

/// A client case that takes longer fails.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

async fn run_one(case: &ClientCase, options: Arc<ClientOptions>) -> Finding {
    let started = Instant::now();
    let ctx = ClientContext {
        options,
        number: case.number,
        name: case.name,
    };
    let outcome = run_to_outcome((case.run)(ctx), CASE_TIMEOUT).await;
    finding(case, outcome, started.elapsed())
}

fn finding(case: &ClientCase, outcome: Outcome, took: Duration) -> Finding {
    Finding {
        number: case.number,
        name: case.name.into(),
        source: case.source.into(),
        text: case.text.into(),
        outcome,
        notes: Vec::new(),
        took,
        expected_failure: None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_number_from_1_to_40_is_there_once_with_a_name_of_its_own() {
        let cases = super::all();
        assert!(cases.iter().map(|c| c.number).eq(1..=40));
        let names: std::collections::HashSet<_> = cases.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), 40);
    }
}
