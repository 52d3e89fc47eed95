//! Peer: one address at which another instance may listen, what is known of it, and what is on its
//! way to it.
//!
//! Owns the decision whether the peer takes records, and the limit of bytes in flight, so that a slow
//! peer delays nobody but those who wait for it, and those for no longer than the timeout.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::receipt::PeerReceipt;
use crate::metrics::Kept;

/// Shares that may wait for the connection.
const MAX_QUEUED_SHARES: usize = 1024;
/// Bytes that may be in flight to one peer, acknowledged ones not counted.
const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;
/// Time for which a slow peer gets nothing, at first; doubled each time.
const FIRST_COOL_DOWN: Duration = Duration::from_secs(1);
const MAX_COOL_DOWN: Duration = Duration::from_secs(30);
/// Time without a timeout after which a peer counts as fast again.
const FORGIVE_AFTER: Duration = Duration::from_secs(60);

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// It is not connected, and why.
    Away(String),
    /// It is this instance.
    Myself,
    /// It answers, and is no member.
    Foreign,
    /// It takes records.
    Ready,
    /// It did not answer in time, and gets nothing for a while.
    Slow,
}

/// A peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) address: SocketAddr,
    /// The name by which it was found.
    pub(super) name: Option<String>,
    status: Mutex<Status>,
    queue: mpsc::Sender<Outgoing>,
    in_flight: Arc<AtomicUsize>,
    /// The state has changed.
    changed: Arc<Notify>,
    /// It is no longer configured, or DNS no longer names it.
    pub(super) is_forgotten: std::sync::atomic::AtomicBool,
}

#[derive(Debug)]
struct Status {
    state: PeerState,
    since: Instant,
    instance: Option<u64>,
    cool_down: Duration,
    last_slow: Option<Instant>,
}

/// Shares on their way to a peer.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Bytes,
    pub(super) reply: oneshot::Sender<PeerReceipt>,
    in_flight: Arc<AtomicUsize>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Shares that were given to a peer, which has not acknowledged them yet.
#[derive(Debug)]
pub(super) struct HandOver {
    peer: Arc<Peer>,
    reply: oneshot::Receiver<PeerReceipt>,
}

