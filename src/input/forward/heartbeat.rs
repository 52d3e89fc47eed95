//! UDP heartbeats: any small datagram is answered with one zero byte, as Fluentd's `in_forward` does. Clients with
//! `heartbeat_type udp` take a server that does not answer for dead.

use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::Context;

/// Fluentd accepts no longer datagram (`in_forward.rb`, `start`).
const LONGEST: usize = 128;

/// Answers until Windrow stops. The answer is never longer than the question, so that it amplifies nothing.
pub(super) async fn answer(socket: UdpSocket, context: &Context) {
    let mut datagram = [0u8; LONGEST + 1];
    loop {
        let received = tokio::select! {
            () = context.stop.cancelled() => return,
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((1..=LONGEST, peer)) => reply(&socket, peer, context).await,
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
