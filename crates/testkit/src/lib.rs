//! What Windrow's tests need around the server: loads with a ledger, a fake Elasticsearch with faults, a real
//! one, official loggers, Fluent Bit, and the check that compares what was acknowledged with what is stored.
//!
//! It is the oracle: it writes and reads the wire with code of its own and depends neither on the server nor
//! on `forward-protocol`. For tests only; functions panic with a reason where a test would have to fail anyway.

pub mod balancer;
pub mod capture;
pub mod certificates;
pub mod check;
pub mod client;
pub mod disk;
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
