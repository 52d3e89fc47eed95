//! The events inside a message.
//!
//! [`Entries`] walks the entries of any mode in place, one pass, without allocation; [`decompress`] makes a compressed
//! payload readable, and [`Decompressor::walk`] walks it without having it all in memory. A bad entry is reported with
//! its bytes and never spoils its neighbours.
//!
//! An entry is `[time, record]` or, since Fluent Bit 2.1 and by default since 5.0.5, `[[time, metadata], record]`.
//! Both kinds may stand in one message. Fluent Bit also puts *group markers* between the entries: an EventTime of
//! `0xffffffff` seconds opens a group, `0xfffffffe` closes it, both with 0 nanoseconds. Markers are no events; the
//! events between them carry the group's metadata and attributes.

mod decompress;
mod expected;
mod iter;
mod pairs;
mod pieces;
mod time;

#[cfg(test)]
mod tests;

pub use decompress::{Compression, Damage, Decompressed, Decompressor, Oversize, decompress};
pub use expected::WireKey;
pub use iter::{BadEntry, Defect, Entries, Entry, Group, Visitor};
pub use pairs::{Key, MapPairs, Pair};
pub use pieces::Piece;
pub use time::Time;
