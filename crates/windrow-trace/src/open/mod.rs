//! Open traces.

pub(crate) mod buffer_pool;
mod cache_line;
pub(crate) mod joined;
pub(crate) mod lines;
pub(crate) mod slab;
pub(crate) mod trace;
