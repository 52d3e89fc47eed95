//! Sources: what records that were received together have in common, stored once and reference
//! counted by the traces.
//!
//! Owns the reference counts. A source's guard is cloned for each batch of documents made of it,
//! and is handed over with the last reference.

use std::sync::Arc;

use crate::part::PartId;

/// Longer tags are seldom shared by many sources.
const USUAL_TAG_BYTES: usize = 128;

/// Records received together: a chunk, or one read of messages without chunk ids.
#[derive(Debug)]
pub struct Source<H> {
    /// The id of the part that its records are in every trace.
    pub part: PartId,
    /// Time of reception, Unix µs.
    pub received: i64,
    /// The tag of the records.
    pub tag: Arc<str>,
    /// A guard that must live until every document made of the source is written.
    pub hold: H,
}

/// The number of a source. Reused after the last reference is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId(pub(crate) u32);

/// The sources in use.
#[derive(Debug)]
pub(crate) struct Sources<H> {
    entries: Vec<SourceEntry<H>>,
    free: Vec<u32>,
    /// Bytes of their tags beyond [`USUAL_TAG_BYTES`] each.
    tag_bytes: usize,
}

#[derive(Debug)]
struct SourceEntry<H> {
    /// `None` while its number is free.
    source: Option<Source<H>>,
    uses: u32,
    /// The last batch of documents that was given the guard.
    batch: u64,
}

impl<H: Clone> Sources<H> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            tag_bytes: 0,
        }
    }

    /// Adds a source with one reference, the caller's.
    pub(crate) fn begin(&mut self, source: Source<H>) -> SourceId {
        self.tag_bytes += source.tag.len().saturating_sub(USUAL_TAG_BYTES);
        let entry = SourceEntry {
            source: Some(source),
            uses: 1,
            batch: 0,
        };
        let free = self.free.pop();
        match free.and_then(|id| Some((id, self.entries.get_mut(id as usize)?))) {
            Some((id, slot)) => {
                *slot = entry;
                SourceId(id)
            }
            None => {
                self.entries.push(entry);
                SourceId(self.entries.len() as u32 - 1)
            }
        }
    }

    /// Frees memory that is kept for reuse, if there are no sources.
    pub(crate) fn shrink(&mut self) {
        if self.free.len() == self.entries.len() {
            *self = Self::new();
        }
    }

    /// Bytes of long tags; a tag counts for each of its sources.
    pub(crate) fn tag_bytes(&self) -> usize {
        self.tag_bytes
    }

    #[inline]
    pub(crate) fn get(&self, id: SourceId) -> Option<&Source<H>> {
        self.entries.get(id.0 as usize)?.source.as_ref()
    }

    /// Adds a reference.
    #[inline]
    pub(crate) fn retain(&mut self, id: SourceId) {
        if let Some(entry) = self.entries.get_mut(id.0 as usize) {
            entry.uses += 1;
        }
    }

    /// Drops a reference without a document. Returns the guard if it was the last.
    pub(crate) fn end(&mut self, id: SourceId) -> Option<H> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses > 0 {
            return None;
        }
        self.free.push(id.0);
        let source = entry.source.take()?;
        self.tag_bytes -= source.tag.len().saturating_sub(USUAL_TAG_BYTES);
        Some(source.hold)
    }

    /// Drops the reference of a trace whose document belongs to this batch (numbered from 1 on).
    /// Returns a guard, unless the batch has one already.
    #[inline]
    pub(crate) fn release(&mut self, id: SourceId, batch: u64) -> Option<H> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        if entry.uses > 1 {
            entry.uses -= 1;
            if entry.batch == batch {
                return None;
            }
            entry.batch = batch;
            return entry.source.as_ref().map(|source| source.hold.clone());
        }
        self.end(id)
    }

    /// For each source number, whether its guard satisfies `predicate`.
    pub(crate) fn matching(&self, mut predicate: impl FnMut(&H) -> bool) -> Vec<bool> {
        let holds = |entry: &SourceEntry<H>| {
            entry
                .source
                .as_ref()
                .is_some_and(|source| predicate(&source.hold))
        };
        self.entries.iter().map(holds).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(hold: u8) -> Source<u8> {
        Source {
            part: PartId([hold; 12]),
            received: 0,
            tag: Arc::from("app"),
            hold,
        }
    }

    #[test]
    fn long_tags_are_counted() {
        let mut sources = Sources::new();
        let tagged = |bytes| Source {
            tag: "t".repeat(bytes).into(),
            ..source(1)
        };
        let (usual, long) = (sources.begin(tagged(100)), sources.begin(tagged(1000)));
        assert_eq!(sources.tag_bytes(), 1000 - USUAL_TAG_BYTES);
        sources.retain(long);
        sources.end(long);
        assert_eq!(sources.tag_bytes(), 1000 - USUAL_TAG_BYTES);
        sources.release(long, 1);
        sources.end(usual);
        assert_eq!(sources.tag_bytes(), 0);
    }

    #[test]
    fn a_batch_has_one_claim_and_the_last_use_gives_the_hold() {
        let mut sources = Sources::new();
        let (a, b) = (sources.begin(source(1)), sources.begin(source(2)));
        for _ in 0..4 {
            sources.retain(a);
        }
        assert_eq!([sources.release(a, 1), sources.release(a, 1)], [Some(1), None]);
        assert_eq!(sources.release(a, 2), Some(1), "another batch has one of its own");
        assert_eq!(sources.end(a), None);
        assert_eq!(
            sources.release(a, 2),
            Some(1),
            "nobody is left to give it back otherwise"
        );
        assert_eq!((sources.len(), sources.end(b)), (1, Some(2)));
        let c = sources.begin(source(3));
        assert!(c == a || c == b, "numbers are entry again");
        assert_eq!(sources.get(c).unwrap().hold, 3);
        sources.shrink();
        assert_eq!(sources.get(c).unwrap().hold, 3, "it is in use");
        assert_eq!(
            sources.release(c, 2),
            Some(3),
            "the batch had a claim on another one of this number"
        );
    }
}
