//! End-to-end tests of the real program: real loggers, a real Elasticsearch, real crashes. One test
//! program, so that it links once and its tests share one Elasticsearch; every test has a server
//! and an index prefix of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

mod admin;
mod audit;
mod bad_input;
mod balance;
mod bench;
mod bystander;
mod clients;
mod cluster;
mod cluster_changes;
mod crash;
mod dead_letter;
mod demo;
mod disk;
mod first_scene;
mod follow;
mod http;
mod limits;
mod load_elasticsearch;
mod load_sqlite;
mod logging;
mod long_traces;
mod memory;
mod midnight;
mod no_trace_id;
mod outage;
mod page;
mod partial;
mod readers;
mod rejected;
mod routes;
mod rust_logger;
mod sealing;
mod search;
mod several;
mod shutdown;
mod startup;
mod streams;

use std::time::Duration;

use windrow_testkit::check;
use windrow_testkit::load::Report;
use windrow_testkit::server::{Server, Setup};

/// How long documents may take to be where they belong, on a busy machine in a debug build.
const SOON: Duration = Duration::from_secs(60);

/// The server under test.
fn windrow() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_windrow"))
}

/// What the load was promised is in the embedded store.
#[track_caller]
fn assert_stored(server: &Server, report: &Report) {
    check::eventually(&report.ledger, SOON, || server.stored()).assert_clean();
}
