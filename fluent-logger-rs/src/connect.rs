//! Connector: name resolution, TCP, unix sockets, TLS and the shared-key handshake.
//!
//! Owns everything between an address and a stream that is ready for events. A name is resolved for
//! each connection, so that a service that moved or grew is found. Does not decide when to connect
//! or to which address.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::address::Address;
use crate::connection::{Connection, Stream};
use crate::error::ConnectionError;
use crate::handshake;
use crate::options::Options;

/// Resolves a host name to addresses.
pub(crate) type Resolver = Arc<dyn Fn(&str, u16) -> LookupFuture + Send + Sync>;

type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The resolver of the operating system.
pub(crate) fn system_resolver() -> Resolver {
    Arc::new(|host, port| {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

#[derive(Clone)]
pub(crate) struct Connector {
    options: Arc<Options>,
    lookup: Resolver,
}

impl Connector {
    pub(crate) fn new(options: Arc<Options>, lookup: Resolver) -> Self {
        Self { options, lookup }
    }

    /// Connects to the address number `endpoint`; `attempt` selects the IP address to begin with.
    pub(crate) async fn connect(
        self,
        endpoint: usize,
        attempt: usize,
    ) -> Result<Connection, ConnectionError> {
        let Some(address) = self.options.addresses.get(endpoint) else {
            let missing = io::Error::new(io::ErrorKind::InvalidInput, "no such address");
            return Err(ConnectionError::Connect(missing));
        };
        let limit = self.options.connect_timeout;
        let stream = tokio::time::timeout(limit, self.open(address, attempt))
            .await
            .map_err(|_| ConnectionError::ConnectTimeout(limit))??;
        let mut connection = Connection {
            stream,
            unread: Vec::new(),
            keepalive: true,
            address: address.to_string(),
        };
        if let Some(key) = &self.options.security.shared_key {
            let limit = self.options.handshake_timeout;
            let security = &self.options.security;
            tokio::time::timeout(limit, handshake::perform(&mut connection, key, security))
                .await
                .map_err(|_| ConnectionError::HandshakeTimeout(limit))??;
        }
        Ok(connection)
    }

    async fn open(&self, address: &Address, attempt: usize) -> Result<Box<dyn Stream>, ConnectionError> {
        match address {
            Address::Tcp { host, port } => Ok(Box::new(self.tcp(host, *port, attempt).await?)),
            #[cfg(feature = "tls")]
            Address::Tls { host, port } => {
                let stream = self.tcp(host, *port, attempt).await?;
                let Some(tls) = &self.options.tls else {
                    let missing = io::Error::new(io::ErrorKind::InvalidInput, "no TLS configuration");
                    return Err(ConnectionError::Tls(missing));
                };
                Ok(Box::new(
                    tls.handshake(host, stream).await.map_err(ConnectionError::Tls)?,
                ))
            }
            #[cfg(not(feature = "tls"))]
            Address::Tls { .. } => {
                let missing = io::Error::new(io::ErrorKind::Unsupported, "built without the feature `tls`");
                Err(ConnectionError::Tls(missing))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path)
                    .await
                    .map_err(ConnectionError::Connect)?;
                Ok(Box::new(stream))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => {
                let missing = io::Error::new(io::ErrorKind::Unsupported, "no unix sockets here");
                Err(ConnectionError::Connect(missing))
            }
        }
    }

    /// Tries the IP addresses of a name one after the other; each gets an equal share of the time.
    async fn tcp(&self, host: &str, port: u16, attempt: usize) -> Result<TcpStream, ConnectionError> {
        let started = Instant::now();
        let mut found = (self.lookup)(host, port)
            .await
            .map_err(ConnectionError::Resolve)?;
        // Resolvers shuffle their answers; sorted, successive attempts visit all addresses.
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            let nothing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(ConnectionError::Resolve(nothing));
        }
        let first = attempt % found.len();
        found.rotate_left(first);
        let mut last = None;
        let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
        for address in found {
            let time = self.options.connect_timeout.saturating_sub(started.elapsed()) / left.max(1);
            left -= 1;
            match tokio::time::timeout(time.max(Duration::from_millis(1)), TcpStream::connect(address)).await
            {
                Ok(Ok(stream)) => {
                    // Chunks are written completely; delaying a segment would only delay their
                    // acks.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Some(ConnectionError::Connect(error)),
                Err(_) => last = Some(ConnectionError::ConnectTimeout(time)),
            }
        }
        Err(last.unwrap_or(ConnectionError::ConnectTimeout(self.options.connect_timeout)))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
