//! The options as the rest of the crate uses them: legal by construction, made by [`crate::Builder`].
//!
//! Owns the meaning of addresses and modes. Does not read files and does not touch the network.

use std::path::PathBuf;
use std::time::Duration;

use crate::delivery::Policy;
use crate::error::BuildError;
use crate::queue::Limits;

/// Port of the Forward protocol.
pub(crate) const DEFAULT_PORT: u16 = 24224;

/// How events are put on the wire (Forward Protocol Specification v1, "Event Modes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// One message per event: understood by everything, and the dearest. With acks, one ack per event.
    Message,
    /// One message per batch, the events as an array.
    Forward,
    /// One message per batch, the events as one binary value that a server can store without looking at it.
    /// The default.
    #[default]
    Packed,
    /// As `Packed`, compressed with gzip (fast level).
    #[cfg(feature = "gzip")]
    PackedGzip,
}

/// What happens to an event when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFull {
    /// The call says [`Rejected::Full`](crate::Rejected::Full) at once. The default.
    #[default]
    Refuse,
    /// `log` waits for room, **blocking its thread**, at most this long, and then says
    /// [`Rejected::Full`](crate::Rejected::Full). `send` waits without blocking a thread and without a limit.
    ///
    /// With this policy the logger always gets a thread of its own, so that waiting on the only thread of a
    /// runtime cannot keep the logger from making room.
    Wait(Duration),
    /// The oldest events that are not in flight are dropped, counted in
    /// [`Stats::dropped`](crate::Stats::dropped) and reported to the delivery callback.
    DropOldest,
}

/// When what is written to the spool is durable.
#[cfg(feature = "spool")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fsync {
    /// Each chunk is synced, with its name, before it counts as spooled and before it is sent: it survives the end of the
    /// process and a loss of power. The default.
    #[default]
    Always,
    /// The operating system writes when it sees fit (Linux: within about 30 s): a chunk survives the end of the process,
    /// but not a crash of the system or a loss of power. A chunk that those have cut short is noticed and set aside.
    Never,
}

/// How one of several addresses is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// Each connection goes to the next address; the first is chosen at random. The default.
    #[default]
    RoundRobin,
    /// The first address as long as it answers, then the others in order. A periodic reconnect
    /// ([`async_reconnect_interval`](crate::Builder::async_reconnect_interval)) goes back to the first.
    Failover,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, BuildError> {
        let bad = |reason| BuildError::BadAddress {
            address: text.to_owned(),
            reason,
        };
        if let Some(path) = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
        {
            if path.is_empty() {
                return Err(bad("the path of the socket is missing"));
            }
            if cfg!(not(unix)) {
                return Err(bad("unix sockets do not exist here"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("tcp", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            Some(_) => return Err(bad("the scheme must be tcp, tls or unix")),
        };
        if tls && cfg!(not(feature = "tls")) {
            return Err(bad("TLS needs the feature `tls` of fluent-logger-rs"));
        }
        let (host, port) =
            split_port(rest).ok_or_else(|| bad("the port must be a number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let host = host.to_owned();
        Ok(if tls {
            Self::Tls { host, port }
        } else {
            Self::Tcp { host, port }
        })
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address.
fn split_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok().filter(|port| *port != 0)?)),
            None if after.is_empty() => Some((host, DEFAULT_PORT)),
            None => None,
        };
    }
    match text.split_once(':') {
        None => Some((text, DEFAULT_PORT)),
        Some((_, rest)) if rest.contains(':') => Some((text, DEFAULT_PORT)),
        Some((host, port)) => Some((host, port.parse().ok().filter(|port| *port != 0)?)),
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Tls { host, port } => write!(f, "tls://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Who this client says it is.
#[derive(Clone, Default)]
pub(crate) struct Security {
    pub(crate) shared_key: Option<String>,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) hostname: String,
}

/// Everything, checked.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) addresses: Vec<Address>,
    pub(crate) tag_prefix: String,
    pub(crate) mode: Mode,
    pub(crate) sub_second: bool,
    pub(crate) record_limit: usize,
    pub(crate) on_full: OnFull,
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) drop_timeout: Duration,
    pub(crate) security: Security,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Tls>,
    #[cfg(feature = "spool")]
    pub(crate) spool: Option<(PathBuf, Fsync)>,
}

#[cfg(test)]
mod tests;
