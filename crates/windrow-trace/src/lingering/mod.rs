//! Lingering traces.

pub(crate) mod budget;
mod fingerprint_index;
pub(crate) mod queue;
