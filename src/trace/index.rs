//! Where among the lingering traces one of this hash may be.
//!
//! Owns a table of buckets of one cache line each. It may point to what has gone, and may forget what is there: whoever
//! asks looks for himself, and a trace that is not found becomes a second document, which the union makes one again. So
//! nothing is ever removed, and each question and each note costs one look at memory.

/// Traces for which there is a bucket, of the sixteen that it takes: then it forgets about one in two hundred.
const PER_BUCKET: usize = 10;
/// Buckets at the least; a power of two.
const LEAST: usize = 64;
/// Buckets that are kept when there is nothing to find.
const KEPT: usize = 1024;

/// See above. The numbers are given in order, and wrap around.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two, or none.
    buckets: Vec<Bucket>,
    /// How many bits of a number a place has; the others are bits of the hash, so that others are told apart without
    /// looking at them.
    bits: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u32; 16]);

impl Index {
    /// Notes that `number` is there, the last of those from `first` on. Says whether the table is too small by now.
    pub(super) fn insert(&mut self, hash: u64, number: u32, first: u32) -> bool {
        let mask = self.mask();
        let place = self.tag(hash) | number & mask;
        let at = self.place(hash);
        // In place of the oldest, which mostly has gone already.
        let age = |place: &u32| number.wrapping_sub(*place) & mask;
        let oldest = self
            .buckets
            .get_mut(at)
            .and_then(|bucket| bucket.0.iter_mut().max_by_key(|place| age(place)));
        if let Some(oldest) = oldest {
            *oldest = place;
        }
        number.wrapping_sub(first) as usize >= self.buckets.len() * PER_BUCKET
    }

    /// Begins anew, with room for twice as many as there are: those from `first` on.
    pub(super) fn fill(&mut self, first: u32, count: usize, there: impl Iterator<Item = (u64, u32)>) {
        let buckets = (count * 2 / PER_BUCKET).next_power_of_two().max(LEAST);
        // Four times as many numbers as there are places, so that none comes again while an old one is there.
        self.bits = (buckets * 64).ilog2().min(31);
        let nothing = first.wrapping_sub(1) & self.mask();
        self.buckets = vec![Bucket([nothing; 16]); buckets];
        for (hash, number) in there {
            self.insert(hash, number, first);
        }
    }

    /// There is nothing any more: gives the memory of a large table back.
    pub(super) fn forget(&mut self) {
        if self.buckets.len() > KEPT {
            self.buckets = Vec::new();
        }
    }

    /// The numbers of those that may be it, of the ones from `first` on.
    #[inline]
    pub(super) fn find(&self, hash: u64, first: u32) -> impl Iterator<Item = u32> + '_ {
        let at = self.place(hash);
        let places = self.buckets.get(at).map_or(&[][..], |bucket| &bucket.0);
        let (wanted, mask) = (self.tag(hash), self.mask());
        places
            .iter()
            .filter(move |place| *place & !mask == wanted)
            .map(move |place| first.wrapping_add(place.wrapping_sub(first) & mask))
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }

    fn mask(&self) -> u32 {
        (1 << self.bits) - 1
    }

    fn tag(&self, hash: u64) -> u32 {
        (hash >> 32) as u32 & !self.mask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(of: u32) -> u64 {
        u64::from(of).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn what_is_there_is_found_mostly() {
        // Numbers wrap around in the middle.
        let start = u32::MAX - 30_000;
        let mut index = Index::default();
        let mut found = 0;
        for n in 0..100_000u32 {
            let number = start.wrapping_add(n);
            let first = start.wrapping_add(n.saturating_sub(9_999));
            if index.insert(hash(n), number, first) {
                let there = 0..number.wrapping_sub(first) + 1;
                let numbers = there.map(|at| first.wrapping_add(at));
                index.fill(
                    first,
                    numbers.len(),
                    numbers.map(|number| (hash(number.wrapping_sub(start)), number)),
                );
            }
            let older = n.saturating_sub(n % 9_999);
            let wanted = start.wrapping_add(older);
            found += u32::from(index.find(hash(older), first).any(|number| number == wanted));
        }
        assert!(found > 99_000, "{found}");
        assert!(index.buckets.len() <= 2048, "{}", index.buckets.len());
    }
}
