//! Forward connection: reads messages, appends them to the journal, acknowledges them.
//!
//! Owns the receive buffer and the order of work: nothing is read while a run of messages is on its
//! way to disk. So a client has at most one buffer of unacknowledged bytes here, and a full journal
//! stops the reading of sockets by itself. Knows nothing of traces.

mod bare_records;
mod close_reason;
mod commit;
mod encoding;
mod shares;
mod state;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use forward_protocol::entries::{Compression, Decompressor, Oversize};
use forward_protocol::frame::{Framer, Outcome, Payload, Run};
use forward_protocol::msgpack::Kind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use self::bare_records::{RAW_TAG, as_messages, is_list};
use self::close_reason::Resend;
pub(in crate::input) use self::close_reason::{CloseReason, is_closed_by_peer};
use self::commit::commit;
use self::encoding::Encoding;
use self::state::{Admission, AgeLimit, Phase, Progress, Shutdown};
use super::ack::Acks;
use super::context::Context;
use super::decompression::check_inline;
use super::peer::{peer_name, source_of};
use super::proxy_protocol;
use super::read_strategy::{INITIAL_BUFFER_BYTES, MAX_READ_BYTES, ReadStrategy, grow};
use super::receive_budget::Reservation;
use super::security::HandshakeError;
use super::warnings;
use crate::buffer_pool;
use crate::metrics::{DecodeError, Handshake, Mode};

/// While gathering is busy, the rest of a message that still lacks this many bytes is not read.
const DEFER_READ_BYTES: usize = 32 << 10;
/// Runs below this size are copied out of a large buffer, so that they do not keep it alive.
const MAX_COPIED_RUN_BYTES: usize = 16 << 10;

/// Serves a connection until it is to be closed.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: Option<IpAddr>,
    context: &Arc<Context>,
) -> CloseReason {
    let mut buffer = BytesMut::with_capacity(INITIAL_BUFFER_BYTES);
    if let Some(security) = &context.security {
        let limit = context.handshake_timeout;
        let handshake = timeout(limit, security.handshake(stream, peer, &mut buffer));
        let shaken = tokio::select! {
            biased;
            shaken = handshake => shaken,
            () = context.stop_timeout() => return CloseReason::StoppingStalled,
        };
        match shaken {
            Ok(Ok(())) => {
                context.metrics.handshakes[Handshake::Ok].inc();
            }
            Ok(Err(HandshakeError::Closed)) if buffer.is_empty() => return CloseReason::Probe,
            Ok(Err(HandshakeError::Io(error))) if buffer.is_empty() && is_closed_by_peer(&error) => {
                return CloseReason::Probe;
            }
            Ok(Err(_)) if proxy_protocol::begins(&buffer) => return CloseReason::ProxyProtocol,
            Ok(Err(error)) => return CloseReason::Handshake(error),
            Err(_) => return CloseReason::HandshakeTimeout(limit),
        }
    }
    let mut connection = Connection {
        stream,
        peer,
        source: source_of(peer),
        context,
        resend: Resend::Unknown,
        framer: Framer::new(context.limits),
        decompressor: Decompressor::new(),
        encoding: if context.security.is_some() {
            Encoding::MessagePack
        } else {
            Encoding::Undetected
        },
        buffer,
        read_strategy: ReadStrategy::new(context.receive_budget.limit_bytes()),
        memory: context.receive_budget.reservation(),
        phase: Phase::Idle,
        age_limit: AgeLimit::new(context.max_connection_age.map(|age| with_jitter(age, context))),
        shutdown: Shutdown::Running,
        is_peer: false,
    };
    match connection.run().await {
        Ok(never) => match never {},
        Err(reason) => reason,
    }
}

