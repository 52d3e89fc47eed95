//! Peer: one address at which another instance may listen, what is known of it, and what is on its
//! way to it.
//!
//! Owns the decision whether the peer takes records, and the limit of bytes in flight, so that a slow
//! peer delays nobody but those who wait for it, and those for no longer than the timeout.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};

use super::receipt::PeerReceipt;
use crate::metrics::Kept;

/// Shares that may wait for the connection.
const MAX_QUEUED_SHARES: usize = 1024;
/// Bytes that may be in flight to one peer, acknowledged ones not counted.
const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;
/// Time for which a peer gets nothing that is slow again; doubled each time. After the first time
/// it gets more as soon as it has answered: a single stall of a disk is no reason to gather its
/// traces in two places.
const FIRST_COOL_DOWN: Duration = Duration::from_millis(500);
const MAX_COOL_DOWN: Duration = Duration::from_secs(30);
/// Time without a timeout after which a peer counts as fast again.
const FORGIVE_AFTER: Duration = Duration::from_secs(20);

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
    /// The peer has become slow, and should be asked whether it is there.
    pub(super) doubted: Notify,
    handed_over: AtomicU64,
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
    /// Shares that stayed here because of it.
    kept: BTreeMap<&'static str, u64>,
}

/// What an operator sees of a peer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Where it was looked for.
    pub address: String,
    /// The name by which it was found.
    pub name: Option<String>,
    /// The number of its journal, once it has answered.
    pub instance: Option<String>,
    /// `ready`, `slow`, `away`, or `no_member`.
    pub state: &'static str,
    /// Why it is away.
    pub reason: Option<String>,
    /// How long it has been so.
    pub seconds: u64,
    /// Records that it has made durable for this instance.
    pub records_handed_over: u64,
    /// Shares of chunks that stayed here because of it, by the reason.
    pub kept: BTreeMap<&'static str, u64>,
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
                cool_down: Duration::ZERO,
                last_slow: None,
                kept: BTreeMap::new(),
            }),
            queue,
            in_flight: Arc::default(),
            changed,
            doubted: Notify::new(),
            handed_over: AtomicU64::new(0),
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
            return Err(self.keeps(Kept::Away));
        }
        let length = bytes.len();
        if self.in_flight.fetch_add(length, Ordering::Relaxed) + length > MAX_IN_FLIGHT_BYTES {
            self.in_flight.fetch_sub(length, Ordering::Relaxed);
            return Err(self.keeps(Kept::Busy));
        }
        let (reply, receiver) = oneshot::channel();
        let outgoing = Outgoing {
            bytes,
            reply,
            in_flight: Arc::clone(&self.in_flight),
        };
        self.queue
            .try_send(outgoing)
            .map_err(|_| self.keeps(Kept::Busy))?;
        Ok(HandOver {
            peer: Arc::clone(self),
            reply: receiver,
        })
    }

    /// A share for it stays here.
    fn keeps(&self, why: Kept) -> Kept {
        *self.lock().kept.entry(why.as_str()).or_default() += 1;
        why
    }

    /// What an operator sees of it; `None` if it is this instance.
    pub(super) fn view(&self) -> Option<PeerView> {
        let status = self.lock();
        let (state, reason) = match &status.state {
            PeerState::Myself => return None,
            PeerState::Ready => ("ready", None),
            PeerState::Slow => ("slow", None),
            PeerState::Foreign => ("no_member", None),
            PeerState::Away(why) => ("away", Some(why.clone())),
        };
        Some(PeerView {
            address: self.address.to_string(),
            name: self.name.clone(),
            instance: status.instance.map(|instance| format!("{instance:016x}")),
            state,
            reason,
            seconds: status.since.elapsed().as_secs(),
            records_handed_over: self.handed_over.load(Ordering::Relaxed),
            kept: status.kept.clone(),
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
            true => (status.cool_down * 2).clamp(FIRST_COOL_DOWN, MAX_COOL_DOWN),
            false => Duration::ZERO,
        };
        status.last_slow = Some(now);
        drop(status);
        self.enter(PeerState::Slow);
        self.doubted.notify_one();
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
    /// Waits for the peer's ack of `records` records until `deadline`.
    ///
    /// # Errors
    ///
    /// Why the shares have to be kept here as well. The peer may still have taken them.
    pub(super) async fn receipt(
        self,
        deadline: tokio::time::Instant,
        records: u64,
    ) -> Result<PeerReceipt, Kept> {
        match tokio::time::timeout_at(deadline, self.reply).await {
            Ok(Ok(receipt)) => {
                self.peer.handed_over.fetch_add(records, Ordering::Relaxed);
                Ok(receipt)
            }
            Ok(Err(_)) => Err(self.peer.keeps(Kept::Away)),
            Err(_) => {
                self.peer.too_slow();
                Err(self.peer.keeps(Kept::Slow))
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
        assert_eq!(given.receipt(far, 1).await.unwrap_err(), Kept::Away);
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
        assert_eq!(given.receipt(now, 1).await.unwrap_err(), Kept::Slow);
        assert_eq!(peer.hand_over(Bytes::from_static(b"x")).unwrap_err(), Kept::Away);
        peer.answered(Some(2), 1, start);
        assert_eq!(peer.state().0, PeerState::Slow, "it was asked before");
        peer.answered(Some(2), 1, Instant::now());
        assert_eq!(peer.state().0, PeerState::Ready);
        peer.too_slow();
        peer.answered(Some(2), 1, Instant::now());
        assert_eq!(
            peer.state().0,
            PeerState::Slow,
            "the second time it has to stay away"
        );
        peer.answered(Some(2), 1, Instant::now() + FIRST_COOL_DOWN);
        assert_eq!(peer.state().0, PeerState::Ready);
        peer.too_slow();
        peer.answered(Some(2), 1, Instant::now() + FIRST_COOL_DOWN);
        assert_eq!(peer.state().0, PeerState::Slow, "the third time for longer");
    }
}
