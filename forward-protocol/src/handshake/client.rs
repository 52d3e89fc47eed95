//! The client's states: [`AwaitHelo`], then [`AwaitPong`], then [`Established`].

use super::{HexDigest, MAX_DEPTH, MessageReader, elements, hex_digits};
use crate::msgpack::{Error as BadBytes, Reader, Value, write_array_len, write_str};

/// The credentials of the client.
#[derive(Clone)]
pub struct Credentials {
    /// The client's host name; must differ from the server's.
    pub hostname: String,
    /// The key that client and server share; may be empty.
    pub shared_key: Vec<u8>,
    /// Name and password, used only when the server asks for a user.
    pub user: Option<(String, String)>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// The salt for 16 random bytes in the form that every server reads: 32 hexadecimal digits, which
/// are hashed as text. Fluent Bit rejects a salt that is not a `str`, and other servers corrupt a
/// `str` that is not UTF-8.
pub fn hex_salt(random: [u8; 16]) -> [u8; 32] {
    let mut salt = [0; 32];
    for (pair, byte) in salt.chunks_exact_mut(2).zip(random) {
        pair.copy_from_slice(&hex_digits(byte));
    }
    salt
}

/// Connected, waiting for the HELO. A server that sends nothing for about 10 seconds has no shared
/// key.
#[derive(Debug)]
pub struct AwaitHelo {
    credentials: Credentials,
    salt: Box<[u8]>,
    reader: MessageReader,
}

/// The PING was sent, waiting for the server's proof that it knows the key.
#[derive(Debug)]
pub struct AwaitPong {
    credentials: Credentials,
    salt: Box<[u8]>,
    nonce: Box<[u8]>,
    keepalive: bool,
    reader: MessageReader,
}

/// Both ends have proved that they know the key. Only a successful handshake makes this value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Established {
    /// The server's host name.
    pub server_hostname: Vec<u8>,
    /// When false: open a new connection for each chunk.
    pub keepalive: bool,
}

/// The next step of the client after [`AwaitHelo::receive`].
#[derive(Debug)]
pub enum AfterHelo {
    /// Wait for more bytes, then call [`AwaitHelo::receive`] again with all of them.
    More(AwaitHelo),
    /// Send the PING; the first `consumed` bytes were the HELO.
    Ping {
        /// The PING.
        send: Vec<u8>,
        /// Length of the HELO.
        consumed: usize,
        /// The next state.
        next: AwaitPong,
    },
}

/// The next step of the client after [`AwaitPong::receive`].
#[derive(Debug)]
pub enum AfterPong {
    /// Wait for more bytes, then call [`AwaitPong::receive`] again with all of them.
    More(AwaitPong),
    /// Send events; the first `consumed` bytes were the PONG.
    Established {
        /// Length of the PONG.
        consumed: usize,
        /// The authenticated session.
        session: Established,
    },
}

/// Why the handshake failed. Close the connection and send no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server sent something other than a HELO; it may not be a Forward server.
    #[error("the server did not begin with a HELO")]
    NoHelo,
    /// The HELO has no usable nonce.
    #[error("the server's HELO has no nonce")]
    NoNonce,
    /// The server answered the PING with something other than a PONG of 5 elements.
    #[error("the server did not answer with a PONG")]
    NoPong,
    /// The server refuses this client and gives a reason.
    #[error("the server refuses this client: {reason}")]
    Refused {
        /// The server's reason.
        reason: String,
    },
    /// The server does not know the shared key: do not trust it.
    #[error("the server could not prove that it knows the shared key")]
    ServerDigest,
    /// The server has this client's host name. With equal names a peer that reflects the client's
    /// digest would authenticate as the server.
    #[error("the server calls itself {name}, like this client: give one of them another name")]
    SameName {
        /// The host name of both.
        name: String,
    },
    /// The server's message is not MessagePack, or too long.
    #[error("the server's message cannot be read: {0}")]
    BadBytes(#[from] BadBytes),
}

impl AwaitHelo {
    /// Begins a handshake on a new connection. `salt` is random, fresh for every connection, see
    /// [`hex_salt`].
    pub fn new(credentials: Credentials, salt: &[u8]) -> Self {
        Self {
            credentials,
            salt: salt.into(),
            reader: MessageReader::new(),
        }
    }