struct Connection<'a, S> {
    stream: &'a mut S,
    peer: Option<IpAddr>,
    /// The client's number for the journal.
    source: u64,
    context: &'a Arc<Context>,
    /// Whether the client sends again what has no ack.
    resend: Resend,
    framer: Framer,
    decompressor: Decompressor,
    encoding: Encoding,
    /// MessagePack messages that are not taken yet.
    buffer: BytesMut,
    read_strategy: ReadStrategy,
    /// Covers the capacity of the receive buffer inside a message, once it has grown.
    memory: Reservation<'a>,
    phase: Phase<'a>,
    age_limit: AgeLimit,
    shutdown: Shutdown,
    /// The client is another instance, which hands records over.
    is_peer: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self) -> Result<Infallible, CloseReason> {
        loop {
            if !self.context.json && self.encoding.would_be_json(&self.buffer) {
                return Err(CloseReason::JsonDisabled);
            }
            let json_violation = self
                .encoding
                .convert(
                    &mut self.buffer,
                    self.context.limits.message,
                    &self.context.cpu_pool,
                )
                .await;
            let run = self.framer.scan(&self.buffer);
            if run.end > 0 {
                self.take(&run).await?;
            }
            if let Some(violation) = run.violation {
                let rest = self.buffer.get(run.end..).unwrap_or_default();
                let tag = self.framer.unfinished_tag(rest);
                return Err(CloseReason::violation(violation, tag));
            }
            if let Some(violation) = json_violation {
                return Err(CloseReason::Json(violation));
            }
            let begun_bytes = self.encoding.begun_bytes(&self.buffer);
            let buffer = self.encoding.receive_buffer(&mut self.buffer);
            let more = self.read_strategy.growth(buffer, run.needed);
            if begun_bytes == 0 {
                self.enter_idle()?;
            } else {
                self.reserve_memory(more).await?;
                self.enter_receiving(run.needed).await;
            }
            let buffer = self.encoding.receive_buffer(&mut self.buffer);
            grow(buffer, more, &self.context.buffer_pool);
            if self.read().await? == 0 {
                return Err(match begun_bytes {
                    0 => CloseReason::Closed,
                    bytes => CloseReason::Truncated(bytes, self.resend),
                });
            }
        }
    }

    /// Enters the phase between two messages, which is the only one where the server may close the
    /// connection.
    fn enter_idle(&mut self) -> Result<(), CloseReason> {
        self.phase = Phase::Idle;
        drop(self.memory.take());
        // What has come by now is still read, but not what a client goes on to send.
        if self.context.stop.is_cancelled() && self.shutdown.is_drained() {
            return Err(CloseReason::Stopping);
        }
        if self.age_limit.deadline().is_some_and(|at| Instant::now() >= at) {
            return Err(CloseReason::Aged);
        }
        Ok(())
    }

    /// Acquires memory for the message that has begun, before its buffer grows by `more` bytes.
    async fn reserve_memory(&mut self, more: usize) -> Result<(), CloseReason> {
        if more == 0 {
            return Ok(());
        }
        let buffer = self.encoding.receive_buffer(&mut self.buffer);
        let bytes = buffer.len() + more;
        let bytes = self.encoding.memory_bytes(bytes);
        if self.memory.try_grow_to(bytes) {
            return Ok(());
        }
        // Others may pass on what they have meanwhile.
        self.phase.expire_permit();
        tokio::select! {
            biased;
            () = self.memory.grow_to(bytes) => {}
            () = self.context.stop_timeout() => return Err(CloseReason::StoppingStalled),
        }
        self.phase.restart_progress(self.context.progress_timeout);
        Ok(())
    }

    /// Enters or stays in the phase inside a message. While gathering is busy most of a large
    /// message stays in the kernel: here it would take memory, and leave the processor's cache
    /// before it is gathered.
    async fn enter_receiving(&mut self, needed: usize) {
        let admission = &self.context.admission;
        let waits = needed >= DEFER_READ_BYTES && self.phase.may_wait() && !admission.would_admit();
        let permit = match waits {
            // A claimed length counts no more than one read.
            true => Some(admission.acquire(needed.min(MAX_READ_BYTES)).await),
            false => None,
        };
        self.phase.receive(permit, self.context.progress_timeout);
    }

    /// Takes complete messages from the buffer, makes them durable and acknowledges them.
    async fn take(&mut self, run: &Run) -> Result<(), CloseReason> {
        let complete = Instant::now();
        if self.is_from_peer(run) {
            return self.take_shares(run).await;
        }
        self.inspect(run).await?;
        if run.is_idle() {
            let _heartbeats = self.buffer.split_to(run.end);
            return Ok(());
        }
        let metrics = &self.context.metrics;
        let bytes = self.split(run.end);
        // Counted here until the journal has the bytes; a rest of the buffer stays counted.
        let memory = self.buffer.is_empty().then(|| self.memory.take());
        metrics.input_bytes.inc_by(bytes.len() as u64);
        self.read_strategy.run_taken(bytes.len());
        let permit = match self.phase.take_permit() {
            Some(mut permit) => {
                permit.resize(bytes.len());
                permit
            }
            None => self.context.admission.acquire(bytes.len()).await,
        };
        let stored = as_messages(run, bytes.clone(), self.context.limits.message);
        let durable = commit(self.context, self.source, stored, permit).await?;
        drop(memory);
        self.memory.restart_pace();
        let acks = Acks::new(
            durable,
            self.encoding.is_json(),
            run.frames.iter().filter_map(|frame| frame.chunk(&bytes)),
        );
        drop(bytes);
        self.resend = self.resend.after(acks.count());
        if acks.count() > 0 {
            self.age_limit.acknowledge();
            self.answer(acks.bytes()).await?;
            metrics.input_chunks_acked.inc_by(acks.count());
            metrics.input_ack_seconds.observe(complete.elapsed());
        }
        Ok(())
    }

    /// Sends replies in one write.
    async fn answer(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let limit = self.context.ack_timeout;
        // Flushed: TLS may have taken the replies into a buffer of its own.
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let written = tokio::select! {
            biased;
            written = timeout(limit, writing) => written,
            () = self.context.stop_timeout() => return Err(CloseReason::StoppingStalled),
        };
        written.map_or(Err(CloseReason::AcksNotRead(limit)), |written| Ok(written?))
    }

    /// Counts the messages of a run and checks the size of compressed payloads.
    async fn inspect(&mut self, run: &Run) -> Result<(), CloseReason> {
        let metrics = &self.context.metrics;
        for frame in &run.frames {
            let Some(message) = frame.message(&self.buffer) else {
                match frame.outcome {
                    outcome if outcome == Outcome::Record || is_list(outcome) => {
                        metrics.input_messages[Mode::Raw].inc();
                        self.warn_of_bare_record();
                    }
                    Outcome::Stray(kind) => {
                        metrics.input_decode_errors[DecodeError::NotAMessage].inc();
                        self.warn_of_stray(kind);
                    }
                    _ => {}
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
                // Checked before the ack: the client must not drop what cannot be gathered, and the
                // log names the limit.
                let (decompressor, limit) = (&mut self.decompressor, self.context.max_decompressed);
                let tag = message.tag;
                match check_inline(decompressor, compression, bytes, limit) {
                    Some(checked) => checked.map_err(|oversize| CloseReason::oversize(oversize, tag))?,
                    None => {
                        let start = bytes.as_ptr().addr() - self.buffer.as_ptr().addr();
                        let (range, tag) = (start..start + bytes.len(), tag.to_vec());
                        let checked = self.check_size(compression, range).await;
                        checked.map_err(|oversize| CloseReason::oversize(oversize, &tag))?;
                    }
                }
            }
            let json = self.encoding.is_json();
            metrics.input_messages[if json { Mode::Json } else { mode }].inc();
        }
        Ok(())
    }

    /// Checks the size of a large compressed payload, a range of the buffer, on another thread.
    async fn check_size(
        &mut self,
        compression: Compression,
        range: std::ops::Range<usize>,
    ) -> Result<(), Oversize> {
        // Shared with that thread without a copy, and alone here again afterwards.
        let buffer = std::mem::take(&mut self.buffer).freeze();
        let pool = &self.context.decompression;
        let limit = self.context.max_decompressed;
        let (payload, checked) = pool.check_size(compression, buffer.slice(range), limit).await;
        drop(payload);
        self.buffer = BytesMut::from(buffer);
        checked
    }

    #[cold]
    fn warn_of_bare_record(&self) {
        if warnings::admit(self.context, "bare_record", self.peer) {
            tracing::warn!(
                peer = peer_name(self.peer),
                tag = RAW_TAG,
                "the client sends records without tag and time (JSON objects line by line, or maps) where Forward messages belong: they are kept under this tag"
            );
        }
    }

    #[cold]
    fn warn_of_stray(&self, kind: Kind) {
        if warnings::admit(self.context, DecodeError::NotAMessage.as_str(), self.peer) {
            tracing::warn!(
                peer = peer_name(self.peer),
                ?kind,
                "the client sends a value that is no Forward message, it is dropped: does it speak another protocol?"
            );
        }
    }

    /// Splits a run of complete messages off the buffer.
    fn split(&mut self, end: usize) -> Bytes {
        if end < MAX_COPIED_RUN_BYTES && self.buffer.capacity() > 4 * end {
            let bytes = Bytes::copy_from_slice(self.buffer.get(..end).unwrap_or_default());
            self.buffer.advance(end);
            bytes
        } else if end == self.buffer.len() && end >= buffer_pool::MIN_BUFFER_BYTES {
            // No handle is left here, so that the buffer can be pooled once it is gathered.
            std::mem::take(&mut self.buffer).freeze()
        } else {
            let rest = self.buffer.len() - end;
            if end >= buffer_pool::MIN_BUFFER_BYTES && rest <= end / 16 {
                // A short rest does not keep the memory of a large run.
                let rest = BytesMut::from(self.buffer.get(end..).unwrap_or_default());
                let mut run = std::mem::replace(&mut self.buffer, rest);
                run.truncate(end);
                return run.freeze();
            }
            self.buffer.split_to(end).freeze()
        }
    }

    /// Reads once; 0 when the client has closed the connection.
    async fn read(&mut self) -> Result<usize, CloseReason> {
        let context = self.context;
        let buffer = self.encoding.receive_buffer(&mut self.buffer);
        let spare = buffer.capacity() - buffer.len();
        let read = match &mut self.phase {
            Phase::Idle => read_idle(self.stream, buffer, context, &self.age_limit).await?,
            Phase::Receiving { admission, progress } => {
                let in_time = match admission {
                    Admission::Permitted { until, .. } => {
                        let reading = read_inside(self.stream, buffer, progress, &mut self.memory, context);
                        timeout_at(*until, reading).await.ok()
                    }
                    Admission::NotRequested | Admission::Expired => None,
                };
                match in_time {
                    Some(read) => read?,
                    None => {
                        if let Admission::Permitted { .. } = admission {
                            *admission = Admission::Expired;
                        }
                        read_inside(self.stream, buffer, progress, &mut self.memory, context).await?
                    }
                }
            }
        };
        self.read_strategy.record_read(read, spare, context.tasks.len());
        Ok(read)
    }
}

