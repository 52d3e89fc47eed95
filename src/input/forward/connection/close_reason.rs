//! Reasons for closing a connection, with their messages, log levels and counters.

use std::io;
use std::time::Duration;

use forward_protocol::frame::Violation;
use forward_protocol::json::JsonViolation;

use super::super::context::STOP_TIMEOUT;
use super::super::receive_budget::PACE_TIME;
use super::super::security::HandshakeError;
use crate::metrics::{self, DecodeError, Handshake};
use windrow_journal::AppendError;

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(in crate::input) enum CloseReason {
    /// The client closed it between two messages.
    #[error("closed by the client")]
    Closed,
    /// The client closed it before it had sent a byte of its handshake: a health check or a scanner.
    #[error("closed by the client before it had sent anything")]
    Probe,
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
    /// The client sends JSON, which is switched off.
    #[error("the client sends JSON, and forward.json is false")]
    JsonDisabled,
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
    /// The client made too little progress inside a message while others waited for memory.
    #[error(
        "less than 64 KiB came in {PACE_TIME:?} in the middle of a message, or the message took too long, while others waited for memory; the client sends it again"
    )]
    StalledWithMemory,
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
    pub(in crate::input) fn is_fault(&self) -> bool {
        match self {
            Self::Closed
            | Self::Probe
            | Self::Aged
            | Self::Stopping
            | Self::Idle(_)
            | Self::Handshake(HandshakeError::Closed) => false,
            // A client that was killed.
            Self::Io(error) | Self::Tls(error) | Self::Handshake(HandshakeError::Io(error)) => {
                !is_closed_by_peer(error)
            }
            _ => true,
        }
    }

    /// The kind of its warning, of which repeated ones are limited.
    pub(in crate::input) fn kind(&self) -> &'static str {
        if let Some(class) = self.violation() {
            return class.as_str();
        }
        match self {
            Self::Truncated(_) => DecodeError::Truncated.as_str(),
            Self::Handshake(failure) => failure.class().as_str(),
            Self::HandshakeTimeout(_) => Handshake::Timeout.as_str(),
            Self::Tls(_) => Handshake::Tls.as_str(),
            Self::StoppingStalled => "stopping",
            Self::Journal(_) => "journal",
            Self::Io(_) => "io",
            _ => "closed",
        }
    }

    /// Increments the counter of this reason, if it has one.
    pub(in crate::input) fn count(&self, metrics: &metrics::Metrics) {
        if let Some(class) = self.violation() {
            metrics.input_violations[class].inc();
            return;
        }
        match self {
            Self::Truncated(_) => &metrics.input_decode_errors[DecodeError::Truncated],
            Self::Handshake(failure) => &metrics.handshakes[failure.class()],
            Self::HandshakeTimeout(_) => &metrics.handshakes[Handshake::Timeout],
            Self::Tls(_) => &metrics.handshakes[Handshake::Tls],
            Self::Aged => &metrics.input_connections_aged,
            _ => return,
        }
        .inc();
    }

    /// The violation of the protocol or of a limit, if it is one.
    fn violation(&self) -> Option<metrics::Violation> {
        use metrics::Violation as Class;
        Some(match self {
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
            Self::Json(_) | Self::JsonDisabled => Class::Json,
            Self::Stalled(_) | Self::StalledWithMemory => Class::Stalled,
            Self::AcksNotRead(_) => Class::AcksNotRead,
            _ => return None,
        })
    }
}

/// Whether an error says only that the peer has closed the connection.
pub(in crate::input) fn is_closed_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}
