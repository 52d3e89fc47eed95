//! Test kit of Windrow: loads with a ledger, a fake Elasticsearch with faults, a real one, official
//! loggers, Fluent Bit, and the check that compares what was acknowledged with what is stored.
//!
//! Loads are sent by the client of `windrow-bench`, whose encoder shares no code with the server's
//! codec; the check states the merge rules a second time. For tests only: functions panic with a
//! reason where a test would have to fail anyway.

pub mod balancer;
pub mod browser;
pub mod capture;
pub mod certificates;
pub mod check;
pub mod client;
pub mod disk;
pub mod dns;
pub mod elasticsearch;
pub mod env;
pub mod fake_elasticsearch;
pub mod fluent_bit;
pub mod http;
pub mod json;
pub mod load;
pub mod loggers;
pub mod otel;
pub mod ports;
pub mod process;
pub mod server;
pub mod sqlite;
pub mod wait;
