//! Who still needs a journal record: it is released when everything that came from it has been confirmed.
//!
//! Owns the count of one record. A hold that is dropped without a word is never given back, on purpose: what was lost
//! on the way (a panic, a stop) stays in the journal and is gathered again after the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Told when a record is no longer needed; given the record's sequence number.
pub type Release = Arc<dyn Fn(u64) + Send + Sync>;

/// One journal record on its way through gathering and delivery.
pub struct Held {
    lsn: u64,
    segment: u64,
    /// A claim was dropped without a word.
    lost: AtomicBool,
    release: Release,
}

/// A claim on a journal record: of what gathers it, and of each batch of documents that is made of it. Each claim, also one
/// that was cloned, is given back once, by [`Hold::confirm`].
///
/// The claims are counted by the reference count alone.
#[derive(Clone, Debug)]
pub struct Hold(Option<Arc<Held>>);

impl Held {
    /// Begins to count, with one hold for whoever deals out the record's content.
    pub fn begin(lsn: u64, segment: u64, release: Release) -> Hold {
        Hold(Some(Arc::new(Self {
            lsn,
            segment,
            lost: AtomicBool::new(false),
            release,
        })))
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("lsn", &self.lsn)
            .finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The last claim was given back or lost. What happened before any of that is seen here, as of any `Arc`.
        if !*self.lost.get_mut() {
            (self.release)(self.lsn);
        }
    }
}

impl Hold {
    /// Whether it is a claim on the same record.
    pub fn is_same(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }

    /// The journal segment that the record stands in.
    pub fn segment(&self) -> u64 {
        // It is empty only while it is given back.
        self.0.as_ref().map_or(0, |held| held.segment)
    }

    /// Gives the claim back: what it stood for is stored by every output.
    pub fn confirm(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            held.lost.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_record_is_released_when_the_last_claim_is_given_back() {
        let released = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&released);
        let first = Held::begin(7, 1, Arc::new(move |lsn| to.lock().unwrap().push(lsn)));
        let second = first.clone();
        first.confirm();
        assert!(released.lock().unwrap().is_empty());
        second.confirm();
        assert_eq!(*released.lock().unwrap(), [7]);
    }

    #[test]
    fn a_claim_that_is_lost_keeps_the_record() {
        let first = Held::begin(7, 1, Arc::new(|_| panic!("released")));
        drop(first.clone());
        first.confirm();
        let first = Held::begin(7, 1, Arc::new(|_| panic!("released")));
        let second = first.clone();
        first.confirm();
        drop(second);
    }
}
