//! Listeners: TCP and unix sockets that are bound at the start and accept connections later.
//!
//! Owns the listening sockets. Each accepted connection is a task of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixListener, UnixSocket};
use tokio::time::timeout;

use super::connection::{CloseReason, is_closed_by_peer, serve};
use super::connection_limiter::{ConnectionLimiter, ConnectionSlot};
use super::context::Context;
use super::heartbeat;
use super::peer::peer_name;
use super::proxy_protocol::{self, ProxyHeaderError};
use super::warnings;
use crate::config::Listen;

/// Pause after a failed accept, for example for too many open files, so that the loop does not
/// spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted: as many as come back together after an outage of a
/// balancer or a network. A client beyond the usual 128 would be refused or try again after a
/// second. The system caps it at `net.core.somaxconn`.
const ACCEPT_BACKLOG: u32 = 4096;

/// Time to close a connection in order: TLS sends its `close_notify` behind the acks in its buffer,
/// and a peer that does not read would keep the slot.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A bound listener that accepts nothing yet.
#[derive(Debug)]
pub struct BoundListener {
    socket: Socket,
    /// The bound address; a configured port 0 is replaced by the real port.
    pub address: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, Option<UdpSocket>),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket, by its identity: another server may have replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            device_and_inode: device_and_inode(path)?,
        })
    }

    /// Removes the file, if it is still this one.
    fn remove(self) {
        if device_and_inode(&self.path).is_ok_and(|found| found == self.device_and_inode) {
            std::fs::remove_file(self.path).ok();
        }
    }
}

fn device_and_inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(source, flag))]
pub struct BindError {
    /// The address as it was configured.
    pub address: String,
    /// The system's reason.
    pub source: io::Error,
    /// The flag that chooses another address.
    pub flag: &'static str,
}

fn hint(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(" (is another Windrow or Fluent Bit running? choose another {flag})")
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 and foreign folders need permission)".into(),
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)".into(),
        _ => String::new(),
    }
}

/// Binds one address. The socket file of a process that has ended is replaced.
///
/// # Errors
///
/// [`BindError`], which says what to do about it.
pub async fn bind(listen: &Listen, unix_mode: u32, udp_heartbeat: bool) -> Result<BoundListener, BindError> {
    let failed = |source| BindError {
        address: listen.to_string(),
        source,
        flag: "--listen",
    };
    match listen {
        Listen::Tcp(address) => {
            let listener = listen_on(*address).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let udp = match UdpSocket::bind(address).await {
                _ if !udp_heartbeat => None,
                Ok(socket) => Some(socket),
                Err(error) => {
                    // Few clients need it; those that do say so themselves.
                    tracing::warn!(%address, %error, "UDP heartbeats are not answered: the port is taken");
                    None
                }
            };
            Ok(BoundListener {
                socket: Socket::Tcp(listener, udp),
                address: address.to_string(),
            })
        }
        Listen::Unix(path) => {
            remove_stale(path).await.map_err(failed)?;
            let socket = UnixSocket::new_stream().map_err(failed)?;
            socket.bind(path).map_err(failed)?;
            // Before it listens: until then nobody can connect.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(unix_mode);
            std::fs::set_permissions(path, mode).map_err(failed)?;
            let listener = socket.listen(ACCEPT_BACKLOG).map_err(failed)?;
            Ok(BoundListener {
                socket: Socket::Unix(listener, SocketFile::of(path).map_err(failed)?),
                address: listen.to_string(),
            })
        }
    }
}

pub(in crate::input) fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart does not wait for the connections of the previous run to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Removes a socket file on which no process listens.
async fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file of that name exists and is not a socket",
        )),
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            // The backlog of a live server is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        },
    }
}

