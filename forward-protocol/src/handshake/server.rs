//! The server's states: [`AwaitPing`], then [`Established`].

use bytes::BufMut;
use subtle::ConstantTimeEq as _;

use super::{HexDigest, Waiting, elements};
use crate::msgpack::{write_array_len, write_bin, write_bool, write_map_len, write_str};

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// The server's name. Fluentd and the node loggers refuse a server whose name equals their own, and Fluent Bit's
    /// default is `localhost`, so choose another; at most 255 bytes, for Fluentd reads the PONG as at most 512.
    pub hostname: &'a str,
    /// Fresh random bytes.
    pub nonce: [u8; 16],
    /// Fresh random bytes when users must prove themselves too, else `None`.
    pub auth: Option<[u8; 16]>,
    /// Whether the client may send more than one chunk over the connection. Clients ignore it: a server that means
    /// `false` closes after the first ack.
    pub keepalive: bool,
}

/// A user and the password.
#[derive(Clone, Copy)]
pub struct User<'a> {
    /// Name of the user.
    pub name: &'a [u8],
    /// The password, in clear: the protocol needs it so.
    pub password: &'a [u8],
}

impl std::fmt::Debug for User<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &String::from_utf8_lossy(self.name))
            .finish_non_exhaustive()
    }
}

/// The client has been sent the HELO and has proved nothing yet. Whatever it sends is a PING or is refused.
#[derive(Debug)]
pub struct AwaitPing {
    hostname: Box<[u8]>,
    nonce: [u8; 16],
    auth: Option<[u8; 16]>,
    waiting: Waiting,
}

/// What the server does next.
#[derive(Debug)]
pub enum Step {
    /// Wait for more bytes, then call [`AwaitPing::receive`] again with all of them. Close after some 10 seconds.
    More(AwaitPing),
    /// Send `reply` in one write; the first `consumed` bytes were the PING, what follows them are messages.
    Established {
        /// The PONG.
        reply: Vec<u8>,
        /// Length of the PING.
        consumed: usize,
        /// Who the client is.
        session: Established,
    },
    /// Send `reply` in one write and close the connection. Fluent Bit would otherwise use it for events.
    Refused {
        /// The PONG that says why.
        reply: Vec<u8>,
        /// Why.
        reason: Refusal,
    },
}

/// The client knows the key. Only a successful handshake makes this value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Established {
    /// How the client calls itself.
    pub client_hostname: Vec<u8>,
    /// The user that proved itself, when users are asked for.
    pub username: Option<Vec<u8>>,
}

/// Why a client is refused. The texts are those of Fluentd; they go to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// What came is no PING. A client without a shared key sends events at once.
    #[error("invalid ping message")]
    NoPing,
    /// The client's key is another one.
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
    /// Begins a handshake: writes the HELO, to be sent at once and in one write, and waits for the PING.
    ///
    /// Nonce and auth go as `bin`: the node loggers spoil a `str` that is not UTF-8. Without users auth is an empty
    /// string, which no client answers with a password.
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
            waiting: Waiting::new(),
        }
    }

    /// Looks at everything that came since the HELO. `shared_key` is the key for the client's address; it may be
    /// empty. `users` counts only when the HELO asked for users: then one of them must match.
    pub fn receive(mut self, buf: &[u8], shared_key: &[u8], users: &[User<'_>]) -> Step {
        let message = match self.waiting.message(buf) {
            Ok(Some(message)) => message,
            Ok(None) => return Step::More(self),
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
            if !knows(users, auth, &ping) {
                return self.refuse(Refusal::User);
            }
            username = Some(ping.username.to_vec());
        }
        let proof = HexDigest::of(&[ping.salt, &self.hostname, &self.nonce, shared_key]);
        Step::Established {
            reply: pong(true, "", &self.hostname, &proof.0),
            consumed: message.len(),
            session: Established {
                client_hostname: ping.hostname.to_vec(),
                username,
            },
        }
    }

    /// Refuses the client whatever it sends, for instance because no key belongs to its address.
    pub fn refuse(self, reason: Refusal) -> Step {
        Step::Refused {
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
    /// Strings may come as `str` or `bin`; Fluent Bit's salt is 16 raw bytes in a `str`.
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

/// Whether the client proved to be one of `users`. Every user is tried, so the time does not tell which name exists.
fn knows(users: &[User<'_>], auth: &[u8; 16], ping: &Ping<'_>) -> bool {
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
