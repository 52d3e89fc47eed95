//! Pool of request bodies: new memory for 8 MiB costs as much as filling it.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Bodies that no request uses.
#[derive(Debug)]
pub(super) struct BodyPool {
    free: Mutex<Vec<Vec<u8>>>,
    max_capacity_bytes: usize,
}

impl BodyPool {
    /// More requests than this are in flight only while Elasticsearch is the bottleneck.
    const MAX_FREE: usize = 2;

    /// Keeps no body with a greater capacity.
    pub(super) fn new(max_capacity_bytes: usize) -> Self {
        Self {
            free: Mutex::default(),
            max_capacity_bytes,
        }
    }

    pub(super) fn take(&self) -> Vec<u8> {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    pub(super) fn put(&self, body: Bytes) {
        // A body that is still referenced is not reused.
        if let Ok(mut body) = body.try_into_mut()
            && body.capacity() <= self.max_capacity_bytes
        {
            body.clear();
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < Self::MAX_FREE {
                free.push(body.into());
            }
        }
    }
}
