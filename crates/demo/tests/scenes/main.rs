//! The scenes with real processes: the demo's programs, Windrow, and where there is one Fluent Bit.
//! One program, so that it links once and its tests share one Elasticsearch.

#![expect(clippy::unwrap_used, reason = "tests")]

mod absence;
mod configurations;
#[path = "../fluent_bit/mod.rs"]
mod fluent_bit;
mod one;
#[path = "../real/mod.rs"]
mod real;
mod secure;
mod stage;
mod three;
mod two;
