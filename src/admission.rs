//! Admission control: limits how many received bytes wait to be gathered.
//!
//! Owns the byte count and the FIFO order in which connections acquire permits. Receiving costs
//! less than gathering: without a limit the queue would grow until memory is full and each chunk
//! has left the processor's cache. The limit is bypassed while gathering waits for an output or
//! reads from the journal, so that acks stay fast.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, timeout_at};

/// Longest wait for a permit. Gathering always makes progress; this bounds the damage of a defect.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Why the limit does not apply.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum BypassReason {
    /// New records stay in the journal and are read back later.
    JournalBacklog = 1,
    /// Gathering waits for the outputs.
    OutputsFull = 2,
}

/// Limits how many received bytes wait to be gathered; connections acquire permits in FIFO order.
#[derive(Debug)]
pub struct AdmissionControl {
    limit_bytes: usize,
    /// Committed bytes that wait to be gathered.
    queued_bytes: AtomicUsize,
    /// Bytes that hold a permit and are not committed yet.
    permitted_bytes: AtomicUsize,
    /// Bits of [`BypassReason`]; no limit applies while one is set.
    bypass: AtomicU8,
    /// Held by the first waiter; the others queue for it in FIFO order.
    head: Mutex<()>,
    capacity: Notify,
}

/// Bytes that count against the limit until this is dropped.
#[derive(Debug)]
#[must_use = "the bytes count for as long as the permit is kept"]
pub struct Permit<'a> {
    admission: &'a AdmissionControl,
    bytes: usize,
}

impl AdmissionControl {
    /// Makes chunks wait while `limit_bytes` or more are queued or permitted.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            queued_bytes: AtomicUsize::new(0),
            permitted_bytes: AtomicUsize::new(0),
            bypass: AtomicU8::new(0),
            head: Mutex::new(()),
            capacity: Notify::new(),
        }
    }

    /// Acquires a permit for `bytes`, in the order of the calls, after one second at the latest.
    pub async fn acquire(&self, bytes: usize) -> Permit<'_> {
        let at_once = self.head.try_lock().ok().filter(|_| self.has_capacity());
        let head = match at_once {
            Some(head) => Some(head),
            None => self.wait().await,
        };
        self.permitted_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Unlocked last: the next waiter counts these bytes.
        drop(head);
        Permit {
            admission: self,
            bytes,
        }
    }

    async fn wait(&self) -> Option<MutexGuard<'_, ()>> {
        let until = Instant::now() + MAX_WAIT;
        let head = timeout_at(until, self.head.lock()).await.ok()?;
        loop {
            let notified = self.capacity.notified();
            tokio::pin!(notified);
            // Registered before the check, so that no notification is missed.
            notified.as_mut().enable();
            if self.has_capacity() || timeout_at(until, notified).await.is_err() {
                return Some(head);
            }
        }
    }

    /// Whether [`Self::acquire`] would return at once.
    pub fn would_admit(&self) -> bool {
        self.has_capacity() && self.head.try_lock().is_ok()
    }

    /// Whether the limit is not reached, or bypassed.
    pub fn has_capacity(&self) -> bool {
        self.bypass.load(Ordering::Relaxed) != 0
            || self.queued_bytes.load(Ordering::Relaxed) + self.permitted_bytes.load(Ordering::Relaxed)
                < self.limit_bytes
    }

    /// Sets how many committed bytes wait to be gathered.
    pub fn set_queued_bytes(&self, bytes: usize) {
        self.queued_bytes.store(bytes, Ordering::Relaxed);
        self.notify();
    }

    /// Wakes the first waiter if there is capacity.
    fn notify(&self) {
        if self.has_capacity() {
            self.capacity.notify_one();
        }
    }

    /// Sets or clears a reason to bypass the limit.
    pub fn set_bypass(&self, reason: BypassReason, bypass: bool) {
        let bit = reason as u8;
        if bypass {
            self.bypass.fetch_or(bit, Ordering::Relaxed);
            self.capacity.notify_waiters();
        } else {
            self.bypass.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl Permit<'_> {
    /// Changes how many bytes the permit counts.
    pub fn resize(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.admission.permitted_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.admission
            .permitted_bytes
            .fetch_sub(before, Ordering::Relaxed);
        self.admission.notify();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.admission
            .permitted_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(permit: std::pin::Pin<&mut impl Future>) -> bool {
        permit.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn permits_are_acquired_one_after_the_other_at_the_limit() {
        let admission = AdmissionControl::new(100);
        let first = admission.acquire(100).await;
        let (second, third) = (admission.acquire(70), admission.acquire(70));
        tokio::pin!(second, third);
        assert!(!is_ready(second.as_mut()) && !is_ready(third.as_mut()));
        admission.set_queued_bytes(100);
        drop(first);
        assert!(!is_ready(second.as_mut()), "the bytes are queued instead");
        admission.set_queued_bytes(60);
        let second = second.await;
        assert!(!is_ready(third.as_mut()), "the second took the capacity");
        drop(second);
        let mut third = third.await;
        assert!(!admission.would_admit());
        third.resize(10);
        assert!(admission.would_admit(), "the permit is smaller");
        third.resize(40);
        assert!(!admission.would_admit());
    }

    #[tokio::test]
    async fn permits_are_acquired_in_fifo_order() {
        let admission = AdmissionControl::new(100);
        admission.set_queued_bytes(100);
        let (first, second) = (admission.acquire(100), admission.acquire(100));
        tokio::pin!(first, second);
        assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
        admission.set_queued_bytes(0);
        assert!(
            !admission.would_admit(),
            "there is capacity, but others wait for it"
        );
        let late = admission.acquire(100);
        tokio::pin!(late);
        assert!(!is_ready(late.as_mut()) && !is_ready(second.as_mut()));
        let first = first.await;
        assert!(!is_ready(second.as_mut()), "the first took the capacity");
        drop(first);
        assert!(!is_ready(late.as_mut()));
        drop(second.await);
        drop(late.await);
        assert!(admission.would_admit());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_does_not_block_the_next_ones() {
        let admission = AdmissionControl::new(100);
        admission.set_queued_bytes(100);
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(admission.acquire(10))).collect();
        assert!(waiting.iter_mut().all(|one| !is_ready(one.as_mut())));
        // The first waiter, and one in the middle of the queue.
        let last = waiting.pop();
        drop(waiting);
        admission.set_queued_bytes(0);
        let began = Instant::now();
        drop(last.unwrap().await);
        assert!(began.elapsed() < MAX_WAIT, "it was notified");
    }

    #[tokio::test]
    async fn a_bypass_admits_everyone() {
        let admission = AdmissionControl::new(100);
        admission.set_queued_bytes(1000);
        for reason in [BypassReason::JournalBacklog, BypassReason::OutputsFull] {
            let (one, two) = (admission.acquire(10), admission.acquire(10));
            tokio::pin!(one, two);
            assert!(!is_ready(one.as_mut()) && !is_ready(two.as_mut()));
            admission.set_bypass(reason, true);
            assert!(is_ready(one.as_mut()) && is_ready(two.as_mut()));
            admission.set_bypass(reason, false);
        }
    }

    #[tokio::test]
    async fn a_wait_is_bounded() {
        let admission = AdmissionControl::new(100);
        admission.set_queued_bytes(1000);
        let began = Instant::now();
        let _late = admission.acquire(10).await;
        assert!(began.elapsed() >= MAX_WAIT);
    }
}
