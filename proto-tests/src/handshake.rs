//! The client side of the handshake, with every part replaceable to build invalid messages.
//!
//! Digests follow the specification: SHA-512 over raw bytes, lower-case hex. The scripted server
//! uses them too.

use sha2::{Digest, Sha512};

use crate::case_result::{CaseError, CaseResult, check};
use crate::msgpack::{Raw, Value, array, s, str_bytes};
use crate::peer::Peer;
use crate::target::Security;

/// Lower-case hex of the SHA-512 of the concatenated parts.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// A parsed HELO.
#[derive(Clone, Debug)]
pub(crate) struct Helo {
    pub(crate) nonce: Vec<u8>,
    pub(crate) auth: Vec<u8>,
    pub(crate) options: Value,
}

/// Reads the server's HELO.
pub(crate) async fn helo(peer: &mut Peer) -> Result<Helo, CaseError> {
    let expected = "[\"HELO\", {nonce, auth, keepalive}] from the server, first";
    let value = peer.value(expected).await?;
    let parsed = match value.items() {
        Some([name, options @ Value::Map(_)]) if name.bytes() == Some(b"HELO") => options.clone(),
        _ => return Err(CaseError::fail(expected, format!("{value:?}"))),
    };
    let part = |key: &str| parsed.get(key).and_then(Value::bytes).map(<[u8]>::to_vec);
    let nonce = part("nonce").ok_or_else(|| CaseError::fail("a nonce in HELO", format!("{value:?}")))?;
    Ok(Helo {
        nonce,
        auth: part("auth").unwrap_or_default(),
        options: parsed,
    })
}

/// The parts of a PING, as MessagePack values.
#[derive(Clone, Debug)]
pub(crate) struct Ping {
    pub(crate) hostname: Raw,
    pub(crate) salt: Raw,
    pub(crate) key_digest: Raw,
    pub(crate) username: Raw,
    pub(crate) password_digest: Raw,
}

/// The client's host name in all handshakes of the suite.
pub(crate) const HOSTNAME: &str = "client.example";
/// Default salt: ASCII hex, as Fluentd sends it.
pub(crate) const SALT: &[u8] = b"30313233343536373839616263646566";

impl Ping {
    /// A valid PING with this salt, sent as `str`.
    pub(crate) fn new(helo: &Helo, key: &str, user: Option<(&str, &str)>, salt: &[u8]) -> Self {
        let (username, password_digest) = match user {
            Some((name, password)) => (name, digest(&[&helo.auth, name.as_bytes(), password.as_bytes()])),
            None => ("", String::new()),
        };
        Self {
            hostname: s(HOSTNAME),
            salt: str_bytes(salt),
            key_digest: s(&digest(&[salt, HOSTNAME.as_bytes(), &helo.nonce, key.as_bytes()])),
            username: s(username),
            password_digest: s(&password_digest),
        }
    }

    pub(crate) fn bytes(&self) -> Raw {
        array(&[
            s("PING"),
            self.hostname.clone(),
            self.salt.clone(),
            self.key_digest.clone(),
            self.username.clone(),
            self.password_digest.clone(),
        ])
    }
}

/// A parsed PONG.
#[derive(Clone, Debug)]
pub(crate) struct Pong {
    pub(crate) ok: bool,
    pub(crate) reason: String,
    pub(crate) hostname: Vec<u8>,
    pub(crate) digest: String,
}

/// Reads the server's PONG.
pub(crate) async fn pong(peer: &mut Peer) -> Result<Pong, CaseError> {
    let expected = "[\"PONG\", auth, reason, hostname, digest] from the server";
    let value = peer.value(expected).await?;
    let bad = || CaseError::fail(expected, format!("{value:?}"));
    let Some([name, Value::Bool(ok), reason, hostname, digest]) = value.items() else {
        return Err(bad());
    };
    if name.bytes() != Some(b"PONG") {
        return Err(bad());
    }
    let text = |v: &Value| v.bytes().map(|b| String::from_utf8_lossy(b).into_owned());
    Ok(Pong {
        ok: *ok,
        reason: text(reason).ok_or_else(bad)?,
        hostname: hostname.bytes().ok_or_else(bad)?.to_vec(),
        digest: text(digest).ok_or_else(bad)?,
    })
}

/// Expects PONG true with an empty reason and the correct digest.
pub(crate) async fn expect_welcome(peer: &mut Peer, helo: &Helo, key: &str, salt: &[u8]) -> CaseResult {
    let pong = pong(peer).await?;
    let right = digest(&[salt, &pong.hostname, &helo.nonce, key.as_bytes()]);
    check(
        pong.ok && pong.reason.is_empty(),
        "PONG true with an empty reason",
        format!("{pong:?}"),
    )?;
    check(
        pong.digest == right,
        format!("PONG digest {right}"),
        format!("{pong:?}"),
    )
}

/// The key that the server expects from the suite's address.
pub(crate) fn key_of(security: &Security) -> &str {
    security.network_key.as_deref().unwrap_or(&security.shared_key)
}

/// The first user as `&str`s.
pub(crate) fn user_of(security: &Security) -> Option<(&str, &str)> {
    security
        .users
        .first()
        .map(|(name, password)| (name.as_str(), password.as_str()))
}

/// Performs a valid handshake.
pub(crate) async fn perform(peer: &mut Peer, security: &Security) -> CaseResult {
    let helo = helo(peer).await?;
    let key = key_of(security);
    peer.send(&Ping::new(&helo, key, user_of(security), SALT).bytes())
        .await?;
    expect_welcome(peer, &helo, key, SALT).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::{Parsed, read, unhex};
    use crate::vectors;

    #[test]
    fn the_ping_has_the_bytes_of_the_vector() {
        let Parsed::Complete(value, _) = read(&unhex(vectors::HELO)) else {
            panic!("HELO")
        };
        let options = value.items().unwrap()[1].clone();
        let part = |key| options.get(key).and_then(Value::bytes).unwrap().to_vec();
        let helo = Helo {
            nonce: part("nonce"),
            auth: part("auth"),
            options: options.clone(),
        };
        let salt: Vec<u8> = (0x20..0x30).collect();
        let ping = Ping::new(&helo, "secret", Some(("alice", "pass")), &salt);
        assert_eq!(ping.bytes(), unhex(vectors::PING));
        let Parsed::Complete(pong, _) = read(&unhex(vectors::PONG)) else {
            panic!("PONG")
        };
        let right = digest(&[&salt, b"server.example", &helo.nonce, b"secret"]);
        assert_eq!(pong.items().unwrap()[4].text().unwrap(), right);
    }
}
