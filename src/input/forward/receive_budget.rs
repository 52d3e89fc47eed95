//! Budget of all receive buffers: limits how many bytes of begun messages are in memory.
//!
//! Owns the byte count and the FIFO order in which connections acquire more. The first waiter may
//! exceed the limit until its message is complete, one at a time: so half-received messages cannot
//! wait for each other for ever. Does not count what a connection reads between two messages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;

/// Bytes that a message must receive within each [`PACE_TIME`] while others wait for memory.
pub(super) const MIN_PACE_BYTES: usize = 64 << 10;
/// Window of [`MIN_PACE_BYTES`].
pub(super) const PACE_TIME: Duration = Duration::from_secs(5);

/// Messages of up to this many bytes have a reserve, so that they need not wait for large ones.
const SMALL_BYTES: usize = 64 << 10;
/// Share of the limit that is the reserve for small messages, on top of it.
const RESERVE_SHARE: usize = 8;

/// Limits the bytes of all receive buffers inside messages.
#[derive(Debug)]
pub struct ReceiveBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// Bytes of small messages that did not fit.
    reserve_used_bytes: AtomicUsize,
    /// Connections that wait for bytes.
    waiting: AtomicUsize,
    /// Held by the first waiter; the others queue for it in FIFO order.
    head: Mutex<()>,
    /// Held by the connection that may exceed the limit.
    overdraft: Mutex<()>,
    released: Notify,
}

/// Bytes of one connection that count against the budget until they are released.
#[derive(Debug)]
pub(in crate::input) struct Reservation<'a> {
    budget: &'a ReceiveBudget,
    bytes: usize,
    /// Bytes of the reserve, while the message is small.
    reserve_bytes: usize,
    overdraft: Option<Overdraft<'a>>,
    /// Begins with the first bytes.
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Overdraft<'a> {
    _guard: MutexGuard<'a, ()>,
    since: Instant,
}

/// Bytes that must come by a deadline while others wait.
#[derive(Debug)]
struct Pace {
    deadline: Instant,
    missing_bytes: usize,
}

/// Counts a waiter until this is dropped.
struct Waiter<'a>(&'a ReceiveBudget);

impl ReceiveBudget {
    /// Makes messages wait that would exceed `limit_bytes` together.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            reserve_used_bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            head: Mutex::new(()),
            overdraft: Mutex::new(()),
            released: Notify::new(),
        }
    }

    /// The limit, in bytes.
    pub(super) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// A reservation of no bytes.
    pub(in crate::input) fn reservation(&self) -> Reservation<'_> {
        Reservation {
            budget: self,
            bytes: 0,
            reserve_bytes: 0,
            overdraft: None,
            pace: None,
        }
    }

    fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn try_take(&self, bytes: usize) -> bool {
        try_add(&self.used_bytes, bytes, self.limit_bytes)
    }

    /// Takes `bytes` in the order of the calls; the guard if they exceed the limit.
    async fn take_in_order(&self, bytes: usize) -> Option<MutexGuard<'_, ()>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiter = Waiter(self);
        let _head = self.head.lock().await;
        let overdraft = self.overdraft.lock();
        tokio::pin!(overdraft);
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registered before the check, so that no notification is missed.
            released.as_mut().enable();
            if self.try_take(bytes) {
                return None;
            }
            tokio::select! {
                biased;
                guard = &mut overdraft => {
                    self.used_bytes.fetch_add(bytes, Ordering::SeqCst);
                    return Some(guard);
                }
                () = released => {}
            }
        }
    }
}

