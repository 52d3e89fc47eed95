//! Where the records that are being gathered come from: the journal record, the message, and what
//! messages without chunk ids share.

use std::sync::Arc;

use windrow_journal::Record;
use windrow_trace::{PartId, SourceId};

use super::sections::Section;
use crate::claim::RecordClaim;

/// A message of a journal record.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) record: &'a Record,
    /// Number of the message in the record.
    pub(super) ordinal: i64,
    /// When it is gathered (µs).
    pub(super) now: i64,
    pub(super) claim: &'a RecordClaim,
}

/// What the messages without a chunk id of one journal record share.
pub(super) struct Anonymous {
    pub(super) part: PartId,
    /// Number of their records so far.
    pub(super) position: u32,
    /// Source and tag of the last one.
    pub(super) source: Option<(SourceId, Arc<str>)>,
    pub(super) section: Section,
}

/// Where the records of a message come from.
#[derive(Clone, Copy)]
pub(super) struct MessageOrigin<'a> {
    pub(super) source: SourceId,
    pub(super) part: PartId,
    pub(super) section: Section,
    /// When the message was received (µs).
    pub(super) received: i64,
    /// When it is gathered (µs); read once per journal record, since reading the clock costs as
    /// much as gathering a record.
    pub(super) now: i64,
    /// Event times outside of these are replaced by the time of reception (ns).
    pub(super) earliest: i64,
    pub(super) latest: i64,
    pub(super) tag: &'a Arc<str>,
    pub(super) claim: &'a RecordClaim,
    /// How many messages it is nested in.
    pub(super) nesting: u32,
    /// Of a share of a chunk: the positions of its records in the chunk.
    pub(super) positions: &'a [u32],
    /// Some of its records may have come before, in another share of the same chunk.
    pub(super) may_repeat: bool,
}
