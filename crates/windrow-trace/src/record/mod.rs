//! The record view: what a record means, from the names of its fields.
//!
//! * `severity`: levels, in every notation that loggers write

pub(crate) mod severity;
