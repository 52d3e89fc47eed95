//! Reference count of a journal record: the record is released when every claim on it is confirmed.
//!
//! A claim that is dropped without [`RecordClaim::confirm`] (a panic, a stop) keeps the record in
//! the journal on purpose: it is gathered again after the next start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
    /// Releases the record together with others.
    group: OnceLock<ReleaseGroup>,
}

/// Journal records that are released together, when no claim on any of them is left: a crash finds
/// all of them or none.
#[derive(Clone, Debug, Default)]
pub struct ReleaseGroup(Arc<Group>);

/// What the records of a group share.
#[derive(Default)]
struct Group {
    /// Records on which no claim is left.
    done: Mutex<Vec<(u64, Release)>>,
    /// A claim on one of the records was dropped without being confirmed.
    lost: AtomicBool,
}

impl RecordClaim {
    /// The first claim on the record `lsn` in the journal segment `segment`.
    pub fn new(lsn: u64, segment: u64, release: Release) -> Self {
        Self(Some(Arc::new(Claimed {
            lsn,
            segment,
            lost: AtomicBool::new(false),
            release,
            group: OnceLock::new(),
        })))
    }

    /// One claim in place of several: confirms them when every claim cloned from it is confirmed.
    pub fn combined(claims: Vec<Self>) -> Self {
        let of = |claim: &Self| claim.0.as_ref().map(|claimed| (claimed.segment, claimed.lsn));
        let (segment, lsn) = claims.iter().filter_map(of).min().unwrap_or_default();
        let claims = Mutex::new(claims);
        let confirm = move |_| {
            let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
            claims.drain(..).for_each(Self::confirm);
        };
        Self::new(lsn, segment, Arc::new(confirm))
    }

    /// Lets the record be released together with the others of `group`. A record stays in the first
    /// group that it was put into.
    pub fn release_with(&self, group: &ReleaseGroup) {
        if let Some(claimed) = &self.0 {
            claimed.group.get_or_init(|| group.clone());
        }
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
        let lost = *self.lost.get_mut();
        match self.group.get() {
            None if lost => {}
            None => (self.release)(self.lsn),
            Some(ReleaseGroup(group)) if lost => group.lost.store(true, Ordering::Relaxed),
            Some(ReleaseGroup(group)) => {
                let mut done = group.done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push((self.lsn, Arc::clone(&self.release)));
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !*self.lost.get_mut() {
            done.sort_unstable_by_key(|(lsn, _)| *lsn);
            done.iter().for_each(|(lsn, release)| release(*lsn));
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("lost", &self.lost)
            .finish_non_exhaustive()
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

    /// A log of releases, and claims on the records 1 to `N`.
    fn claims<const N: usize>() -> (Arc<Mutex<Vec<u64>>>, [RecordClaim; N]) {
        let released = Arc::<Mutex<Vec<u64>>>::default();
        let claims = std::array::from_fn(|n| {
            let to = Arc::clone(&released);
            RecordClaim::new(n as u64 + 1, 1, Arc::new(move |lsn| to.lock().unwrap().push(lsn)))
        });
        (released, claims)
    }

    #[test]
    fn the_records_of_a_group_are_released_together() {
        let (released, [one, two, three]) = claims();
        let group = ReleaseGroup::default();
        one.release_with(&group);
        two.release_with(&group);
        drop(group);
        let again = two.clone();
        two.confirm();
        one.confirm();
        three.confirm();
        assert_eq!(*released.lock().unwrap(), [3]);
        again.confirm();
        assert_eq!(*released.lock().unwrap(), [3, 1, 2]);
    }

    #[test]
    fn a_claim_that_is_lost_keeps_its_group() {
        let (released, [one, two]) = claims();
        let group = ReleaseGroup::default();
        one.release_with(&group);
        two.release_with(&group);
        drop(group);
        drop(one.clone());
        one.confirm();
        two.confirm();
        assert_eq!(*released.lock().unwrap(), [0; 0]);
    }

    #[test]
    fn a_combined_claim_confirms_all_or_none() {
        let (released, [one, two]) = claims();
        let combined = RecordClaim::combined(vec![one.clone(), two.clone()]);
        let again = combined.clone();
        one.confirm();
        two.confirm();
        combined.confirm();
        assert_eq!(*released.lock().unwrap(), [0; 0]);
        again.confirm();
        assert_eq!(*released.lock().unwrap(), [1, 2]);
        let (released, [one, two]) = claims();
        drop(RecordClaim::combined(vec![one.clone(), two]));
        one.confirm();
        assert_eq!(*released.lock().unwrap(), [0; 0]);
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
