//! Client side: [`AckReader`] parses replies from any fragmentation, [`AckMatcher`] matches them to
//! chunks.

use std::collections::VecDeque;

use crate::encode::ChunkId;
use crate::msgpack::{self, Kind, Reader, Scanner, Value, skip};

/// A reply of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The chunk with this id is safe. The id may be one that was never sent.
    Ack(Vec<u8>),
    /// A map without an ack; Vector sends `{}` when it could not deliver. Send the chunk again.
    Nack,
    /// The server starts a handshake: it has a shared key and this client does not.
    Helo,
    /// Another value, to be ignored.
    Other(Kind),
}

/// The server sent an invalid reply: close the connection and resend what was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// It is not MessagePack, or nested too deep.
    #[error("the server sent bytes that are not a reply")]
    Malformed,
    /// It is longer than any reply.
    #[error("the server sent a reply of at least {needed} bytes, the limit is {limit}")]
    TooLong {
        /// Lower bound of its length in bytes.
        needed: u64,
        /// The limit.
        limit: usize,
    },
}

/// Assembles replies from any fragmentation.
#[derive(Clone, Debug)]
pub struct AckReader {
    /// Received bytes that are not part of a returned reply.
    buf: Vec<u8>,
    scanner: Scanner,
}

/// Longest reply in bytes: far more than an ack, and enough for a late PONG.
const MAX_REPLY_BYTES: usize = 64 << 10;
const MAX_DEPTH: u32 = 32;

impl Default for AckReader {
    fn default() -> Self {
        Self::new()
    }
}

impl AckReader {
    /// A reader for a new connection.
    pub fn new() -> Self {
        Self {
            buf: Vec::new(),
            scanner: scanner(),
        }
    }

    /// Appends received bytes. Then call [`AckReader::reply`] until it returns `None`.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next complete reply.
    ///
    /// # Errors
    /// [`BadReply`]; do not use the reader after it.
    pub fn reply(&mut self) -> Result<Option<Reply>, BadReply> {
        let end = self.scanner.scan(&self.buf).map_err(|error| match error {
            msgpack::Error::TooLong { needed, limit } => BadReply::TooLong { needed, limit },
            _ => BadReply::Malformed,
        })?;
        let Some(end) = end else { return Ok(None) };
        let reply = self
            .buf
            .get(..end)
            .and_then(|value| read_reply(value).ok())
            .ok_or(BadReply::Malformed)?;
        self.buf.drain(..end);
        self.scanner = scanner();
        Ok(Some(reply))
    }
}

fn scanner() -> Scanner {
    Scanner::new(0, MAX_REPLY_BYTES, MAX_DEPTH)
}

fn read_reply(value: &[u8]) -> Result<Reply, msgpack::Error> {
    skip(value, 0, MAX_DEPTH)?;
    let mut reader = Reader::new(value);
    match reader.value()? {
        Value::Map(pairs) => {
            for _ in 0..pairs {
                let key = reader.raw(MAX_DEPTH)?;
                let value = reader.raw(MAX_DEPTH)?;
                if Value::read(key, 0)?.0.as_bytes() != Some(b"ack") {
                    continue;
                }
                if let Some(id) = Value::read(value, 0)?.0.as_bytes() {
                    return Ok(Reply::Ack(id.to_vec()));
                }
            }
            Ok(Reply::Nack)
        }
        Value::Array(1..) if reader.value()?.as_bytes() == Some(b"HELO") => Ok(Reply::Helo),
        _ => Ok(Reply::Other(
            value.first().map_or(Kind::Illegal, |first| Kind::of(*first)),
        )),
    }
}

/// The sent chunks that are not acknowledged, in order of sending. Acks may arrive in any order.
#[derive(Clone, Debug)]
pub struct AckMatcher<T> {
    waiting: VecDeque<(ChunkId, T)>,
}

impl<T> Default for AckMatcher<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<T> AckMatcher<T> {
    /// An empty matcher.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a chunk was sent.
    pub fn sent(&mut self, id: ChunkId, chunk: T) {
        self.waiting.push_back((id, chunk));
    }

    /// Removes the chunk with the acknowledged id; `None` when no such chunk waits. Servers reply
    /// in order, so the search mostly ends at the first.
    pub fn acked(&mut self, id: &[u8]) -> Option<T> {
        let index = self
            .waiting
            .iter()
            .position(|(waiting, _)| waiting.as_bytes() == id)?;
        self.waiting.remove(index).map(|(_, chunk)| chunk)
    }

    /// The chunk that has waited longest.
    pub fn oldest(&self) -> Option<&T> {
        self.waiting.front().map(|(_, chunk)| chunk)
    }

    /// How many chunks wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no chunk waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Removes all chunks, oldest first, when the connection is lost: resend them with the same
    /// ids.
    pub fn take_unacked(&mut self) -> impl Iterator<Item = (ChunkId, T)> + use<T> {
        std::mem::take(&mut self.waiting).into_iter()
    }
}
