//! Pool of receive buffers: what has been gathered is received into again.
//!
//! Owns a few empty buffers while the server is busy. The allocator is slow to reuse memory that
//! another thread frees, and fresh memory costs a page fault for each 4 KiB. Never blocks for a
//! buffer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Smallest buffer that is pooled: below this the allocator is quick enough.
pub const MIN_BUFFER_BYTES: usize = 64 << 10;
/// Largest buffer that is pooled: bounds the memory of the pool.
const MAX_BUFFER_BYTES: usize = 512 << 10;
/// Buffers in the pool: with those in use, as many as two fast clients need.
const MAX_BUFFERS: usize = 4;

/// Pool of receive buffers that connections share with gathering.
#[derive(Debug, Default)]
pub struct BufferPool(Mutex<Vec<BytesMut>>);

impl BufferPool {
    /// Returns the buffer of `received` to the pool, unless another handle on it is alive.
    pub fn put(&self, received: Bytes) {
        if received.len() < MIN_BUFFER_BYTES {
            return;
        }
        let Ok(mut buffer) = received.try_into_mut() else {
            return;
        };
        buffer.clear();
        if (MIN_BUFFER_BYTES..=MAX_BUFFER_BYTES).contains(&buffer.capacity()) {
            let mut pooled = self.lock();
            if pooled.len() < MAX_BUFFERS {
                pooled.push(buffer);
            }
        }
    }

    /// Takes an empty buffer of at least this capacity, if the pool has one.
    pub fn take(&self, min_bytes: usize) -> Option<BytesMut> {
        let mut pooled = self.lock();
        // Oldest first: it has most likely left the cache of the gathering thread's core.
        let fits = pooled.iter().position(|buffer| buffer.capacity() >= min_bytes)?;
        Some(pooled.remove(fits))
    }

    /// Frees all pooled buffers; called when the server is idle.
    pub fn shrink(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: usize) -> Bytes {
        vec![1; bytes].into()
    }

    #[test]
    fn a_buffer_is_reused_once_no_other_handle_is_alive() {
        let pool = BufferPool::default();
        assert!(pool.take(1).is_none());
        let mut whole = BytesMut::from(&*vec![1; MIN_BUFFER_BYTES + 100]);
        // The second part of a shared allocation.
        let chunk = whole.split_off(100).freeze();
        let at = chunk.as_ptr();
        let other = chunk.clone();
        pool.put(chunk);
        assert!(pool.take(1).is_none(), "another handle is alive");
        drop(whole);
        pool.put(other);
        assert!(pool.take(MIN_BUFFER_BYTES + 1).is_none(), "it is not so large");
        let buffer = pool.take(MIN_BUFFER_BYTES).unwrap();
        assert_eq!((buffer.as_ptr(), buffer.len()), (at, 0));
        assert!(buffer.capacity() >= MIN_BUFFER_BYTES);
    }

    #[test]
    fn the_pool_is_bounded_and_shrinks() {
        let pool = BufferPool::default();
        pool.put(received(MIN_BUFFER_BYTES - 1));
        pool.put(received(MAX_BUFFER_BYTES + 1));
        assert!(pool.take(0).is_none());
        for _ in 0..2 * MAX_BUFFERS {
            pool.put(received(MIN_BUFFER_BYTES));
        }
        let taken = std::iter::from_fn(|| pool.take(MIN_BUFFER_BYTES));
        assert_eq!(taken.count(), MAX_BUFFERS);
        pool.put(received(MIN_BUFFER_BYTES));
        pool.shrink();
        assert!(pool.take(0).is_none());
    }
}
