//! Server side of the Forward handshake: authenticates a client before its first event is read.
//!
//! Owns which key and users belong to which network, and the random nonces. The messages are those
//! of `forward_protocol::handshake`. A failure always closes the connection: Fluent Bit would
//! otherwise send events on it.

use std::net::IpAddr;

use bytes::{Buf, BytesMut};
use forward_protocol::handshake::server::{AfterPing, AwaitPing, Hello, Refusal, User};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::handshake_backoff::HandshakeBackoff;
use crate::config::{Config, Network, Secret};
use crate::metrics::Handshake;

/// Who may send: the shared key, users and networks.
#[derive(Debug)]
pub struct Security {
    hostname: String,
    shared_key: Option<Secret>,
    users: Vec<crate::config::User>,
    networks: Vec<Network>,
    backoff: HandshakeBackoff,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::input) enum HandshakeError {
    /// The client is refused, and was told so.
    #[error(
        "handshake refused: {0} (the client's shared_key, username or password differs from this server's, or it has none)"
    )]
    Refused(#[from] Refusal),
    /// The client closed the connection.
    #[error("the client closed the connection before it had said PING")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The system gave no random bytes.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
}

impl HandshakeError {
    /// The label of the handshake counter.
    pub(super) fn class(&self) -> Handshake {
        match self {
            Self::Refused(Refusal::SharedKey) => Handshake::SharedKey,
            Self::Refused(Refusal::User) => Handshake::User,
            Self::Refused(Refusal::Denied) => Handshake::Network,
            Self::Refused(_) => Handshake::Ping,
            Self::Closed | Self::Io(_) | Self::Random(_) => Handshake::Closed,
        }
    }
}

impl Security {
    /// Takes keys, users and networks from the configuration; `None` when it asks for no
    /// authentication.
    pub fn from_config(config: &Config) -> Option<Self> {
        let from = &config.forward;
        if from.shared_key.is_none() && from.users.is_empty() && from.networks.is_empty() {
            return None;
        }
        Some(Self {
            hostname: from.self_hostname.clone(),
            shared_key: from.shared_key.clone(),
            users: from.users.clone(),
            networks: from.networks.clone(),
            backoff: HandshakeBackoff::new(from.handshake_timeout),
        })
    }

    /// Asks for one shared key.
    #[cfg(test)]
    pub(super) fn with_shared_key(key: &str) -> Self {
        Self {
            hostname: "server".into(),
            shared_key: Some(Secret::new(key)),
            users: Vec::new(),
            networks: Vec::new(),
            backoff: HandshakeBackoff::new(std::time::Duration::from_secs(10)),
        }
    }

    /// The key and the allowed users for an address; `None` when it may not connect. The first
    /// matching network decides.
    fn key_for(&self, peer: Option<IpAddr>) -> Option<(Vec<u8>, Option<&[String]>)> {
        let key = |own: Option<&Secret>| {
            let key = own.or(self.shared_key.as_ref());
            key.map_or_else(Vec::new, |key| key.expose().as_bytes().to_vec())
        };
        // A unix socket is protected by the permissions of its file.
        let Some(peer) = peer.filter(|_| !self.networks.is_empty()) else {
            return Some((key(None), None));
        };
        let network = self.networks.iter().find(|network| network.cidr.contains(peer))?;
        Some((
            key(network.shared_key.as_ref()),
            (!network.users.is_empty()).then_some(&network.users),
        ))
    }

    /// Whether the networks allow an address to connect.
    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.cidr.contains(peer))
    }

    /// Sends HELO and waits for a valid PING. Bytes that follow the PING stay in `buffer`.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        peer: Option<IpAddr>,
        buffer: &mut BytesMut,
    ) -> Result<(), HandshakeError> {
        let (mut nonce, mut auth) = ([0u8; 16], [0u8; 16]);
        getrandom::fill(&mut nonce)?;
        getrandom::fill(&mut auth)?;
        let auth = (!self.users.is_empty()).then_some(auth);
        let mut greeting = Vec::new();
        let hello = Hello {
            hostname: &self.hostname,
            nonce,
            auth,
            keepalive: true,
        };
        let mut waiting = AwaitPing::begin(&hello, &mut greeting);
        stream.write_all(&greeting).await?;
        stream.flush().await?;
        let key = self.key_for(peer);
        loop {
            if stream.read_buf(buffer).await? == 0 {
                return Err(HandshakeError::Closed);
            }
            let step = match &key {
                None => waiting.refuse(Refusal::Denied),
                Some((key, names)) => {
                    let allowed = |name: &String| names.is_none_or(|names| names.contains(name));
                    let known = self.users.iter().filter(|user| allowed(&user.name));
                    let known: Vec<_> = known.map(|user| (&user.name, user.password.expose())).collect();
                    let users: Vec<User<'_>> = known
                        .iter()
                        .map(|(name, password)| User {
                            name: name.as_bytes(),
                            password: password.as_bytes(),
                        })
                        .collect();
                    waiting.receive(buffer, key, &users)
                }
            };
            match step {
                AfterPing::More(again) => waiting = again,
                AfterPing::Established { reply, consumed, .. } => {
                    buffer.advance(consumed);
                    stream.write_all(&reply).await?;
                    stream.flush().await?;
                    self.backoff.reset(peer);
                    return Ok(());
                }
                AfterPing::Refused { reply, reason } => {
                    tokio::time::sleep(self.backoff.record_failure(peer, Instant::now())).await;
                    stream.write_all(&reply).await?;
                    stream.flush().await?;
                    return Err(reason.into());
                }
            }
        }
    }
}
