//! Windrow: a Forward-protocol server that makes each chunk durable, acknowledges it, gathers the lines of
//! one trace and writes exactly one document per trace.
//!
//! The modules stand in the order in which data flows: `input < journal < trace < output`, wired by
//! `pipeline` alone. See `ARCHITECTURE.md` for the life of a record.

pub mod clock;
pub mod hold;
pub mod metrics;
pub mod output;
pub mod trace;
