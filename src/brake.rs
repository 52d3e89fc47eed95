//! The brake: a client waits a moment before its chunk goes on while gathering is busy with what came before.
//!
//! Owns when it is on, and in which order clients go on. Without it intake, which costs less than gathering, would run
//! ahead of it: memory would fill, and everything would be read when the processor's cache has lost it. It is on only
//! while gathering works as fast as it can. When it waits for an output, or reads from the journal, nobody is held up:
//! then the journal takes what comes, and acks stay fast. Does not know what waits.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, timeout_at};

/// The longest that a chunk is held up. It is there for what nobody thought of: gathering goes on all the time.
const LONGEST: Duration = Duration::from_secs(1);

/// Why nobody is held up.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Free {
    /// What comes now is read from the journal later.
    Behind = 1,
    /// The outputs have enough.
    Outputs = 2,
}

/// See above.
#[derive(Debug)]
pub struct Brake {
    limit: usize,
    /// Bytes that wait to be gathered.
    waiting: AtomicUsize,
    /// Bytes that are on their way there.
    entering: AtomicUsize,
    free: AtomicU8,
    /// Held by the one who is the next to go on; those behind wait for it in their order.
    turn: Mutex<()>,
    room: Notify,
}

/// Bytes on their way; to be kept until they are counted as waiting, or lost.
#[derive(Debug)]
#[must_use = "the bytes count for as long as this is kept"]
pub struct Entering<'a> {
    brake: &'a Brake,
    bytes: usize,
}

impl Brake {
    /// Holds chunks up while more than `limit` bytes wait.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            waiting: AtomicUsize::new(0),
            entering: AtomicUsize::new(0),
            free: AtomicU8::new(0),
            turn: Mutex::new(()),
            room: Notify::new(),
        }
    }

    /// Returns when so many bytes may go on, in the order of the calls: with a thousand clients none waits for longer than the
    /// others.
    pub async fn admit(&self, bytes: usize) -> Entering<'_> {
        let at_once = self.turn.try_lock().ok().filter(|_| self.has_room());
        let turn = match at_once {
            Some(turn) => Some(turn),
            None => self.wait().await,
        };
        self.entering.fetch_add(bytes, Ordering::Relaxed);
        // The next one counts these bytes.
        drop(turn);
        Entering { brake: self, bytes }
    }

    async fn wait(&self) -> Option<MutexGuard<'_, ()>> {
        let until = Instant::now() + LONGEST;
        let turn = timeout_at(until, self.turn.lock()).await.ok()?;
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            // From here on no call is missed.
            notified.as_mut().enable();
            if self.has_room() || timeout_at(until, notified).await.is_err() {
                return Some(turn);
            }
        }
    }

    /// Whether a chunk would not be held up now.
    pub fn lets_in(&self) -> bool {
        self.has_room() && self.turn.try_lock().is_ok()
    }

    /// Whether so little waits that one more may go on.
    pub fn has_room(&self) -> bool {
        self.free.load(Ordering::Relaxed) != 0
            || self.waiting.load(Ordering::Relaxed) + self.entering.load(Ordering::Relaxed) < self.limit
    }

    /// Says how many bytes wait now.
    pub fn set_waiting(&self, bytes: usize) {
        self.waiting.store(bytes, Ordering::Relaxed);
        self.call();
    }

    /// Calls the one whose turn it is, if there is room.
    fn call(&self) {
        if self.has_room() {
            self.room.notify_one();
        }
    }

    /// Says whether nobody is to be held up for this reason.
    pub fn set_free(&self, why: Free, free: bool) {
        let bit = why as u8;
        if free {
            self.free.fetch_or(bit, Ordering::Relaxed);
            self.room.notify_waiters();
        } else {
            self.free.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl Entering<'_> {
    /// There are so many of them, as is known now.
    pub fn are(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.brake.entering.fetch_add(bytes, Ordering::Relaxed);
        self.brake.entering.fetch_sub(before, Ordering::Relaxed);
        self.brake.call();
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.brake.entering.fetch_sub(self.bytes, Ordering::Relaxed);
        self.brake.call();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(admission: std::pin::Pin<&mut impl Future>) -> bool {
        admission.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn chunks_wait_while_much_waits_and_go_on_one_after_the_other() {
        let brake = Brake::new(100);
        let first = brake.admit(100).await;
        let (second, third) = (brake.admit(70), brake.admit(70));
        tokio::pin!(second, third);
        assert!(!is_ready(second.as_mut()) && !is_ready(third.as_mut()));
        brake.set_waiting(100);
        drop(first);
        assert!(!is_ready(second.as_mut()), "they wait to be gathered now");
        brake.set_waiting(60);
        let second = second.await;
        assert!(!is_ready(third.as_mut()), "the second took the room");
        drop(second);
        let mut third = third.await;
        assert!(!brake.lets_in());
        third.are(10);
        assert!(brake.lets_in(), "it was less than it seemed");
        third.are(40);
        assert!(!brake.lets_in());
    }

    #[tokio::test]
    async fn who_comes_later_does_not_go_first() {
        let brake = Brake::new(100);
        brake.set_waiting(100);
        let (first, second) = (brake.admit(100), brake.admit(100));
        tokio::pin!(first, second);
        assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
        brake.set_waiting(0);
        assert!(!brake.lets_in(), "there is room, but others wait for it");
        let late = brake.admit(100);
        tokio::pin!(late);
        assert!(!is_ready(late.as_mut()) && !is_ready(second.as_mut()));
        let first = first.await;
        assert!(!is_ready(second.as_mut()), "the first took the room");
        drop(first);
        assert!(!is_ready(late.as_mut()));
        drop(second.await);
        drop(late.await);
        assert!(brake.lets_in());
    }

    #[tokio::test]
    async fn who_gives_up_does_not_hold_up_those_behind() {
        let brake = Brake::new(100);
        brake.set_waiting(100);
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(brake.admit(10))).collect();
        assert!(waiting.iter_mut().all(|one| !is_ready(one.as_mut())));
        // The first in the line, and one in the midst of it.
        let last = waiting.pop();
        drop(waiting);
        brake.set_waiting(0);
        let began = Instant::now();
        drop(last.unwrap().await);
        assert!(began.elapsed() < LONGEST, "it was called");
    }

    #[tokio::test]
    async fn nobody_waits_for_outputs_or_for_the_disk() {
        let brake = Brake::new(100);
        brake.set_waiting(1000);
        for why in [Free::Behind, Free::Outputs] {
            let (one, two) = (brake.admit(10), brake.admit(10));
            tokio::pin!(one, two);
            assert!(!is_ready(one.as_mut()) && !is_ready(two.as_mut()));
            brake.set_free(why, true);
            assert!(is_ready(one.as_mut()) && is_ready(two.as_mut()));
            brake.set_free(why, false);
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let brake = Brake::new(100);
        brake.set_waiting(1000);
        let began = Instant::now();
        let _late = brake.admit(10).await;
        assert!(began.elapsed() >= LONGEST);
    }
}
