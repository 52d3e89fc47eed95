//! Reasons for closing a connection, with their messages, log levels and counters.

use std::time::Duration;
use std::{fmt, io};

use forward_protocol::entries::Oversize;
use forward_protocol::frame::Violation;
use forward_protocol::json::JsonViolation;
use tokio_rustls::rustls;

use super::super::context::STOP_TIMEOUT;
use super::super::proxy_protocol::ProxyHeaderError;
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
    #[error("closed by the client {0} bytes into a message, which is dropped without an ack; {1}")]
    Truncated(usize, Resend),
    /// It reached its maximum age.
    #[error("closed after an ack, being older than max_connection_age")]
    Aged,
    /// Windrow stops.
    #[error("closed because Windrow stops")]
    Stopping,
    /// Windrow stops, and the client did not get on with its handshake, message or acks.
    #[error(
        "closed because Windrow stops and the client did not get on for {STOP_TIMEOUT:?}; a client that waits for acks sends again what has none"
    )]
    StoppingStalled,
    /// No message came within the idle timeout.
    #[error("closed after {0:?} without a message")]
    Idle(Duration),
    /// The client broke the protocol.
    #[error("{violation}{}{}", of_tag(tag.as_deref()), advice(*violation))]
    Violation {
        violation: Violation,
        /// The tag of the message, as far as it had come.
        tag: Option<String>,
    },
    /// The client sends a header of the PROXY protocol.
    #[error("{}{}", Violation::ProxyProtocol, advice(Violation::ProxyProtocol))]
    ProxyProtocol,
    /// The client sends no valid header of the PROXY protocol.
    #[error("{0}; every connection must begin with such a header while forward.proxy_protocol is true")]
    NoProxyHeader(#[from] ProxyHeaderError),
    /// The client sent invalid JSON.
    #[error("{0}{advice}", advice = json_advice(.0))]
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
    #[error("TLS handshake: {0} ({advice})", advice = tls_advice(.0))]
    Tls(io::Error),
    /// A compressed payload is too large; a retry cannot help.
    #[error(
        "{oversize}{}; raise forward.max_decompressed to accept it",
        of_tag(Some(tag))
    )]
    Oversize { oversize: Oversize, tag: String },
    /// The client made too little progress inside a message.
    #[error("less than 1 KiB came in {0:?} in the middle of a message")]
    Stalled(Duration),
    /// The client made too little progress inside a message while others waited for memory.
    #[error(
        "less than 64 KiB came in {PACE_TIME:?} in the middle of a message, or the message took too long, while others waited for memory; a client that waits for acks sends it again"
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

/// Whether a client sends a message again that was dropped without an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::input) enum Resend {
    /// It has sent no message yet.
    Unknown,
    /// It asks for acks.
    WithAcks,
    /// It asks for no acks.
    Never,
}

impl Resend {
    /// What is known after a run of messages with this number of acks.
    pub(super) fn after(self, acks: u64) -> Self {
        match (self, acks) {
            (_, 1..) => Self::WithAcks,
            (Self::Unknown, 0) => Self::Never,
            (known, 0) => known,
        }
    }
}

impl fmt::Display for Resend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a client that waits for acks sends it again",
            Self::WithAcks => "the client sends it again",
            Self::Never => {
                "it is lost, because this client asks for no acks (Require_ack_response true of Fluent Bit, require_ack_response of Fluentd)"
            }
        })
    }
}

/// Longest part of a tag in a message, in bytes.
const MAX_TAG_BYTES: usize = 128;

/// The tag of a message, for people.
fn name_of(tag: &[u8]) -> String {
    String::from_utf8_lossy(tag.get(..MAX_TAG_BYTES).unwrap_or(tag)).into_owned()
}

fn of_tag(tag: Option<&str>) -> String {
    tag.map_or_else(String::new, |tag| format!(", its tag is {tag:?}"))
}

/// What to change in the configuration.
fn advice(violation: Violation) -> &'static str {
    match violation {
        Violation::TooLarge { .. } => "; raise forward.max_message to accept it",
        Violation::ProxyProtocol => "; set forward.proxy_protocol = true",
        Violation::Tls => "; set forward.tls_cert and forward.tls_key, or switch TLS off in the client",
        _ => "",
    }
}