impl BoundListener {
    /// Accepts connections until Windrow stops.
    pub async fn serve(self, context: Arc<Context>, limiter: Arc<ConnectionLimiter>) {
        match self.socket {
            Socket::Tcp(listener, udp) => {
                if let Some(udp) = udp {
                    let context = Arc::clone(&context);
                    context
                        .tasks
                        .clone()
                        .spawn(async move { heartbeat::answer(udp, &context).await });
                }
                while let Some(accepted) = accept(&context, listener.accept()).await {
                    let Some((stream, peer)) = accepted else { continue };
                    // No delay: acks are small and waited for. Keepalive: a vanished peer is
                    // noticed in time.
                    stream.set_nodelay(true).ok();
                    rustix::net::sockopt::set_socket_keepalive(&stream, true).ok();
                    // Behind a load balancer the client is known later.
                    let client = (!context.proxy_protocol).then_some(peer.ip());
                    let Some(slot) = ConnectionLimiter::acquire(&limiter, client, &context) else {
                        continue;
                    };
                    let context = Arc::clone(&context);
                    context.tasks.clone().spawn(async move {
                        match context.proxy_protocol {
                            true => proxied(stream, peer.ip(), &context, slot).await,
                            false => {
                                tcp(stream, peer.ip(), &context).await;
                                drop(slot);
                            }
                        }
                    });
                }
            }
            Socket::Unix(listener, file) => {
                while let Some(accepted) = accept(&context, listener.accept()).await {
                    let Some((stream, _)) = accepted else { continue };
                    let Some(slot) = ConnectionLimiter::acquire(&limiter, None, &context) else {
                        continue;
                    };
                    let context = Arc::clone(&context);
                    context.tasks.clone().spawn(async move {
                        serve_stream(stream, None, &context).await;
                        drop(slot);
                    });
                }
                file.remove();
            }
        }
    }
}

