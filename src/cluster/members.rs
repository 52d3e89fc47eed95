//! Members: this instance and the peers that take records.
//!
//! Owns the list of peers, which follows the configuration and DNS, and the list of members, which
//! follows their states. No state is shared between instances: two may have different lists at any
//! moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::connection;
use super::peer::{Peer, PeerState, PeerView};
use super::rendezvous::Seat;
use crate::config::PeerAddress;
use crate::metrics::Metrics;

/// How often names are resolved.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// Time for a name to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers that a name may have; further addresses are not used.
const MAX_PEERS: usize = 1000;

/// The members of one moment.
#[derive(Debug)]
pub(super) struct Members {
    /// Their seats; the first is this instance's.
    pub(super) seats: Vec<Seat>,
    /// The other members, in the order of the seats after the first.
    pub(super) peers: Vec<Arc<Peer>>,
}

/// The peers.
#[derive(Debug)]
pub(super) struct Membership {
    own: u64,
    addresses: Vec<PeerAddress>,
    access: Arc<Access>,
    current: RwLock<Arc<Members>>,
    peers: Mutex<BTreeMap<SocketAddr, Arc<Peer>>>,
    /// Why a name cannot be resolved, by the name.
    unresolved: Mutex<BTreeMap<String, String>>,
    changed: Arc<Notify>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Membership {
    pub(super) fn new(
        own: u64,
        addresses: Vec<PeerAddress>,
        access: Arc<Access>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let alone = Members {
            seats: vec![Seat::of(own)],
            peers: Vec::new(),
        };
        Arc::new(Self {
            own,
            addresses,
            access,
            current: RwLock::new(Arc::new(alone)),
            peers: Mutex::default(),
            unresolved: Mutex::default(),
            changed: Arc::default(),
            metrics,
            stop,
        })
    }

    /// Starts following the peers, until the token that was given is cancelled.
    pub(super) fn start(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).follow_addresses());
        tokio::spawn(Arc::clone(self).follow_states());
    }

    /// The members of this moment.
    pub(super) fn current(&self) -> Arc<Members> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All other instances that are known.
    pub(super) fn peers(&self) -> Vec<PeerView> {
        lock(&self.peers)
            .values()
            .filter_map(|peer| peer.view())
            .collect()
    }

    /// What an operator should know of the peers.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, why) in lock(&self.unresolved).iter() {
            notes.push(format!(
                "cluster: {name} cannot be resolved, the last known peers stay in use: {why}"
            ));
        }
        for peer in lock(&self.peers).values() {
            let address = peer.address;
            match peer.state() {
                (PeerState::Ready | PeerState::Myself, _) => {}
                (PeerState::Foreign, _) => notes.push(format!(
                    "cluster: {address} answers, but takes no records from others: set cluster.peers there"
                )),
                (PeerState::Away(why), time) => notes.push(format!(
                    "cluster: {address} is away for {} s: {why}; its traces are gathered by others",
                    time.as_secs()
                )),
                (PeerState::Slow, time) => notes.push(format!(
                    "cluster: {address} is slow for {} s; its traces are gathered by others",
                    time.as_secs()
                )),
            }
        }
        notes
    }

    async fn follow_addresses(self: Arc<Self>) {
        let mut resolved: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        loop {
            let mut wanted: BTreeMap<SocketAddr, Option<String>> = BTreeMap::new();
            for address in &self.addresses {
                match address {
                    PeerAddress::Socket(address) => {
                        wanted.insert(*address, None);
                    }
                    PeerAddress::Dns { name, port } => {
                        self.resolve(name, *port, &mut resolved).await;
                        let known = resolved.get(name).into_iter().flatten();
                        wanted.extend(known.map(|address| (*address, Some(name.clone()))));
                    }
                }
            }
            self.set_addresses(wanted);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(RESOLVE_INTERVAL) => {}
            }
        }
    }

    /// Resolves a name. Without an answer the last one stays: a peer that has gone is noticed by its
    /// connection.
    async fn resolve(&self, name: &str, port: u16, resolved: &mut BTreeMap<String, Vec<SocketAddr>>) {
        match resolve(name, port).await {
            Ok(found) => {
                resolved.insert(name.to_owned(), found);
                lock(&self.unresolved).remove(name);
            }
            Err(why) => {
                let is_new = lock(&self.unresolved)
                    .insert(name.to_owned(), why.clone())
                    .is_none();
                if is_new {
                    tracing::warn!(name, why, "a name of cluster.peers cannot be resolved");
                }
            }
        }
    }

    /// Connects to new addresses. A peer that is no longer wanted stays while it takes records: DNS
    /// no longer names a pod that is not ready, which may be so only for a moment.
    fn set_addresses(&self, wanted: BTreeMap<SocketAddr, Option<String>>) {
        let mut peers = lock(&self.peers);
        peers.retain(|address, peer| {
            let keeps = wanted.contains_key(address) || peer.ready_instance().is_some();
            peer.is_forgotten.store(
                !wanted.contains_key(address),
                std::sync::atomic::Ordering::Relaxed,
            );
            keeps
        });
        for (address, name) in wanted {
            if peers.contains_key(&address) {
                continue;
            }
            let (peer, outgoing) = Peer::new(address, name, Arc::clone(&self.changed));
            peers.insert(address, Arc::clone(&peer));
            tokio::spawn(connection::keep(
                peer,
                Arc::clone(&self.access),
                self.own,
                outgoing,
                self.stop.clone(),
            ));
        }
        drop(peers);
        self.changed.notify_one();
    }

    async fn follow_states(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.changed.notified() => {}
            }
            self.update();
        }
    }

    fn update(&self) {
        let mut by_instance = BTreeMap::new();
        let mut known = 0;
        for peer in lock(&self.peers).values() {
            known += i64::from(peer.state().0 != PeerState::Myself);
            // One instance may have two addresses.
            if let Some(instance) = peer.ready_instance() {
                by_instance.entry(instance).or_insert_with(|| Arc::clone(peer));
            }
        }
        let own = std::iter::once(Seat::of(self.own));
        let members = Members {
            seats: own.chain(by_instance.keys().map(|id| Seat::of(*id))).collect(),
            peers: by_instance.into_values().collect(),
        };
        self.metrics.cluster.peers.set(known);
        self.metrics
            .cluster
            .peers_reachable
            .set(members.peers.len() as i64);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
    }
}

