//! UDP heartbeats: each small datagram is answered with one zero byte, as by Fluentd's
//! `in_forward`.
//!
//! Clients with `heartbeat_type udp` consider a server dead that does not answer. The source of a
//! datagram can be forged and an answer looks like a heartbeat, so two servers could answer each
//! other for ever: answers are limited, and the first one left out ends such a loop.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::context::Context;
use super::peer::network;

/// Longest datagram that Fluentd accepts (`in_forward.rb`, `start`).
const MAX_DATAGRAM_BYTES: usize = 128;
/// Source ports below this belong to services, which answer: echo, DNS, other daemons. Clients send
/// from a port that the system chose.
const MIN_CLIENT_PORT: u16 = 1024;
/// Answers per second to one client. Fluentd sends one heartbeat a second from each of its workers.
const MAX_PER_CLIENT: u32 = 10;
/// Answers per second to all clients.
const MAX_TOTAL: u32 = 5000;
/// Clients in the table; the one that sent longest ago is evicted.
const MAX_CLIENTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Answers until Windrow stops. The answer is never longer than the datagram, so it cannot be used
/// for amplification.
pub(super) async fn answer(socket: UdpSocket, context: &Context) {
    let own_port = socket.local_addr().map_or(0, |address| address.port());
    let mut limiter = AnswerLimiter::new(own_port);
    let mut datagram = [0u8; MAX_DATAGRAM_BYTES + 1];
    loop {
        let received = tokio::select! {
            () = context.stop.cancelled() => return,
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((1..=MAX_DATAGRAM_BYTES, peer)) => {
                let allowed = context
                    .security
                    .as_ref()
                    .is_none_or(|security| security.allows(peer.ip()));
                if allowed && limiter.admit(peer, Instant::now()) {
                    reply(&socket, peer, context).await;
                } else {
                    context.metrics.heartbeats_ignored.inc();
                }
            }
            Ok(_) => {
                context.metrics.heartbeats_ignored.inc();
            }
            Err(error) => tracing::debug!(%error, "a heartbeat could not be read"),
        }
    }
}

async fn reply(socket: &UdpSocket, peer: SocketAddr, context: &Context) {
    if socket.send_to(&[0], peer).await.is_ok() {
        context.metrics.heartbeats.inc();
    }
}

/// Decides which heartbeats are answered.
struct AnswerLimiter {
    own_port: u16,
    total: AnswerCount,
    by_client: LruCache<IpAddr, AnswerCount>,
}

/// Answers in the second that began at `since`.
#[derive(Clone, Copy)]
struct AnswerCount {
    since: Instant,
    count: u32,
}

impl AnswerLimiter {
    fn new(own_port: u16) -> Self {
        Self {
            own_port,
            total: AnswerCount::new(Instant::now()),
            by_client: LruCache::new(MAX_CLIENTS),
        }
    }

    fn admit(&mut self, peer: SocketAddr, now: Instant) -> bool {
        if peer.port() < MIN_CLIENT_PORT || peer.port() == self.own_port {
            return false;
        }
        let client = self
            .by_client
            .get_or_insert_mut(network(peer.ip()), || AnswerCount::new(now));
        client.admit(now, MAX_PER_CLIENT) && self.total.admit(now, MAX_TOTAL)
    }
}

impl AnswerCount {
    fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    fn admit(&mut self, now: Instant, max: u32) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let admitted = self.count < max;
        self.count += u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::input::forward::context::test_context;

    /// A server, and a second handle of its socket that sends as if it were the server.
    async fn server(context: &Arc<Context>) -> (SocketAddr, UdpSocket) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let twin = UdpSocket::from_std(socket.try_clone().unwrap()).unwrap();
        let socket = UdpSocket::from_std(socket).unwrap();
        let address = socket.local_addr().unwrap();
        let context = Arc::clone(context);
        tokio::spawn(async move { answer(socket, &context).await });
        (address, twin)
    }

    #[tokio::test]
    async fn a_client_gets_its_answer() {
        let (context, _dir) = test_context();
        let (address, _) = server(&context).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&[0], address).await.unwrap();
        let mut answer = [9; 8];
        let (bytes, from) = client.recv_from(&mut answer).await.unwrap();
        assert_eq!((&answer[..bytes], from), (&[0][..], address));
    }

    #[tokio::test]
    async fn a_datagram_from_its_own_address_is_not_answered() {
        let (context, _dir) = test_context();
        let (address, twin) = server(&context).await;
        twin.send_to(&[0], address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(context.metrics.heartbeats.get(), 0);
        assert_eq!(context.metrics.heartbeats_ignored.get(), 1);
    }

    #[tokio::test]
    async fn two_servers_do_not_answer_each_other_for_ever() {
        let (context, _dir) = test_context();
        let (one, _) = server(&context).await;
        let (_, twin_of_other) = server(&context).await;
        twin_of_other.send_to(&[0], one).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let answered = context.metrics.heartbeats.get();
        assert!(
            (1..=2 * u64::from(MAX_PER_CLIENT)).contains(&answered),
            "{answered}"
        );
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(context.metrics.heartbeats.get(), answered, "it has ended");
    }

    #[test]
    fn answers_are_limited_per_client_and_in_all() {
        let now = Instant::now();
        let mut limiter = AnswerLimiter::new(24224);
        let mut count = |peers: &[&str], now| {
            let answered = peers
                .iter()
                .filter(|peer| limiter.admit(peer.parse().unwrap(), now));
            answered.count() as u32
        };
        assert_eq!(count(&["10.0.0.1:53", "10.0.0.1:1023", "10.0.0.1:24224"], now), 0);
        assert_eq!(count(&["10.0.0.1:1024"; 100], now), MAX_PER_CLIENT);
        let half = now + Duration::from_millis(500);
        assert_eq!(count(&["10.0.0.1:2000"; 100], half), 0, "another port");
        let same_network = ["[2001:db8::1]:5000", "[2001:db8::2]:5000"].repeat(50);
        assert_eq!(count(&same_network, now), MAX_PER_CLIENT);
        assert_eq!(count(&["[::ffff:10.0.0.1]:1024"], now), 0, "the same client");
        assert_eq!(
            count(&["10.0.0.1:1024"; 100], now + Duration::from_secs(1)),
            MAX_PER_CLIENT
        );

        let mut limiter = AnswerLimiter::new(24224);
        let forged = (0..2 * MAX_TOTAL).map(|n| SocketAddr::new(IpAddr::V4(n.into()), 5000));
        let answered = forged.filter(|peer| limiter.admit(*peer, now)).count();
        assert_eq!(answered as u32, MAX_TOTAL);
    }
}