    /// Reads the HELO. `buf` holds everything received on the connection.
    ///
    /// # Errors
    /// [`HandshakeError`]: the server's fault.
    pub fn receive(mut self, buf: &[u8]) -> Result<AfterHelo, HandshakeError> {
        let Some(message) = self.reader.message(buf)? else {
            return Ok(AfterHelo::More(self));
        };
        let helo = Helo::read(message).ok_or(HandshakeError::NoHelo)?;
        let nonce = helo.nonce.ok_or(HandshakeError::NoNonce)?;
        let send = self.ping(nonce, helo.auth);
        let Self {
            credentials, salt, ..
        } = self;
        let next = AwaitPong {
            credentials,
            salt,
            nonce: nonce.into(),
            keepalive: helo.keepalive,
            reader: MessageReader::new(),
        };
        Ok(AfterHelo::Ping {
            send,
            consumed: message.len(),
            next,
        })
    }

    fn ping(&self, nonce: &[u8], auth: &[u8]) -> Vec<u8> {
        let Credentials {
            hostname,
            shared_key,
            user,
        } = &self.credentials;
        let digest = HexDigest::of(&[&self.salt, hostname.as_bytes(), nonce, shared_key]);
        let mut out = Vec::with_capacity(512);
        write_array_len(&mut out, 6);
        write_str(&mut out, b"PING");
        write_str(&mut out, hostname.as_bytes());
        write_str(&mut out, &self.salt);
        write_str(&mut out, &digest.0);
        match user.as_ref().filter(|_| !auth.is_empty()) {
            Some((name, password)) => {
                let digest = HexDigest::of(&[auth, name.as_bytes(), password.as_bytes()]);
                write_str(&mut out, name.as_bytes());
                write_str(&mut out, &digest.0);
            }
            None => {
                write_str(&mut out, b"");
                write_str(&mut out, b"");
            }
        }
        out
    }
}

impl AwaitPong {
    /// Reads the PONG. `buf` holds everything received after the HELO.
    ///
    /// # Errors
    /// [`HandshakeError`]: a refusal, or the server's fault.
    pub fn receive(mut self, buf: &[u8]) -> Result<AfterPong, HandshakeError> {
        let Some(message) = self.reader.message(buf)? else {
            return Ok(AfterPong::More(self));
        };
        let values = elements(message).ok_or(HandshakeError::NoPong)?;
        let [name, ok, reason, server, digest] = values.as_slice() else {
            return Err(HandshakeError::NoPong);
        };
        let Value::Bool(ok) = *ok else {
            return Err(HandshakeError::NoPong);
        };
        if name.as_bytes() != Some(b"PONG") {
            return Err(HandshakeError::NoPong);
        }
        if !ok {
            let reason = String::from_utf8_lossy(reason.as_bytes().unwrap_or_default()).into_owned();
            return Err(HandshakeError::Refused { reason });
        }
        let (Some(server), Some(digest)) = (server.as_bytes(), digest.as_bytes()) else {
            return Err(HandshakeError::NoPong);
        };
        let Credentials {
            hostname, shared_key, ..
        } = &self.credentials;
        if server == hostname.as_bytes() {
            return Err(HandshakeError::SameName {
                name: hostname.clone(),
            });
        }
        if !HexDigest::of(&[&self.salt, server, &self.nonce, shared_key]).is(digest) {
            return Err(HandshakeError::ServerDigest);
        }
        let session = Established {
            server_hostname: server.to_vec(),
            keepalive: self.keepalive,
        };
        Ok(AfterPong::Established {
            consumed: message.len(),
            session,
        })
    }
}

struct Helo<'a> {
    nonce: Option<&'a [u8]>,
    /// Empty when the server does not ask for a user.
    auth: &'a [u8],
    keepalive: bool,
}

impl<'a> Helo<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        if reader.array_len().ok()? < 2 || reader.str_or_bin().ok()? != b"HELO" {
            return None;
        }
        let mut helo = Self {
            nonce: None,
            auth: b"",
            keepalive: true,
        };
        for _ in 0..reader.map_len().ok()? {
            let key = reader.raw(MAX_DEPTH).ok()?;
            let value = Value::read(reader.raw(MAX_DEPTH).ok()?, 0).ok()?.0;
            match Value::read(key, 0).ok()?.0.as_bytes() {
                Some(b"nonce") => helo.nonce = value.as_bytes(),
                Some(b"auth") => helo.auth = value.as_bytes().unwrap_or_default(),
                Some(b"keepalive") => helo.keepalive = value != Value::Bool(false),
                _ => {}
            }
        }
        Some(helo)
    }
}
