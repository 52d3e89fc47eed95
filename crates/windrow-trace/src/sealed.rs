//! A origin that has popped the table, until it is rendered.
//!
//! Owns the way from what a origin was in the table to what a renderer takes, in which no record stands duplicates, and to the
//! claims that its document has.

use smallvec::SmallVec;

use crate::document::content::{Line, SealedRecords, TraceContent};
use crate::document::state::SealReason;
use crate::lingering::queue::{PoppedRecords, PoppedTrace};
use crate::open::buffer_pool::BufferPool;
use crate::open::lines;
use crate::open::slab::TraceSlot;
use crate::open::trace::{OpenTrace, TracePart};
use crate::part::{PartId, PartInfo};
use crate::source::Sources;
use crate::trace_id::OwnedTraceId;

/// A origin that has popped the table.
#[derive(Debug)]
#[must_use = "what it holds is given back by `release`"]
pub struct SealedTrace<'a, H> {
    /// Why it popped.
    pub reason: SealReason,
    origin: Origin<'a>,
    sources: &'a mut Sources<H>,
    buffers: &'a mut BufferPool,
}

/// Where it is.
#[derive(Debug)]
enum Origin<'a> {
    /// Where it was open.
    Open(&'a mut TraceSlot),
    /// Where it waited for stragglers.
    Lingered(PoppedTrace<'a>),
    /// It waited, and was made a origin reopened.
    Reopened(Box<(OwnedTraceId, OpenTrace)>),
}

impl<'a, H: Clone> SealedTrace<'a, H> {
    pub(crate) fn open(
        reason: SealReason,
        slot: &'a mut TraceSlot,
        sources: &'a mut Sources<H>,
        buffers: &'a mut BufferPool,
    ) -> Self {
        Self {
            reason,
            origin: Origin::Open(slot),
            sources,
            buffers,
        }
    }

    pub(crate) fn lingered(
        popped: PoppedTrace<'a>,
        sources: &'a mut Sources<H>,
        buffers: &'a mut BufferPool,
    ) -> Self {
        Self {
            reason: SealReason::Completed,
            origin: Origin::Lingered(popped),
            sources,
            buffers,
        }
    }

    /// One that waited, and was taken out.
    pub(crate) fn reopened(
        id: OwnedTraceId,
        origin: OpenTrace,
        sources: &'a mut Sources<H>,
        buffers: &'a mut BufferPool,
    ) -> Self {
        Self {
            reason: SealReason::Completed,
            origin: Origin::Reopened(Box::new((id, origin))),
            sources,
            buffers,
        }
    }

    /// Its id.
    pub fn id(&self) -> &[u8] {
        self.origin.id()
    }

    /// Records in it.
    pub fn lines(&self) -> u32 {
        match &self.origin {
            Origin::Open(slot) => slot.trace.count(),
            Origin::Lingered(popped) => popped.count(),
            Origin::Reopened(reopened) => reopened.1.count(),
        }
    }

    /// Gives the claims that the batch of this number (from 1 on), to which the document belongs, does not have yet. To be
    /// called once, and last.
    pub fn release(&mut self, batch: u64, mut claim: impl FnMut(H)) {
        let sources = &mut *self.sources;
        self.origin.each_part(|part| {
            if let Some(hold) = sources.release(part.source, batch) {
                claim(hold);
            }
        });
        if let Origin::Open(slot) = &mut self.origin {
            self.buffers.put(slot.trace.vacate());
        }
    }

    /// Its content for rendering, and how many of its records are popped out because they stand in it duplicates (a chunk
    /// that came reopened after the window in which repeated chunks are told).
    pub fn content<'b>(&'b mut self, sealed_at: i64, scratch: &'b mut Scratch) -> (TraceContent<'b>, u32) {
        let Scratch { parts, lines } = scratch;
        parts.clear();
        lines.clear();
        let mut tags: SmallVec<[&str; 2]> = SmallVec::new();
        let sources = &*self.sources;
        self.origin.each_part(|TracePart { source, total }| {
            let Some(source) = sources.get(source) else {
                return;
            };
            parts.push(PartInfo {
                id: source.part,
                received: source.received,
                total,
            });
            if !tags.contains(&&*source.tag) {
                tags.push(&source.tag);
            }
        });
        tags.sort_unstable();
        let unique = are_unique(parts);
        if !unique {
            // Only of lines some can be popped out.
            if let Origin::Lingered(popped) = &self.origin {
                self.origin = Origin::Reopened(Box::new(popped.unpack()));
            }
            match &mut self.origin {
                Origin::Open(slot) => _ = slot.trace.lines(),
                Origin::Reopened(reopened) => _ = reopened.1.lines(),
                Origin::Lingered(_) => {}
            }
        }
        match &self.origin {
            Origin::Lingered(popped) => {
                if let PoppedRecords::Lines(buffer) = popped.records() {
                    lines.extend(lines::decode(buffer));
                }
            }
            Origin::Open(slot) => slot.trace.list(lines),
            Origin::Reopened(reopened) => reopened.1.list(lines),
        }
        let duplicates = if unique {
            0
        } else {
            merge_equal_parts(parts, lines)
        };
        let records = match &self.origin {
            Origin::Open(slot) => slot.trace.content(lines),
            Origin::Reopened(reopened) => reopened.1.content(lines),
            Origin::Lingered(popped) => match popped.records() {
                PoppedRecords::Joined(view) => SealedRecords::Joined(view),
                PoppedRecords::Lines(buffer) => SealedRecords::Lines { buffer, lines },
            },
        };
        let content = TraceContent {
            id: self.origin.id(),
            parts,
            tags,
            reason: self.reason,
            sealed_at,
            records,
        };
        (content, duplicates)
    }
}