impl Peer {
    /// A peer that is not connected, and what its connection takes shares from.
    pub(super) fn new(
        address: SocketAddr,
        name: Option<String>,
        changed: Arc<Notify>,
    ) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (queue, outgoing) = mpsc::channel(MAX_QUEUED_SHARES);
        let peer = Self {
            address,
            name,
            status: Mutex::new(Status {
                state: PeerState::Away("not connected yet".into()),
                since: Instant::now(),
                instance: None,
                cool_down: FIRST_COOL_DOWN,
                last_slow: None,
            }),
            queue,
            in_flight: Arc::default(),
            changed,
            is_forgotten: false.into(),
        };
        (Arc::new(peer), outgoing)
    }

    /// Gives shares to the peer.
    ///
    /// # Errors
    ///
    /// Why they stay here.
    pub(super) fn hand_over(self: &Arc<Self>, bytes: Bytes) -> Result<HandOver, Kept> {
        if self.lock().state != PeerState::Ready {
            return Err(Kept::Away);
        }
        let length = bytes.len();
        if self.in_flight.fetch_add(length, Ordering::Relaxed) + length > MAX_IN_FLIGHT_BYTES {
            self.in_flight.fetch_sub(length, Ordering::Relaxed);
            return Err(Kept::Busy);
        }
        let (reply, receiver) = oneshot::channel();
        let outgoing = Outgoing {
            bytes,
            reply,
            in_flight: Arc::clone(&self.in_flight),
        };
        self.queue.try_send(outgoing).map_err(|_| Kept::Busy)?;
        Ok(HandOver {
            peer: Arc::clone(self),
            reply: receiver,
        })
    }

    /// What is known of it, and for how long.
    pub(crate) fn state(&self) -> (PeerState, Duration) {
        let status = self.lock();
        (status.state.clone(), status.since.elapsed())
    }

    /// The instance, while it takes records.
    pub(super) fn ready_instance(&self) -> Option<u64> {
        let status = self.lock();
        status.instance.filter(|_| status.state == PeerState::Ready)
    }

    /// The connection has ended, or none could be opened.
    pub(super) fn lost(&self, why: String) {
        self.enter(PeerState::Away(why));
    }

    /// The peer has answered a hello that was sent at `asked`.
    pub(super) fn answered(&self, instance: Option<u64>, own: u64, asked: Instant) {
        let mut status = self.lock();
        status.instance = instance;
        let state = match instance {
            None => PeerState::Foreign,
            Some(instance) if instance == own => PeerState::Myself,
            Some(_) => {
                let waits = status
                    .last_slow
                    .is_some_and(|slow| asked < slow + status.cool_down && status.state == PeerState::Slow);
                match waits {
                    true => PeerState::Slow,
                    false => PeerState::Ready,
                }
            }
        };
        drop(status);
        self.enter(state);
    }

    /// The peer has not answered in time.
    pub(super) fn too_slow(&self) {
        let mut status = self.lock();
        if status.state != PeerState::Ready {
            return;
        }
        let now = Instant::now();
        let is_repeated = status.last_slow.is_some_and(|last| now - last < FORGIVE_AFTER);
        status.cool_down = match is_repeated {
            true => (status.cool_down * 2).min(MAX_COOL_DOWN),
            false => FIRST_COOL_DOWN,
        };
        status.last_slow = Some(now);
        drop(status);
        self.enter(PeerState::Slow);
    }

    fn enter(&self, state: PeerState) {
        let mut status = self.lock();
        if status.state == state {
            return;
        }
        tracing::info!(peer = %self.address, from = ?status.state, to = ?state, "peer");
        status.state = state;
        status.since = Instant::now();
        drop(status);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandOver {
    /// Waits for the peer's ack until `deadline`.
    ///
    /// # Errors
    ///
    /// Why the shares have to be kept here as well. The peer may still have taken them.
    pub(super) async fn receipt(self, deadline: tokio::time::Instant) -> Result<PeerReceipt, Kept> {
        match tokio::time::timeout_at(deadline, self.reply).await {
            Ok(Ok(receipt)) => Ok(receipt),
            Ok(Err(_)) => Err(Kept::Away),
            Err(_) => {
                self.peer.too_slow();
                Err(Kept::Slow)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> (Arc<Peer>, mpsc::Receiver<Outgoing>) {
        Peer::new(([127, 0, 0, 1], 1).into(), None, Arc::default())
    }

    #[tokio::test]
    async fn a_peer_gets_records_once_it_has_said_who_it_is() {
        let (peer, mut outgoing) = peer();
        assert_eq!(peer.hand_over(Bytes::from_static(b"x")).unwrap_err(), Kept::Away);
        for (instance, state) in [(None, PeerState::Foreign), (Some(1), PeerState::Myself)] {
            peer.answered(instance, 1, Instant::now());
            assert_eq!(peer.state().0, state);
            assert!(peer.hand_over(Bytes::from_static(b"x")).is_err());
        }
        peer.answered(Some(2), 1, Instant::now());
        assert_eq!(peer.ready_instance(), Some(2));
        let given = peer.hand_over(Bytes::from_static(b"x")).unwrap();
        let taken = outgoing.recv().await.unwrap();
        assert_eq!(&taken.bytes[..], b"x");
        drop(taken);
        let far = tokio::time::Instant::now() + Duration::from_secs(60);
        assert_eq!(given.receipt(far).await.unwrap_err(), Kept::Away);
    }

    #[tokio::test]
    async fn the_bytes_on_their_way_are_bounded() {
        let (peer, mut outgoing) = peer();
        peer.answered(Some(2), 1, Instant::now());
        let half = Bytes::from(vec![0; MAX_IN_FLIGHT_BYTES / 2]);
        let _first = peer.hand_over(half.clone()).unwrap();
        let _second = peer.hand_over(half.clone()).unwrap();
        assert_eq!(peer.hand_over(half.clone()).unwrap_err(), Kept::Busy);
        drop(outgoing.recv().await);
        let _third = peer.hand_over(half).unwrap();
    }

    #[tokio::test]
    async fn a_slow_peer_gets_nothing_until_it_has_answered_later() {
        let (peer, _outgoing) = peer();
        let start = Instant::now();
        peer.answered(Some(2), 1, start);
        let given = peer.hand_over(Bytes::from_static(b"x")).unwrap();
        let now = tokio::time::Instant::now();
        assert_eq!(given.receipt(now).await.unwrap_err(), Kept::Slow);
        assert_eq!(peer.hand_over(Bytes::from_static(b"x")).unwrap_err(), Kept::Away);
        peer.answered(Some(2), 1, Instant::now());
        assert_eq!(peer.state().0, PeerState::Slow, "it has to stay away for a while");
        peer.answered(Some(2), 1, Instant::now() + FIRST_COOL_DOWN);
        assert_eq!(peer.state().0, PeerState::Ready);
        peer.too_slow();
        peer.answered(Some(2), 1, Instant::now() + FIRST_COOL_DOWN);
        assert_eq!(peer.state().0, PeerState::Slow, "the second time for longer");
    }
}
