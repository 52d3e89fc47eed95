//! Lingering traces.

pub(crate) mod budget;
mod fingerprint_index;
mod pack;
pub(crate) mod queue;
