//! The traces that were sealed within the idle timeout, so that a late line is not kept waiting for
//! more: an approximate set of hashes in bounded memory.
//!
//! A set-associative table with one cache line per bucket, as large as the traces of the idle
//! timeout need. It may forget traces (beyond its bound
//! the oldest of a bucket first), whose late lines then wait for the idle timeout, and in one of a
//! million cases takes a new trace for a late one, which is then written in two steps.

use prefetch_index::prefetch_index;

/// Entries of a bucket.
const ENTRIES_PER_BUCKET: usize = 15;
/// Bits of an entry that tell when the trace was sealed; the others are its fingerprint.
const EPOCH_BITS: u32 = 8;
const EPOCH_MASK: u32 = (1 << EPOCH_BITS) - 1;
/// Epochs of the idle timeout.
const EPOCHS: i64 = 8;
/// Number of epochs that count as within the idle timeout: it begins in one and ends in another.
const RECENT_EPOCHS: usize = EPOCHS as usize + 1;
/// Number of buckets to begin with, a power of two.
const MIN_BUCKETS: usize = 64;
/// The table takes at most this fraction of the memory of traces.
const MAX_MEMORY_FRACTION: usize = 64;

/// The set.
#[derive(Debug)]
pub(crate) struct RecentlySealed {
    /// A power of two of them, or none.
    buckets: Vec<Bucket>,
    max_buckets: usize,
    /// µs.
    epoch: i64,
    /// Epoch of the newest entry.
    newest: u32,
    /// Traces that were inserted in each of the last epochs, the newest first, up to the last
    /// [`Self::make_room`].
    inserted: [usize; RECENT_EPOCHS],
    /// How many could be inserted then before the next one, and how many still can.
    allowed: usize,
    room: usize,
    /// The newest trace and when it was sealed. It is entered with the next one, when its bucket has
    /// come into the processor's cache.
    waiting: Option<(u64, i64)>,
}

/// Entries, and the one to overwrite next.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    entries: [u32; ENTRIES_PER_BUCKET],
    next: u32,
}

impl RecentlySealed {
    /// For an idle timeout in µs. `max_bytes`: the memory of all traces.
    pub(crate) fn new(idle_timeout: i64, max_bytes: usize) -> Self {
        let most = max_bytes / MAX_MEMORY_FRACTION / size_of::<Bucket>();
        Self {
            buckets: Vec::new(),
            max_buckets: most.checked_ilog2().map_or(0, |bits| 1 << bits),
            epoch: (idle_timeout / EPOCHS).max(1),
            newest: 0,
            inserted: [0; RECENT_EPOCHS],
            allowed: 0,
            room: 0,
            waiting: None,
        }
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// Remembers the trace with this hash.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, now: i64) {
        if let Some((hash, now)) = self.waiting.replace((hash, now)) {
            self.enter(hash, now);
        }
        self.prefetch(hash);
    }

