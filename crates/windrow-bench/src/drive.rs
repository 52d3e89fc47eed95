//! Sending a load: a Forward client with a window, which waits for its acknowledgements. Owns the clock of the client.
//! It tries nothing again: a measurement with a fault in it is none.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forward_protocol::ack::{AckReader, Reply};
use forward_protocol::encode::ChunkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::load::Source;

/// A server that answers later than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Small messages are written together up to this.
const AT_ONCE: usize = 64 << 10;

/// What the client saw.
#[derive(Debug)]
pub struct Driven {
    /// When the first byte was sent.
    pub began: Instant,
    /// From the first byte to the last acknowledgement, or, without acknowledgements, until all was read.
    pub took: Duration,
    /// Bytes sent.
    pub bytes: u64,
    /// From sending a chunk to its acknowledgement, sorted.
    pub latencies: Vec<Duration>,
}

impl Driven {
    /// The latency below which `share` of the chunks were acknowledged.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last as f64 * share) as usize).copied()
    }
}

/// Sends all of `sources`, each over a connection of its own.
///
/// # Errors
/// When a connection fails, or an acknowledgement is missing or wrong.
pub async fn drive(address: SocketAddr, sources: Vec<Source>) -> std::io::Result<Driven> {
    let mut connected = Vec::with_capacity(sources.len());
    for source in sources {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        connected.push((stream, source));
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (stream, source) in connected {
        running.spawn(Connection::new(stream).send(source));
    }
    let mut driven = Driven {
        began,
        took: Duration::ZERO,
        bytes: 0,
        latencies: Vec::new(),
    };
    while let Some(ended) = running.join_next().await {
        let (bytes, latencies) = ended.map_err(Error::other)??;
        driven.bytes += bytes;
        driven.latencies.extend(latencies);
    }
    driven.took = began.elapsed();
    driven.latencies.sort_unstable();
    Ok(driven)
}

struct Connection {
    stream: TcpStream,
    acks: AckReader,
    waiting: VecDeque<(ChunkId, Instant)>,
    latencies: Vec<Duration>,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            acks: AckReader::new(),
            waiting: VecDeque::new(),
            latencies: Vec::new(),
            buffer: vec![0; 16 << 10],
        }
    }

    async fn send(mut self, mut source: Source) -> std::io::Result<(u64, Vec<Duration>)> {
        let window = source.window();
        let mut bytes = 0;
        let mut out = Vec::new();
        let mut more = true;
        while more || !self.waiting.is_empty() {
            while more && self.waiting.len() < window && out.len() < AT_ONCE {
                let Some(chunk) = source.next_chunk()? else {
                    more = false;
                    break;
                };
                bytes += chunk.bytes.len() as u64;
                if let Some(id) = chunk.id {
                    self.waiting.push_back((id, Instant::now()));
                }
                if out.is_empty() {
                    out = chunk.bytes;
                } else {
                    out.extend_from_slice(&chunk.bytes);
                }
            }
            if !out.is_empty() {
                self.stream.write_all(&out).await?;
                out.clear();
            }
            if !self.waiting.is_empty() && (!more || self.waiting.len() >= window) {
                self.read_acks().await?;
            }
        }
        self.stream.shutdown().await?;
        if self.latencies.is_empty() {
            // Without acknowledgements the server has read all of it when it closes its side.
            self.read_some().await?;
        }
        Ok((bytes, self.latencies))
    }

    /// Waits for at least one acknowledgement.
    async fn read_acks(&mut self) -> std::io::Result<()> {
        let before = self.waiting.len();
        while self.waiting.len() == before {
            let read = self.read_some().await?;
            if read == 0 {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    "the server closed the connection before it had acknowledged everything",
                ));
            }
            self.acks.feed(self.buffer.get(..read).unwrap_or_default());
            while let Some(reply) = self.acks.reply().map_err(Error::other)? {
                let (id, sent) = self
                    .waiting
                    .pop_front()
                    .ok_or_else(|| Error::other("an answer to nothing"))?;
                match reply {
                    Reply::Ack(got) if got == id.as_bytes() => self.latencies.push(sent.elapsed()),
                    other => return Err(Error::other(format!("the answer to chunk {id} is {other:?}"))),
                }
            }
        }
        Ok(())
    }

    async fn read_some(&mut self) -> std::io::Result<usize> {
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut self.buffer)).await;
        read.map_err(|_| {
            let text = format!("the server has not answered for {} s", PATIENCE.as_secs());
            Error::new(ErrorKind::TimedOut, text)
        })?
    }
}
