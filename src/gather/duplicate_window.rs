//! Duplicate window: hashes of the chunks gathered last, so that a repeated chunk is acknowledged
//! but not gathered again.
//!
//! Owns a bounded FIFO set of 128-bit hashes, rebuilt from the journal after a restart. A chunk
//! that is repeated after it has left the window is still found by the union rule of documents, at
//! the cost of a conflict.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Hash of tag, chunk id and payload, or of a share of such a chunk.
pub(super) type ChunkHash = u128;

/// Makes another hash of that of a chunk: a share of the chunk was gathered.
const SHARED: u128 = 0x6a09_e667_f3bc_c908_bb67_ae85_84ca_a73b;

/// Whether records were gathered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// None of them.
    Nothing,
    /// A part of them, perhaps: another share of their chunk.
    Some,
    /// All of them.
    All,
}

/// Bounded set of chunk hashes; the oldest leaves first.
#[derive(Debug)]
pub(super) struct DuplicateWindow {
    known: HashSet<ChunkHash, BuildHasherDefault<IdentityHasher>>,
    order: VecDeque<ChunkHash>,
    max_chunks: usize,
}

impl DuplicateWindow {
    /// Remembers at most `max_chunks` chunks, at about 40 bytes each.
    pub(super) fn new(max_chunks: usize) -> Self {
        Self {
            known: HashSet::default(),
            order: VecDeque::new(),
            max_chunks: max_chunks.max(1),
        }
    }

    /// Adds a whole chunk.
    pub(super) fn insert_chunk(&mut self, hash: ChunkHash) -> Seen {
        if !self.insert(hash) {
            Seen::All
        } else if self.known.contains(&(hash ^ SHARED)) {
            Seen::Some
        } else {
            Seen::Nothing
        }
    }

    /// Adds a share of `chunk`, whose records have the hash `share`.
    pub(super) fn insert_share(&mut self, chunk: ChunkHash, share: ChunkHash) -> Seen {
        if self.known.contains(&chunk) || !self.insert(share) {
            Seen::All
        } else if self.insert(chunk ^ SHARED) {
            Seen::Nothing
        } else {
            Seen::Some
        }
    }

    /// Adds the hash; `false` if the window holds it already.
    fn insert(&mut self, hash: ChunkHash) -> bool {
        if !self.known.insert(hash) {
            return false;
        }
        if self.order.len() >= self.max_chunks
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(hash);
        true
    }
}

/// The low 64 bits of a key that is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_newest_chunks() {
        let mut window = DuplicateWindow::new(3);
        assert!([1, 2, 3].into_iter().all(|hash| window.insert(hash)));
        assert!(!window.insert(1));
        assert!(window.insert(4), "the fourth evicts the first");
        assert!(window.insert(1));
        assert!(!window.insert(4));
    }

    #[test]
    fn a_chunk_may_come_whole_and_in_shares() {
        let mut window = DuplicateWindow::new(100);
        assert_eq!(window.insert_share(1, 10), Seen::Nothing);
        assert_eq!(window.insert_share(1, 10), Seen::All);
        assert_eq!(
            window.insert_share(1, 11),
            Seen::Some,
            "it may have some of the same records"
        );
        assert_eq!(window.insert_chunk(1), Seen::Some);
        assert_eq!(window.insert_chunk(1), Seen::All);
        assert_eq!(
            window.insert_share(1, 12),
            Seen::All,
            "the whole chunk was gathered"
        );
        assert_eq!(window.insert_chunk(2), Seen::Nothing);
        assert_eq!(window.insert_share(2, 20), Seen::All);
    }
}
