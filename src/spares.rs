//! Receive buffers that have been gathered, to be received into again.
//!
//! Owns a few of them, while something comes. What the kernel fills with a chunk is read by gathering and then done with; an
//! allocator takes some time until it finds such memory again, since another thread gives it back, and new memory costs a
//! page fault for every four kilobytes. Does not know what stood in them, and is never waited for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Sizes of buffers that are kept, in bytes: smaller ones are not worth it, and of larger ones a few would be much.
pub const LEAST: usize = 64 << 10;
const LARGEST: usize = 512 << 10;
/// Buffers that are kept: with what is on its way, as much as two quick clients need.
const MOST: usize = 4;

/// See above.
#[derive(Debug, Default)]
pub struct Spares(Mutex<Vec<BytesMut>>);

impl Spares {
    /// What was received here is done with. Nothing happens if somebody else still has it.
    pub fn give(&self, received: Bytes) {
        if received.len() < LEAST {
            return;
        }
        let Ok(mut buffer) = received.try_into_mut() else {
            return;
        };
        buffer.clear();
        if (LEAST..=LARGEST).contains(&buffer.capacity()) {
            let mut kept = self.kept();
            if kept.len() < MOST {
                kept.push(buffer);
            }
        }
    }

    /// An empty buffer for so many bytes.
    pub fn take(&self, bytes: usize) -> Option<BytesMut> {
        let mut kept = self.kept();
        // The one that was given first: gathering's cache, from which the kernel would have to get it, has lost it most likely.
        let fits = kept.iter().position(|buffer| buffer.capacity() >= bytes)?;
        Some(kept.remove(fits))
    }

    /// Gives all memory back, when nothing comes.
    pub fn rest(&self) {
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, Vec<BytesMut>> {
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
    fn what_is_done_with_is_received_into_again() {
        let spares = Spares::default();
        assert!(spares.take(1).is_none());
        let mut whole = BytesMut::from(&*vec![1; LEAST + 100]);
        // Of a buffer that began with something else.
        let chunk = whole.split_off(100).freeze();
        let at = chunk.as_ptr();
        let other = chunk.clone();
        spares.give(chunk);
        assert!(spares.take(1).is_none(), "somebody has it");
        drop(whole);
        spares.give(other);
        assert!(spares.take(LEAST + 1).is_none(), "it is not so large");
        let buffer = spares.take(LEAST).unwrap();
        assert_eq!((buffer.as_ptr(), buffer.len()), (at, 0));
        assert!(buffer.capacity() >= LEAST);
    }

    #[test]
    fn few_are_kept_and_none_that_is_small_or_large() {
        let spares = Spares::default();
        spares.give(received(LEAST - 1));
        spares.give(received(LARGEST + 1));
        assert!(spares.take(0).is_none());
        for _ in 0..2 * MOST {
            spares.give(received(LEAST));
        }
        let taken = std::iter::from_fn(|| spares.take(LEAST));
        assert_eq!(taken.count(), MOST);
        spares.give(received(LEAST));
        spares.rest();
        assert!(spares.take(0).is_none());
    }
}
