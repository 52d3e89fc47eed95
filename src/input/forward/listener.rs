//! Listeners: binding early, accepting, counting connections.
//!
//! Owns the sockets that listen and the limit on connections. Each accepted connection is a task of its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixListener, UnixSocket};
use tokio::time::timeout;

use super::connection::{End, serve, shown};
use super::{Context, heartbeat};
use crate::config::Listen;
use crate::metrics::{Metrics, Refused};

/// Pause after a failed accept (for example: too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted: as many as come back together when a balancer or a network does. The usual 128
/// are fewer than that, and who finds no place tries again after a second or is refused. The system may cut it
/// (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// A listener that is bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    /// What to show: the address with the port that was chosen.
    pub address: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, Option<UdpSocket>),
    Unix(UnixListener, PathBuf),
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(source))]
pub struct BindError {
    /// The address as it was configured.
    pub address: String,
    /// The system's reason.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (is another Windrow or Fluent Bit running? choose another --listen)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 and foreign folders need permission)",
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)",
        _ => "",
    }
}

/// Binds one address. A unix socket that an earlier process left behind is taken over.
///
/// # Errors
///
/// [`BindError`] with what to do about it.
pub async fn bind(listen: &Listen, unix_mode: u32, udp_heartbeat: bool) -> Result<Bound, BindError> {
    let failed = |source| BindError {
        address: listen.to_string(),
        source,
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
            Ok(Bound {
                socket: Socket::Tcp(listener, udp),
                address: address.to_string(),
            })
        }
        Listen::Unix(path) => {
            remove_stale(path).await.map_err(failed)?;
            let socket = UnixSocket::new_stream().map_err(failed)?;
            socket.bind(path).map_err(failed)?;
            let listener = socket.listen(BACKLOG).map_err(failed)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(unix_mode);
            std::fs::set_permissions(path, mode).map_err(failed)?;
            Ok(Bound {
                socket: Socket::Unix(listener, path.clone()),
                address: listen.to_string(),
            })
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart does not wait for connections of the last life to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket file that nobody listens on is in the way of the next start.
async fn remove_stale(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name that is no socket",
        )),
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

impl Bound {
    /// Accepts connections until Windrow stops.
    pub async fn serve(self, context: Arc<Context>, peers: Arc<Peers>) {
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
                    // Acks are small and waited for; a peer that is gone without a word is noticed in time.
                    stream.set_nodelay(true).ok();
                    rustix::net::sockopt::set_socket_keepalive(&stream, true).ok();
                    let Some(place) = Peers::enter(&peers, Some(peer.ip()), &context.metrics) else {
                        continue;
                    };
                    let context = Arc::clone(&context);
                    context.tasks.clone().spawn(async move {
                        tcp(stream, peer, &context).await;
                        drop(place);
                    });
                }
            }
            Socket::Unix(listener, path) => {
                while let Some(accepted) = accept(&context, listener.accept()).await {
                    let Some((stream, _)) = accepted else { continue };
                    let Some(place) = Peers::enter(&peers, None, &context.metrics) else {
                        continue;
                    };
                    let context = Arc::clone(&context);
                    context.tasks.clone().spawn(async move {
                        converse(stream, None, &context).await;
                        drop(place);
                    });
                }
                std::fs::remove_file(path).ok();
            }
        }
    }
}

/// `None` when Windrow stops; `Some(None)` when the accept failed.
async fn accept<T>(context: &Context, accepting: impl Future<Output = io::Result<T>>) -> Option<Option<T>> {
    tokio::select! {
        () = context.stop.cancelled() => None,
        accepted = accepting => match accepted {
            Ok(accepted) => Some(Some(accepted)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Some(None)
            }
        },
    }
}

async fn tcp(stream: TcpStream, peer: SocketAddr, context: &Arc<Context>) {
    let Some(tls) = &context.tls else {
        converse(stream, Some(peer.ip()), context).await;
        return;
    };
    let end = match timeout(context.handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            converse(stream, Some(peer.ip()), context).await;
            return;
        }
        Ok(Err(error)) => End::Tls(error),
        Err(_) => End::HandshakeTimeout(context.handshake_timeout),
    };
    say(&end, Some(peer.ip()), context);
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: Option<IpAddr>,
    context: &Arc<Context>,
) {
    let end = serve(&mut stream, peer, context).await;
    say(&end, peer, context);
    stream.shutdown().await.ok();
}

fn say(end: &End, peer: Option<IpAddr>, context: &Context) {
    end.count(&context.metrics);
    let peer = shown(peer);
    if end.is_fault() {
        tracing::warn!(peer, reason = %end, "connection ended");
    } else {
        tracing::debug!(peer, reason = %end, "connection ended");
    }
}

/// The connections of the moment, in all and by address.
#[derive(Debug)]
pub struct Peers {
    most: u64,
    most_per_address: u64,
    now: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    all: u64,
    by_address: HashMap<IpAddr, u64>,
}

/// A connection's place; given back when dropped.
struct Place {
    peers: Arc<Peers>,
    address: Option<IpAddr>,
    metrics: Arc<Metrics>,
}

impl Peers {
    /// Nobody yet. `most_per_address` counts connections from one IP address.
    pub fn new(most: u64, most_per_address: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_address: most_per_address.unwrap_or(most),
            now: Mutex::default(),
        })
    }

    fn enter(this: &Arc<Self>, address: Option<IpAddr>, metrics: &Arc<Metrics>) -> Option<Place> {
        let mut now = this.now.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = if now.all >= this.most {
            Some((Refused::Total, this.most))
        } else if let Some(address) = address
            && now
                .by_address
                .get(&address)
                .is_some_and(|count| *count >= this.most_per_address)
        {
            Some((Refused::Address, this.most_per_address))
        } else {
            None
        };
        if let Some((why, limit)) = refused {
            drop(now);
            metrics.input_connections_refused[why].inc();
            tracing::debug!(
                peer = shown(address),
                limit,
                reason = why.as_str(),
                "connection refused"
            );
            return None;
        }
        now.all += 1;
        if let Some(address) = address {
            *now.by_address.entry(address).or_default() += 1;
        }
        metrics.input_connections.inc();
        metrics.input_connections_total.inc();
        Some(Place {
            peers: Arc::clone(this),
            address,
            metrics: Arc::clone(metrics),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = self.peers.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.all = now.all.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(count) = now.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                now.by_address.remove(&address);
            }
        }
        self.metrics.input_connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_that_connect_at_once_find_a_place() {
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
            there.push(connecting.await.expect("a place").unwrap());
        }
        let mut local = Vec::new();
        for _ in 0..MANY {
            let connecting = timeout(Duration::from_secs(1), tokio::net::UnixStream::connect(&path));
            local.push(connecting.await.expect("a place").unwrap());
        }
        assert_eq!(there.len() + local.len(), 2 * MANY);
    }
}
