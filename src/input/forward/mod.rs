//! Forward protocol: listeners, connections, acknowledgements.
//!
//! * `listener`: binds and accepts; `connection_limiter`: limits connections in all and per
//!   address;
//! * `tls`, `security`, `handshake_backoff`: who may send;
//! * `connection`: reads messages, appends them to the journal, acknowledges them;
//! * `decompression`: size checks of compressed payloads on a bounded number of threads;
//! * `read_strategy`: size of reads and of the receive buffer;
//! * `receive_budget`: limits the bytes of all receive buffers;
//! * `ack`: the acknowledgement, which can only be built from a journal receipt;
//! * `heartbeat`: UDP heartbeats;
//! * `proxy_protocol`: addresses of clients behind a load balancer;
//! * `peer`: names of clients, and what limits count as one client;
//! * `warnings`: what the log says of repeated warnings;
//! * `context`: what all connections share.
//!
//! Framing, modes and limits of the protocol are the crate `forward-protocol`.

mod ack;
mod connection;
mod connection_limiter;
mod context;
mod decompression;
mod handshake_backoff;
mod heartbeat;
mod listener;
mod peer;
mod proxy_protocol;
mod read_strategy;
mod receive_budget;
mod security;
mod tls;
mod warnings;

pub(in crate::input) use self::connection::CloseReason;
pub use self::connection_limiter::ConnectionLimiter;
pub(crate) use self::context::frame_limits;
pub use self::context::{Context, FORWARD_MESSAGES};
pub use self::decompression::DecompressionPool;
pub(in crate::input) use self::handshake_backoff::HandshakeBackoff;
pub use self::listener::{BindError, BoundListener, bind};
pub(in crate::input) use self::listener::{accept, listen_on, log_close};
pub(in crate::input) use self::peer::source_of;
pub use self::receive_budget::ReceiveBudget;
pub(in crate::input) use self::receive_budget::Reservation;
pub use self::security::Security;
pub use self::tls::{Tls, TlsError};
pub(in crate::input) use self::warnings::admit as warn_about;
pub use self::warnings::sum_up_warnings;
