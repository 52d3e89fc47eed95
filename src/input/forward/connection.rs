//! One connection: read, make durable, acknowledge, again.
//!
//! Owns the receive buffer and the order of things: nothing is read while a run of messages is on its way to disk, so
//! a client can have at most one buffer of unacknowledged bytes here, and a journal that takes nothing stops the
//! reading of sockets by itself. Knows nothing of traces.

#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forward_protocol::entries::Decompressor;
use forward_protocol::frame::{Framer, Outcome, Payload, Run, Violation};
use forward_protocol::json::{JsonCarrier, JsonViolation, is_json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::ack::Acks;
use super::room::{LARGE, Room, TINY};
use super::security::Failure;
use super::{Context, FORWARD_MESSAGES};
use crate::brake::Entering;
use crate::metrics::{self, DecodeError, Handshake, Mode};
use crate::reactor::compute;
use crate::spares;
use windrow_journal::AppendError;

/// Of a message of which so many bytes are missing the rest is left with the kernel while gathering is busy.
const LEFT: usize = 32 << 10;
/// For so long a client that was let in keeps its room while its message does not come: at the speed of a network's other end that
/// is enough, and one that is slow holds nobody up.
const PROMPT: Duration = Duration::from_millis(20);
/// What counts as progress inside a message, per progress timeout: a byte now and then does not.
const PROGRESS: usize = 1 << 10;
/// When Windrow stops it reads for so long at most what clients had sent by then: to close a connection with something unread in it
/// resets it, and acks may be lost that were on their way.
const LAST_READS: Duration = Duration::from_secs(1);
/// Runs below this size are copied, so that a small message does not keep a large buffer alive.
const COPY: usize = 16 << 10;
/// The checksum of so many bytes takes a millisecond.
const HUGE: usize = 16 << 20;
/// To decompress a payload of so many bytes takes milliseconds.
const LONG: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client closed it between two messages.
    #[error("closed by the client")]
    Closed,
    /// The client closed it inside a message, of which this many bytes had come.
    #[error(
        "closed by the client {0} bytes into a message, which is dropped without an ack; the client sends it again"
    )]
    Truncated(usize),
    /// It was old enough to be closed for balance.
    #[error("closed after an ack, being older than max_connection_age")]
    Aged,
    /// Windrow stops.
    #[error("closed because Windrow stops")]
    Stopping,
    /// Nothing came for the idle timeout.
    #[error("closed after {0:?} without a message")]
    Idle(Duration),
    /// The client broke the protocol.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// The client writes JSON that is none.
    #[error("{0}")]
    Json(JsonViolation),
    /// The client did not prove itself.
    #[error("{0}")]
    Handshake(Failure),
    /// The handshake took too long.
    #[error("no handshake within {0:?}: this server asks for a shared key, which the client may not know")]
    HandshakeTimeout(Duration),
    /// The TLS handshake failed.
    #[error(
        "TLS handshake: {0} (does the client have TLS switched on, and trust this server's certificate?)"
    )]
    Tls(io::Error),
    /// A compressed payload is too large; a retry cannot help.
    #[error("{0}; raise forward.max_decompressed to accept it")]
    Oversize(#[from] forward_protocol::entries::Oversize),
    /// The client stopped, or nearly so, in the middle of a message.
    #[error("less than 1 KiB came in {0:?} in the middle of a message")]
    Stalled(Duration),
    /// The client does not read its acks.
    #[error("the client did not read its acks for {0:?}")]
    AcksNotRead(Duration),
    /// The journal does not take the messages.
    #[error("no ack: {0}")]
    Journal(#[from] AppendError),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Serves a connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: Option<IpAddr>,
    context: &Arc<Context>,
) -> End {
    let mut buffer = BytesMut::with_capacity(TINY);
    if let Some(security) = &context.security {
        let patience = context.handshake_timeout;
        match timeout(patience, security.handshake(stream, peer, &mut buffer)).await {
            Ok(Ok(())) => {
                context.metrics.handshakes[Handshake::Ok].inc();
            }
            Ok(Err(failure)) => return End::Handshake(failure),
            Err(_) => return End::HandshakeTimeout(patience),
        }
    }
    let mut connection = Connection {
        stream,
        context,
        framer: Framer::new(context.limits),
        decompressor: Decompressor::new(),
        carrier: if context.security.is_some() {
            Carrier::MessagePack
        } else {
            Carrier::Unknown
        },
        buffer,
        room: Room::new(),
        entering: None,
        waited: false,
        progress: None,
        ends_at: None,
        closes_at: context
            .max_connection_age
            .map(|age| Instant::now() + with_jitter(age, context)),
        acked: false,
    };
    match connection.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// What the client writes, decided by its first byte, once for the connection.
enum Carrier {
    Unknown,
    MessagePack,
    /// JSON, which is made MessagePack before anything else, so that there is one form in the journal.
    Json {
        carrier: JsonCarrier,
        text: BytesMut,
    },
}

struct Connection<'a, S> {
    stream: &'a mut S,
    context: &'a Arc<Context>,
    framer: Framer,
    decompressor: Decompressor,
    carrier: Carrier,
    /// Messages as MessagePack that are not through yet.
    buffer: BytesMut,
    room: Room,
    /// The place that the message has which is being read, if it had to wait for it, and until when.
    entering: Option<(Entering<'a>, Instant)>,
    /// Whether that message has waited.
    waited: bool,
    closes_at: Option<Instant>,
    /// Once Windrow stops: by when nothing more is read.
    ends_at: Option<Instant>,
    /// Inside a message: by when so many bytes more must have come.
    progress: Option<(Instant, usize)>,
    /// The client asks for acks: it can be sent away behind one without loss.
    acked: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let broken = self.convert();
            let run = self.framer.scan(&self.buffer);
            if run.end > 0 {
                self.take(&run).await?;
            }
            if let Some(violation) = run.violation {
                return Err(End::Violation(violation));
            }
            if let Some(violation) = broken {
                return Err(End::Json(violation));
            }
            let begun = self.begun();
            // What has come by now is still taken in, which `read` finds out; not what a client goes on to send.
            if begun == 0
                && self.context.stop.is_cancelled()
                && Instant::now() >= *self.ends_at.get_or_insert_with(|| Instant::now() + LAST_READS)
            {
                return Err(End::Stopping);
            }
            if begun == 0 && self.acked && self.closes_at.is_some_and(|at| Instant::now() >= at) {
                return Err(End::Aged);
            }
            self.wait_for_place(run.needed).await;
            let buffer = match &mut self.carrier {
                Carrier::Json { text, .. } => text,
                _ => &mut self.buffer,
            };
            self.room.make(buffer, run.needed, &self.context.spares);
            if self.read(begun == 0).await? == 0 {
                return Err(if begun == 0 {
                    End::Closed
                } else {
                    End::Truncated(begun)
                });
            }
        }
    }

    /// Decides what the client speaks, and makes MessagePack of JSON.
    fn convert(&mut self) -> Option<JsonViolation> {
        if matches!(self.carrier, Carrier::Unknown)
            && let Some(first) = self.buffer.first()
        {
            self.carrier = if is_json(*first) {
                let carrier = JsonCarrier::new(self.context.limits.message);
                Carrier::Json {
                    carrier,
                    text: std::mem::take(&mut self.buffer),
                }
            } else {
                Carrier::MessagePack
            };
        }
        let Carrier::Json { carrier, text } = &mut self.carrier else {
            return None;
        };
        let mut messages = Vec::new();
        let converted = carrier.convert(text, &mut messages);
        bytes::Buf::advance(text, converted.consumed);
        self.buffer.extend_from_slice(&messages);
        converted.violation
    }

    /// Bytes of a message that has begun and is not complete.
    fn begun(&self) -> usize {
        match &self.carrier {
            Carrier::Json { text, .. } => text.len() + self.buffer.len(),
            _ => self.buffer.len(),
        }
    }

    /// Complete messages: makes them durable and acknowledges them.
    async fn take(&mut self, run: &Run) -> Result<(), End> {
        let metrics = &self.context.metrics;
        for frame in &run.frames {
            let Some(message) = frame.message(&self.buffer) else {
                if matches!(frame.outcome, Outcome::Stray(_)) {
                    metrics.input_decode_errors[DecodeError::NotAMessage].inc();
                }
                continue;
            };
            let mut mode = match message.mode {
                forward_protocol::frame::Mode::Message => Mode::Message,
                forward_protocol::frame::Mode::Forward => Mode::Forward,
                forward_protocol::frame::Mode::Packed => Mode::Packed,
            };
            if message.options.ignored {
                metrics.input_decode_errors[DecodeError::Option].inc();
            }
            if let Payload::Compressed { compression, bytes } = message.payload(self.context.limits.depth) {
                mode = Mode::Compressed;
                // Asked before the ack: a retry cannot help here, and the limit must be seen by whoever set it.
                let (decompressor, limit) = (&mut self.decompressor, self.context.max_decompressed);
                match bytes.len() {
                    0..LONG => decompressor.check_size(compression, bytes, limit),
                    _ => compute(|| decompressor.check_size(compression, bytes, limit)),
                }?;
            }
            let json = matches!(self.carrier, Carrier::Json { .. });
            metrics.input_messages[if json { Mode::Json } else { mode }].inc();
        }
        if run.is_idle() {
            let _heartbeats = self.buffer.split_to(run.end);
            return Ok(());
        }
        let bytes = self.split(run.end);
        metrics.input_bytes.inc_by(bytes.len() as u64);
        self.room.left(bytes.len());
        self.waited = false;
        let entering = match self.entering.take() {
            Some((mut entering, _)) => {
                entering.are(bytes.len());
                entering
            }
            None => self.context.brake.admit(bytes.len()).await,
        };
        let append = || self.context.journal.append(FORWARD_MESSAGES, bytes.clone());
        let receipt = match bytes.len() {
            0..HUGE => append(),
            _ => compute(append),
        }
        .await?;
        drop(entering);
        let json = matches!(self.carrier, Carrier::Json { .. });
        let acks = Acks::new(
            receipt,
            json,
            run.frames.iter().filter_map(|frame| frame.chunk(&bytes)),
        );
        drop(bytes);
        if acks.count() > 0 {
            self.acked = true;
            let patience = self.context.ack_timeout;
            match timeout(patience, self.stream.write_all(acks.bytes())).await {
                Ok(written) => written?,
                Err(_) => return Err(End::AcksNotRead(patience)),
            }
            metrics.input_chunks_acked.inc_by(acks.count());
        }
        Ok(())
    }

    fn split(&mut self, end: usize) -> Bytes {
        if end < COPY && self.buffer.capacity() > 4 * end {
            let bytes = Bytes::copy_from_slice(self.buffer.get(..end).unwrap_or_default());
            bytes::Buf::advance(&mut self.buffer, end);
            bytes
        } else if end == self.buffer.len() && end >= spares::LEAST {
            // Nothing is left of it here, so that it can be received into again once it is done with.
            std::mem::take(&mut self.buffer).freeze()
        } else {
            self.buffer.split_to(end).freeze()
        }
    }

    /// While gathering is busy most of a large message stays with the kernel: here it would take memory, and the
    /// processor's cache would lose it before its turn comes.
    async fn wait_for_place(&mut self, needed: usize) {
        let brake = &self.context.brake;
        if needed >= LEFT && !self.waited && !brake.lets_in() {
            self.waited = true;
            // What is claimed is not there yet.
            let entering = brake.admit(needed.min(LARGE)).await;
            self.entering = Some((entering, Instant::now() + PROMPT));
        }
    }

    async fn read(&mut self, between: bool) -> Result<usize, End> {
        let buffer = match &self.carrier {
            Carrier::Json { text, .. } => text,
            _ => &self.buffer,
        };
        let spare = buffer.capacity() - buffer.len();
        let prompt = match self.entering {
            Some((_, until)) => timeout_at(until, self.read_some(between)).await.ok(),
            None => None,
        };
        let read = match prompt {
            Some(read) => read?,
            None => {
                self.entering = None;
                self.read_some(between).await?
            }
        };
        self.room.was_read(read, spare, self.context.tasks.len());
        Ok(read)
    }

    async fn read_some(&mut self, between: bool) -> Result<usize, End> {
        let context = self.context;
        let stop = &context.stop;
        let read = self.stream.read_buf(match &mut self.carrier {
            Carrier::Json { text, .. } => text,
            _ => &mut self.buffer,
        });
        if between {
            self.progress = None;
            let deadline = match (context.idle_timeout, self.closes_at.filter(|_| self.acked)) {
                (None, None) => None,
                (idle, age) => {
                    let idle = idle.map(|idle| Instant::now() + idle);
                    Some(idle.into_iter().chain(age).min().unwrap_or_else(Instant::now))
                }
            };
            tokio::select! {
                biased;
                read = async { match deadline { None => Ok(read.await), Some(at) => timeout_at(at, read).await } } => {
                    match read {
                        Ok(read) => Ok(read?),
                        Err(_) if self.closes_at.is_some_and(|at| Instant::now() >= at) => Err(End::Aged),
                        Err(_) => Err(End::Idle(context.idle_timeout.unwrap_or_default())),
                    }
                }
                () = stop.cancelled() => Err(End::Stopping),
            }
        } else {
            let now = Instant::now();
            let (by, missing) = *self
                .progress
                .get_or_insert((now + context.progress_timeout, PROGRESS));
            match timeout_at(by, read).await {
                Ok(read) => {
                    let read = read?;
                    self.progress = match missing.checked_sub(read) {
                        Some(missing @ 1..) => Some((by, missing)),
                        _ => Some((Instant::now() + context.progress_timeout, PROGRESS)),
                    };
                    Ok(read)
                }
                Err(_) => Err(End::Stalled(context.progress_timeout)),
            }
        }
    }
}

