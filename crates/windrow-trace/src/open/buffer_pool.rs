//! The pool of record buffers for new traces.
//!
//! Reuses buffers of sealed traces, which are still in the CPU cache, or else allocates as much as
//! traces need on average. Does not decide how a trace fills or grows its buffer.

/// Maximum bytes in the pool.
const MAX_POOLED_BYTES: usize = 1 << 20;
/// Buffers larger than this multiple of the average are not pooled: small traces would waste them.
const MAX_SIZE_RATIO: usize = 4;
/// Maximum bytes allocated beyond the first record.
const MAX_SPARE_BYTES: usize = 4096;

/// The pool.
#[derive(Debug)]
pub(crate) struct BufferPool {
    free: Vec<Vec<u8>>,
    /// Bytes of `free`.
    bytes: usize,
    /// Moving average of the record bytes of sealed traces.
    average_bytes: usize,
}

impl BufferPool {
    pub(crate) fn new() -> Self {
        Self {
            free: Vec::new(),
            bytes: 0,
            average_bytes: 512,
        }
    }

    /// An empty buffer for the records of a new trace, the first of which takes `size` bytes.
    #[inline]
    pub(crate) fn take(&mut self, size: usize) -> Vec<u8> {
        if let Some(buffer) = self.free.pop() {
            self.bytes -= buffer.capacity();
            if buffer.capacity() >= size {
                return buffer;
            }
        }
        // A little more than the average, so that most traces never grow.
        let average_bytes = self.average_bytes + self.average_bytes / 8 + size;
        Vec::with_capacity(average_bytes.clamp(size, size + MAX_SPARE_BYTES))
    }

    /// Returns a buffer to the pool.
    #[inline]
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if (1..=MAX_SIZE_RATIO * self.average_bytes).contains(&bytes)
            && self.bytes + bytes <= MAX_POOLED_BYTES
        {
            buffer.clear();
            self.bytes += bytes;
            self.free.push(buffer);
        }
    }

    /// Takes the record bytes of a sealed trace into the average.
    #[inline]
    pub(crate) fn observe(&mut self, bytes: usize) {
        self.average_bytes = (self.average_bytes * 15 + bytes) / 16;
    }

    /// Frees all pooled buffers.
    pub(crate) fn shrink(&mut self) {
        (self.free, self.bytes) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_used_again_within_bounds() {
        let mut pool = BufferPool::new();
        pool.put(Vec::new());
        assert!(pool.free.is_empty(), "nothing is no buffer");
        for _ in 0..10_000 {
            pool.put(Vec::with_capacity(1000));
        }
        pool.put(Vec::with_capacity(MAX_SIZE_RATIO * 512 + 1));
        assert!(
            (900 << 10..=MAX_POOLED_BYTES).contains(&pool.bytes),
            "{}",
            pool.bytes
        );
        let before = pool.free.len();
        assert_eq!(pool.take(10).capacity(), 1000);
        assert!(
            pool.take(1001).capacity() > 1001 + 512,
            "one that is large enough"
        );
        assert_eq!(pool.free.len(), before - 2);
        pool.shrink();
        assert_eq!((pool.bytes, pool.free.capacity()), (0, 0));
    }

    #[test]
    fn new_space_is_as_usual() {
        let mut pool = BufferPool::new();
        for _ in 0..1000 {
            pool.observe(1600);
        }
        let capacity = pool.take(100).capacity();
        assert!((1700..2000).contains(&capacity), "{capacity}");
        for _ in 0..1000 {
            pool.observe(1 << 20);
        }
        assert_eq!(pool.take(100).capacity(), 100 + MAX_SPARE_BYTES);
    }
}
