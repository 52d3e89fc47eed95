//! Pool for decoding: bounds how many bodies are decoded at the same time beside the reactor.
//!
//! Short work runs where it is called. Longer work waits in one of two queues by its size, so that
//! large bodies do not hold up the others.

use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use crate::runtime::block_in_place;

/// Work on up to this many bytes takes less than a millisecond.
const MAX_INLINE_BYTES: usize = 256 << 10;
/// Largest work of the first queue.
const MAX_SMALL_BYTES: usize = 2 << 20;

/// Permits of the work that runs at the same time, each on a thread of its own.
#[derive(Debug)]
pub(super) struct WorkPool {
    small: Semaphore,
    large: Semaphore,
}

impl Default for WorkPool {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let permits = cores.div_ceil(2);
        Self {
            small: Semaphore::new(permits),
            large: Semaphore::new(permits),
        }
    }
}

impl WorkPool {
    /// Runs work on this many bytes.
    pub(super) async fn run<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let queue = match bytes {
            0..=MAX_INLINE_BYTES => return work(),
            bytes if bytes <= MAX_SMALL_BYTES => &self.small,
            _ => &self.large,
        };
        let _permit = queue.acquire().await;
        block_in_place(work)
    }
}