/// The next connection; `None` when Windrow stops, `Some(None)` after a failed accept.
pub(in crate::input) async fn accept<T>(
    context: &Context,
    accepting: impl Future<Output = io::Result<T>>,
) -> Option<Option<T>> {
    tokio::select! {
        () = context.stop.cancelled() => None,
        accepted = accepting => match accepted {
            Ok(accepted) => Some(Some(accepted)),
            Err(error) => {
                if warnings::admit(context, "accept", None) {
                    tracing::warn!(%error, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Some(None)
            }
        },
    }
}

/// Serves a connection that begins with a header of the PROXY protocol.
async fn proxied(mut stream: TcpStream, balancer: IpAddr, context: &Arc<Context>, mut slot: ConnectionSlot) {
    let reading = timeout(
        context.handshake_timeout,
        proxy_protocol::read_header(&mut stream),
    );
    let read = tokio::select! {
        biased;
        read = reading => read,
        () = context.stop_timeout() => Ok(Err(ProxyHeaderError::Closed)),
    };
    let reason = match read {
        Ok(Ok(client)) => {
            // Without an address the balancer speaks for itself, as in its health checks.
            if client.is_none_or(|client| slot.identify(client, context)) {
                tcp(stream, client.unwrap_or(balancer), context).await;
            }
            return;
        }
        Ok(Err(ProxyHeaderError::Closed)) => CloseReason::Probe,
        Ok(Err(error)) => error.into(),
        Err(_) => CloseReason::HandshakeTimeout(context.handshake_timeout),
    };
    log_close(&reason, Some(balancer), context);
}

async fn tcp(stream: TcpStream, peer: IpAddr, context: &Arc<Context>) {
    let Some(tls) = &context.tls else {
        serve_stream(stream, Some(peer), context).await;
        return;
    };
    let handshake = timeout(context.handshake_timeout, async {
        // Health checks and scanners connect and close.
        let mut first = [0; proxy_protocol::MAX_SIGNATURE_BYTES];
        match stream.peek(&mut first).await {
            Ok(0) => Err(CloseReason::Probe),
            Err(error) if is_closed_by_peer(&error) => Err(CloseReason::Probe),
            Ok(n) if proxy_protocol::begins(first.get(..n).unwrap_or_default()) => {
                Err(CloseReason::ProxyProtocol)
            }
            Ok(_) | Err(_) => tls.accept(stream).await.map_err(CloseReason::Tls),
        }
    });
    let accepted = tokio::select! {
        biased;
        accepted = handshake => accepted,
        () = context.stop_timeout() => {
            log_close(&CloseReason::StoppingStalled, Some(peer), context);
            return;
        }
    };
    let reason = match accepted {
        Ok(Ok(stream)) => {
            serve_stream(stream, Some(peer), context).await;
            return;
        }
        Ok(Err(reason)) => reason,
        Err(_) => CloseReason::HandshakeTimeout(context.handshake_timeout),
    };
    log_close(&reason, Some(peer), context);
}

async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: Option<IpAddr>,
    context: &Arc<Context>,
) {
    let reason = serve(&mut stream, peer, context).await;
    log_close(&reason, peer, context);
    timeout(SHUTDOWN_TIMEOUT, stream.shutdown()).await.ok();
}

pub(in crate::input) fn log_close(reason: &CloseReason, peer: Option<IpAddr>, context: &Context) {
    reason.count(&context.metrics);
    let warns = reason.is_fault() && warnings::admit(context, reason.kind(), peer);
    let peer = peer_name(peer);
    if warns {
        tracing::warn!(peer, %reason, "connection ended");
    } else {
        tracing::debug!(peer, %reason, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{self, Poll};

    use tokio::io::{DuplexStream, ReadBuf};

    use super::*;
    use crate::input::forward::context::test_context;

    /// A stream whose peer reads nothing: the `close_notify` of TLS never leaves.
    struct StuckAtShutdown(DuplexStream);

    impl AsyncRead for StuckAtShutdown {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut task::Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, out)
        }
    }

    impl AsyncWrite for StuckAtShutdown {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut task::Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_shutdown_that_gets_nowhere_is_given_up() {
        let (context, _dir) = test_context();
        let (client, stream) = tokio::io::duplex(1024);
        drop(client);
        let serving = serve_stream(StuckAtShutdown(stream), None, &context);
        timeout(2 * SHUTDOWN_TIMEOUT, serving)
            .await
            .expect("the connection is dropped");
    }

    #[tokio::test]
    async fn the_socket_of_a_live_server_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let live = UnixSocket::new_stream().unwrap();
        live.bind(&path).unwrap();
        let live = live.listen(1).unwrap();
        // Nobody accepts, and the backlog fills.
        let mut waiting = Vec::new();
        let full = loop {
            match tokio::net::UnixStream::connect(&path).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let listen = Listen::Unix(path.clone());
        let refused = bind(&listen, 0o600, false).await.unwrap_err();
        assert_eq!(refused.source.kind(), io::ErrorKind::AddrInUse);
        drop((live, waiting));
        bind(&listen, 0o600, false).await.expect("the server has ended");
    }

    #[tokio::test]
    async fn the_socket_of_another_server_is_not_removed_at_the_end() {
        let (context, dir) = test_context();
        let path = dir.path().join("socket");
        let listen = Listen::Unix(path.clone());
        let first = bind(&listen, 0o600, false).await.unwrap();
        // Kept, so that its inode is not used again.
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        let second = bind(&listen, 0o600, false).await.unwrap();
        context.stop.cancel();
        let limiter = ConnectionLimiter::new(1, None);
        first.serve(Arc::clone(&context), Arc::clone(&limiter)).await;
        assert!(path.try_exists().unwrap(), "it is the second server's");
        second.serve(context, limiter).await;
        assert!(!path.try_exists().unwrap());
    }

    #[tokio::test]
    async fn many_clients_that_connect_at_once_fit_into_the_backlog() {
        const MANY: usize = 300;
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        if most.trim().parse().is_ok_and(|most: usize| most < MANY) {
            println!("SKIPPED: net.core.somaxconn is {}", most.trim());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let tcp = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let tcp = bind(&tcp, 0o600, false).await.unwrap();
        let _unix = bind(&Listen::Unix(path.clone()), 0o600, false).await.unwrap();
        // Nobody accepts.
        let mut there = Vec::new();
        for _ in 0..MANY {
            let second = Duration::from_secs(1);
            let connecting = timeout(second, TcpStream::connect(&tcp.address));
            there.push(connecting.await.expect("a slot in the backlog").unwrap());
        }
        let mut local = Vec::new();
        for _ in 0..MANY {
            let connecting = timeout(Duration::from_secs(1), tokio::net::UnixStream::connect(&path));
            local.push(connecting.await.expect("a slot in the backlog").unwrap());
        }
        assert_eq!(there.len() + local.len(), 2 * MANY);
    }
}