/// Reads the beginning of a message, which ends the wait for the idle timeout, the maximum age or
/// the shutdown.
async fn read_idle<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    context: &Context,
    age_limit: &AgeLimit,
) -> Result<usize, CloseReason> {
    let idle = context.idle_timeout.map(|limit| Instant::now() + limit);
    let deadline = idle.into_iter().chain(age_limit.deadline()).min();
    let read = stream.read_buf(buffer);
    let read = async {
        match deadline {
            None => Ok(read.await),
            Some(at) => timeout_at(at, read).await,
        }
    };
    tokio::select! {
        // First: what has come is read although the server stops.
        biased;
        read = read => match read {
            Ok(read) => Ok(read?),
            Err(_) if age_limit.is_reached() => Err(CloseReason::Aged),
            Err(_) => Err(CloseReason::Idle(context.idle_timeout.unwrap_or_default())),
        },
        () = context.stop.cancelled() => Err(CloseReason::Stopping),
    }
}

/// Reads more of a message, by the deadline of its progress, which comes sooner while the server
/// stops.
async fn read_inside<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    progress: &mut Progress,
    memory: &mut Reservation<'_>,
    context: &Context,
) -> Result<usize, CloseReason> {
    loop {
        let limit = memory.deadline(context.progress_timeout);
        let deadline = limit.into_iter().fold(progress.deadline, Instant::min);
        tokio::select! {
            // First: only a read that has to wait asks whether the server stops.
            biased;
            read = timeout_at(deadline, stream.read_buf(buffer)) => return match read {
                Ok(read) => {
                    let read = read?;
                    progress.record_read(read, context.progress_timeout);
                    memory.record_read(read);
                    Ok(read)
                }
                Err(_) if deadline < progress.deadline => match memory.is_too_slow() {
                    true => Err(CloseReason::StalledWithMemory),
                    false => continue,
                },
                Err(_) if progress.is_stopping() => Err(CloseReason::StoppingStalled),
                Err(_) => Err(CloseReason::Stalled(context.progress_timeout)),
            },
            () = context.stop.cancelled(), if !progress.is_stopping() => progress.begin_stop(),
        }
    }
}

/// The age limit of this connection: up to the configured share below the limit.
fn with_jitter(age: Duration, context: &Context) -> Duration {
    let share = context.max_connection_age_jitter.min(100) as f64 / 100.0;
    let random = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    age.mul_f64(1.0 - share * random)
}
