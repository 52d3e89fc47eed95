//! Windrow: a Forward-protocol server that makes each chunk durable, acknowledges it, gathers the lines of
//! one trace and writes exactly one document per trace.
//!
//! The modules stand in the order in which data flows: `input < journal < trace < output`, wired by
//! `pipeline` alone. See `ARCHITECTURE.md` for the life of a record.

pub mod admin;
pub mod brake;
pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod gather;
pub mod hold;
pub mod input;
pub mod logging;
mod memory;
pub mod metrics;
pub mod output;
pub mod pipeline;
mod reactor;
pub mod serve;
pub mod spares;
