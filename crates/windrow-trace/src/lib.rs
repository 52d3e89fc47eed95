//! Log records of one trace become one JSON document. No I/O, no threads, no clock.
//!
//! 1. [`Table::add`] adds a record from a [`Source`] to its trace, which it opens if need be.
//! 2. The trace is *open*. While its records have one [`Shape`] and are in order, it keeps their
//!    joined text and the newest record, otherwise every record.
//! 3. A record completes it. It *lingers*: packed, it waits for stragglers from other connections,
//!    for a fixed time or while the linger budget permits. A straggler reopens it.
//! 4. It is *sealed*: completed, idle, too old or evicted. [`Table::next_sealed`] returns it.
//! 5. [`Renderer::trace`] writes its document. [`SealedTrace::release`] returns the guards of its
//!    sources, which the caller keeps until the document is stored.
//! 6. [`union`] merges two documents of one trace: late records, resends and restarts make them.
//!
//! ```
//! use windrow_trace::*;
//!
//! const SECOND: i64 = 1_000_000;
//! let names = FieldNames::default();
//! let shapes = ShapeRegistry::new(names.clone(), Vec::new());
//! let mut table = Table::new(Limits {
//!     linger: SECOND, idle_timeout: 30 * SECOND, max_age: 600 * SECOND,
//!     max_traces: 1000, max_bytes: 1 << 24, max_trace_bytes: 1 << 20,
//! });
//! let (part, tag) = (PartId::of_position(1, 1), "app".into());
//! let source = table.begin_source(Source { part, received: 0, tag, hold: () });
//! for (record, completes) in [(b"\x81\xa7message\xa2hi".as_slice(), false), (b"\x80", true)] {
//!     let incoming = IncomingRecord {
//!         id: table.trace_id(b"t1"), time: 0, source, position: u32::from(completes), record,
//!         metadata: b"", completes, shape: None, text: None,
//!         level: None, service: None,
//!     };
//!     assert_eq!(table.add(0, &incoming, &shapes), AddOutcome::Added);
//! }
//! let (mut scratch, mut document) = (Scratch::default(), Vec::new());
//! let mut trace = table.next_sealed(SECOND).expect("its linger time has passed");
//! let (content, _) = trace.content(SECOND, &mut scratch);
//! Renderer::default().trace(&mut document, &names, &shapes, content, |_, _| ());
//! trace.release(1, |()| ());
//! let start = br#"{"@timestamp":"1970-01-01T00:00:00.000Z","traceId":"t1","message":"hi""#;
//! assert!(document.starts_with(start));
//! ```

mod document;
mod lingering;
mod name_origin;
mod open;
mod overview;
mod part;
mod raw_fields;
mod record;
mod sealed;
mod source;
mod table;
mod trace_id;
mod union;
mod unmapped;

#[cfg(test)]
mod tests;

// Filling the table.
pub use self::document::merge_rule::MergeRule;
pub use self::document::names::{
    DocumentOptions, FieldNames, IGNORED_IDS, KEY_NAMES, LEVEL_NAMES, SERVICE_NAMES, TEXT_NAMES,
};
pub use self::document::schema::DocumentSchema;
pub use self::document::shape::{FieldReading, FieldRole, Shape, ShapeField, ShapeId, ShapeRegistry};
pub use self::open::slab::SlotHint;
pub use self::open::trace::{AddOutcome, IncomingRecord, max_part_bytes, record_cost};
pub use self::overview::TraceOverview;
pub use self::part::{PartId, PartInfo};
pub use self::record::facts::{RecordFacts, SlowFacts};
pub use self::record::otlp::EntryMetadata;
pub use self::record::phrase::Phrase;
pub use self::record::severity::Severity;
pub use self::record::text::TextForm;
pub use self::record::trace_id::MadeId;
pub use self::record::view::{Reading, RecordView, find_below};
pub use self::source::{Source, SourceId};
pub use self::table::{Limits, SilentTrace, Table};
pub use self::trace_id::TraceId;

// Sealing and rendering.
pub use self::document::content::{
    JoinedView, Line, RenderedDocument, SealedRecords, Span, TraceContent, UntracedRecord,
};
pub use self::document::render::Renderer;
pub use self::document::state::SealReason;
pub use self::document::time::day_of;
pub use self::sealed::{Scratch, SealedTrace};

// Merging documents.
pub use self::union::{
    BoundedUnion, Continuation, DocumentLine, Union, UnionError, document_lines, part_ids, union,
    union_within,
};
pub use self::unmapped::{Unmap, unmap};

// Reading MessagePack values, as rules on fields need it.
pub use self::document::json::{NUMBER_EXTENSION, write_escaped, write_json_value};
pub use self::document::msgpack::{Token, read_token};
pub use self::document::names::as_text;
