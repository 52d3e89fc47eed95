//! Warnings about clients: logged up to a limit, then summed up once a minute.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::peer::network;
use crate::logging::WarningPeer;

/// How often it is checked whether a minute of warnings has ended.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a warning of this kind about a client is to be logged; otherwise it is counted.
pub(in crate::input) fn admit(context: &Context, kind: &'static str, peer: Option<IpAddr>) -> bool {
    let peer = peer.map_or(WarningPeer::Local, |peer| WarningPeer::Address(network(peer)));
    context.warnings.admit(kind, peer)
}

/// Logs how many warnings were left out, once a minute, until Windrow stops.
pub async fn sum_up_warnings(context: Arc<Context>) {
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => log_repeated(&context, Instant::now()),
        }
    }
}

fn log_repeated(context: &Context, now: Instant) {
    for repeated in context.warnings.end_window(now) {
        let peer = match repeated.peer {
            Some(WarningPeer::Address(address)) => address.to_string(),
            Some(WarningPeer::Local) => "local".into(),
            None => "other peers".into(),
        };
        let (kind, count) = (repeated.kind, repeated.count);
        tracing::warn!(peer, kind, "repeated warning: … {count} more in the last minute");
    }
}
