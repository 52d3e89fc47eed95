//! Metrics of handing over between instances.

use super::{Counter, Gauge, Kept, PerLabel, registrar::Registrar};

/// What this instance hands to its peers, and takes from them.
pub struct ClusterMetrics {
    /// Peers that are known, this instance not among them.
    pub peers: Gauge,
    /// Of them, those that take records.
    pub peers_reachable: Gauge,
    /// Records that a peer has made durable for this instance.
    pub records_handed_over: Counter,
    /// Messages with records that peers handed over and that are durable here.
    pub messages_taken: Counter,
    /// Shares and messages that stayed although a peer may own them, by the reason.
    pub kept: PerLabel<Kept, Counter>,
}

impl ClusterMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        Self {
            peers: r.gauge("cluster_peers", "Other instances that are known"),
            peers_reachable: r.gauge("cluster_peers_reachable", "Other instances that take records"),
            records_handed_over: r.counter(
                "cluster_records_handed_over",
                "Records that another instance has made durable for this one",
            ),
            messages_taken: r.counter(
                "cluster_messages_taken",
                "Messages with records that other instances handed over",
            ),
            kept: r.per_label(
                "cluster_kept",
                "Shares of chunks, and chunks, that stayed here although another instance may own them",
            ),
        }
    }
}
