//! A trace that has left the table, on its way to being rendered.
//!
//! Owns how it is listed, wherever it lies, and that no chunk is in it twice. Writes no document.

use super::document::{Gathered, PartInfo};
use super::lines::Line;
use super::linger::Left;
use super::open::{Holds, Key, Trace};
use super::part::PartId;
use super::state::Reason;

/// A trace that has left the table.
#[derive(Debug)]
pub struct Closed<'a, H> {
    /// Why it left.
    pub reason: Reason,
    pub(super) content: Content<'a, H>,
}

#[derive(Debug)]
pub(super) enum Content<'a, H> {
    Open { key: Key, trace: Trace<H> },
    Lingered(Left<'a, H>),
}

impl<H> Closed<'_, H> {
    /// Its id.
    pub fn key(&self) -> &[u8] {
        match &self.content {
            Content::Open { key, .. } => key,
            Content::Lingered(left) => left.key(),
        }
    }

    /// Records in it.
    pub fn lines(&self) -> u32 {
        match &self.content {
            Content::Open { trace, .. } => trace.lines.len(),
            Content::Lingered(left) => left.lines(),
        }
    }

    /// The holds of its parts; what it was made of is gone then.
    pub fn into_holds(self) -> Holds<H> {
        match self.content {
            Content::Open { trace, .. } => trace.holds,
            Content::Lingered(left) => left.into_holds(),
        }
    }

    /// Its content for rendering, and how many of its records are left out because they stand in it twice (a chunk
    /// that came again after the window in which repeated chunks are told).
    pub fn gathered<'a>(&'a mut self, sealed_at: i64, scratch: &'a mut Scratch) -> (Gathered<'a>, u32) {
        let Scratch { parts, lines } = scratch;
        parts.clear();
        lines.clear();
        let (key, buffer, tags) = match &mut self.content {
            Content::Open { key, trace } => {
                parts.extend_from_slice(&trace.parts);
                lines.extend(trace.lines.iter());
                trace.tags.sort_unstable();
                (key.as_slice(), trace.lines.buffer(), trace.tags.as_slice())
            }
            Content::Lingered(left) => {
                left.sort_tags();
                let left = &*left;
                let buffer = left.list(parts, lines);
                (left.key(), buffer, left.tags())
            }
        };
        let twice = merge_equal_parts(parts, lines);
        (
            Gathered {
                key,
                parts,
                buffer,
                lines,
                tags,
                reason: self.reason,
                sealed_at,
            },
            twice,
        )
    }
}

/// Space for [`Closed::gathered`] that is used again.
#[derive(Debug, Default)]
pub struct Scratch {
    parts: Vec<PartInfo>,
    lines: Vec<Line>,
}

/// Makes parts of the same id one. Gives how many lines went because they were there twice.
fn merge_equal_parts(parts: &mut Vec<PartInfo>, lines: &mut Vec<Line>) -> u32 {
    let few = parts.len() <= 8;
    let unique = if few {
        parts
            .iter()
            .enumerate()
            .all(|(i, part)| parts[..i].iter().all(|other| other.id != part.id))
    } else {
        let mut ids: Vec<PartId> = parts.iter().map(|part| part.id).collect();
        ids.sort_unstable();
        ids.windows(2).all(|pair| pair[0] != pair[1])
    };
    if unique {
        return 0;
    }
    let mut number = std::collections::HashMap::new();
    let mut merged: Vec<PartInfo> = Vec::with_capacity(parts.len());
    let mut to = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        let at = *number.entry(part.id).or_insert_with(|| {
            merged.push(*part);
            merged.len() - 1
        });
        // The same reception rule as in `union`: of one part received twice the later reception counts.
        merged[at].received = merged[at].received.max(part.received);
        merged[at].total = merged[at].total.max(part.total);
        to.push(at as u32);
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
