//! Where records come from: what those that came together have in common, kept once for all traces that have some of
//! them.
//!
//! Owns the list of sources and how many traces use each. What is held for a source (the journal's hold on the chunk) is
//! given to the documents that are made of it, and goes with the last trace that uses it.

use std::sync::Arc;

use crate::part::PartId;

/// The records that came together: a chunk, or what was read at once without chunk ids.
#[derive(Debug)]
pub struct Source<H> {
    /// The part that its records of one trace are.
    pub part: PartId,
    /// When it was received, Unix µs.
    pub received: i64,
    /// The tag that it came under.
    pub tag: Arc<str>,
    /// What must be held until everything that was made of it is written.
    pub hold: H,
}

/// The number of a source, for as long as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId(pub(crate) u32);

/// The sources that are used.
#[derive(Debug)]
pub(crate) struct Sources<H> {
    list: Vec<Used<H>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Used<H> {
    /// Nothing while its number is free.
    source: Option<Source<H>>,
    uses: u32,
    /// The last batch of documents that got a claim on it.
    batch: u64,
}

impl<H: Clone> Sources<H> {
    pub(crate) fn new() -> Self {
        Self {
            list: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Begins with one use, which is the caller's.
    pub(crate) fn begin(&mut self, source: Source<H>) -> SourceId {
        let used = Used {
            source: Some(source),
            uses: 1,
            batch: 0,
        };
        let free = self.free.pop();
        match free.and_then(|id| Some((id, self.list.get_mut(id as usize)?))) {
            Some((id, slot)) => {
                *slot = used;
                SourceId(id)
            }
            None => {
                self.list.push(used);
                SourceId(self.list.len() as u32 - 1)
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: SourceId) -> Option<&Source<H>> {
        self.list.get(id.0 as usize)?.source.as_ref()
    }

    /// One more use.
    #[inline]
    pub(crate) fn use_again(&mut self, id: SourceId) {
        if let Some(used) = self.list.get_mut(id.0 as usize) {
            used.uses += 1;
        }
    }

    /// Ends a use without a document; gives what is held when it was the last.
    pub(crate) fn end(&mut self, id: SourceId) -> Option<H> {
        let used = self.list.get_mut(id.0 as usize)?;
        used.uses = used.uses.saturating_sub(1);
        if used.uses > 0 {
            return None;
        }
        self.free.push(id.0);
        used.source.take().map(|source| source.hold)
    }

    /// Ends the use by a trace of which a document was made, in the batch of this number (from 1 on). Gives a claim for
    /// the batch, unless the batch has one already.
    #[inline]
    pub(crate) fn leave(&mut self, id: SourceId, batch: u64) -> Option<H> {
        let used = self.list.get_mut(id.0 as usize)?;
        if used.uses > 1 {
            used.uses -= 1;
            if used.batch == batch {
                return None;
            }
            used.batch = batch;
            return used.source.as_ref().map(|source| source.hold.clone());
        }
        self.end(id)
    }

    /// Which of them hold something of which `pinned` says so; by their numbers.
    pub(crate) fn holding(&self, mut pinned: impl FnMut(&H) -> bool) -> Vec<bool> {
        let holds = |used: &Used<H>| used.source.as_ref().is_some_and(|source| pinned(&source.hold));
        self.list.iter().map(holds).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.len() - self.free.len()
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
    fn a_batch_has_one_claim_and_the_last_use_gives_the_hold() {
        let mut sources = Sources::new();
        let (a, b) = (sources.begin(source(1)), sources.begin(source(2)));
        for _ in 0..4 {
            sources.use_again(a);
        }
        assert_eq!([sources.leave(a, 1), sources.leave(a, 1)], [Some(1), None]);
        assert_eq!(sources.leave(a, 2), Some(1), "another batch has one of its own");
        assert_eq!(sources.end(a), None);
        assert_eq!(
            sources.leave(a, 2),
            Some(1),
            "nobody is left to give it back otherwise"
        );
        assert_eq!((sources.len(), sources.end(b)), (1, Some(2)));
        let c = sources.begin(source(3));
        assert!(c == a || c == b, "numbers are used again");
        assert_eq!(sources.get(c).unwrap().hold, 3);
        assert_eq!(
            sources.leave(c, 2),
            Some(3),
            "the batch had a claim on another one of this number"
        );
    }
}
