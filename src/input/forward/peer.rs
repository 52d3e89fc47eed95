//! Names of clients: what the log calls them, and what limits count as one client.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

/// What limits count as one client: an IPv4 address, or an IPv6 network of 64 bits, all of which
/// one machine can use. An IPv4-mapped address counts as IPv4.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// The number of a client as a source of journal records; no client can choose that of another.
pub(in crate::input) fn source_of(peer: Option<IpAddr>) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(peer.map(network))
}

/// The name of a client in the log.
pub(super) fn peer_name(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "unix socket".into(), |address| address.to_string())
}