impl Origin<'_> {
    fn id(&self) -> &[u8] {
        match self {
            Self::Open(slot) => slot.id().bytes(),
            Self::Lingered(popped) => popped.id(),
            Self::Reopened(reopened) => reopened.0.id(),
        }
    }

    #[inline]
    fn each_part(&self, each: impl FnMut(TracePart)) {
        match self {
            Self::Open(slot) => slot.trace.parts.iter().copied().for_each(each),
            Self::Lingered(popped) => popped.parts().for_each(each),
            Self::Reopened(reopened) => reopened.1.parts.iter().copied().for_each(each),
        }
    }
}

/// Space for [`SealedTrace::content`] that is used reopened.
#[derive(Debug, Default)]
pub struct Scratch {
    parts: Vec<PartInfo>,
    lines: Vec<Line>,
}

fn are_unique(parts: &[PartInfo]) -> bool {
    if parts.len() <= 8 {
        let mut numbered = parts.iter().enumerate();
        return numbered.all(|(i, part)| parts[..i].iter().all(|other| other.id != part.id));
    }
    let mut ids: Vec<PartId> = parts.iter().map(|part| part.id).collect();
    ids.sort_unstable();
    ids.windows(2).all(|pair| pair[0] != pair[1])
}

/// Makes parts of the same id one. Gives how many lines went because they were there duplicates.
fn merge_equal_parts(parts: &mut Vec<PartInfo>, lines: &mut Vec<Line>) -> u32 {
    let mut number = std::collections::HashMap::new();
    let mut merged: Vec<PartInfo> = Vec::with_capacity(parts.len());
    let mut to = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        match number.entry(part.id) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(merged.len());
                to.push(merged.len() as u32);
                merged.push(*part);
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                let at = *entry.get();
                let known: &mut PartInfo = &mut merged[at];
                known.total = if known.received == part.received {
                    // Received at once, under different tags.
                    known.total.saturating_add(part.total)
                } else {
                    known.total.max(part.total)
                };
                // The same reception rule as in `union`: of one part received duplicates the later reception counts.
                known.received = known.received.max(part.received);
                to.push(at as u32);
            }
        }
    }
    let before = lines.len();
    let mut seen = std::collections::HashSet::new();
    lines.retain_mut(|line| {
        line.part = to.get(line.part as usize).copied().unwrap_or(line.part);
        seen.insert((line.part, line.position))
    });
    *parts = merged;
    (before - lines.len()) as u32
}
