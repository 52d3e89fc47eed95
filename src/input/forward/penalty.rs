//! How long a refused handshake is kept waiting for its answer, so that guessing a key or a password is slow: the more
//! failures from one address of late, the longer.
//!
//! Owns the failures of each address, in a table of fixed size. Nobody is locked out: a client with the right key behind
//! the same address (a balancer, a NAT) is served at once, and its success is what makes the failures forgotten.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// After the first failure; each further one doubles it.
const FIRST: Duration = Duration::from_millis(200);
/// It grows no further.
const LONGEST: Duration = Duration::from_secs(5);
/// Failures are forgotten after this time without another one.
const MEMORY: Duration = Duration::from_secs(600);
/// Addresses that are remembered; the one that failed longest ago makes room.
const ADDRESSES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The failures of late.
#[derive(Debug)]
pub(super) struct Penalties {
    /// How often in a row, and when at last.
    failures: Mutex<LruCache<IpAddr, (u32, Instant)>>,
    longest: Duration,
}

impl Penalties {
    /// No failures yet. The answer must come before the client's time for the handshake is over.
    pub(super) fn new(handshake_timeout: Duration) -> Self {
        Self {
            failures: Mutex::new(LruCache::new(ADDRESSES)),
            longest: LONGEST.min(handshake_timeout / 2),
        }
    }

    /// Notes a failure; gives the time to wait before the answer. A unix socket has no address and always waits the
    /// shortest time.
    pub(super) fn failed(&self, peer: Option<IpAddr>, now: Instant) -> Duration {
        let Some(peer) = peer else {
            return FIRST.min(self.longest);
        };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = failures.get_or_insert_mut(network(peer), || (0, now));
        if now.saturating_duration_since(*last) >= MEMORY {
            *count = 0;
        }
        let wait = FIRST.saturating_mul(1 << (*count).min(16)).min(self.longest);
        (*count, *last) = (count.saturating_add(1), now);
        wait
    }

    /// Forgets the failures of an address that has proved itself.
    pub(super) fn succeeded(&self, peer: Option<IpAddr>) {
        if let Some(peer) = peer {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.pop(&network(peer));
        }
    }
}

/// Whoever has one IPv6 address has its whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalties() -> (Penalties, Instant) {
        (Penalties::new(Duration::from_secs(60)), Instant::now())
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn it_doubles_up_to_a_bound() {
        let (penalties, now) = penalties();
        let waits: Vec<u128> = (0..40)
            .map(|_| penalties.failed(address("10.0.0.1"), now).as_millis())
            .collect();
        assert_eq!(waits[..7], [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(waits[39], 5000);
        assert_eq!(
            penalties.failed(address("10.0.0.2"), now),
            FIRST,
            "another address"
        );
        assert_eq!(penalties.failed(None, now), FIRST);
        assert_eq!(penalties.failed(None, now), FIRST, "a unix socket");
    }

    #[test]
    fn it_ends_before_the_time_for_the_handshake() {
        let penalties = Penalties::new(Duration::from_secs(3));
        let now = Instant::now();
        let longest = (0..20).map(|_| penalties.failed(address("10.0.0.1"), now)).max();
        assert_eq!(longest, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn success_and_time_forget() {
        let (penalties, now) = penalties();
        for _ in 0..5 {
            penalties.failed(address("10.0.0.1"), now);
        }
        penalties.succeeded(address("10.0.0.2"));
        assert_eq!(
            penalties.failed(address("10.0.0.1"), now),
            LONGEST,
            "of another address"
        );
        penalties.succeeded(address("10.0.0.1"));
        assert_eq!(penalties.failed(address("10.0.0.1"), now), FIRST);
        assert_eq!(
            penalties.failed(address("10.0.0.1"), now + MEMORY - FIRST),
            2 * FIRST
        );
        assert_eq!(penalties.failed(address("10.0.0.1"), now + 2 * MEMORY), FIRST);
    }

    #[test]
    fn the_addresses_of_one_network_count_together() {
        let (penalties, now) = penalties();
        penalties.failed(address("2001:db8::1"), now);
        assert_eq!(penalties.failed(address("2001:db8::ffff:2"), now), 2 * FIRST);
        assert_eq!(penalties.failed(address("2001:db8:0:1::1"), now), FIRST);
        penalties.failed(address("10.0.0.1"), now);
        assert_eq!(
            penalties.failed(address("::ffff:10.0.0.1"), now),
            2 * FIRST,
            "the same, seen by a socket of both kinds"
        );
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_bound() {
        let (penalties, now) = penalties();
        for n in 0..2 * u32::try_from(ADDRESSES.get()).unwrap() {
            penalties.failed(Some(IpAddr::V4(n.into())), now);
        }
        assert_eq!(penalties.failures.lock().unwrap().len(), ADDRESSES.get());
        assert_eq!(
            penalties.failed(Some(IpAddr::V4(0.into())), now),
            FIRST,
            "forgotten"
        );
    }
}
