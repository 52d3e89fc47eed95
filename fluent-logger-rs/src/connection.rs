//! Open connection to a server: a TCP, TLS or unix stream.

use std::io;
use std::mem::MaybeUninit;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream over any transport.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// State of the read side, without waiting.
    fn probe(&self) -> Probe;
}

/// State of the read side of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nothing to read.
    Quiet,
    /// Bytes, or a TLS close, wait to be read.
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
    /// Bytes received after the handshake.
    pub(crate) unread: Vec<u8>,
    /// False: the server wants one chunk per connection.
    pub(crate) keepalive: bool,
    /// Address of the server, for people.
    pub(crate) address: String,
}