/// The addresses of a name, at least one.
///
/// # Errors
///
/// Why there is none.
pub(super) async fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Err(_) => return Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(found)) => found,
    };
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_PEERS);
    match found.is_empty() {
        true => Err("it has no address".into()),
        false => Ok(found),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use forward_protocol::frame::{Limits, messages};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::cluster::write_hello_reply;
    use crate::config::Config;

    const OWN: u64 = 1;

    /// A member of this number that answers hellos on one connection after the other, until told to
    /// go.
    async fn answer_hellos(listener: TcpListener, instance: u64, mut gone: watch::Receiver<bool>) {
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let mut replies = Vec::new();
                    for message in messages(&buffer[..read], Limits::default()).flatten() {
                        write_hello_reply(&mut replies, message.options.chunk.unwrap(), instance);
                    }
                    stream.write_all(&replies).await.unwrap();
                }
            }
        };
        tokio::select! {
            () = serve => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
    }

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), waiting).await.expect(what);
    }

    #[tokio::test]
    async fn members_follow_addresses_and_connections() {
        let stop = CancellationToken::new();
        let access = Arc::new(Access::from_config(&Config::default(), OWN).unwrap());
        let metrics = Arc::new(Metrics::new(&[]));
        let membership = Membership::new(OWN, Vec::new(), access, metrics, stop.clone());
        tokio::spawn(Arc::clone(&membership).follow_states());
        let (go, gone) = watch::channel(false);
        let mut addresses = Vec::new();
        // Two addresses of one instance, and one of this one.
        for instance in [2, 3, 3, OWN] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            tokio::spawn(answer_hellos(listener, instance, gone.clone()));
        }
        let named = |count: usize| {
            addresses
                .iter()
                .take(count)
                .map(|address| (*address, None))
                .collect()
        };
        assert_eq!(membership.current().seats.len(), 1, "alone at first");
        membership.set_addresses(named(4));
        until("two other members", || membership.current().seats.len() == 3).await;
        until("no notes", || membership.notes().is_empty()).await;
        assert_eq!(membership.current().seats[0], Seat::of(OWN));
        membership.set_addresses(named(0));
        assert_eq!(
            membership.current().peers.len(),
            2,
            "a name may forget an instance that takes records"
        );
        go.send(true).unwrap();
        until("none left", || membership.current().peers.is_empty()).await;
        membership.set_addresses(named(0));
        assert!(
            lock(&membership.peers).is_empty(),
            "what is neither named nor there is forgotten"
        );
        stop.cancel();
    }
}
