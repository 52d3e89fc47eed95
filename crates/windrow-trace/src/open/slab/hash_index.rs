//! The index of the slab: from a hash to the place of its trace.
//!
//! Owns a table of eight bytes a trace with open addressing, in which one line of the processor's cache mostly answers, and which
//! the processor can be asked to prefetch before. That is what a general hash table cannot, and all that this one is for. What lies slot a
//! place is not known here.

use prefetch_index::prefetch_index;

/// No place.
const NONE: u32 = u32::MAX;
/// Where nothing stands.
const VACANT: Entry = Entry { hash: 0, slot: NONE };
/// Entries of the smallest table.
const MIN_ENTRIES: usize = 64;

/// See above.
#[derive(Debug)]
pub(crate) struct HashIndex {
    /// As many as a power of two, slot most three quarters of them taken. An entry stands slot its home, or behind it with none vacant
    /// in between.
    entries: Vec<Entry>,
    len: usize,
}

/// The place of a trace of this hash.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    slot: u32,
}

impl HashIndex {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Has the processor prefetch where the place for this hash is found.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch_index(&self.entries, self.home(short(hash)));
    }

    /// The first place for this hash that is the right one.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let number = self.position(hash, is)?;
        Some(self.entries.get(number)?.slot)
    }

    /// Adds a place, which is not there yet.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        if self.len * 4 >= self.entries.len() * 3 {
            self.grow();
        }
        self.put(Entry {
            hash: short(hash),
            slot,
        });
        self.len += 1;
    }

    /// Takes a place out.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let Some(mut hole) = self.position(hash, |other| other == slot) else {
            return;
        };
        self.len -= 1;
        // Those behind it that would not be found any more move up.
        let mask = self.mask();
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let entry = self.entries[next];
            if entry.slot == NONE {
                break;
            }
            let from_home = next.wrapping_sub(self.home(entry.hash)) & mask;
            if from_home >= next.wrapping_sub(hole) & mask {
                self.entries[hole] = entry;
                hole = next;
            }
        }
        self.entries[hole] = VACANT;
    }

    /// Where the entry of the right place stands.
    #[inline]
    fn position(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        let short = short(hash);
        let mut number = self.home(short);
        loop {
            // None in a table that has no memory yet; in another there is always a vacant one.
            let entry = self.entries.get(number)?;
            if entry.slot == NONE {
                return None;
            }
            if entry.hash == short && is(entry.slot) {
                return Some(number);
            }
            number = (number + 1) & self.mask();
        }
    }

    #[inline]
    fn put(&mut self, entry: Entry) {
        let mask = self.mask();
        let mut number = self.home(entry.hash);
        while self.entries[number].slot != NONE {
            number = (number + 1) & mask;
        }
        self.entries[number] = entry;
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.entries.len() * 2).max(MIN_ENTRIES);
        let before = std::mem::replace(&mut self.entries, vec![VACANT; size]);
        for entry in before.into_iter().filter(|entry| entry.slot != NONE) {
            self.put(entry);
        }
    }

    #[inline]
    fn mask(&self) -> usize {
        self.entries.len().wrapping_sub(1)
    }

    /// Where an entry of this hash stands if nothing is in its way.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        // Spread over all bits again: half of the hash is all that is kept of it.
        let spread = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32) as usize & self.mask()
    }
}

/// What is kept of a hash beside the place.
#[inline]
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A hash of which few bits differ, so that many entries are in each other's way.
    fn hash(number: u8) -> u64 {
        u64::from(number % 40) << 32 | u64::from(number)
    }

    proptest! {
        /// It holds what a map from places to hashes holds, whatever is put in and taken out.
        #[test]
        fn finds_what_is_in_it(steps in prop::collection::vec((any::<bool>(), any::<u8>()), 0..600)) {
            let mut index = HashIndex::new();
            let mut model = HashMap::new();
            for (put, number) in steps {
                let slot = u32::from(number);
                if put && model.insert(slot, hash(number)).is_none() {
                    index.insert(hash(number), slot);
                } else if !put {
                    index.remove(hash(number), slot);
                    model.remove(&slot);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for number in 0..=u8::MAX {
                let slot = u32::from(number);
                let found = index.find(hash(number), |other| other == slot);
                prop_assert_eq!(found, model.contains_key(&slot).then_some(slot));
                let any = index.find(hash(number), |_| true);
                let expected = model.values().any(|other| short(*other) == short(hash(number)));
                prop_assert_eq!(any.is_some(), expected);
            }
        }
    }

    #[test]
    fn a_table_of_its_greatest_fill_finds_everything() {
        let mut index = HashIndex::new();
        let spread = |n: u32| u64::from(n).wrapping_mul(0x2545_f491_4f6c_dd1d);
        for n in 0..49_152 {
            index.insert(spread(n), n);
        }
        assert_eq!(index.entries.len(), 1 << 16, "three quarters are taken");
        assert!((0..49_152).all(|n| index.find(spread(n), |slot| slot == n) == Some(n)));
        assert!((49_152..60_000).all(|n| index.find(spread(n), |slot| slot == n).is_none()));
    }
}