/// The age at which this connection is closed: up to the configured share earlier than the limit.
fn with_jitter(age: Duration, context: &Context) -> Duration {
    let share = context.max_connection_age_jitter.min(100) as f64 / 100.0;
    let random = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    age.mul_f64(1.0 - share * random)
}

impl End {
    /// Whether it is worth a line in the log above debug.
    pub(super) fn is_fault(&self) -> bool {
        match self {
            Self::Closed | Self::Aged | Self::Stopping | Self::Idle(_) | Self::Handshake(Failure::Closed) => {
                false
            }
            // A load balancer's probe, or a client that was killed.
            Self::Io(error) | Self::Tls(error) | Self::Handshake(Failure::Io(error)) => !matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
            ),
            _ => true,
        }
    }

    /// The counter that it belongs to.
    pub(super) fn count(&self, metrics: &metrics::Metrics) {
        use metrics::Violation as Class;
        let class = match self {
            Self::Truncated(_) => {
                metrics.input_decode_errors[DecodeError::Truncated].inc();
                return;
            }
            Self::Violation(violation) => match violation {
                Violation::TooShort { .. } => Class::Arity,
                Violation::TooLarge { .. } => Class::MessageSize,
                Violation::TooDeep { .. } => Class::Depth,
                Violation::ChunkTooLong { .. } | Violation::TooManyOptions { .. } => Class::Count,
                Violation::TooManyStrays { .. } => Class::NotForward,
                Violation::Tls => Class::TlsOnPlainPort,
                Violation::Http => Class::Http,
                _ => Class::Msgpack,
            },
            Self::Oversize(_) => Class::DecompressedSize,
            Self::Json(_) => Class::Json,
            Self::Handshake(failure) => {
                metrics.handshakes[failure.class()].inc();
                return;
            }
            Self::HandshakeTimeout(_) => {
                metrics.handshakes[Handshake::Timeout].inc();
                return;
            }
            Self::Tls(_) => {
                metrics.handshakes[Handshake::Tls].inc();
                return;
            }
            Self::Aged => {
                metrics.input_connections_aged.inc();
                return;
            }
            Self::Stalled(_) => Class::Stalled,
            Self::AcksNotRead(_) => Class::AcksNotRead,
            _ => return,
        };
        metrics.input_violations[class].inc();
    }
}

/// Where a connection comes from, for the log.
pub(super) fn shown(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "unix socket".into(), |address| address.to_string())
}
