//! Query language of Windrow: parser, evaluator on documents, translations to SQLite's FTS5 and to
//! the query DSL of Elasticsearch. No I/O, no clock, no threads.
//!
//! * [`Query::parse`] reads a query; an error says where it is and what to write instead.
//! * [`Query::matches`] evaluates it on a [`Document`].
//! * [`index_terms`] gives the terms of a document for a contentless FTS5 table with
//!   [`FTS5_TOKENIZER`], and [`Query::to_fts5`] the expression that searches them.
//! * [`Query::to_elasticsearch`] gives the JSON of a query.
//! * [`Query::highlights`] finds what to mark in a text.
//!
//! The first three give equal answers; `testdata/` has documents and queries that every test of a
//! store uses.
//!
//! ```
//! use windrow_query::{Document, Names, Query};
//!
//! let json = br#"{"@timestamp":"2026-11-21T09:20:00Z","message":"request timed out",
//!                 "status":504,"windrow":{"level":"error","services":["order"]}}"#;
//! let names = Names::default();
//! let document = Document::parse("t1", json, &names).unwrap();
//! let query = Query::parse("level:>=warn service:order tim* -status:<500", 0).unwrap();
//! assert!(query.matches(&document));
//! let error = Query::parse("level:loud", 0).unwrap_err();
//! assert_eq!((error.at, error.length), (6, 4));
//! ```

mod bounded;
mod document;
mod elasticsearch;
mod error;
mod evaluate;
mod fts5;
mod highlight;
mod lexer;
mod parser;
mod query;
mod terms;
mod time;
mod values;
mod words;

pub use self::bounded::{ParseLimits, parse_fields};
pub use self::document::{Document, Names};
pub use self::error::QueryError;
pub use self::highlight::Highlight;
pub use self::query::Query;
pub use self::terms::{FTS5_TOKENIZER, index_terms, index_terms_within, level_term};
pub use self::time::parse_time;
pub use self::values::{Level, parse_duration_ms};
pub use self::words::each_word;
