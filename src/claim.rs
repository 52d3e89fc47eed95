//! Reference count of a journal record: the record is released when every claim on it is confirmed.
//!
//! A claim that is dropped without [`RecordClaim::confirm`] (a panic, a stop) keeps the record in
//! the journal on purpose: it is gathered again after the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Called once with the record's sequence number when the record is no longer needed.
pub type Release = Arc<dyn Fn(u64) + Send + Sync>;

/// A claim on a journal record: held by what gathers it and by each batch of documents made of it.
///
/// Each claim, also a clone, is confirmed once. The count is the reference count of the `Arc`.
#[derive(Clone, Debug)]
pub struct RecordClaim(Option<Arc<Claimed>>);

/// What the claims on one record share.
struct Claimed {
    lsn: u64,
    segment: u64,
    /// A claim was dropped without being confirmed.
    lost: AtomicBool,
    release: Release,
}

impl RecordClaim {
    /// The first claim on the record `lsn` in the journal segment `segment`.
    pub fn new(lsn: u64, segment: u64, release: Release) -> Self {
        Self(Some(Arc::new(Claimed {
            lsn,
            segment,
            lost: AtomicBool::new(false),
            release,
        })))
    }

    /// Whether both are claims on the same record.
    pub fn is_same(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }

    /// Number of the journal segment that holds the record.
    pub fn segment(&self) -> u64 {
        // `None` only inside `confirm`.
        self.0.as_ref().map_or(0, |claimed| claimed.segment)
    }

    /// Confirms that every output has stored what the claim stood for.
    pub fn confirm(mut self) {
        drop(self.0.take());
    }
}

impl Drop for RecordClaim {
    fn drop(&mut self) {
        if let Some(claimed) = &self.0 {
            claimed.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // Dropping the last `Arc` synchronises with the drops before it, so `lost` is up to date.
        if !*self.lost.get_mut() {
            (self.release)(self.lsn);
        }
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claimed")
            .field("lsn", &self.lsn)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_record_is_released_when_the_last_claim_is_confirmed() {
        let released = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&released);
        let first = RecordClaim::new(7, 1, Arc::new(move |lsn| to.lock().unwrap().push(lsn)));
        let second = first.clone();
        first.confirm();
        assert!(released.lock().unwrap().is_empty());
        second.confirm();
        assert_eq!(*released.lock().unwrap(), [7]);
    }

    #[test]
    fn a_claim_that_is_lost_keeps_the_record() {
        let first = RecordClaim::new(7, 1, Arc::new(|_| panic!("released")));
        drop(first.clone());
        first.confirm();
        let first = RecordClaim::new(7, 1, Arc::new(|_| panic!("released")));
        let second = first.clone();
        first.confirm();
        drop(second);
    }
}
