//! Lingering traces: completed traces that wait for stragglers from other connections.
//!
//! * `queue`: the packed traces in the order in which they are due, with `fingerprint_index`
//! * `budget`: how many bytes of them may wait
//! * `recently_sealed`: the traces whose late lines need not wait long

pub(crate) mod budget;
mod fingerprint_index;
pub(crate) mod queue;
pub(crate) mod recently_sealed;
