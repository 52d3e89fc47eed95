//! Handshake backoff: delays the answer to a failed handshake, so that guessing a key or a password
//! is slow.
//!
//! Owns the recent failures of each address, in a table of fixed size. Locks no one out: a client
//! with the right key behind the same address (a balancer, a NAT) is served at once, and its
//! success resets the address.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::peer::network;

/// Delay after the first failure; each further one doubles it.
const INITIAL_DELAY: Duration = Duration::from_millis(200);
/// Longest delay.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// Time without a failure after which an address is reset.
const RESET_AFTER: Duration = Duration::from_secs(600);
/// Addresses in the table; the one that failed longest ago is evicted.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Recent failures by address.
#[derive(Debug)]
pub(in crate::input) struct HandshakeBackoff {
    /// Failures in a row, and the time of the last one.
    failures: Mutex<LruCache<IpAddr, (u32, Instant)>>,
    max_delay: Duration,
}

impl HandshakeBackoff {
    /// Caps the delay at half of the handshake timeout, so that the client still gets its answer.
    pub(in crate::input) fn new(handshake_timeout: Duration) -> Self {
        Self {
            failures: Mutex::new(LruCache::new(MAX_ADDRESSES)),
            max_delay: MAX_DELAY.min(handshake_timeout / 2),
        }
    }

    /// Records a failure and returns the delay before the answer. A unix socket has no address and
    /// always gets the initial delay.
    pub(in crate::input) fn record_failure(&self, peer: Option<IpAddr>, now: Instant) -> Duration {
        let Some(peer) = peer else {
            return INITIAL_DELAY.min(self.max_delay);
        };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = failures.get_or_insert_mut(network(peer), || (0, now));
        if now.saturating_duration_since(*last) >= RESET_AFTER {
            *count = 0;
        }
        let delay = INITIAL_DELAY
            .saturating_mul(1 << (*count).min(16))
            .min(self.max_delay);
        (*count, *last) = (count.saturating_add(1), now);
        delay
    }

    /// Forgets the failures of an address after a successful handshake.
    pub(in crate::input) fn reset(&self, peer: Option<IpAddr>) {
        if let Some(peer) = peer {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.pop(&network(peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> (HandshakeBackoff, Instant) {
        (HandshakeBackoff::new(Duration::from_secs(60)), Instant::now())
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_delay_doubles_up_to_a_bound() {
        let (backoff, now) = backoff();
        let delays: Vec<u128> = (0..40)
            .map(|_| backoff.record_failure(address("10.0.0.1"), now).as_millis())
            .collect();
        assert_eq!(delays[..7], [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(delays[39], 5000);
        assert_eq!(
            backoff.record_failure(address("10.0.0.2"), now),
            INITIAL_DELAY,
            "another address"
        );
        assert_eq!(backoff.record_failure(None, now), INITIAL_DELAY);
        assert_eq!(backoff.record_failure(None, now), INITIAL_DELAY, "a unix socket");
    }

    #[test]
    fn the_delay_ends_before_the_handshake_timeout() {
        let backoff = HandshakeBackoff::new(Duration::from_secs(3));
        let now = Instant::now();
        let longest = (0..20)
            .map(|_| backoff.record_failure(address("10.0.0.1"), now))
            .max();
        assert_eq!(longest, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn success_and_time_reset_an_address() {
        let (backoff, now) = backoff();
        for _ in 0..5 {
            backoff.record_failure(address("10.0.0.1"), now);
        }
        backoff.reset(address("10.0.0.2"));
        assert_eq!(
            backoff.record_failure(address("10.0.0.1"), now),
            MAX_DELAY,
            "of another address"
        );
        backoff.reset(address("10.0.0.1"));
        assert_eq!(backoff.record_failure(address("10.0.0.1"), now), INITIAL_DELAY);
        assert_eq!(
            backoff.record_failure(address("10.0.0.1"), now + RESET_AFTER - INITIAL_DELAY),
            2 * INITIAL_DELAY
        );
        assert_eq!(
            backoff.record_failure(address("10.0.0.1"), now + 2 * RESET_AFTER),
            INITIAL_DELAY
        );
    }

    #[test]
    fn the_addresses_of_one_network_count_together() {
        let (backoff, now) = backoff();
        backoff.record_failure(address("2001:db8::1"), now);
        assert_eq!(
            backoff.record_failure(address("2001:db8::ffff:2"), now),
            2 * INITIAL_DELAY
        );
        assert_eq!(
            backoff.record_failure(address("2001:db8:0:1::1"), now),
            INITIAL_DELAY
        );
        backoff.record_failure(address("10.0.0.1"), now);
        assert_eq!(
            backoff.record_failure(address("::ffff:10.0.0.1"), now),
            2 * INITIAL_DELAY,
            "the same, seen by a socket of both kinds"
        );
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_bound() {
        let (backoff, now) = backoff();
        for n in 0..2 * u32::try_from(MAX_ADDRESSES.get()).unwrap() {
            backoff.record_failure(Some(IpAddr::V4(n.into())), now);
        }
        assert_eq!(backoff.failures.lock().unwrap().len(), MAX_ADDRESSES.get());
        assert_eq!(
            backoff.record_failure(Some(IpAddr::V4(0.into())), now),
            INITIAL_DELAY,
            "forgotten"
        );
    }
}
