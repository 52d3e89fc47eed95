//! Documents.

pub(crate) mod content;
mod fields;
pub(crate) mod json;
pub(crate) mod msgpack;
pub(crate) mod names;
pub(crate) mod render;
pub(crate) mod shape;
pub(crate) mod state;
pub(crate) mod time;
pub(crate) mod windrow_object;
