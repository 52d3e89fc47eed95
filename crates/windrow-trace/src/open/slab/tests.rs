//! The slab: insertion, removal, order, and memory use.

use std::sync::Arc;

use super::*;
use crate::open::trace::IncomingRecord;
use crate::part::PartId;
use crate::source::{Source, SourceId, Sources};
use crate::trace_id::TraceIdHasher;

struct Fixture {
    slab: Slab,
    keys: TraceIdHasher,
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
            keys: TraceIdHasher::default(),
            sources,
            source,
        }
    }

    fn push(&mut self, number: u32) -> SlotKey {
        let id = number.to_string();
        let id = self.keys.id(id.as_bytes());
        let incoming = IncomingRecord {
            id,
            time: 1,
            source: self.source,
            position: number,
            record: &number.to_le_bytes(),
            metadata: b"",
            completes: false,
            shape: None,
            text: None,
            level: None,
            service: None,
        };
        let (key, trace) = self.slab.open(id);
        trace.begin(i64::from(number), &incoming, &mut self.sources, Vec::new());
        key
    }

    fn find(&mut self, number: u32) -> Option<SlotKey> {
        let id = number.to_string();
        let (key, trace) = self.slab.find(self.keys.id(id.as_bytes()))?;
        assert_eq!(trace.opened_at, i64::from(number));
        Some(key)
    }

    /// The list, checked in both directions.
    fn list(&self) -> Vec<u32> {
        let (mut list, mut at, mut last) = (Vec::new(), self.slab.oldest, NONE);
        while let Some(slot) = self.slab.slot(at) {
            list.push(std::str::from_utf8(slot.id.id()).unwrap().parse().unwrap());
            let link = self.slab.chunks[at as usize / SLOTS_PER_CHUNK].links[at as usize % SLOTS_PER_CHUNK];
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
    let keys: Vec<SlotKey> = (0..600).map(|number| f.push(number)).collect();
    assert_eq!(f.find(300), Some(keys[300]));
    assert_eq!(f.find(600), None);
    let (id, trace) = f.slab.take(keys[300]).unwrap().id_and_trace();
    assert_eq!((id.bytes(), trace.opened_at), (&b"300"[..], 300));
    assert_eq!(f.find(300), None);
    let again = f.push(1000);
    assert_eq!(again.at, keys[300].at, "a vacant allocate is used again");
    assert!(f.slab.get_mut(keys[300]).is_none());
    assert!(f.slab.take(keys[300]).is_none());
    f.slab.promote(keys[300]);
    assert_eq!(f.find(1000), Some(again));
    assert_eq!(f.slab.iter().count(), 600);
}

#[test]
fn the_list_is_in_the_order_of_use() {
    let mut f = Fixture::new();
    assert!(f.slab.oldest().is_none());
    let keys: Vec<SlotKey> = (0..5).map(|number| f.push(number)).collect();
    f.slab.promote(keys[2]);
    f.slab.promote(keys[0]);
    f.slab.promote(keys[0]);
    assert_eq!(f.list(), [1, 3, 4, 2, 0]);
    for (taken, left) in [
        (4, &[1, 3, 2, 0][..]),
        (1, &[3, 2, 0]),
        (0, &[3, 2]),
        (2, &[3]),
        (3, &[]),
    ] {
        f.slab.take(keys[taken]).unwrap();
        assert_eq!(f.list(), left);
    }
    f.push(9);
    assert_eq!(f.list(), [9]);
    assert_eq!(f.slab.oldest().unwrap().1.opened_at, 9);
}

#[test]
fn whatever_is_taken_out_is_there() {
    // In waves, chunk by chunk in varying order, so that chunks become empty repeatedly.
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
        there.sort_by_key(|(_, key): &(u32, SlotKey)| (order[key.at as usize / SLOTS_PER_CHUNK], key.at));
        while there.len() > least {
            let (number, key) = there.pop().unwrap();
            let (id, trace) = f.slab.take(key).expect("what was put in").id_and_trace();
            assert_eq!(id.bytes(), number.to_string().as_bytes());
            assert_eq!((trace.opened_at, trace.count()), (i64::from(number), 1));
            trace.vacate();
        }
        let used: usize = f.slab.chunks.iter().map(|chunk| chunk.used).sum();
        assert_eq!(
            (f.slab.len(), f.slab.iter().count(), used),
            (there.len(), used, used)
        );
        let allocated = f.slab.chunks.iter().filter(|chunk| chunk.slots.capacity() > 0);
        assert_eq!(allocated.count(), f.slab.allocated);
    }
}

#[test]
fn memory_goes_with_the_traces() {
    let mut f = Fixture::new();
    let chunks = 70;
    let keys: Vec<SlotKey> = (0..SLOTS_PER_CHUNK as u32 * chunks)
        .map(|number| f.push(number))
        .collect();
    assert_eq!(f.slab.allocated, chunks as usize);
    // Every second trace is removed: no chunk is empty.
    for key in keys.iter().skip(1).step_by(2) {
        f.slab.take(*key).unwrap();
    }
    assert_eq!(f.slab.allocated, chunks as usize);
    for key in keys.iter().step_by(2).skip(SLOTS_PER_CHUNK) {
        f.slab.take(*key).unwrap();
    }
    assert!(f.slab.allocated <= 6, "{}", f.slab.allocated);
    assert_eq!(f.slab.len(), SLOTS_PER_CHUNK);
    // The first vacant slots are reused first, also in chunks that were freed.
    for number in 0..SLOTS_PER_CHUNK as u32 * chunks {
        assert!(f.push(100_000 + number).at < (chunks + 2) * SLOTS_PER_CHUNK as u32);
    }
    for number in (0..SLOTS_PER_CHUNK as u32)
        .map(|n| 2 * n)
        .chain([100_000, 117_919])
    {
        assert!(f.find(number).is_some(), "{number}");
    }
    assert_eq!(f.list().len(), SLOTS_PER_CHUNK * (chunks as usize + 1));
    while let Some((key, _)) = f.slab.oldest() {
        f.slab.take(key).unwrap();
    }
    assert!(f.slab.allocated <= 5, "{}", f.slab.allocated);
    f.slab.shrink();
    assert_eq!((f.slab.allocated, f.slab.chunks.len()), (0, 0));
    let key = f.push(7);
    assert_eq!(f.find(7), Some(key));
    f.slab.take(key).unwrap();
    assert!(
        f.slab.take(keys[0]).is_none(),
        "keys from before the shrink lead nowhere"
    );
}

#[test]
fn ids_that_are_not_inline_are_counted_and_freed() {
    let mut fixture = Fixture::new();
    let long: Vec<Vec<u8>> = (0..3_u8).map(|n| vec![n; 1000]).collect();
    let open = |fixture: &mut Fixture, id: &[u8]| fixture.slab.open(fixture.keys.id(id)).0;
    let keys: Vec<_> = long.iter().map(|id| open(&mut fixture, id)).collect();
    open(&mut fixture, b"short");
    assert_eq!(fixture.slab.id_bytes(), 3000);
    for (key, id) in keys.into_iter().zip(&long) {
        let slot = fixture.slab.take(key).unwrap();
        assert_eq!(slot.id().bytes(), id, "readable until the next change");
    }
    assert_eq!(fixture.slab.id_bytes(), 0);
    open(&mut fixture, b"other");
    let held = fixture.slab.chunks[0].slots.iter();
    assert!(held.map(|slot| slot.id().bytes().len()).all(|bytes| bytes <= 5));
}
