//! Space for the records of new traces: that of traces that have gone, which the processor's cache still has, or else as
//! much as traces usually take.
//!
//! Owns both. How a trace fills its space, and grows beyond it, is not known here.

/// Bytes that are kept to be used again at the most.
const KEPT: usize = 1 << 20;
/// Spaces that are so many times as large as usual are not kept: in small traces they would be a waste.
const TOO_LARGE: usize = 4;
/// The most that is reserved for records to come, in bytes.
const MOST_AHEAD: usize = 4096;

/// See above.
#[derive(Debug)]
pub(crate) struct Spaces {
    left: Vec<Vec<u8>>,
    /// Bytes of those.
    bytes: usize,
    /// Bytes of the records of the traces that have gone last, on average.
    usual: usize,
}

impl Spaces {
    pub(crate) fn new() -> Self {
        Self {
            left: Vec::new(),
            bytes: 0,
            usual: 512,
        }
    }

    /// Space for the records of a new trace, of which the first takes `size` bytes.
    #[inline]
    pub(crate) fn take(&mut self, size: usize) -> Vec<u8> {
        if let Some(space) = self.left.pop() {
            self.bytes -= space.capacity();
            if space.capacity() >= size {
                return space;
            }
        }
        // A little more than usual, so that most traces never grow.
        let usual = self.usual + self.usual / 8 + size;
        Vec::with_capacity(usual.clamp(size, size + MOST_AHEAD))
    }

    /// Space that is not needed any more.
    #[inline]
    pub(crate) fn put(&mut self, mut space: Vec<u8>) {
        let bytes = space.capacity();
        if (1..=TOO_LARGE * self.usual).contains(&bytes) && self.bytes + bytes <= KEPT {
            space.clear();
            self.bytes += bytes;
            self.left.push(space);
        }
    }

    /// A trace that goes has so many bytes.
    #[inline]
    pub(crate) fn note(&mut self, bytes: usize) {
        self.usual = (self.usual * 15 + bytes) / 16;
    }

    /// Gives the memory back.
    pub(crate) fn rest(&mut self) {
        (self.left, self.bytes) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_used_again_within_bounds() {
        let mut spaces = Spaces::new();
        spaces.put(Vec::new());
        assert!(spaces.left.is_empty(), "nothing is no space");
        for _ in 0..10_000 {
            spaces.put(Vec::with_capacity(1000));
        }
        spaces.put(Vec::with_capacity(TOO_LARGE * 512 + 1));
        assert!((900 << 10..=KEPT).contains(&spaces.bytes), "{}", spaces.bytes);
        let before = spaces.left.len();
        assert_eq!(spaces.take(10).capacity(), 1000);
        assert!(
            spaces.take(1001).capacity() > 1001 + 512,
            "one that is large enough"
        );
        assert_eq!(spaces.left.len(), before - 2);
        spaces.rest();
        assert_eq!((spaces.bytes, spaces.left.capacity()), (0, 0));
    }

    #[test]
    fn new_space_is_as_usual() {
        let mut spaces = Spaces::new();
        for _ in 0..1000 {
            spaces.note(1600);
        }
        let capacity = spaces.take(100).capacity();
        assert!((1700..2000).contains(&capacity), "{capacity}");
        for _ in 0..1000 {
            spaces.note(1 << 20);
        }
        assert_eq!(spaces.take(100).capacity(), 100 + MOST_AHEAD);
    }
}
