//! One connection of a load: writes chunks within the window, compares acknowledgements, and after a
//! failure connects again and sends what is not acknowledged.

use std::collections::VecDeque;
use std::io::{self, Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::{Client, Observer};
use crate::load::msgpack::{write_map_len, write_str};
use crate::load::{Chunk, Records, Source};

/// Small chunks are written together until they have this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Bytes of acknowledgements read at once.
const READ_BYTES: usize = 16 << 10;

/// Wait after a connection on which no chunk got through: a peer that is down refuses at once.
const RECONNECT_DELAY: Duration = Duration::from_millis(20);

/// Failures that are described; more are only counted.
const MAX_ERRORS: usize = 5;

/// What one connection contributes to [`Sent`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    pub(super) latencies: Vec<Duration>,
    pub(super) connects: u64,
    pub(super) failures: u64,
    pub(super) errors: Vec<String>,
}

/// A chunk that may have to be sent again.
struct Queued {
    chunk: Chunk,
    sent: Instant,
}

/// One connection, and its successors after failures.
pub(super) struct Connection<R, O> {
    client: Arc<Client>,
    observer: Arc<O>,
    index: usize,
    address: SocketAddr,
    /// Time between two records of this connection, seconds.
    record_interval: Option<f64>,
    source: Source<R>,
    exhausted: bool,
    stream: Option<TcpStream>,
    /// Chunks that are not acknowledged, oldest first; `in_flight` of them were written to this
    /// stream.
    queue: VecDeque<Queued>,
    in_flight: usize,
    /// Acknowledgements that came for copies of the oldest chunk.
    copies_acked: usize,
    received: Vec<u8>,
    buffer: Vec<u8>,
    batch: Vec<u8>,
    expected: Vec<u8>,
    /// Chunks that need not be sent again, and when the last of them got through.
    through: u64,
    progress: Instant,
    tally: Tally,
}

impl<R: Records, O: Observer> Connection<R, O> {
    pub(super) fn new(
        client: &Arc<Client>,
        index: usize,
        connections: usize,
        source: Source<R>,
        observer: &Arc<O>,
    ) -> io::Result<Self> {
        let address = client.addresses.get(index % client.addresses.len().max(1));
        Ok(Self {
            client: Arc::clone(client),
            observer: Arc::clone(observer),
            index,
            address: *address.ok_or_else(|| Error::other("no address to send to"))?,
            record_interval: client
                .records_per_second
                .map(|rate| connections as f64 / rate.max(1) as f64),
            source,
            exhausted: false,
            stream: None,
            queue: VecDeque::new(),
            in_flight: 0,
            copies_acked: 0,
            received: Vec::new(),
            buffer: vec![0; READ_BYTES],
            batch: Vec::new(),
            expected: Vec::new(),
            through: 0,
            progress: Instant::now(),
            tally: Tally::default(),
        })
    }

