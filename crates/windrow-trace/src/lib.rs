//! Gathering: the records of one trace become one document.
//!
//! * `table`: the traces of a shard, and when they leave it: `open` ones (in their `slab`), those that are complete and wait for
//!   stragglers (`linger`, `pack`, `index`; how many: `patience`), and `closed` ones, which are about to be rendered; their ids (`key`) and what
//!   their records came with (`source`);
//! * `joined` and `lines`: the records of a trace, joined as they come while they are alike and in order, or one by one;
//! * `document`: a sealed trace as JSON, rendered once from the received bytes (`fields`, `json`, `time`, `state`);
//! * `union`: two documents of one trace made one; the rule by which every trace ends in exactly one document.
//!
//! No I/O, no clock, no threads: time is an argument. Knows nothing of the Forward protocol, the journal or outputs.

mod document;
mod lingering;
mod open;
mod part;
mod sealed;
mod source;
mod table;
mod trace_id;
mod union;

#[cfg(test)]
mod tests;

pub use self::document::content::{
    JoinedView, Line, RenderedDocument, SealedRecords, Span, TraceContent, UntracedRecord,
};
pub use self::document::json::write_json_value;
pub use self::document::msgpack::{Token, read_token};
pub use self::document::names::{FieldNames, as_text};
pub use self::document::render::Renderer;
pub use self::document::shape::{FieldRole, Shape, ShapeId, ShapeRegistry};
pub use self::document::state::SealReason;
pub use self::document::time::day_of;
pub use self::open::slab::SlotHint;
pub use self::open::trace::{AddOutcome, IncomingRecord};
pub use self::part::{PartId, PartInfo};
pub use self::sealed::{Scratch, SealedTrace};
pub use self::source::{Source, SourceId};
pub use self::table::{Limits, Table};
pub use self::trace_id::TraceId;
pub use self::union::{Union, UnionError, part_ids, union};
