//! An approximate index of the lingering traces: hash to sequence number.
//!
//! A set-associative table: each bucket holds one-byte fingerprints of hashes, with the sequence
//! numbers in a second array. The fingerprints of all buckets stay in the CPU cache and nearly
//! always answer that a new trace is not lingering, which is asked for each of them; the numbers
//! are mostly only written.
//!
//! The index may return numbers of traces that are gone (the caller compares ids), and may forget
//! traces: their stragglers become a second document, which the union merges. So nothing is ever
//! removed.

/// Entries of a bucket.
const ENTRIES_PER_BUCKET: usize = 15;
/// Average number of traces per bucket. About one trace in two hundred is then forgotten.
const TARGET_PER_BUCKET: usize = 10;
/// Minimum number of buckets, a power of two.
const MIN_BUCKETS: usize = 64;
/// Number of buckets that an empty index may keep.
const KEPT_BUCKETS: usize = 1024;

/// The index. Sequence numbers are inserted in order, and wrap around.
#[derive(Debug, Default)]
pub(crate) struct FingerprintIndex {
    /// A power of two of them, or none.
    buckets: Vec<Bucket>,
    /// For each bucket the sequence numbers that belong to its fingerprints.
    numbers: Vec<[u32; ENTRIES_PER_BUCKET]>,
}

/// The fingerprints of a bucket, and the entry to overwrite next: that of the oldest trace, since
/// traces come in order.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Bucket {
    fingerprints: [u8; ENTRIES_PER_BUCKET],
    next: u8,
}

impl FingerprintIndex {
    /// Inserts `number`, the last of the sequence numbers from `first` on. Returns whether the
    /// index must be rebuilt larger.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, number: u32, first: u32) -> bool {
        let at = self.bucket_of(hash);
        if let (Some(bucket), Some(numbers)) = (self.buckets.get_mut(at), self.numbers.get_mut(at)) {
            let entry = usize::from(bucket.next) % ENTRIES_PER_BUCKET;
            bucket.fingerprints[entry] = fingerprint(hash);
            numbers[entry] = number;
            bucket.next = (entry as u8 + 1) % ENTRIES_PER_BUCKET as u8;
        }
        number.wrapping_sub(first) as usize >= self.buckets.len() * TARGET_PER_BUCKET
    }

    /// Rebuilds the index from `entries`, the hashes and sequence numbers from `first` on, with
    /// space for twice `count`.
    pub(crate) fn rebuild(&mut self, first: u32, count: usize, entries: impl Iterator<Item = (u64, u32)>) {
        let buckets = (count * 2 / TARGET_PER_BUCKET)
            .next_power_of_two()
            .max(MIN_BUCKETS);
        self.buckets = vec![Bucket::default(); buckets];
        self.numbers = vec![[0; ENTRIES_PER_BUCKET]; buckets];
        for (hash, number) in entries {
            self.insert(hash, number, first);
        }
    }

    /// Called when no trace is left: frees a large table.
    pub(crate) fn clear(&mut self) {
        if self.buckets.len() > KEPT_BUCKETS {
            *self = Self::default();
        }
    }

    /// Candidate sequence numbers for a hash. Their traces may be gone.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let at = self.bucket_of(hash);
        let fingerprints = self
            .buckets
            .get(at)
            .map_or(&[][..], |bucket| &bucket.fingerprints);
        let wanted = fingerprint(hash);
        let matches = fingerprints
            .iter()
            .enumerate()
            .filter(move |(_, fingerprint)| **fingerprint == wanted);
        matches.filter_map(move |(entry, _)| self.numbers.get(at)?.get(entry).copied())
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// The fingerprint of a hash. Never 0, the fingerprint of a vacant entry.
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
        // Sequence numbers wrap around in the middle.
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
