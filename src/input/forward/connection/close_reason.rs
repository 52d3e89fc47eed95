//! Reasons for closing a connection, with their messages, log levels and counters.

use std::io;
use std::time::Duration;

use forward_protocol::frame::Violation;
use forward_protocol::json::JsonViolation;

use super::super::context::STOP_TIMEOUT;
use super::super::security::HandshakeError;
use crate::metrics::{self, DecodeError, Handshake};
use windrow_journal::AppendError;

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(in crate::input::forward) enum CloseReason {
    /// The client closed it between two messages.
    #[error("closed by the client")]
    Closed,
    /// The client closed it after this many bytes of a message.
    #[error(
        "closed by the client {0} bytes into a message, which is dropped without an ack; the client sends it again"
    )]
    Truncated(usize),
    /// It reached its maximum age.
    #[error("closed after an ack, being older than max_connection_age")]
    Aged,
    /// Windrow stops.
    #[error("closed because Windrow stops")]
    Stopping,
    /// Windrow stops, and the client did not get on with its handshake, message or acks.
    #[error(
        "closed because Windrow stops and the client did not get on for {STOP_TIMEOUT:?}; it sends again what has no ack"
    )]
    StoppingStalled,
    /// No message came within the idle timeout.
    #[error("closed after {0:?} without a message")]
    Idle(Duration),
    /// The client broke the protocol.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// The client sent invalid JSON.
    #[error("{0}")]
    Json(JsonViolation),
    /// The Forward handshake failed.
    #[error("{0}")]
    Handshake(HandshakeError),
    /// The handshake took too long.
    #[error("no handshake within {0:?}: this server asks for a shared key, which the client may not know")]
    HandshakeTimeout(Duration),
    /// The TLS handshake failed.
    #[error(
        "TLS handshake: {0} (does the client have TLS switched on, and trust this server's certificate?)"
    )]
    Tls(io::Error),
    /// A compressed payload is too large; a retry cannot help.
    #[error("{0}; raise forward.max_decompressed to accept it")]
    Oversize(#[from] forward_protocol::entries::Oversize),
    /// The client made too little progress inside a message.
    #[error("less than 1 KiB came in {0:?} in the middle of a message")]
    Stalled(Duration),
    /// The client does not read its acks.
    #[error("the client did not read its acks for {0:?}")]
    AcksNotRead(Duration),
    /// The journal does not accept the messages.
    #[error("no ack: {0}")]
    Journal(#[from] AppendError),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CloseReason {
    /// Whether it is logged as a warning.
    pub(in crate::input::forward) fn is_fault(&self) -> bool {
        match self {
            Self::Closed
            | Self::Aged
            | Self::Stopping
            | Self::Idle(_)
            | Self::Handshake(HandshakeError::Closed) => false,
            // The probe of a load balancer, or a client that was killed.
            Self::Io(error) | Self::Tls(error) | Self::Handshake(HandshakeError::Io(error)) => !matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
            ),
            _ => true,
        }
    }

    /// Increments the counter of this reason, if it has one.
    pub(in crate::input::forward) fn count(&self, metrics: &metrics::Metrics) {
        use metrics::Violation as Class;
        let class = match self {
            Self::Truncated(_) => {
                metrics.input_decode_errors[DecodeError::Truncated].inc();
                return;
            }
            Self::Violation(violation) => match violation {
                Violation::TooShort { .. } => Class::Arity,
                Violation::TooLarge { .. } => Class::MessageSize,
                Violation::TooDeep { .. } => Class::Depth,
                Violation::ChunkTooLong { .. } | Violation::TooManyOptions { .. } => Class::Count,
                Violation::TooManyStrays { .. } => Class::NotForward,
                Violation::Tls => Class::TlsOnPlainPort,
                Violation::Http => Class::Http,
                _ => Class::Msgpack,
            },
            Self::Oversize(_) => Class::DecompressedSize,
            Self::Json(_) => Class::Json,
            Self::Handshake(failure) => {
                metrics.handshakes[failure.class()].inc();
                return;
            }
            Self::HandshakeTimeout(_) => {
                metrics.handshakes[Handshake::Timeout].inc();
                return;
            }
            Self::Tls(_) => {
                metrics.handshakes[Handshake::Tls].inc();
                return;
            }
            Self::Aged => {
                metrics.input_connections_aged.inc();
                return;
            }
            Self::Stalled(_) => Class::Stalled,
            Self::AcksNotRead(_) => Class::AcksNotRead,
            _ => return,
        };
        metrics.input_violations[class].inc();
    }
}
