//! Sections of a part, and what becomes of a trace that has no space for one.
//!
//! The rare cases of gathering a record. What a section is for:
//! `docs/decisions/0031-long-traces.md`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use windrow_trace::{IncomingRecord, PartId, Source, SourceId, TraceId};

use super::Gatherer;
use super::origin::MessageOrigin;
use crate::claim::RecordClaim;
use crate::clock::unix_us;
use crate::cluster::Share;
use crate::metrics::FlushReason;

/// A section of a part: what of it one document may have to hold, and what is gathered without
/// interruption. Where one ends depends on the records of the part alone, so that a replay cuts it
/// at the same records.
#[derive(Clone, Copy, Default)]
pub(super) struct Section {
    pub(super) number: u32,
    /// Bytes of its records.
    pub(super) bytes: usize,
}

impl Section {
    /// The section that all records of a share belong to: it was cut before the chunk was split.
    pub(super) fn of_share(share: &Share) -> Self {
        Self {
            number: share.identity.section,
            bytes: 0,
        }
    }
}

impl Gatherer {
    /// Whether a trace has the records of this source already, from a chunk that was split in
    /// another way; counts the record as a duplicate then. The records of a trace in a section of a
    /// chunk are never divided.
    #[cold]
    #[inline(never)]
    pub(super) fn repeats(&mut self, id: TraceId<'_>, source: SourceId) -> bool {
        let repeats = self.table.has_part_of(id, source);
        self.account
            .duplicate
            .fetch_add(u64::from(repeats), Ordering::Relaxed);
        repeats
    }

    /// Begins the source of a section.
    pub(super) fn begin_section(
        &mut self,
        part: PartId,
        received: i64,
        section: Section,
        tag: &Arc<str>,
        claim: &RecordClaim,
    ) -> SourceId {
        self.table.begin_source(Source {
            part: part.section(section.number),
            // Keeps the order of lines with equal times.
            received: received.saturating_add(i64::from(section.number)),
            tag: Arc::clone(tag),
            hold: claim.clone(),
        })
    }

    /// Counts a record of `size` bytes in the section of `origin`, or in the next one.
    #[inline(always)]
    pub(super) fn count_in_section(&mut self, size: usize, origin: &mut MessageOrigin<'_>) {
        if origin.section.bytes + size > self.settings.max_part_bytes {
            self.next_section(origin);
        }
        origin.section.bytes += size;
    }

    /// Ends the section of `origin`, unless it is empty, and begins the next one.
    #[cold]
    #[inline(never)]
    pub(super) fn next_section(&mut self, origin: &mut MessageOrigin<'_>) {
        let cost_bytes = origin.section.bytes;
        if cost_bytes == 0 {
            return;
        }
        origin.section = Section {
            number: origin.section.number + 1,
            bytes: 0,
        };
        let MessageOrigin {
            part,
            received,
            section,
            tag,
            claim,
            ..
        } = *origin;
        let next = self.begin_section(part, received, section, tag, claim);
        let ended = std::mem::replace(&mut origin.source, next);
        self.end(Some(ended));
        self.yield_turn(cost_bytes, tag);
        // Others may have taken a while.
        origin.now = unix_us();
    }

    /// Seals a trace that has no space for the part of `incoming`, and begins its next document
    /// with it. The outputs decide which document of the trace holds what: see
    /// `windrow_trace::union_within`.
    #[cold]
    #[inline(never)]
    pub(super) fn add_to_full(&mut self, incoming: &IncomingRecord<'_>, now: i64) {
        if let Some(mut full) = self.table.seal(incoming.id) {
            self.batcher
                .push_trace(&self.settings.names, &self.shapes, &mut full, now);
            self.metrics.traces_flushed[FlushReason::TraceBytes].inc();
            self.send_batch_if_full();
        }
        // An empty trace takes any record.
        let _added = self.table.add(now, incoming, &self.shapes);
    }
}
