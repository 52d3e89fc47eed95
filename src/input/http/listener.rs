//! Listeners of the HTTP and OTLP inputs: bound at the start, accepting connections later.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::connection;
use super::server::HttpServer;
use crate::input::forward::{BindError, ConnectionLimiter, accept, listen_on};

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Records in bodies, tagged by path.
    Records,
    /// OpenTelemetry's protocol for logs.
    Otlp,
}

/// A bound listener that accepts nothing yet.
#[derive(Debug)]
pub struct BoundHttp {
    listener: TcpListener,
    protocol: Protocol,
    /// The bound address; a configured port 0 is replaced by the real port.
    pub address: SocketAddr,
}

/// Binds one address.
///
/// # Errors
///
/// [`BindError`], which says what to do about it.
pub fn bind(address: SocketAddr, protocol: Protocol) -> Result<BoundHttp, BindError> {
    let failed = |source| BindError {
        address: address.to_string(),
        source,
        flag: protocol.flag(),
    };
    let listener = listen_on(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(BoundHttp {
        listener,
        protocol,
        address,
    })
}

impl Protocol {
    fn flag(self) -> &'static str {
        match self {
            Self::Records => "--http-listen",
            Self::Otlp => "--otlp-listen",
        }
    }

    /// Name in what is printed at the start.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "http",
            Self::Otlp => "otlp",
        }
    }
}

impl BoundHttp {
    /// What it takes.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Accepts connections until Windrow stops.
    pub async fn serve(self, server: Arc<HttpServer>, limiter: Arc<ConnectionLimiter>) {
        let context = Arc::clone(&server.input);
        while let Some(accepted) = accept(&context, self.listener.accept()).await {
            let Some((stream, peer)) = accepted else { continue };
            // No delay: answers are small and waited for. Keepalive: a vanished peer is noticed in
            // time.
            stream.set_nodelay(true).ok();
            rustix::net::sockopt::set_socket_keepalive(&stream, true).ok();
            let Some(slot) = ConnectionLimiter::acquire(&limiter, Some(peer.ip()), &context) else {
                continue;
            };
            let server = Arc::clone(&server);
            context.tasks.spawn(async move {
                connection::accept(stream, peer.ip(), self.protocol, server).await;
                drop(slot);
            });
        }
    }
}
