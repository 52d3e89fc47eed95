//! The open traces: found by id, and listed in the order of last use.
//!
//! Owns where they lie. A trace stays in one place while it is open. The way to it is laid out for many of them, of which
//! the processor's cache has few: what tells them apart while one is sought lies close together (`index`), and so do the links
//! of the list. What is needed soon can be fetched: then the processor gets it from memory while something else is done. To
//! fetch is never wrong, and never needed. When a trace is moved in the list, and what it is, is the table's business.

mod hash_index;
#[cfg(test)]
mod tests;

use prefetch_index::prefetch_index;

use self::hash_index::Index;
use super::cache_line::LINE;
use super::trace::Trace;
use crate::trace_id::{Id, Key};

/// Places of a chunk.
const CHUNK: usize = 256;
/// No place.
const NONE: u32 = u32::MAX;

/// See above.
#[derive(Debug)]
pub(crate) struct Slab {
    index: Index,
    chunks: Vec<Chunk>,
    /// A bit for each chunk that has a vacant place: new traces take the first, so that the last chunks become empty.
    roomy: Vec<u64>,
    /// Chunks that have memory.
    allocated: usize,
    /// Of those the numbers of some that had become empty.
    emptied: Vec<usize>,
    oldest: u32,
    newest: u32,
    /// Traces that were ever put in.
    stamp: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Of the vacant ones among the nodes, which are linked by `after`, the first.
    vacant: Option<u8>,
    used: usize,
}

// Begins with a line of the cache, and with its stamp.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Node {
    /// None while it is vacant.
    stamp: u64,
    key: Key,
    pub(crate) trace: Trace,
}

impl Node {
    /// The id of the trace.
    #[inline]
    pub(crate) fn id(&self) -> Id<'_> {
        self.key.as_id()
    }

    /// The trace with its id.
    #[inline]
    pub(crate) fn both(&mut self) -> (Id<'_>, &mut Trace) {
        (self.key.as_id(), &mut self.trace)
    }
}

const NODE_LINES: usize = size_of::<Node>() / LINE;

/// The stamp of what is vacant.
const VACANT: u64 = 0;

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// Where a trace lies, for as long as it is there: of one that has gone it leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    at: u32,
    stamp: u64,
}

