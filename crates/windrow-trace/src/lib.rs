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

mod about;
mod closed;
mod document;
mod fields;
mod index;
mod joined;
mod json;
mod key;
mod lines;
mod linger;
mod open;
mod pack;
mod part;
mod patience;
mod shape;
mod slab;
mod source;
mod spaces;
mod state;
mod table;
mod time;
mod union;

#[cfg(test)]
mod tests;

pub use self::closed::{Closed, Scratch};
pub use self::document::{Content, Extent, Gathered, PartInfo, Renderer, Single};
pub use self::fields::Names;
pub use self::joined::View;
pub use self::key::Id;
pub use self::lines::{Line, Span};
pub use self::open::{Added, Incoming};
pub use self::part::PartId;
pub use self::shape::{Role, Shape, ShapeId, Shapes};
pub use self::slab::Guess;
pub use self::source::{Source, SourceId, Sources};
pub use self::state::Reason;
pub use self::table::{Limits, Table};
pub use self::time::day_of;
pub use self::union::{NotOurs, Union, part_ids, union};
pub use self::{
    fields::as_text,
    json::{Head, head, write_escaped, write_value},
};
