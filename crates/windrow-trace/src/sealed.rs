//! A sealed trace: it has left the table and waits to be rendered.
//!
//! Owns the conversion from the table's form to the renderer's input (removing records received
//! twice), and the release of the trace's sources.

use smallvec::SmallVec;

use crate::document::content::{Line, SealedRecords, TraceContent};
use crate::document::state::SealReason;
use crate::document::windrow_object::MAX_TAGS;
use crate::lingering::queue::{PoppedRecords, PoppedTrace};
use crate::open::buffer_pool::BufferPool;
use crate::open::lines;
use crate::open::slab::TraceSlot;
use crate::open::trace::{OpenTrace, TracePart};
use crate::part::{PartId, PartInfo};
use crate::source::Sources;
use crate::trace_id::{OwnedTraceId, TraceIdHasher};

/// A trace that has left the table.
#[derive(Debug)]
#[must_use = "its sources must be released by `release`"]
pub struct SealedTrace<'a, H> {
    /// Why it was sealed.
    pub reason: SealReason,
    origin: Origin<'a>,
    keeper: Keeper<'a, H>,
}

/// What of its table a sealed trace needs.
#[derive(Debug)]
pub(crate) struct Keeper<'a, H> {
    pub(crate) sources: &'a mut Sources<H>,
    pub(crate) buffers: &'a mut BufferPool,
    pub(crate) hasher: &'a TraceIdHasher,
}

/// Where a sealed trace is stored until it is released.
#[derive(Debug)]
enum Origin<'a> {
    /// In its slot of the slab.
    Open(&'a mut TraceSlot),
    /// Packed, at the front of the linger queue.
    Lingered(PoppedTrace<'a>),
    /// Unpacked from the linger queue.
    Reopened(Box<(OwnedTraceId, OpenTrace)>),
}

impl<'a, H: Clone> SealedTrace<'a, H> {
    pub(crate) fn open(reason: SealReason, slot: &'a mut TraceSlot, keeper: Keeper<'a, H>) -> Self {
        Self {
            reason,
            origin: Origin::Open(slot),
            keeper,
        }
    }

    pub(crate) fn lingered(popped: PoppedTrace<'a>, keeper: Keeper<'a, H>) -> Self {
        Self {
            reason: SealReason::Completed,
            origin: Origin::Lingered(popped),
            keeper,
        }
    }

    /// A lingering trace that was unpacked.
    pub(crate) fn reopened(id: OwnedTraceId, trace: OpenTrace, keeper: Keeper<'a, H>) -> Self {
        Self {
            reason: SealReason::Completed,
            origin: Origin::Reopened(Box::new((id, trace))),
            keeper,
        }
    }

    /// The trace id.
    pub fn id(&self) -> &[u8] {
        self.origin.id()
    }

    /// Its destination: see [`TraceId::with_destination`](crate::TraceId::with_destination).
    pub fn destination(&self) -> u16 {
        let hash = match &self.origin {
            Origin::Open(slot) => slot.id().hash(),
            Origin::Lingered(popped) => popped.hash(),
            Origin::Reopened(reopened) => reopened.0.hash(),
        };
        self.keeper.hasher.destination(hash, self.id())
    }

    /// Number of records.
    pub fn lines(&self) -> u32 {
        match &self.origin {
            Origin::Open(slot) => slot.trace.count(),
            Origin::Lingered(popped) => popped.count(),
            Origin::Reopened(reopened) => reopened.1.count(),
        }
    }

    /// Releases the sources. `claim` gets the guards that the batch with this number (from 1 on),
    /// to which the document belongs, does not hold yet. Call it once, and last.
    pub fn release(&mut self, batch: u64, mut claim: impl FnMut(H)) {
        let sources = &mut *self.keeper.sources;
        self.origin.for_each_part(|part| {
            if let Some(hold) = sources.release(part.source, batch) {
                claim(hold);
            }
        });
        if let Origin::Open(slot) = &mut self.origin {
            self.keeper.buffers.put(slot.trace.vacate());
        }
    }

    /// The input of the renderer, and the number of records left out because the trace has them
    /// twice (a chunk was resent after the duplicate window).
    pub fn content<'b>(&'b mut self, sealed_at: i64, scratch: &'b mut Scratch) -> (TraceContent<'b>, u32) {
        let Scratch { parts, lines } = scratch;
        parts.clear();
        lines.clear();
        let mut tags: SmallVec<[&str; 2]> = SmallVec::new();
        let sources = &*self.keeper.sources;
        self.origin.for_each_part(|TracePart { source, total }| {
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
                if tags.len() > 2 * MAX_TAGS {
                    tags.sort_unstable();
                    tags.truncate(MAX_TAGS);
                }
            }
        });
        tags.sort_unstable();
        tags.truncate(MAX_TAGS);
        let unique = ids_are_unique(parts);
        if !unique {
            // Joined records cannot be removed one by one.
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
            Origin::Open(slot) => slot.trace.append_lines_to(lines),
            Origin::Reopened(reopened) => reopened.1.append_lines_to(lines),
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
    fn for_each_part(&self, each: impl FnMut(TracePart)) {
        match self {
            Self::Open(slot) => slot.trace.parts.iter().copied().for_each(each),
            Self::Lingered(popped) => popped.parts().for_each(each),
            Self::Reopened(reopened) => reopened.1.parts.iter().copied().for_each(each),
        }
    }
}

/// Reusable buffers for [`SealedTrace::content`].
#[derive(Debug, Default)]
pub struct Scratch {
    parts: Vec<PartInfo>,
    lines: Vec<Line>,
}

fn ids_are_unique(parts: &[PartInfo]) -> bool {
    if parts.len() <= 8 {
        let mut numbered = parts.iter().enumerate();
        return numbered.all(|(i, part)| parts[..i].iter().all(|other| other.id != part.id));
    }
    let mut ids: Vec<PartId> = parts.iter().map(|part| part.id).collect();
    ids.sort_unstable();
    ids.windows(2).all(|pair| pair[0] != pair[1])
}

/// Merges parts with equal ids. Returns the number of duplicate lines removed.
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
                    // Received at the same time, under different tags.
                    known.total.saturating_add(part.total)
                } else {
                    known.total.max(part.total)
                };
                // As in `union`: of a part received twice the later reception counts.
                known.received = known.received.max(part.received);
                to.push(at as u32);
            }
        }
    }
    let before = lines.len();
    let mut seen = std::collections::HashSet::new();
    // Of equal lines the last one stays: earlier ones may be without their record because of it.
    lines.reverse();
    lines.retain_mut(|line| {
        line.part = to.get(line.part as usize).copied().unwrap_or(line.part);
        seen.insert((line.part, line.position))
    });
    lines.reverse();
    *parts = merged;
    (before - lines.len()) as u32
}