fn try_add(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
    used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Reservation<'_> {
    /// Grows to `bytes` in all, if nobody has to wait; smaller reservations stay as they are.
    pub(in crate::input) fn try_grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if self.overdraft.is_some() {
            self.budget.used_bytes.fetch_add(more, Ordering::SeqCst);
        } else if more > 0 && (self.budget.is_contended() || !self.budget.try_take(more)) {
            return self.grow_in_reserve_to(bytes);
        }
        self.bytes += more;
        self.release_reserve();
        if self.pace.is_none() {
            self.pace = Some(Pace::start());
        }
        true
    }

    fn grow_in_reserve_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes + self.reserve_bytes);
        let limit = self.budget.limit_bytes / RESERVE_SHARE;
        let fits = bytes <= SMALL_BYTES && try_add(&self.budget.reserve_used_bytes, more, limit);
        if fits {
            self.reserve_bytes += more;
            if self.pace.is_none() {
                self.pace = Some(Pace::start());
            }
        }
        fits
    }

    fn release_reserve(&mut self) {
        if self.reserve_bytes > 0 {
            let bytes = std::mem::take(&mut self.reserve_bytes);
            self.budget.reserve_used_bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
    }

    /// Waits until it can grow to `bytes` in all.
    pub(in crate::input) async fn grow_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        let guard = self.budget.take_in_order(more).await;
        self.bytes += more;
        self.release_reserve();
        self.overdraft = guard.map(|guard| Overdraft {
            _guard: guard,
            since: Instant::now(),
        });
        self.pace = Some(Pace::start());
    }

    /// Moves the bytes to a reservation of their own.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, self.budget.reservation())
    }

    /// Restarts the time in which the next bytes must come, after others than the client were slow.
    pub(super) fn restart_pace(&mut self) {
        if self.pace.is_some() {
            self.pace = Some(Pace::start());
        }
    }

    /// Records that `bytes` were received.
    pub(in crate::input) fn record_read(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            match pace.missing_bytes.checked_sub(bytes) {
                Some(missing @ 1..) => pace.missing_bytes = missing,
                _ => *pace = Pace::start(),
            }
        }
    }

    /// When [`Self::is_too_slow`] has to be asked; `None`: nothing is reserved.
    pub(in crate::input) fn deadline(&self, max_overdraft: Duration) -> Option<Instant> {
        let overdraft = self.overdraft.as_ref().map(|taken| taken.since + max_overdraft);
        let pace = self.pace.as_ref().map(|pace| pace.deadline);
        pace.into_iter().chain(overdraft).min()
    }

    /// Called at the deadline: whether others wait for the bytes of this connection. If none does,
    /// the deadline moves.
    pub(in crate::input) fn is_too_slow(&mut self) -> bool {
        if self.budget.is_contended() {
            return true;
        }
        self.pace = Some(Pace::start());
        if let Some(overdraft) = &mut self.overdraft {
            overdraft.since = Instant::now();
        }
        false
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.release_reserve();
        if self.bytes > 0 {
            self.budget.used_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
            if self.budget.is_contended() {
                self.budget.released.notify_one();
            }
        }
    }
}

