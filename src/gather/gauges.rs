//! Numbers that other threads read while gathering runs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// Published by the gathering thread after each journal record.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) open_traces: AtomicUsize,
    pub(crate) open_bytes: AtomicUsize,
    pub(crate) open_lines: AtomicU64,
    /// Nothing was left to gather or to seal when this was last set.
    pub(crate) idle: AtomicBool,
}
