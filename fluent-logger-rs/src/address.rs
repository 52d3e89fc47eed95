//! Server address, as text and parsed.

use std::path::PathBuf;

use crate::error::BuildError;

/// Port of the Forward protocol.
pub(crate) const DEFAULT_PORT: u16 = 24224;

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

#[cfg(test)]
mod tests;