impl Slab {
    pub(crate) fn new() -> Self {
        Self {
            index: Index::new(),
            chunks: Vec::new(),
            roomy: Vec::new(),
            allocated: 0,
            emptied: Vec::new(),
            oldest: NONE,
            newest: NONE,
            stamp: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The trace of this id.
    #[inline]
    pub(crate) fn find(&mut self, id: Id<'_>) -> Option<(Ticket, &mut Trace)> {
        let is = |at: u32| self.node(at).is_some_and(|node| node.key.is(id));
        let at = self.index.find(id.hash(), is)?;
        self.at(at)
    }

    /// Has the processor fetch what is needed to find the trace of this hash.
    #[inline]
    pub(crate) fn fetch_place(&self, hash: u64) {
        self.index.fetch(hash);
    }

    /// Where the trace of this hash may be, without a look at it.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<Guess> {
        self.index.find(hash, |_| true).map(Guess)
    }

    /// Has the processor fetch what is needed to find the records of this trace.
    #[inline]
    pub(crate) fn fetch(&self, guess: Guess) {
        if let Some(node) = self.node(guess.0) {
            // Its stamp stands first.
            let words = std::slice::from_ref(&node.stamp);
            for line in 0..NODE_LINES {
                prefetch_index(words, line * (LINE / size_of::<u64>()));
            }
        }
    }

    /// Has the processor fetch the places where the next record of this trace goes.
    #[inline]
    pub(crate) fn fetch_records(&self, guess: Guess) {
        if let Some(node) = self.node(guess.0) {
            node.trace.fetch();
        }
    }

    /// Has the processor fetch what is needed to take a trace out later on: first what leads to all the rest.
    #[inline]
    pub(crate) fn fetch_ticket(&self, ticket: Ticket) {
        self.fetch(Guess(ticket.at));
        if let Some(chunk) = self.chunks.get(ticket.at as usize / CHUNK) {
            prefetch_index(&chunk.links, ticket.at as usize % CHUNK);
        }
    }

    /// And then the rest.
    #[inline]
    pub(crate) fn fetch_whole(&self, ticket: Ticket) {
        if let (Some(node), Some(link)) = (self.node(ticket.at), self.link(ticket.at)) {
            self.index.fetch(node.key.hash());
            node.trace.fetch_whole();
            for at in [link.before, link.after] {
                if let Some(chunk) = self.chunks.get(at as usize / CHUNK) {
                    prefetch_index(&chunk.links, at as usize % CHUNK);
                }
            }
        }
    }

    /// The trace of this ticket, with its id.
    #[inline]
    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<(Id<'_>, &mut Trace)> {
        let node = self.node_mut(ticket.at)?;
        (node.stamp == ticket.stamp).then_some((node.key.as_id(), &mut node.trace))
    }

    /// Gives this id, which is not there, a vacant place at the end of the list.
    #[inline]
    pub(crate) fn open(&mut self, id: Id<'_>) -> (Ticket, &mut Trace) {
        self.stamp += 1;
        let (at, stamp) = (self.place(), self.stamp);
        self.link_last(at);
        self.index.insert(id.hash(), at);
        let Some(node) = self.node_mut(at) else {
            unreachable!("a place has just been found");
        };
        node.stamp = stamp;
        node.key = id.into();
        (Ticket { at, stamp }, &mut node.trace)
    }

    /// Moves it to the end of the list.
    pub(crate) fn promote(&mut self, ticket: Ticket) {
        if ticket.at != self.newest && self.get_mut(ticket).is_some() {
            self.unlink(ticket.at);
            self.link_last(ticket.at);
        }
    }

    /// The first of the list.
    #[inline]
    pub(crate) fn oldest(&mut self) -> Option<(Ticket, &mut Trace)> {
        self.at(self.oldest)
    }

    /// Takes a trace out: its place is vacant, and what lies there is the caller's for as long as nothing else is done here.
    #[inline]
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<&mut Node> {
        let at = ticket.at;
        let node = self.node_mut(at).filter(|node| node.stamp == ticket.stamp)?;
        node.stamp = VACANT;
        let hash = node.key.hash();
        self.index.remove(hash, at);
        self.unlink(at);
        self.vacate(at);
        self.node_mut(at)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id<'_>, &Trace)> {
        let nodes = self.chunks.iter().flat_map(|chunk| &chunk.nodes);
        let there = nodes.filter(|node| node.stamp != VACANT);
        there.map(|node| (node.key.as_id(), &node.trace))
    }

    /// Gives memory back, when there is none.
    pub(crate) fn rest(&mut self) {
        if self.len() == 0 && self.allocated > 1 {
            let stamp = self.stamp;
            *self = Self { stamp, ..Self::new() };
        }
    }

    /// The trace that lies there.
    #[inline]
    fn at(&mut self, at: u32) -> Option<(Ticket, &mut Trace)> {
        let node = self.node_mut(at)?;
        let stamp = node.stamp;
        Some((Ticket { at, stamp }, &mut node.trace))
    }

    #[inline]
    fn node(&self, at: u32) -> Option<&Node> {
        self.chunks
            .get(at as usize / CHUNK)?
            .nodes
            .get(at as usize % CHUNK)
    }

    #[inline]
    fn node_mut(&mut self, at: u32) -> Option<&mut Node> {
        let chunk = self.chunks.get_mut(at as usize / CHUNK)?;
        chunk.nodes.get_mut(at as usize % CHUNK)
    }

    #[inline]
    fn link(&self, at: u32) -> Option<Link> {
        let chunk = self.chunks.get(at as usize / CHUNK)?;
        chunk.links.get(at as usize % CHUNK).copied()
    }

    #[inline]
    fn link_mut(&mut self, at: u32) -> Option<&mut Link> {
        let chunk = self.chunks.get_mut(at as usize / CHUNK)?;
        chunk.links.get_mut(at as usize % CHUNK)
    }

    /// The first vacant place, which is not vacant any more.
    #[inline]
    fn place(&mut self) -> u32 {
        let number = match self.roomy.iter().position(|word| *word != 0) {
            Some(word) => word * 64 + self.roomy[word].trailing_zeros() as usize,
            None => {
                self.chunks.push(Chunk::default());
                self.chunks.len() - 1
            }
        };
        self.set_roomy(number, true);
        let Some(chunk) = self.chunks.get_mut(number) else {
            unreachable!("a chunk that has room is there");
        };
        chunk.used += 1;
        let at = match chunk.vacant {
            Some(vacant) => {
                let at = usize::from(vacant);
                let next = chunk.links[at].after;
                chunk.vacant = (next != NONE).then_some(next as u8);
                at
            }
            None => {
                if chunk.nodes.capacity() == 0 {
                    chunk.nodes.reserve_exact(CHUNK);
                    chunk.links.reserve_exact(CHUNK);
                    self.allocated += 1;
                }
                chunk.nodes.push(Node {
                    stamp: VACANT,
                    key: Key::NONE,
                    trace: Trace::vacant(),
                });
                chunk.links.push(Link {
                    before: NONE,
                    after: NONE,
                });
                chunk.nodes.len() - 1
            }
        };
        if chunk.used == CHUNK {
            self.set_roomy(number, false);
        }
        (number * CHUNK + at) as u32
    }

    /// Notes that nothing is in this place any more.
    #[inline]
    fn vacate(&mut self, at: u32) {
        let (number, at) = (at as usize / CHUNK, at as usize % CHUNK);
        let Some(chunk) = self.chunks.get_mut(number) else {
            return;
        };
        chunk.links[at].after = chunk.vacant.map_or(NONE, u32::from);
        chunk.vacant = Some(at as u8);
        chunk.used -= 1;
        if chunk.used == 0 {
            self.give_back(number);
            self.emptied.push(number);
        }
        self.set_roomy(number, true);
    }

    /// Gives the memory of empty chunks back while there are many more chunks than are needed; but for the one that has just
    /// become empty, where what was taken out still lies.
    #[cold]
    fn give_back(&mut self, last: usize) {
        while self.allocated * CHUNK > 2 * self.len() + 4 * CHUNK {
            let Some(number) = self.emptied.pop() else {
                return;
            };
            // It may be in use again, or have been given back.
            if let Some(chunk) = self.chunks.get_mut(number)
                && number != last
                && chunk.used == 0
                && chunk.nodes.capacity() > 0
            {
                *chunk = Chunk::default();
                self.allocated -= 1;
            }
        }
    }

    #[inline]
    fn set_roomy(&mut self, chunk: usize, roomy: bool) {
        if self.roomy.len() <= chunk / 64 {
            self.roomy.push(0);
        }
        if let Some(word) = self.roomy.get_mut(chunk / 64) {
            let bit = 1 << (chunk % 64);
            *word = if roomy { *word | bit } else { *word & !bit };
        }
    }

    #[inline]
    fn link_last(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        if let Some(link) = self.link_mut(at) {
            *link = Link { before, after: NONE };
        }
        match self.link_mut(before) {
            Some(link) => link.after = at,
            None => self.oldest = at,
        }
    }

    #[inline]
    fn unlink(&mut self, at: u32) {
        let Some(&mut Link { before, after }) = self.link_mut(at) else {
            return;
        };
        match self.link_mut(before) {
            Some(link) => link.after = after,
            None => self.oldest = after,
        }
        match self.link_mut(after) {
            Some(link) => link.before = before,
            None => self.newest = before,
        }
    }
}

/// The place of a trace that may be another one.
#[derive(Clone, Copy, Debug)]
pub struct Guess(u32);
