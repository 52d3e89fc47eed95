//! The record view: what a record means, from the names of its fields.
//!
//! * `view`: which fields are read as what; paths, resolved once per name
//! * `facts`: what one record says
//! * `trace_id`: forms of trace ids, and values that are none
//! * `otlp`: what the metadata of OpenTelemetry records say
//! * `text`: the text of a record with or without a text field
//! * `phrase`: substrings to look for in texts
//! * `severity`: levels, in every notation that loggers write

pub(crate) mod facts;
pub(crate) mod otlp;
pub(crate) mod phrase;
pub(crate) mod severity;
pub(crate) mod text;
pub(crate) mod trace_id;
pub(crate) mod view;
