//! Open traces: they take records as they arrive.
//!
//! * `slab`: where they are stored, found and ordered by last use
//! * `trace`: one open trace, whose records are `joined` or, in general, `lines`
//! * `line_context`: what joined records keep of their lines besides time and text
//! * `buffer_pool`: buffers for the records of new traces

pub(crate) mod buffer_pool;
mod cache_line;
pub(crate) mod joined;
pub(crate) mod line_context;
pub(crate) mod lines;
pub(crate) mod slab;
pub(crate) mod trace;
