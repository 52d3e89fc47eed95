//! The server's states: [`AwaitPing`], then [`Established`].

use bytes::BufMut;
use subtle::ConstantTimeEq as _;

use super::{HexDigest, MessageReader, elements};
use crate::msgpack::{write_array_len, write_bin, write_bool, write_map_len, write_str};

/// The server's part of the HELO, and its name.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// The server's name. Fluentd and the node loggers refuse a server whose name equals their own,
    /// and Fluent Bit's default is `localhost`, so choose another. At most 255 bytes, because
    /// Fluentd reads at most 512 bytes of PONG.
    pub hostname: &'a str,
    /// Fresh random bytes.
    pub nonce: [u8; 16],
    /// Fresh random bytes when users must authenticate too, else `None`.
    pub auth: Option<[u8; 16]>,
    /// Whether the client may send more than one chunk over the connection. Clients ignore it: to
    /// enforce `false`, close after the first ack.
    pub keepalive: bool,
}

/// A user with its password.
#[derive(Clone, Copy)]
pub struct User<'a> {
    /// Name of the user.
    pub name: &'a [u8],
    /// The password in clear text, which the protocol requires.
    pub password: &'a [u8],
}

impl std::fmt::Debug for User<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &String::from_utf8_lossy(self.name))
            .finish_non_exhaustive()
    }
}

/// The HELO was sent; the client is not authenticated. It must send a PING or is refused.
#[derive(Debug)]
pub struct AwaitPing {
    hostname: Box<[u8]>,
    nonce: [u8; 16],
    auth: Option<[u8; 16]>,
    reader: MessageReader,
}

/// The next step of the server after [`AwaitPing::receive`].
#[derive(Debug)]
pub enum AfterPing {
    /// Wait for more bytes, then call [`AwaitPing::receive`] again with all of them. Close after
    /// about 10 seconds.
    More(AwaitPing),
    /// Send `reply` in one write; the first `consumed` bytes were the PING, messages follow.
    Established {
        /// The PONG.
        reply: Vec<u8>,
        /// Length of the PING.
        consumed: usize,
        /// The authenticated client.
        session: Established,
    },
    /// Send `reply` in one write and close the connection. Fluent Bit would otherwise send events
    /// over it.
    Refused {
        /// The PONG with the reason.
        reply: Vec<u8>,
        /// Why.
        reason: Refusal,
    },
}

/// The client has proved that it knows the key. Only a successful handshake makes this value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Established {
    /// The client's host name.
    pub client_hostname: Vec<u8>,
    /// The authenticated user, when users are required.
    pub username: Option<Vec<u8>>,
}

/// Why a client is refused. The texts are those of Fluentd and are sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The message is not a PING. A client without a shared key sends events at once.
    #[error("invalid ping message")]
    NoPing,
    /// The client has another key.
    #[error("shared_key mismatch")]
    SharedKey,
    /// The user is unknown or the password is wrong.
    #[error("username/password mismatch")]
    User,
    /// The client's address has no key.
    #[error("anonymous source host denied")]
    Denied,
}

impl AwaitPing {
    /// Begins a handshake: writes the HELO, to be sent at once and in one write, and waits for the
    /// PING.
    ///
    /// Nonce and auth are sent as `bin`: the node loggers corrupt a `str` that is not UTF-8.
    /// Without users auth is an empty string, to which no client replies with a password.
    pub fn begin(hello: &Hello<'_>, out: &mut impl BufMut) -> Self {
        write_array_len(out, 2);
        write_str(out, b"HELO");
        write_map_len(out, 3);
        write_str(out, b"nonce");
        write_bin(out, &hello.nonce);
        write_str(out, b"auth");
        match &hello.auth {
            Some(auth) => write_bin(out, auth),
            None => write_str(out, b""),
        }
        write_str(out, b"keepalive");
        write_bool(out, hello.keepalive);
        Self {
            hostname: hello.hostname.as_bytes().into(),
            nonce: hello.nonce,
            auth: hello.auth,
            reader: MessageReader::new(),
        }
    }

    /// Reads the PING. `buf` holds everything received on the connection. `shared_key` is the key
    /// for the client's address; it may be empty. `users` is used only when the HELO asked for
    /// users: then one of them must match.
    pub fn receive(mut self, buf: &[u8], shared_key: &[u8], users: &[User<'_>]) -> AfterPing {
        let message = match self.reader.message(buf) {
            Ok(Some(message)) => message,
            Ok(None) => return AfterPing::More(self),
            Err(_) => return self.refuse(Refusal::NoPing),
        };
        let Some(ping) = Ping::read(message) else {
            return self.refuse(Refusal::NoPing);
        };
        let digest = HexDigest::of(&[ping.salt, ping.hostname, &self.nonce, shared_key]);
        if !digest.is(ping.digest) {
            return self.refuse(Refusal::SharedKey);
        }
        let mut username = None;
        if let Some(auth) = &self.auth {
            if !authenticates(users, auth, &ping) {
                return self.refuse(Refusal::User);
            }
            username = Some(ping.username.to_vec());
        }
        let proof = HexDigest::of(&[ping.salt, &self.hostname, &self.nonce, shared_key]);
        AfterPing::Established {
            reply: pong(true, "", &self.hostname, &proof.0),
            consumed: message.len(),
            session: Established {
                client_hostname: ping.hostname.to_vec(),
                username,
            },
        }
    }

    /// Refuses the client whatever it sent, for instance because its address has no key.
    pub fn refuse(self, reason: Refusal) -> AfterPing {
        AfterPing::Refused {
            reply: pong(false, &reason.to_string(), b"", b""),
            reason,
        }
    }
}

struct Ping<'a> {
    hostname: &'a [u8],
    salt: &'a [u8],
    digest: &'a [u8],
    username: &'a [u8],
    user_digest: &'a [u8],
}

impl<'a> Ping<'a> {
    /// Strings may be `str` or `bin`; Fluent Bit's salt is 16 raw bytes in a `str`.
    fn read(message: &'a [u8]) -> Option<Self> {
        let values = elements(message)?;
        let [name, hostname, salt, digest, username, user_digest] = values.as_slice() else {
            return None;
        };
        if name.as_bytes()? != b"PING" {
            return None;
        }
        Some(Self {
            hostname: hostname.as_bytes()?,
            salt: salt.as_bytes()?,
            digest: digest.as_bytes()?,
            username: username.as_bytes()?,
            user_digest: user_digest.as_bytes()?,
        })
    }
}

/// Whether the client is one of `users`. Every user is compared, so that the time does not reveal
/// which name exists.
fn authenticates(users: &[User<'_>], auth: &[u8; 16], ping: &Ping<'_>) -> bool {
    let mut known = false;
    for user in users {
        let same_name = bool::from(user.name.ct_eq(ping.username));
        let same_password = HexDigest::of(&[auth, user.name, user.password]).is(ping.user_digest);
        known |= same_name & same_password;
    }
    known
}

fn pong(ok: bool, reason: &str, hostname: &[u8], digest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(192 + hostname.len());
    write_array_len(&mut out, 5);
    write_str(&mut out, b"PONG");
    write_bool(&mut out, ok);
    write_str(&mut out, reason.as_bytes());
    write_str(&mut out, hostname);
    write_str(&mut out, digest);
    out
}
