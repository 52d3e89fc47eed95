//! The handshake of connections with a shared key, for both ends.
//!
//! ```text
//! server ─▶ client   ["HELO", {"nonce", "auth", "keepalive"}]
//! client ─▶ server   ["PING", client hostname, salt, D1, username, D2]
//! server ─▶ client   ["PONG", ok, reason, server hostname, D3]
//!
//! D1 = hex SHA-512(salt | client hostname | nonce | shared key)
//! D2 = hex SHA-512(auth | username | password), or "" without users
//! D3 = hex SHA-512(salt | server hostname | nonce | shared key)
//! ```
//!
//! Each state is a type and each step consumes it: [`server::AwaitPing`] becomes
//! [`server::Established`]; [`client::AwaitHelo`] becomes [`client::AwaitPong`] becomes
//! [`client::Established`]. No other code can construct these values, so events of an
//! unauthenticated peer cannot be accepted by mistake. Nonces and salts are arguments: use fresh
//! random bytes for every connection. The handshake authenticates; it does not encrypt.
//!
//! Source: Forward Protocol Specification v1, section "Handshake messages". Deviations of real
//! peers are documented where they are handled.

pub mod client;
pub mod server;

#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

use crate::msgpack::{self, Scanner, Value, skip};

/// The longest accepted handshake message in bytes. A PING with the longest names has less than 1
/// KiB.
const MAX_MESSAGE_BYTES: usize = 8 << 10;
const MAX_DEPTH: u32 = 8;

/// Reads the one message that a state waits for.
#[derive(Clone, Debug)]
struct MessageReader(Scanner);

impl MessageReader {
    fn new() -> Self {
        Self(Scanner::new(0, MAX_MESSAGE_BYTES, MAX_DEPTH))
    }

    /// The bytes of the message; `Ok(None)` when more bytes are needed.
    fn message<'a>(&mut self, buf: &'a [u8]) -> Result<Option<&'a [u8]>, msgpack::Error> {
        let Some(end) = self.0.scan(buf)? else {
            return Ok(None);
        };
        skip(buf, 0, MAX_DEPTH)?;
        Ok(buf.get(..end))
    }
}

/// A digest as sent on the wire: 128 lower-case hexadecimal digits.
#[derive(Clone, Copy)]
struct HexDigest([u8; 128]);

impl HexDigest {
    /// The digest of all parts concatenated: the raw bytes of the message, never decoded from hex.
    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha512::new();
        for part in parts {
            hash.update(part);
        }
        let mut text = [0; 128];
        for (pair, byte) in text.chunks_exact_mut(2).zip(hash.finalize()) {
            pair.copy_from_slice(&hex_digits(byte));
        }
        Self(text)
    }

    /// Compares in constant time.
    fn is(&self, claimed: &[u8]) -> bool {
        bool::from(self.0.as_slice().ct_eq(claimed))
    }
}

fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// The elements of an array, shallowly: of a container only its header.
fn elements(message: &[u8]) -> Option<Vec<Value<'_>>> {
    let (Value::Array(count), mut at) = Value::read(message, 0).ok()? else {
        return None;
    };
    // No handshake message has more elements; `count` is declared by the peer.
    if count > 16 {
        return None;
    }
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(Value::read(message, at).ok()?.0);
        at = skip(message, at, MAX_DEPTH).ok()?;
    }
    Some(values)
}