    /// Connects before the clock runs. A client that retries may do so later.
    pub(super) async fn prepare(&mut self) -> io::Result<()> {
        match self.connect().await {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if self.client.give_up.is_none() => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    async fn connect(&mut self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        self.tally.connects += 1;
        Ok(stream)
    }

    /// Sends everything, over as many connections as it takes.
    pub(super) async fn run(mut self, began: Instant) -> io::Result<Tally> {
        self.progress = began;
        loop {
            let before = self.through;
            let error = match self.session(began).await {
                Ok(()) if self.is_done() => return Ok(self.tally),
                Ok(()) => continue,
                Err(error) => error,
            };
            let Some(give_up) = self.client.give_up else {
                return Err(error);
            };
            // A peer that answers wrongly is not asked again.
            if error.kind() == ErrorKind::InvalidData {
                return Err(error);
            }
            self.tally.failures += 1;
            if self.tally.errors.len() < MAX_ERRORS {
                self.tally.errors.push(error.to_string());
            }
            if self.observer.is_stopped() {
                return Ok(self.tally);
            }
            if self.progress.elapsed() >= give_up {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "no chunk got through to {} for {} s (chunk {}): {:?}",
                        self.address,
                        give_up.as_secs_f64(),
                        self.through,
                        self.tally.errors
                    ),
                ));
            }
            if self.through == before {
                sleep(RECONNECT_DELAY).await;
            }
        }
    }

    /// There is nothing more to send.
    fn is_done(&self) -> bool {
        self.observer.is_stopped() || self.exhausted && self.queue.is_empty()
    }

    /// Sends over one connection until all is sent, or it is time to reconnect.
    async fn session(&mut self, began: Instant) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        (self.in_flight, self.copies_acked) = (0, 0);
        self.received.clear();
        let acks = self.source.framing().acks;
        let window = if acks {
            self.source.framing().window.max(1)
        } else {
            usize::MAX
        };
        let mut budget = self.client.reconnect_chunks.unwrap_or(usize::MAX);
        loop {
            let ready = self.fill(window, &mut budget)?;
            if ready > 0 {
                self.write(&mut stream, ready, began).await?;
                if acks {
                    self.in_flight += ready;
                } else {
                    self.queue.drain(..ready);
                    self.got_through(ready);
                }
            }
            let ended = budget == 0
                || self.observer.is_stopped()
                || self.exhausted && self.queue.len() == self.in_flight;
            if self.in_flight > 0 && (ended || self.in_flight >= window) {
                self.read_acks(&mut stream).await?;
            } else if ended {
                break;
            }
        }
        stream.shutdown().await?;
        // Without acknowledgements the server has read all of it when it closes its side. A
        // connection that is followed by another one must have ended.
        if (!acks || self.client.give_up.is_some()) && self.read_some(&mut stream).await? > 0 {
            return Err(Error::new(ErrorKind::InvalidData, "an answer to nothing"));
        }
        Ok(())
    }

    /// Takes chunks until the window is full or one write is large enough. Returns how many are
    /// ready to be written.
    fn fill(&mut self, window: usize, budget: &mut usize) -> io::Result<usize> {
        let (mut ready, mut bytes) = (0, 0);
        while self.in_flight + ready < window && bytes < BATCH_BYTES && *budget > 0 {
            if self.observer.is_stopped() || self.record_interval.is_some() && ready > 0 {
                break;
            }
            if self.in_flight + ready == self.queue.len() {
                let Some(chunk) = self.source.next_chunk()? else {
                    self.exhausted = true;
                    break;
                };
                self.tally.bytes += chunk.bytes.len() as u64;
                self.queue.push_back(Queued {
                    chunk,
                    sent: Instant::now(),
                });
            }
            let Some(queued) = self.queue.get_mut(self.in_flight + ready) else {
                break;
            };
            queued.sent = Instant::now();
            bytes += queued.chunk.bytes.len();
            ready += 1;
            *budget -= 1;
        }
        Ok(ready)
    }

    /// Writes the first `ready` chunks that are not in flight.
    async fn write(&mut self, stream: &mut TcpStream, ready: usize, began: Instant) -> io::Result<()> {
        let chunks = self.in_flight..self.in_flight + ready;
        if let (Some(interval), Some(queued)) = (self.record_interval, self.queue.get_mut(chunks.start)) {
            let due = Duration::from_secs_f64(queued.chunk.records.start as f64 * interval);
            sleep_until((began + due).into()).await;
            queued.sent = Instant::now();
        }
        for queued in self.queue.range(chunks.clone()) {
            self.observer.sending(self.index, &queued.chunk.records);
        }
        let bytes = match self.queue.get(chunks.start) {
            Some(queued) if ready == 1 && self.client.copies <= 1 => &queued.chunk.bytes,
            _ => {
                self.batch.clear();
                for queued in self.queue.range(chunks) {
                    for _ in 0..self.client.copies.max(1) {
                        self.batch.extend_from_slice(&queued.chunk.bytes);
                    }
                }
                &self.batch
            }
        };
        let written = timeout(self.client.answer_timeout, stream.write_all(bytes)).await;
        written.map_err(|_| self.late("read"))?
    }

    /// Waits until at least one chunk is acknowledged.
    async fn read_acks(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let before = self.through;
        while self.through == before {
            let read = self.read_some(stream).await?;
            if read == 0 {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    "the server closed the connection before it had acknowledged everything",
                ));
            }
            self.received
                .extend_from_slice(self.buffer.get(..read).unwrap_or_default());
            self.take_acks()?;
        }
        Ok(())
    }

    /// Compares what was received with the acknowledgements that are due.
    fn take_acks(&mut self) -> io::Result<()> {
        let mut at = 0;
        while self.in_flight > 0
            && let Some(Queued { chunk, sent }) = self.queue.front()
        {
            let id = chunk.id.as_deref().unwrap_or_default();
            self.expected.clear();
            write_map_len(&mut self.expected, 1);
            write_str(&mut self.expected, "ack");
            write_str(&mut self.expected, id);
            let rest = self.received.get(at..).unwrap_or_default();
            if !rest.starts_with(&self.expected) {
                if self.expected.starts_with(rest) {
                    break;
                }
                let rest = String::from_utf8_lossy(rest);
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    format!("the answer to chunk {id:?} on {} is {rest:?}", self.address),
                ));
            }
            at += self.expected.len();
            self.observer.acknowledged(self.index, &chunk.records);
            self.copies_acked += 1;
            if self.copies_acked >= self.client.copies {
                self.tally.latencies.push(sent.elapsed());
                self.queue.pop_front();
                self.copies_acked = 0;
                self.in_flight -= 1;
                self.got_through(1);
            }
        }
        self.received.drain(..at);
        if self.in_flight == 0 && !self.received.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "an answer to nothing"));
        }
        Ok(())
    }

    fn got_through(&mut self, chunks: usize) {
        self.through += chunks as u64;
        self.progress = Instant::now();
    }

    async fn read_some(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        let read = timeout(self.client.answer_timeout, stream.read(&mut self.buffer)).await;
        read.map_err(|_| self.late("answered"))?
    }

    fn late(&self, what: &str) -> Error {
        let seconds = self.client.answer_timeout.as_secs();
        Error::new(
            ErrorKind::TimedOut,
            format!("the server has not {what} for {seconds} s"),
        )
    }
}
