//! Documents: a sealed trace as JSON.
//!
//! * `content`: the input, `render`: the renderer
//! * `shape`, `names`, `fields`, `merge_rule`, `schema`: what the fields of a record become in the
//!   document
//! * `field_names`: names that a store accepts
//! * `windrow_object`, `services`, `kept`, `state`: what the document says about its trace
//! * `msgpack`, `json`, `time`: reading values and writing them

pub(crate) mod content;
pub(crate) mod field_names;
mod fields;
pub(crate) mod json;
pub(crate) mod kept;
pub(crate) mod merge_rule;
pub(crate) mod msgpack;
pub(crate) mod names;
pub(crate) mod render;
pub(crate) mod schema;
mod services;
pub(crate) mod shape;
pub(crate) mod state;
pub(crate) mod time;
pub(crate) mod windrow_object;
