//! Client side of the shared-key handshake (Forward Protocol Specification v1, "Handshake").
//!
//! Owns the reading and writing; the messages are those of [`forward_protocol::handshake`]. The
//! caller limits the time.

use forward_protocol::handshake::client::{AfterHelo, AfterPong, AwaitHelo, Credentials, hex_salt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::connection::{Connection, Stream};
use crate::error::ConnectionError;
use crate::options::Security;

/// Bytes read at a time; HELO and PONG are below 512.
const READ_BYTES: usize = 1024;

/// Waits for the HELO, proves that this client knows the key, and has the server prove it.
pub(crate) async fn perform(
    connection: &mut Connection,
    key: &str,
    security: &Security,
) -> Result<(), ConnectionError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| ConnectionError::Handshake(error.to_string()))?;
    let credentials = Credentials {
        hostname: security.hostname.clone(),
        shared_key: key.as_bytes().to_vec(),
        user: (!security.username.is_empty()).then(|| (security.username.clone(), security.password.clone())),
    };
    let failed = |error: forward_protocol::handshake::client::HandshakeError| {
        ConnectionError::Handshake(error.to_string())
    };
    let stream = &mut connection.stream;
    let mut buffer = Vec::new();
    let mut waiting = AwaitHelo::new(credentials, &hex_salt(random));
    let mut waiting = loop {
        match waiting.receive(&buffer).map_err(failed)? {
            AfterHelo::More(same) => waiting = same,
            AfterHelo::Ping { send, consumed, next } => {
                buffer.drain(..consumed);
                stream.write_all(&send).await.map_err(ConnectionError::Io)?;
                stream.flush().await.map_err(ConnectionError::Io)?;
                break next;
            }
        }
        read(stream, &mut buffer, "before its HELO").await?;
    };
    loop {
        match waiting.receive(&buffer).map_err(failed)? {
            AfterPong::More(same) => waiting = same,
            AfterPong::Established { consumed, session } => {
                connection.keepalive = session.keepalive;
                connection.unread = buffer.split_off(consumed);
                return Ok(());
            }
        }
        read(stream, &mut buffer, "instead of a PONG: is the shared key right?").await?;
    }
}

async fn read(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>, when: &str) -> Result<(), ConnectionError> {
    let mut part = [0; READ_BYTES];
    let count = stream.read(&mut part).await.map_err(ConnectionError::Io)?;
    if count == 0 {
        return Err(ConnectionError::Handshake(format!(
            "the server closed the connection {when}"
        )));
    }
    buffer.extend_from_slice(part.get(..count).unwrap_or_default());
    Ok(())
}
