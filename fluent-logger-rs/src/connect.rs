//! Making connections: names, TCP, unix sockets, TLS and the shared-key handshake.
//!
//! Owns everything between an address and a stream that is ready for events. A name is resolved anew for each
//! connection, so that a service that moved or grew is found. Decides neither when to connect nor where to.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::error::ConnectionError;
use crate::handshake;
use crate::options::{Address, Options};

/// A connection, whatever it runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// What the operating system knows of the read side, asked without waiting.
    fn probe(&self) -> Probe;
}

/// See [`Stream::probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nothing came.
    Quiet,
    /// Bytes wait to be read; perhaps a farewell.
    Readable,
    /// The peer has closed or reset the connection.
    Dead,
}

fn probe(socket: &SockRef<'_>) -> Probe {
    let mut byte = [MaybeUninit::uninit()];
    match socket.peek(&mut byte) {
        Ok(0) => Probe::Dead,
        Ok(_) => Probe::Readable,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Probe::Quiet
        }
        Err(_) => Probe::Dead,
    }
}

impl Stream for TcpStream {
    fn probe(&self) -> Probe {
        probe(&SockRef::from(self))
    }
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn probe(&self) -> Probe {
        probe(&SockRef::from(self))
    }
}

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn probe(&self) -> Probe {
        self.get_ref().0.probe()
    }
}

/// A stream that is ready for events.
pub(crate) struct Connection {
    pub(crate) stream: Box<dyn Stream>,
    /// Bytes that came behind the handshake.
    pub(crate) rest: Vec<u8>,
    /// False: the server wants one chunk per connection.
    pub(crate) keep: bool,
    /// Where it leads, in words.
    pub(crate) address: String,
}

/// The addresses behind a host name, looked up now.
pub(crate) type Lookup = Arc<dyn Fn(&str, u16) -> Found + Send + Sync>;

type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Asks the operating system.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|host, port| {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

#[derive(Clone)]
pub(crate) struct Connector {
    options: Arc<Options>,
    lookup: Lookup,
}

impl Connector {
    pub(crate) fn new(options: Arc<Options>, lookup: Lookup) -> Self {
        Self { options, lookup }
    }

    /// Connects to the address number `endpoint`; `turn` chooses where among its IP addresses to begin.
    pub(crate) async fn connect(self, endpoint: usize, turn: usize) -> Result<Connection, ConnectionError> {
        let Some(address) = self.options.addresses.get(endpoint) else {
            let missing = io::Error::new(io::ErrorKind::InvalidInput, "no such address");
            return Err(ConnectionError::Connect(missing));
        };
        let limit = self.options.connect_timeout;
        let stream = tokio::time::timeout(limit, self.open(address, turn))
            .await
            .map_err(|_| ConnectionError::ConnectTimeout(limit))??;
        let mut connection = Connection {
            stream,
            rest: Vec::new(),
            keep: true,
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

    async fn open(&self, address: &Address, turn: usize) -> Result<Box<dyn Stream>, ConnectionError> {
        match address {
            Address::Tcp { host, port } => Ok(Box::new(self.tcp(host, *port, turn).await?)),
            #[cfg(feature = "tls")]
            Address::Tls { host, port } => {
                let stream = self.tcp(host, *port, turn).await?;
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

    /// Tries the addresses behind a name one after the other; each gets a fair share of the time.
    async fn tcp(&self, host: &str, port: u16, turn: usize) -> Result<TcpStream, ConnectionError> {
        let started = Instant::now();
        let mut found = (self.lookup)(host, port)
            .await
            .map_err(ConnectionError::Resolve)?;
        // Resolvers shuffle; sorted, the turns of this client go through all of them.
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            let nothing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(ConnectionError::Resolve(nothing));
        }
        let first = turn % found.len();
        found.rotate_left(first);
        let mut last = None;
        let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
        for address in found {
            let time = self.options.connect_timeout.saturating_sub(started.elapsed()) / left.max(1);
            left -= 1;
            match tokio::time::timeout(time.max(Duration::from_millis(1)), TcpStream::connect(address)).await
            {
                Ok(Ok(stream)) => {
                    // Chunks are written whole; waiting for more to fill a segment only delays their acks.
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
