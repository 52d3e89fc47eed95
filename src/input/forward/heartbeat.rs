//! UDP heartbeats: each small datagram is answered with one zero byte, as by Fluentd's
//! `in_forward`.
//!
//! Clients with `heartbeat_type udp` consider a server dead that does not answer.

use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::context::Context;

/// Longest datagram that Fluentd accepts (`in_forward.rb`, `start`).
const MAX_DATAGRAM_BYTES: usize = 128;

/// Answers until Windrow stops. The answer is never longer than the datagram, so it cannot be used
/// for amplification.
pub(super) async fn answer(socket: UdpSocket, context: &Context) {
    let mut datagram = [0u8; MAX_DATAGRAM_BYTES + 1];
    loop {
        let received = tokio::select! {
            () = context.stop.cancelled() => return,
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((1..=MAX_DATAGRAM_BYTES, peer)) => reply(&socket, peer, context).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a heartbeat could not be read"),
        }
    }
}

async fn reply(socket: &UdpSocket, peer: SocketAddr, context: &Context) {
    if socket.send_to(&[0], peer).await.is_ok() {
        context.metrics.heartbeats.inc();
    }
}
