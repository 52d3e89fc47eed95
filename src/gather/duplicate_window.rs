//! Duplicate window: hashes of the chunks gathered last, so that a repeated chunk is acknowledged
//! but not gathered again.
//!
//! Owns a bounded FIFO set of 128-bit hashes, rebuilt from the journal after a restart. A chunk
//! that is repeated after it has left the window is still found by the union rule of documents, at
//! the cost of a conflict.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Hash of tag, chunk id and payload.
pub(super) type ChunkHash = u128;

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

    /// Adds the chunk; `false` if the window holds it already.
    pub(super) fn insert(&mut self, hash: ChunkHash) -> bool {
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
}
