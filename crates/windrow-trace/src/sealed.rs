//! A trace that has left the table, until it is rendered.
//!
//! Owns the way from what a trace was in the table to what a renderer takes, in which no record stands twice, and to the
//! claims that its document has.

use smallvec::SmallVec;

use crate::document::content::{Content, Gathered, Line};
use crate::document::state::Reason;
use crate::lingering::queue::{Left, LeftRecords};
use crate::open::buffer_pool::Spaces;
use crate::open::lines::iter;
use crate::open::slab::Node;
use crate::open::trace::{Part, Trace};
use crate::part::{PartId, PartInfo};
use crate::source::Sources;
use crate::trace_id::Key;

/// A trace that has left the table.
#[derive(Debug)]
#[must_use = "what it holds is given back by `leave`"]
pub struct Closed<'a, H> {
    /// Why it left.
    pub reason: Reason,
    trace: Gone<'a>,
    sources: &'a mut Sources<H>,
    spaces: &'a mut Spaces,
}

/// Where it is.
#[derive(Debug)]
enum Gone<'a> {
    /// Where it was open.
    Open(&'a mut Node),
    /// Where it waited for stragglers.
    Lingered(Left<'a>),
    /// It waited, and was made a trace again.
    Again(Box<(Key, Trace)>),
}

impl<'a, H: Clone> Closed<'a, H> {
    pub(crate) fn open(
        reason: Reason,
        node: &'a mut Node,
        sources: &'a mut Sources<H>,
        spaces: &'a mut Spaces,
    ) -> Self {
        Self {
            reason,
            trace: Gone::Open(node),
            sources,
            spaces,
        }
    }

    pub(crate) fn lingered(left: Left<'a>, sources: &'a mut Sources<H>, spaces: &'a mut Spaces) -> Self {
        Self {
            reason: Reason::Completed,
            trace: Gone::Lingered(left),
            sources,
            spaces,
        }
    }

    /// One that waited, and was taken out.
    pub(crate) fn again(key: Key, trace: Trace, sources: &'a mut Sources<H>, spaces: &'a mut Spaces) -> Self {
        Self {
            reason: Reason::Completed,
            trace: Gone::Again(Box::new((key, trace))),
            sources,
            spaces,
        }
    }

    /// Its id.
    pub fn key(&self) -> &[u8] {
        self.trace.id()
    }

    /// Records in it.
    pub fn lines(&self) -> u32 {
        match &self.trace {
            Gone::Open(node) => node.trace.count(),
            Gone::Lingered(left) => left.count(),
            Gone::Again(again) => again.1.count(),
        }
    }

    /// Gives the claims that the batch of this number (from 1 on), to which the document belongs, does not have yet. To be
    /// called once, and last.
    pub fn leave(&mut self, batch: u64, mut claim: impl FnMut(H)) {
        let sources = &mut *self.sources;
        self.trace.each_part(|part| {
            if let Some(hold) = sources.leave(part.source, batch) {
                claim(hold);
            }
        });
        if let Gone::Open(node) = &mut self.trace {
            self.spaces.put(node.trace.vacate());
        }
    }

    /// Its content for rendering, and how many of its records are left out because they stand in it twice (a chunk
    /// that came again after the window in which repeated chunks are told).
    pub fn gathered<'b>(&'b mut self, sealed_at: i64, scratch: &'b mut Scratch) -> (Gathered<'b>, u32) {
        let Scratch { parts, lines } = scratch;
        parts.clear();
        lines.clear();
        let mut tags: SmallVec<[&str; 2]> = SmallVec::new();
        let sources = &*self.sources;
        self.trace.each_part(|Part { source, total }| {
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
            // Only of lines some can be left out.
            if let Gone::Lingered(left) = &self.trace {
                self.trace = Gone::Again(Box::new(left.unpack()));
            }
            match &mut self.trace {
                Gone::Open(node) => _ = node.trace.lines(),
                Gone::Again(again) => _ = again.1.lines(),
                Gone::Lingered(_) => {}
            }
        }
        match &self.trace {
            Gone::Lingered(left) => {
                if let LeftRecords::Lines(buffer) = left.records() {
                    lines.extend(iter(buffer));
                }
            }
            Gone::Open(node) => node.trace.list(lines),
            Gone::Again(again) => again.1.list(lines),
        }
        let twice = if unique {
            0
        } else {
            merge_equal_parts(parts, lines)
        };
        let content = match &self.trace {
            Gone::Open(node) => node.trace.content(lines),
            Gone::Again(again) => again.1.content(lines),
            Gone::Lingered(left) => match left.records() {
                LeftRecords::Joined(view) => Content::Joined(view),
                LeftRecords::Lines(buffer) => Content::Lines { buffer, lines },
            },
        };
        let gathered = Gathered {
            key: self.trace.id(),
            parts,
            tags,
            reason: self.reason,
            sealed_at,
            content,
        };
        (gathered, twice)
    }
}

impl Gone<'_> {
    fn id(&self) -> &[u8] {
        match self {
            Self::Open(node) => node.id().bytes(),
            Self::Lingered(left) => left.id(),
            Self::Again(again) => again.0.id(),
        }
    }

    #[inline]
    fn each_part(&self, each: impl FnMut(Part)) {
        match self {
            Self::Open(node) => node.trace.parts.iter().copied().for_each(each),
            Self::Lingered(left) => left.parts().for_each(each),
            Self::Again(again) => again.1.parts.iter().copied().for_each(each),
        }
    }
}

/// Space for [`Closed::gathered`] that is used again.
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

/// Makes parts of the same id one. Gives how many lines went because they were there twice.
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
                // The same reception rule as in `union`: of one part received twice the later reception counts.
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
