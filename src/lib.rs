//! Windrow: a Forward-protocol server that makes each chunk durable, acknowledges it, gathers the
//! lines of one trace and writes exactly one document per trace.
//!
//! Data flows through `input`, the journal (crate `windrow-journal`), `gather` (with crate
//! `windrow-trace`) and `output`; `pipeline` connects them. `ARCHITECTURE.md` describes the life of
//! a record.

pub mod admin;
pub mod admission;
mod allocator;
pub mod buffer_pool;
pub mod claim;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod exit;
mod files;
pub mod gather;
pub mod input;
pub mod logging;
mod memory;
pub mod metrics;
pub mod output;
pub mod pipeline;
mod runtime;
pub mod search;
pub mod serve;
mod write_timeout;
