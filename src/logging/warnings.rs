//! Warning limiter: bounds repeated warnings of one kind, per peer and in all.
//!
//! In each minute the first warnings of a kind from a peer are logged, the others are counted and
//! summed up at the end of the minute. Does not log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time over which repeated warnings are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Warnings of one kind from one peer that are logged in a window.
const MAX_PER_PEER: u64 = 3;
/// Warnings of one kind from all peers that are logged in a window.
const MAX_PER_KIND: u64 = 60;
/// Peers that are counted by themselves in a window; further ones are counted together.
const MAX_PEERS: usize = 1024;
/// Peers that are named in the sums of a window; those with the most warnings.
const MAX_NAMED: usize = 20;

/// Decides which warnings are logged.
#[derive(Debug)]
pub struct WarningLimiter(Mutex<Window>);

/// Warnings that were not logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// Their kind.
    pub kind: &'static str,
    /// Whom they are about; `None`: several peers.
    pub peer: Option<WarningPeer>,
    /// How many.
    pub count: u64,
}

/// Whom a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningPeer {
    /// The clients of a unix socket, or the server itself.
    Local,
    /// A client, by its address or network.
    Address(IpAddr),
}

#[derive(Debug)]
struct Window {
    since: Instant,
    by_peer: HashMap<(&'static str, WarningPeer), Count>,
    by_kind: HashMap<&'static str, Count>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    logged: u64,
    suppressed: u64,
}

impl Default for WarningLimiter {
    fn default() -> Self {
        Self(Mutex::new(Window::new(Instant::now())))
    }
}

impl WarningLimiter {
    /// Whether a warning is to be logged; otherwise it is counted.
    pub fn admit(&self, kind: &'static str, peer: WarningPeer) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.admit(kind, peer)
    }

    /// The warnings that were not logged, if a window has ended by `now`; the next window begins.
    pub fn end_window(&self, now: Instant) -> Vec<Repeated> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.since) < WINDOW {
            return Vec::new();
        }
        std::mem::replace(&mut *window, Window::new(now)).repeated()
    }
}

impl Window {
    fn new(since: Instant) -> Self {
        Self {
            since,
            by_peer: HashMap::new(),
            by_kind: HashMap::new(),
        }
    }

    fn admit(&mut self, kind: &'static str, peer: WarningPeer) -> bool {
        let all = self.by_kind.entry(kind).or_default();
        let room = self.by_peer.len() < MAX_PEERS;
        let one = match self.by_peer.get_mut(&(kind, peer)) {
            None if room => self.by_peer.entry((kind, peer)).or_default(),
            None => {
                all.suppressed += 1;
                return false;
            }
            Some(one) => one,
        };
        let admitted = one.logged < MAX_PER_PEER && all.logged < MAX_PER_KIND;
        if admitted {
            one.logged += 1;
            all.logged += 1;
        } else {
            one.suppressed += 1;
        }
        admitted
    }

    fn repeated(self) -> Vec<Repeated> {
        let mut by_peer: Vec<_> = self.by_peer.into_iter().collect();
        by_peer.retain(|(_, count)| count.suppressed > 0);
        by_peer.sort_by_key(|((kind, peer), count)| (u64::MAX - count.suppressed, *kind, *peer));
        let mut others = self.by_kind;
        for ((kind, _), count) in by_peer.iter().skip(MAX_NAMED) {
            others.entry(kind).or_default().suppressed += count.suppressed;
        }
        let named = by_peer.iter().take(MAX_NAMED);
        let mut repeated: Vec<_> = named
            .map(|((kind, peer), count)| Repeated {
                kind,
                peer: Some(*peer),
                count: count.suppressed,
            })
            .collect();
        let others = others.into_iter().filter(|(_, count)| count.suppressed > 0);
        repeated.extend(others.map(|(kind, count)| Repeated {
            kind,
            peer: None,
            count: count.suppressed,
        }));
        repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> WarningPeer {
        WarningPeer::Address(IpAddr::V4(n.into()))
    }

    #[test]
    fn repeated_warnings_of_a_peer_are_counted_and_summed_up() {
        let limiter = WarningLimiter::default();
        let admitted = (0..4315).filter(|_| limiter.admit("tls", peer(1))).count();
        assert_eq!(admitted, 3);
        assert!(limiter.admit("http", peer(1)), "another kind");
        assert!(limiter.admit("tls", peer(2)), "another peer");
        let now = Instant::now();
        assert_eq!(limiter.end_window(now), [], "the minute is not over");
        let later = now + WINDOW;
        let expected = Repeated {
            kind: "tls",
            peer: Some(peer(1)),
            count: 4312,
        };
        assert_eq!(limiter.end_window(later), [expected]);
        assert_eq!(limiter.end_window(later + WINDOW), [], "nothing since");
        assert!(limiter.admit("tls", peer(1)), "the next minute");
    }

    #[test]
    fn warnings_of_many_peers_are_bounded_too() {
        let limiter = WarningLimiter::default();
        let many = 10 * u32::try_from(MAX_PEERS).unwrap();
        let admitted = (0..many).filter(|n| limiter.admit("tls", peer(*n))).count() as u64;
        assert_eq!(admitted, MAX_PER_KIND);
        let repeated = limiter.end_window(Instant::now() + WINDOW);
        assert_eq!(repeated.len(), MAX_NAMED + 1);
        let counted: u64 = repeated.iter().map(|repeated| repeated.count).sum();
        assert_eq!(counted + admitted, u64::from(many));
        let others = repeated.last().unwrap();
        assert_eq!((others.kind, others.peer), ("tls", None));
    }
}
