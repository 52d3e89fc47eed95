//! The hash index of the slab: an open-addressing table from hash to slot number.
//!
//! An entry takes eight bytes, so that a lookup usually touches one cache line, and that line can
//! be prefetched, which general hash tables do not offer. Callers compare the ids.

use prefetch_index::prefetch_index;

/// No slot.
const NONE: u32 = u32::MAX;
/// A vacant entry.
const VACANT: Entry = Entry { hash: 0, slot: NONE };
/// Minimum number of entries.
const MIN_ENTRIES: usize = 64;

/// The index. Linear probing, deletion by backward shift.
#[derive(Debug)]
pub(crate) struct HashIndex {
    /// A power of two of them, at most three quarters occupied. Between an entry and its home
    /// position no entry is vacant.
    entries: Vec<Entry>,
    len: usize,
}

/// The slot of a trace, with the upper half of its hash.
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

    /// Prefetches the home position of a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch_index(&self.entries, self.home(short(hash)));
    }

    /// The first slot with this hash for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let number = self.position(hash, is)?;
        Some(self.entries.get(number)?.slot)
    }

    /// Adds a slot that is not in the index.
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

    /// Removes a slot.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let Some(mut hole) = self.position(hash, |other| other == slot) else {
            return;
        };
        self.len -= 1;
        // Entries behind it move up if they would no longer be found.
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

    /// The position of the first entry with this hash for which `is` holds.
    #[inline]
    fn position(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        let short = short(hash);
        let mut number = self.home(short);
        loop {
            // `None` in an empty table. Any other has a vacant entry.
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

    /// The home position of a hash.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        // Spread over all bits again, since only half of the hash is kept.
        let spread = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32) as usize & self.mask()
    }
}

/// The half of the hash that is kept.
#[inline]
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Few distinct hashes, so that many entries collide.
    fn hash(number: u8) -> u64 {
        u64::from(number % 40) << 32 | u64::from(number)
    }

    proptest! {
        /// It holds what a map from slots to hashes holds, whatever is inserted and removed.
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
