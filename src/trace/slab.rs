//! The open traces: found by id, and listed in the order of last use.
//!
//! Owns where they lie. A trace stays in one place while it is open. The way to it is laid out for many of them, of which
//! the processor's cache has few: what tells them apart while one is sought lies close together, eight bytes each, and so do
//! the links of the list. When a trace is moved in the list, and what it is, is the table's business.

use hashbrown::HashTable;

use super::key::{Id, Key};
use super::open::Trace;

/// Places of a chunk.
const CHUNK: usize = 256;
/// No place.
const NONE: u32 = u32::MAX;

/// See above.
#[derive(Debug)]
pub(super) struct Slab {
    index: HashTable<Entry>,
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

/// The place of a trace of this hash.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    at: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Of the vacant ones among the nodes, which are linked by `after`, the first.
    vacant: Option<u8>,
    used: usize,
}

#[derive(Debug)]
struct Node {
    /// None while it is vacant.
    stamp: u64,
    key: Key,
    trace: Trace,
}

/// The stamp of what is vacant.
const VACANT: u64 = 0;

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// Where a trace lies, for as long as it is there: of one that has gone it leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    at: u32,
    stamp: u64,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self {
            index: HashTable::new(),
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
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The trace of this id.
    #[inline]
    pub(super) fn find(&mut self, id: Id<'_>) -> Option<(Ticket, &mut Trace)> {
        let short = short(id.hash());
        let is =
            |entry: &Entry| entry.hash == short && self.node(entry.at).is_some_and(|node| node.key.is(id));
        let at = self.index.find(spread(short), is)?.at;
        let node = self.node_mut(at)?;
        let ticket = Ticket {
            at,
            stamp: node.stamp,
        };
        Some((ticket, &mut node.trace))
    }

    /// Where the trace of this hash may be, without a look at it.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> Option<Guess> {
        let short = short(hash);
        let entry = self.index.find(spread(short), |entry| entry.hash == short)?;
        Some(Guess(entry.at))
    }

    /// Looks at what is needed to find its records.
    #[inline]
    pub(super) fn look(&self, guess: Guess) -> u64 {
        self.node(guess.0)
            .map_or(0, |node| node.stamp ^ node.key.hash() ^ node.trace.look())
    }

    /// Looks at the places where its next record goes.
    #[inline]
    pub(super) fn look_inside(&self, guess: Guess) -> u8 {
        self.node(guess.0).map_or(0, |node| node.trace.glance())
    }

    /// The trace of this ticket, with its id.
    #[inline]
    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<(Id<'_>, &mut Trace)> {
        let node = self.node_mut(ticket.at)?;
        (node.stamp == ticket.stamp).then_some((node.key.as_id(), &mut node.trace))
    }

    /// Gives this id, which is not there, a vacant place at the end of the list.
    #[inline]
    pub(super) fn open(&mut self, id: Id<'_>) -> (Ticket, &mut Trace) {
        let short = short(id.hash());
        self.stamp += 1;
        let (at, stamp) = (self.place(), self.stamp);
        self.link_last(at);
        let entry = Entry { hash: short, at };
        self.index
            .insert_unique(spread(short), entry, |entry| spread(entry.hash));
        let Some(node) = self.node_mut(at) else {
            unreachable!("a place has just been found");
        };
        node.stamp = stamp;
        node.key = id.into();
        (Ticket { at, stamp }, &mut node.trace)
    }

    /// Moves it to the end of the list.
    pub(super) fn promote(&mut self, ticket: Ticket) {
        if ticket.at != self.newest && self.get_mut(ticket).is_some() {
            self.unlink(ticket.at);
            self.link_last(ticket.at);
        }
    }

    /// The first of the list.
    #[inline]
    pub(super) fn oldest(&mut self) -> Option<(Ticket, &mut Trace)> {
        let at = self.oldest;
        let node = self.node_mut(at)?;
        let ticket = Ticket {
            at,
            stamp: node.stamp,
        };
        Some((ticket, &mut node.trace))
    }

    /// Takes a trace out: its place is vacant, and what lies there is the caller's for as long as nothing else is done here.
    #[inline]
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<(Id<'_>, &mut Trace)> {
        let at = ticket.at;
        let node = self.node_mut(at).filter(|node| node.stamp == ticket.stamp)?;
        node.stamp = VACANT;
        let short = short(node.key.hash());
        if let Ok(entry) = self.index.find_entry(spread(short), |entry| entry.at == at) {
            entry.remove();
        }
        self.unlink(at);
        self.vacate(at);
        let node = self.node_mut(at)?;
        Some((node.key.as_id(), &mut node.trace))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id<'_>, &Trace)> {
        let nodes = self.chunks.iter().flat_map(|chunk| &chunk.nodes);
        let there = nodes.filter(|node| node.stamp != VACANT);
        there.map(|node| (node.key.as_id(), &node.trace))
    }

    /// Gives memory back, when there is none.
    pub(super) fn rest(&mut self) {
        if self.len() == 0 && self.allocated > 1 {
            let stamp = self.stamp;
            *self = Self { stamp, ..Self::new() };
        }
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
pub(super) struct Guess(u32);

/// What is kept of a hash beside the place.
#[inline]
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Spread over all bits again: the table looks at both ends.
#[inline]
fn spread(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::key::Keys;
    use super::super::open::Incoming;
    use super::super::part::PartId;
    use super::super::source::{Source, SourceId, Sources};
    use super::*;

    struct Fixture {
        slab: Slab,
        keys: Keys,
        sources: Sources<()>,
        source: SourceId,
    }

    impl Fixture {
        fn new() -> Self {
            let mut sources = Sources::new();
            let source = sources.begin(Source {
                part: PartId([1; 12]),
                received: 1,
                tag: Arc::from("app"),
                hold: (),
            });
            Self {
                slab: Slab::new(),
                keys: Keys::default(),
                sources,
                source,
            }
        }

        fn push(&mut self, number: u32) -> Ticket {
            let id = number.to_string();
            let id = self.keys.id(id.as_bytes());
            let incoming = Incoming {
                id,
                time: 1,
                source: self.source,
                position: number,
                record: &number.to_le_bytes(),
                metadata: b"",
                completes: false,
                shape: None,
                text: None,
            };
            let (ticket, trace) = self.slab.open(id);
            trace.begin(i64::from(number), &incoming, &mut self.sources, Vec::new());
            ticket
        }

        fn find(&mut self, number: u32) -> Option<Ticket> {
            let id = number.to_string();
            let (ticket, trace) = self.slab.find(self.keys.id(id.as_bytes()))?;
            assert_eq!(trace.opened, i64::from(number));
            Some(ticket)
        }

        /// The list, from both ends.
        fn list(&self) -> Vec<u32> {
            let (mut list, mut at, mut last) = (Vec::new(), self.slab.oldest, NONE);
            while let Some(node) = self.slab.node(at) {
                list.push(std::str::from_utf8(node.key.id()).unwrap().parse().unwrap());
                let link = self.slab.chunks[at as usize / CHUNK].links[at as usize % CHUNK];
                assert_eq!(link.before, last);
                (last, at) = (at, link.after);
            }
            assert_eq!(last, self.slab.newest);
            assert_eq!(list.len(), self.slab.len());
            list
        }
    }

    #[test]
    fn a_ticket_leads_to_its_trace_and_to_no_other() {
        let mut f = Fixture::new();
        let tickets: Vec<Ticket> = (0..600).map(|number| f.push(number)).collect();
        assert_eq!(f.find(300), Some(tickets[300]));
        assert_eq!(f.find(600), None);
        let (id, trace) = f.slab.take(tickets[300]).unwrap();
        assert_eq!((id.bytes(), trace.opened), (&b"300"[..], 300));
        assert_eq!(f.find(300), None);
        let again = f.push(1000);
        assert_eq!(again.at, tickets[300].at, "a vacant place is used again");
        assert!(f.slab.get_mut(tickets[300]).is_none());
        assert!(f.slab.take(tickets[300]).is_none());
        f.slab.promote(tickets[300]);
        assert_eq!(f.find(1000), Some(again));
        assert_eq!(f.slab.iter().count(), 600);
    }

    #[test]
    fn the_list_is_in_the_order_of_use() {
        let mut f = Fixture::new();
        assert!(f.slab.oldest().is_none());
        let tickets: Vec<Ticket> = (0..5).map(|number| f.push(number)).collect();
        f.slab.promote(tickets[2]);
        f.slab.promote(tickets[0]);
        f.slab.promote(tickets[0]);
        assert_eq!(f.list(), [1, 3, 4, 2, 0]);
        for (taken, left) in [
            (4, &[1, 3, 2, 0][..]),
            (1, &[3, 2, 0]),
            (0, &[3, 2]),
            (2, &[3]),
            (3, &[]),
        ] {
            f.slab.take(tickets[taken]).unwrap();
            assert_eq!(f.list(), left);
        }
        f.push(9);
        assert_eq!(f.list(), [9]);
        assert_eq!(f.slab.oldest().unwrap().1.opened, 9);
    }

    #[test]
    fn whatever_is_taken_out_is_there() {
        // In waves, chunk by chunk in ever another order, so that chunks become empty again and again.
        let mut f = Fixture::new();
        let (mut there, mut number, mut random) = (Vec::new(), 0, 1_u64);
        for _ in 0..100 {
            let mut next = |most: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) % most
            };
            let (most, least) = (next(5000) as usize, next(1500) as usize);
            while there.len() < most {
                there.push((number, f.push(number)));
                number += 1;
            }
            let mut order: Vec<u64> = (0..40).map(|_| next(1 << 20)).collect();
            order.resize(100, 0);
            there.sort_by_key(|(_, ticket): &(u32, Ticket)| (order[ticket.at as usize / CHUNK], ticket.at));
            while there.len() > least {
                let (number, ticket) = there.pop().unwrap();
                let (id, trace) = f.slab.take(ticket).expect("what was put in");
                assert_eq!(id.bytes(), number.to_string().as_bytes());
                assert_eq!((trace.opened, trace.count()), (i64::from(number), 1));
                trace.vacate();
            }
            let used: usize = f.slab.chunks.iter().map(|chunk| chunk.used).sum();
            assert_eq!(
                (f.slab.len(), f.slab.iter().count(), used),
                (there.len(), used, used)
            );
            let allocated = f.slab.chunks.iter().filter(|chunk| chunk.nodes.capacity() > 0);
            assert_eq!(allocated.count(), f.slab.allocated);
        }
    }

    #[test]
    fn memory_goes_with_the_traces() {
        let mut f = Fixture::new();
        let chunks = 70;
        let tickets: Vec<Ticket> = (0..CHUNK as u32 * chunks).map(|number| f.push(number)).collect();
        assert_eq!(f.slab.allocated, chunks as usize);
        // Every other one goes: no chunk is empty.
        for ticket in tickets.iter().skip(1).step_by(2) {
            f.slab.take(*ticket).unwrap();
        }
        assert_eq!(f.slab.allocated, chunks as usize);
        for ticket in tickets.iter().step_by(2).skip(CHUNK) {
            f.slab.take(*ticket).unwrap();
        }
        assert!(f.slab.allocated <= 6, "{}", f.slab.allocated);
        assert_eq!(f.slab.len(), CHUNK);
        // The first places are taken first, also those of chunks that gave their memory back.
        for number in 0..CHUNK as u32 * chunks {
            assert!(f.push(100_000 + number).at < (chunks + 2) * CHUNK as u32);
        }
        for number in (0..CHUNK as u32).map(|n| 2 * n).chain([100_000, 117_919]) {
            assert!(f.find(number).is_some(), "{number}");
        }
        assert_eq!(f.list().len(), CHUNK * (chunks as usize + 1));
        while let Some((ticket, _)) = f.slab.oldest() {
            f.slab.take(ticket).unwrap();
        }
        assert!(f.slab.allocated <= 5, "{}", f.slab.allocated);
        f.slab.rest();
        assert_eq!((f.slab.allocated, f.slab.chunks.len()), (0, 0));
        let ticket = f.push(7);
        assert_eq!(f.find(7), Some(ticket));
        f.slab.take(ticket).unwrap();
        assert!(
            f.slab.take(tickets[0]).is_none(),
            "tickets from before the rest lead nowhere"
        );
    }
}
