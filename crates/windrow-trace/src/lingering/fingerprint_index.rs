//! Where among the lingering traces one of this hash may be.
//!
//! Owns a table of buckets, each of a few fingerprints that tell traces apart, and the places beside it. The fingerprints of all buckets
//! stay in the processor's cache, and nearly always they say that a trace is not here, which is what is asked for each
//! new trace; the places are only written until then. The table may point to what has gone, and may clear what is there:
//! whoever asks looks for himself, and a trace that is not found becomes a second document, which the union makes one
//! again. So nothing is ever removed.

/// Places of a bucket.
const ENTRIES_PER_BUCKET: usize = 15;
/// Traces for which there is a bucket, of those that it takes: then it forgets about one in two hundred.
const TARGET_PER_BUCKET: usize = 10;
/// Buckets at the least; a power of two.
const MIN_BUCKETS: usize = 64;
/// Buckets that are kept when there is nothing to find.
const KEPT_BUCKETS: usize = 1024;

/// See above. The numbers are given in order, and wrap around.
#[derive(Debug, Default)]
pub(crate) struct FingerprintIndex {
    /// A power of two of them, or none.
    buckets: Vec<Bucket>,
    /// For each bucket the numbers that belong to its fingerprints.
    numbers: Vec<[u32; ENTRIES_PER_BUCKET]>,
}

/// A fingerprint of the hash for each place, and the place that is the next to be used again: that of the oldest trace, since
/// they come in order.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Bucket {
    fingerprints: [u8; ENTRIES_PER_BUCKET],
    next: u8,
}

impl FingerprintIndex {
    /// Notes that `number` is there, the last of those from `first` on. Says whether the table is too small by now.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, number: u32, first: u32) -> bool {
        let at = self.place(hash);
        if let (Some(bucket), Some(numbers)) = (self.buckets.get_mut(at), self.numbers.get_mut(at)) {
            let place = usize::from(bucket.next) % ENTRIES_PER_BUCKET;
            bucket.fingerprints[place] = fingerprint(hash);
            numbers[place] = number;
            bucket.next = (place as u8 + 1) % ENTRIES_PER_BUCKET as u8;
        }
        number.wrapping_sub(first) as usize >= self.buckets.len() * TARGET_PER_BUCKET
    }

    /// Begins anew, with room for twice as many as there are: those from `first` on.
    pub(crate) fn rebuild(&mut self, first: u32, count: usize, there: impl Iterator<Item = (u64, u32)>) {
        let buckets = (count * 2 / TARGET_PER_BUCKET)
            .next_power_of_two()
            .max(MIN_BUCKETS);
        self.buckets = vec![Bucket::default(); buckets];
        self.numbers = vec![[0; ENTRIES_PER_BUCKET]; buckets];
        for (hash, number) in there {
            self.insert(hash, number, first);
        }
    }

    /// There is nothing any more: gives the memory of a large table back.
    pub(crate) fn clear(&mut self) {
        if self.buckets.len() > KEPT_BUCKETS {
            *self = Self::default();
        }
    }

    /// The numbers of those that may be it; what they number may have gone.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let at = self.place(hash);
        let fingerprints = self
            .buckets
            .get(at)
            .map_or(&[][..], |bucket| &bucket.fingerprints);
        let wanted = fingerprint(hash);
        let places = fingerprints
            .iter()
            .enumerate()
            .filter(move |(_, fingerprint)| **fingerprint == wanted);
        places.filter_map(move |(place, _)| self.numbers.get(at)?.get(place).copied())
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// What tells traces of one bucket apart: never what stands where there has been none.
#[inline]
fn fingerprint(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(1)
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
        let mut index = FingerprintIndex::default();
        let mut found = 0;
        for n in 0..100_000u32 {
            let number = start.wrapping_add(n);
            let first = start.wrapping_add(n.saturating_sub(9_999));
            if index.insert(hash(n), number, first) {
                let there = 0..number.wrapping_sub(first) + 1;
                let numbers = there.map(|at| first.wrapping_add(at));
                index.rebuild(
                    first,
                    numbers.len(),
                    numbers.map(|number| (hash(number.wrapping_sub(start)), number)),
                );
            }
            let older = n.saturating_sub(n % 9_999);
            let wanted = start.wrapping_add(older);
            found += u32::from(index.find(hash(older)).any(|number| number == wanted));
        }
        assert!(found > 99_000, "{found}");
        assert!(index.buckets.len() <= 2048, "{}", index.buckets.len());
    }

    #[test]
    fn a_bucket_forgets_the_oldest() {
        let mut index = FingerprintIndex::default();
        index.rebuild(0, 0, std::iter::empty());
        // All in one bucket.
        let hash = |n: u32| u64::from(n + 1) << 56;
        for n in 0..20 {
            index.insert(hash(n), n, 0);
        }
        let found = |n| index.find(hash(n)).any(|number| number == n);
        assert!((0..5).all(|n| !found(n)) && (5..20).all(found));
    }
}
