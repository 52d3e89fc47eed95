//! Connection limiter: bounds the open connections, in all and per IP address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::peer::peer_name;
use crate::metrics::{Metrics, Refused};

/// Counts the open connections, in all and per IP address, and refuses those beyond the limits.
#[derive(Debug)]
pub struct ConnectionLimiter {
    max: u64,
    max_per_address: u64,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    total: u64,
    by_address: HashMap<IpAddr, u64>,
}

/// The slot of an open connection; freed when dropped.
pub(super) struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    address: Option<IpAddr>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimiter {
    /// Allows `max` connections, and `max_per_address` from one IP address.
    pub fn new(max: u64, max_per_address: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_per_address: max_per_address.unwrap_or(max),
            open: Mutex::default(),
        })
    }

    /// Takes a slot; `None`, counted and logged, when a limit is reached. A unix socket has no
    /// address.
    pub(super) fn acquire(
        this: &Arc<Self>,
        address: Option<IpAddr>,
        metrics: &Arc<Metrics>,
    ) -> Option<ConnectionSlot> {
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = if open.total >= this.max {
            Some((Refused::Total, this.max))
        } else if let Some(address) = address
            && open
                .by_address
                .get(&address)
                .is_some_and(|count| *count >= this.max_per_address)
        {
            Some((Refused::Address, this.max_per_address))
        } else {
            None
        };
        if let Some((reason, limit)) = refused {
            drop(open);
            metrics.input_connections_refused[reason].inc();
            tracing::debug!(
                peer = peer_name(address),
                limit,
                reason = reason.as_str(),
                "connection refused"
            );
            return None;
        }
        open.total += 1;
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        metrics.input_connections.inc();
        metrics.input_connections_total.inc();
        Some(ConnectionSlot {
            limiter: Arc::clone(this),
            address,
            metrics: Arc::clone(metrics),
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.limiter.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
        self.metrics.input_connections.dec();
    }
}