fn json_advice(violation: &JsonViolation) -> &'static str {
    match violation {
        JsonViolation::TooLarge { .. } => "; raise forward.max_message to accept it",
        _ => "",
    }
}

/// What may be wrong with a client whose TLS handshake failed.
fn tls_advice(error: &io::Error) -> &'static str {
    use rustls::PeerIncompatible::{
        SignatureAlgorithmsExtensionRequired, SupportedVersionsExtensionRequired, Tls12NotOffered,
    };
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    match error {
        // The extension came with TLS 1.2.
        Some(rustls::Error::PeerIncompatible(
            Tls12NotOffered | SupportedVersionsExtensionRequired | SignatureAlgorithmsExtensionRequired,
        )) => "the client offers TLS 1.1 or older only; it needs TLS 1.2 or 1.3",
        Some(rustls::Error::PeerIncompatible(_)) => {
            "client and server have no version or cipher suite in common; the server has TLS 1.2 and 1.3"
        }
        Some(rustls::Error::InvalidMessage(_)) => "does the client have TLS switched on?",
        Some(rustls::Error::AlertReceived(_)) => {
            "the client refuses this server's certificate: does it trust the authority, and is the name right?"
        }
        _ => "does the client have TLS switched on, and trust this server's certificate?",
    }
}

impl CloseReason {
    /// A breach of the protocol in the message of this tag.
    pub(super) fn violation(violation: Violation, tag: Option<&[u8]>) -> Self {
        Self::Violation {
            violation,
            tag: tag.map(name_of),
        }
    }

    /// A payload of this tag that is too large.
    pub(super) fn oversize(oversize: Oversize, tag: &[u8]) -> Self {
        Self::Oversize {
            oversize,
            tag: name_of(tag),
        }
    }
    /// Whether it is logged as a warning.
    pub(in crate::input) fn is_fault(&self) -> bool {
        match self {
            Self::Closed
            | Self::Probe
            | Self::Aged
            | Self::Stopping
            | Self::Idle(_)
            | Self::Handshake(HandshakeError::Closed) => false,
            Self::NoProxyHeader(ProxyHeaderError::Io(error)) => !is_closed_by_peer(error),
            // A client that was killed.
            Self::Io(error) | Self::Tls(error) | Self::Handshake(HandshakeError::Io(error)) => {
                !is_closed_by_peer(error)
            }
            _ => true,
        }
    }

    /// The kind of its warning, of which repeated ones are limited.
    pub(in crate::input) fn kind(&self) -> &'static str {
        if let Some(class) = self.violation_class() {
            return class.as_str();
        }
        match self {
            Self::Truncated(..) => DecodeError::Truncated.as_str(),
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
        if let Some(class) = self.violation_class() {
            metrics.input_violations[class].inc();
            return;
        }
        match self {
            Self::Truncated(..) => &metrics.input_decode_errors[DecodeError::Truncated],
            Self::Handshake(failure) => &metrics.handshakes[failure.class()],
            Self::HandshakeTimeout(_) => &metrics.handshakes[Handshake::Timeout],
            Self::Tls(_) => &metrics.handshakes[Handshake::Tls],
            Self::Aged => &metrics.input_connections_aged,
            _ => return,
        }
        .inc();
    }

    /// The violation of the protocol or of a limit, if it is one.
    fn violation_class(&self) -> Option<metrics::Violation> {
        use metrics::Violation as Class;
        Some(match self {
            Self::ProxyProtocol | Self::NoProxyHeader(_) => Class::ProxyProtocol,
            Self::Violation { violation, .. } => match violation {
                Violation::TooShort { .. } => Class::Arity,
                Violation::TooLarge { .. } => Class::MessageSize,
                Violation::TooDeep { .. } => Class::Depth,
                Violation::ChunkTooLong { .. } | Violation::TooManyOptions { .. } => Class::Count,
                Violation::TooManyStrays { .. } => Class::NotForward,
                Violation::Tls => Class::TlsOnPlainPort,
                Violation::Http => Class::Http,
                Violation::ProxyProtocol => Class::ProxyProtocol,
                _ => Class::Msgpack,
            },
            Self::Oversize { .. } => Class::DecompressedSize,
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