impl Pace {
    fn start() -> Self {
        Self {
            deadline: Instant::now() + PACE_TIME,
            missing_bytes: MIN_PACE_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;

    /// More than a small message.
    const MIB: usize = 1 << 20;

    fn is_ready(future: Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn bytes_are_acquired_in_fifo_order() {
        let budget = ReceiveBudget::new(100 * MIB);
        let mut holder = budget.reservation();
        assert!(holder.try_grow_to(60 * MIB) && holder.try_grow_to(100 * MIB));
        let mut over = budget.reservation();
        over.grow_to(50 * MIB).await;
        assert!(over.try_grow_to(500 * MIB), "one connection exceeds the limit");
        let (mut one, mut two, mut late) = (budget.reservation(), budget.reservation(), budget.reservation());
        let (mut first, mut second) = (Box::pin(one.grow_to(90 * MIB)), Box::pin(two.grow_to(10 * MIB)));
        assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
        drop(over);
        assert!(is_ready(first.as_mut()), "the next one may exceed the limit");
        assert!(!is_ready(second.as_mut()), "but nobody else");
        drop(first);
        drop(holder);
        assert!(!late.try_grow_to(MIB), "another one waits");
        assert!(is_ready(second.as_mut()), "there is room");
        drop(second);
        assert!(!late.try_grow_to(MIB), "all is taken");
        drop((one, two));
        assert!(late.try_grow_to(100 * MIB));
        drop(late);
        assert_eq!(budget.used_bytes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_cancelled_waiter_blocks_nobody() {
        let budget = ReceiveBudget::new(100);
        let (mut holder, mut over) = (budget.reservation(), budget.reservation());
        assert!(holder.try_grow_to(100));
        over.grow_to(1).await;
        let mut waiting: Vec<_> = (0..3).map(|_| budget.reservation()).collect();
        let mut waits: Vec<_> = waiting.iter_mut().map(|one| Box::pin(one.grow_to(10))).collect();
        assert!(waits.iter_mut().all(|one| !is_ready(one.as_mut())));
        let mut last = waits.pop().unwrap();
        drop(waits);
        drop(over);
        assert!(is_ready(last.as_mut()));
        drop(last);
        drop((waiting, holder));
        assert!(!budget.is_contended());
        assert_eq!(budget.used_bytes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn half_received_messages_never_wait_for_each_other_for_ever() {
        let budget = Arc::new(ReceiveBudget::new(10 * MIB));
        let connections = (0..50).map(|_| {
            let budget = Arc::clone(&budget);
            tokio::spawn(async move {
                let mut memory = budget.reservation();
                // Each message is as long as the limit, and comes in pieces.
                for bytes in (MIB..=10 * MIB).step_by(MIB) {
                    if !memory.try_grow_to(bytes) {
                        memory.grow_to(bytes).await;
                    }
                    assert!(budget.used_bytes.load(Ordering::SeqCst) <= 20 * MIB);
                    tokio::task::yield_now().await;
                }
            })
        });
        let connections: Vec<_> = connections.collect();
        let all = async {
            for connection in connections {
                connection.await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
        assert_eq!(budget.used_bytes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn small_messages_have_a_reserve() {
        let budget = ReceiveBudget::new(RESERVE_SHARE * SMALL_BYTES);
        let (mut large, mut over) = (budget.reservation(), budget.reservation());
        assert!(large.try_grow_to(RESERVE_SHARE * SMALL_BYTES));
        over.grow_to(1).await;
        let (mut small, mut other) = (budget.reservation(), budget.reservation());
        assert!(small.try_grow_to(100) && small.try_grow_to(SMALL_BYTES));
        assert!(!small.try_grow_to(SMALL_BYTES + 1), "it is not small any more");
        assert!(!other.try_grow_to(1), "the reserve has a limit");
        drop(large);
        assert!(small.try_grow_to(SMALL_BYTES + 1));
        assert_eq!(budget.reserve_used_bytes.load(Ordering::SeqCst), 0);
        drop((small, over, other));
        assert_eq!(budget.used_bytes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_slow_connection_is_dropped_only_while_others_wait() {
        let budget = ReceiveBudget::new(100);
        let mut slow = budget.reservation();
        assert_eq!(slow.deadline(Duration::ZERO), None);
        assert!(slow.try_grow_to(100));
        let before = slow.deadline(Duration::ZERO).unwrap();
        slow.record_read(MIN_PACE_BYTES - 1);
        assert_eq!(slow.deadline(Duration::ZERO), Some(before));
        slow.record_read(1);
        assert!(slow.deadline(Duration::ZERO).unwrap() > before);
        assert!(!slow.is_too_slow());
        let (mut over, mut other) = (budget.reservation(), budget.reservation());
        over.grow_to(1).await;
        assert!(over.deadline(Duration::ZERO).unwrap() <= Instant::now());
        let waits = other.grow_to(1);
        tokio::pin!(waits);
        assert!(!is_ready(waits.as_mut()));
        assert!(slow.is_too_slow() && over.is_too_slow());
    }
}
