//! The record view: what a record means, from the names of its fields.
//!
//! * `view`: which fields are read as what; paths, resolved once per name
//! * `severity`: levels, in every notation that loggers write

pub(crate) mod severity;
pub(crate) mod view;
