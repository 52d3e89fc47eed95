//! The window of known chunks: a chunk that comes again is acknowledged again and not gathered twice.
//!
//! Owns a bounded set of 128-bit hashes, oldest out first. It is rebuilt from the journal after a restart. What is
//! repeated after it has left the window is still told by the union rule, at the cost of a conflict.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// The hash of tag, chunk id and payload.
pub(crate) type ChunkHash = u128;

#[derive(Debug)]
pub(crate) struct Window {
    known: HashSet<ChunkHash, BuildHasherDefault<Low>>,
    order: VecDeque<ChunkHash>,
    limit: usize,
}

impl Window {
    /// Remembers at most `limit` chunks, at about 40 bytes each.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            known: HashSet::default(),
            order: VecDeque::new(),
            limit: limit.max(1),
        }
    }

    /// Whether the chunk is new; it is known from now on.
    pub(crate) fn insert(&mut self, hash: ChunkHash) -> bool {
        if !self.known.insert(hash) {
            return false;
        }
        if self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(hash);
        true
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Low(u64);

impl Hasher for Low {
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
        let mut window = Window::new(3);
        assert!([1, 2, 3].into_iter().all(|hash| window.insert(hash)));
        assert!(!window.insert(1));
        assert!(window.insert(4), "the fourth pushes the first out");
        assert!(window.insert(1));
        assert!(!window.insert(4));
    }
}