    /// Fetches the bucket of a hash into the processor's cache.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch_index(&self.buckets, self.bucket_of(hash));
    }

    #[inline]
    fn enter(&mut self, hash: u64, now: i64) {
        let epoch = self.epoch_of(now);
        if epoch != self.newest || self.room == 0 {
            self.make_room(epoch);
        }
        self.room -= 1;
        let at = self.bucket_of(hash);
        let Some(bucket) = self.buckets.get_mut(at) else {
            return;
        };
        let at = bucket.next as usize % ENTRIES_PER_BUCKET;
        bucket.entries[at] = fingerprint(hash) | epoch;
        bucket.next = (at as u32 + 1) % ENTRIES_PER_BUCKET as u32;
    }

    /// Whether the trace with this hash was sealed within the idle timeout.
    #[inline]
    pub(crate) fn contains(&self, hash: u64, now: i64) -> bool {
        if let Some((newest, then)) = self.waiting
            && newest == hash
        {
            return age(self.epoch_of(then), self.epoch_of(now)) <= EPOCHS as u32;
        }
        let Some(bucket) = self.buckets.get(self.bucket_of(hash)) else {
            return false;
        };
        let wanted = fingerprint(hash);
        // All of them: without a branch for each the compiler compares several at a time.
        let may_be = bucket
            .entries
            .iter()
            .fold(false, |found, entry| found | (entry & !EPOCH_MASK == wanted));
        may_be && self.is_in(bucket, wanted, now)
    }

    #[cold]
    fn is_in(&self, bucket: &Bucket, wanted: u32, now: i64) -> bool {
        let epoch = self.epoch_of(now);
        bucket
            .entries
            .iter()
            .any(|entry| entry & !EPOCH_MASK == wanted && age(*entry, epoch) <= EPOCHS as u32)
    }

    /// Begins the epoch, and makes the table as large as the traces of the idle timeout need.
    #[cold]
    fn make_room(&mut self, epoch: u32) {
        self.inserted[0] += self.allowed - self.room;
        // A clock that was set back begins many.
        let begun = epoch.wrapping_sub(self.newest) & EPOCH_MASK;
        for _ in 0..begun.min(RECENT_EPOCHS as u32) {
            self.inserted.rotate_right(1);
            self.inserted[0] = 0;
        }
        self.newest = epoch;
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); MIN_BUCKETS.min(self.max_buckets)];
        }
        let inserted: usize = self.inserted.iter().sum();
        let room = loop {
            // A third of the entries: the others are for what is copied when the table grows, and
            // for buckets that get more than others.
            let room = (self.buckets.len() * ENTRIES_PER_BUCKET / 3).saturating_sub(inserted);
            if room > 0 || self.buckets.len() >= self.max_buckets {
                break room;
            }
            // An entry does not say which of two buckets it belongs to, so it is copied to both.
            self.buckets.extend_from_within(..);
        };
        self.allowed = if room > 0 { room } else { usize::MAX };
        self.room = self.allowed;
    }

    #[inline]
    fn epoch_of(&self, now: i64) -> u32 {
        (now / self.epoch) as u32 & EPOCH_MASK
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// Epochs since an entry was inserted.
#[inline]
fn age(entry: u32, epoch: u32) -> u32 {
    epoch.wrapping_sub(entry) & EPOCH_MASK
}

/// The fingerprint of a hash, never 0.
#[inline]
fn fingerprint(hash: u64) -> u32 {
    ((hash >> 32) as u32 & !EPOCH_MASK).max(1 << EPOCH_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: i64 = 30_000_000;

    fn hash(of: u64) -> u64 {
        (of + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn a_trace_is_remembered_for_the_idle_timeout() {
        let mut recent = RecentlySealed::new(IDLE, 1 << 20);
        assert!(!recent.contains(hash(1), 0));
        let start = 1_700_000_000_000_000;
        recent.insert(hash(1), start);
        assert!(recent.contains(hash(1), start) && recent.contains(hash(1), start + IDLE));
        assert!(!recent.contains(hash(2), start));
        assert!(!recent.contains(hash(1), start + IDLE + IDLE / 4));
        assert!(!recent.contains(hash(1), start - IDLE), "the clock was set back");
    }

    #[test]
    fn it_grows_to_its_bound_and_then_forgets_the_oldest() {
        let mut recent = RecentlySealed::new(IDLE, 64 << 20);
        for n in 0..50_000 {
            recent.insert(hash(n), 0);
        }
        let found = (0..50_000).filter(|n| recent.contains(hash(*n), 0)).count();
        assert!(found > 49_000, "{found}");
        assert!(recent.bytes() <= 1 << 20);
        let wrong = (50_000..150_000).filter(|n| recent.contains(hash(*n), 0)).count();
        assert!(wrong < 5, "{wrong}");
        for n in 50_000..1_000_000 {
            recent.insert(hash(n), 0);
        }
        assert_eq!(recent.bytes(), 1 << 20);
        assert!((999_000..1_000_000).all(|n| recent.contains(hash(n), 0)));
        // A few traces take little, also when they come for long.
        let mut few = RecentlySealed::new(IDLE, 64 << 20);
        for n in 0..100_000 {
            few.insert(hash(n), n as i64 * (IDLE / 1_000));
        }
        let bytes = 2_000 * 6 * size_of::<u32>();
        assert!(few.bytes() <= bytes, "{}", few.bytes());
        // Without memory for it nothing is remembered.
        let mut none = RecentlySealed::new(IDLE, 100);
        none.insert(hash(1), 0);
        none.insert(hash(2), 0);
        assert!(!none.contains(hash(1), 0) && none.bytes() == 0);
    }
}
