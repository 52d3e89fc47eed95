//! The entries of a message: events, group markers and compressed payloads.
//!
//! [`Entries`] walks the entries of any mode in place, one pass, without allocation; [`decompress`]
//! makes a compressed payload readable, and [`Decompressor::walk`] walks it without having it all
//! in memory. A bad entry is reported with its bytes and never spoils its neighbours.
//!
//! An entry is `[time, record]` or, since Fluent Bit 2.1 and by default since 5.0.5,
//! `[[time, metadata], record]`. Both kinds may occur in one message. Fluent Bit also puts *group
//! markers* between the entries: an EventTime of `0xffffffff` seconds opens a group, `0xfffffffe`
//! closes it, both with 0 nanoseconds. Markers are not events; the events between them carry the
//! group's metadata and attributes.

mod decompress;
mod defect;
mod iter;
mod pairs;
mod pieces;
mod time;
mod visitor;
mod wire_key;

#[cfg(test)]
mod tests;

pub use decompress::{Compression, Damage, Decompressed, Decompressor, Oversize, decompress};
pub use defect::{BadEntry, Defect};
pub use iter::{Entries, Entry, Group};
pub use pairs::{Key, MapPairs, Pair};
pub use pieces::Piece;
pub use time::Time;
pub use visitor::Visitor;
pub use wire_key::WireKey;
