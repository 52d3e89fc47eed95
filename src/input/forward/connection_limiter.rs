//! Connection limiter: bounds the open connections, in all and per client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::context::Context;
use super::peer::{network, peer_name};
use super::warnings;
use crate::metrics::{Metrics, Refused};

/// Pause between two warnings that the limit of all connections is reached.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Counts the open connections, in all and per client, and refuses those beyond the limits. A
/// client is an IPv4 address or an IPv6 network of 64 bits.
#[derive(Debug)]
pub struct ConnectionLimiter {
    max: u64,
    max_per_client: u64,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    total: u64,
    by_client: HashMap<IpAddr, u64>,
    /// Connections refused since the last warning about it.
    refused: u64,
    warned: Option<Instant>,
}

/// The slot of an open connection; freed when dropped.
pub(in crate::input) struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    client: Option<IpAddr>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimiter {
    /// Allows `max` connections, and `max_per_client` from one client.
    pub fn new(max: u64, max_per_client: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_per_client: max_per_client.unwrap_or(max),
            open: Mutex::default(),
        })
    }

    /// The limit of all connections, while it is reached and further ones are refused.
    #[must_use]
    pub fn reached(&self) -> Option<u64> {
        (self.lock().total >= self.max).then_some(self.max)
    }

    /// Takes a slot; `None`, counted and logged, when a limit is reached. A unix socket has no
    /// address.
    pub(in crate::input) fn acquire(
        this: &Arc<Self>,
        address: Option<IpAddr>,
        context: &Context,
    ) -> Option<ConnectionSlot> {
        let client = address.map(network);
        let mut open = this.lock();
        if open.total >= this.max {
            let refused = open.count_refused(Instant::now());
            drop(open);
            context.metrics.input_connections_refused[Refused::Total].inc();
            if let Some(refused) = refused {
                tracing::warn!(
                    max_connections = this.max,
                    refused,
                    "all connections are in use, further ones are refused; raise forward.max_connections"
                );
            }
            return None;
        }
        if this.refuses(&open, address, context) {
            return None;
        }
        open.total += 1;
        if let Some(client) = client {
            *open.by_client.entry(client).or_default() += 1;
        }
        drop(open);
        context.metrics.input_connections.inc();
        context.metrics.input_connections_total.inc();
        Some(ConnectionSlot {
            limiter: Arc::clone(this),
            client,
            metrics: Arc::clone(&context.metrics),
        })
    }

    /// Whether `client` has all the connections that it may have; counted and logged.
    fn refuses(&self, open: &OpenConnections, address: Option<IpAddr>, context: &Context) -> bool {
        let count = address.and_then(|address| open.by_client.get(&network(address)));
        if count.is_none_or(|count| *count < self.max_per_client) {
            return false;
        }
        context.metrics.input_connections_refused[Refused::Address].inc();
        if warnings::admit(context, "connections_per_address", address) {
            tracing::warn!(
                peer = peer_name(address),
                max_connections_per_address = self.max_per_client,
                "a client has all the connections that it may have, further ones are refused"
            );
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Counts the connection for the client at `address`, which was not known before. False, counted
    /// and logged, when that client has all the connections that it may have.
    pub(super) fn identify(&mut self, address: IpAddr, context: &Context) -> bool {
        let mut open = self.limiter.lock();
        if self.limiter.refuses(&open, Some(address), context) {
            return false;
        }
        let client = network(address);
        *open.by_client.entry(client).or_default() += 1;
        self.client = Some(client);
        true
    }
}

impl OpenConnections {
    /// Counts a refused connection; gives the number since the last warning when one is due.
    fn count_refused(&mut self, now: Instant) -> Option<u64> {
        self.refused += 1;
        let recent = |at: Instant| now.saturating_duration_since(at) < WARNING_INTERVAL;
        if self.warned.is_some_and(recent) {
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.refused))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.limiter.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(client) = self.client
            && let Some(count) = open.by_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                open.by_client.remove(&client);
            }
        }
        self.metrics.input_connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::forward::context::test_context;

    #[tokio::test]
    async fn the_addresses_of_one_ipv6_network_count_together() {
        let (context, _dir) = test_context();
        let limiter = ConnectionLimiter::new(100, Some(2));
        let acquire =
            |address: &str| ConnectionLimiter::acquire(&limiter, Some(address.parse().unwrap()), &context);
        let slots = [acquire("2001:db8::1"), acquire("2001:db8::ffff:2")];
        assert!(slots.iter().all(Option::is_some));
        assert!(acquire("2001:db8::3").is_none(), "the third of the network");
        assert!(acquire("2001:db8:0:1::1").is_some(), "another network");
        drop(slots);
        let slots = [acquire("10.0.0.1"), acquire("::ffff:10.0.0.1")];
        assert!(slots.iter().all(Option::is_some), "the slots are free again");
        assert!(acquire("10.0.0.1").is_none() && acquire("10.0.0.2").is_some());
        assert_eq!(context.metrics.input_connections_refused.sum(), 2);
    }

    #[tokio::test]
    async fn the_limit_of_all_is_reached_until_one_ends() {
        let (context, _dir) = test_context();
        let limiter = ConnectionLimiter::new(1, None);
        assert_eq!(limiter.reached(), None);
        let slot = ConnectionLimiter::acquire(&limiter, None, &context);
        assert!(slot.is_some() && limiter.reached() == Some(1));
        assert!(ConnectionLimiter::acquire(&limiter, None, &context).is_none());
        drop(slot);
        assert_eq!(limiter.reached(), None);
    }

    #[test]
    fn refused_connections_are_warned_about_once_a_minute() {
        let mut open = OpenConnections::default();
        let now = Instant::now();
        assert_eq!(open.count_refused(now), Some(1));
        for second in 0..59 {
            assert_eq!(open.count_refused(now + Duration::from_secs(second)), None);
        }
        assert_eq!(open.count_refused(now + WARNING_INTERVAL), Some(60));
    }
}
