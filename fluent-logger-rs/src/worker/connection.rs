//! I/O on the current connection: one exchange of writes and acks, and its end.
//!
//! Owns the socket calls; [`crate::delivery`] decides when to make them.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use forward_protocol::ack::Reply;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{IoEvent, Worker, poll_wait};
use crate::connection::Probe;
use crate::delivery::Acked;
use crate::error::ConnectionError;
use crate::event::Outcome;

/// Most messages in one vectored write.
const MAX_WRITE_SLICES: usize = 32;

/// Bytes read at a time; acks are small.
const READ_BYTES: usize = 8 * 1024;

/// How long a graceful shutdown of a connection may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

impl Worker {
    /// One exchange: a write, a read, a wake-up or a timeout, whichever is first.
    pub(super) async fn exchange(&mut self, write: bool, until: Option<Instant>) {
        let now = Instant::now();
        let Some(active) = self.connection.as_mut() else {
            // Unreachable: the state machine says that a connection is open.
            self.delivery.closed();
            return;
        };
        if write && self.delivery.at_chunk_start() {
            match active.connection.stream.probe() {
                Probe::Quiet => {}
                // Let the runtime notice the readiness; the read below comes before the write.
                Probe::Readable => tokio::task::yield_now().await,
                Probe::Dead => return self.closed_by_server(),
            }
        }
        let mut inbox = [0; READ_BYTES];
        let happened = {
            let mut slices = [IoSlice::new(&[]); MAX_WRITE_SLICES];
            let used = if write {
                self.delivery.to_write(now, &mut slices)
            } else {
                0
            };
            let slices = slices.get(..used).unwrap_or_default();
            let flush = self.delivery.unflushed();
            let stream = &mut active.connection.stream;
            let mut woken = pin!(self.shared.wake.notified());
            let mut timer = pin!(until.map(|until| tokio::time::sleep_until(until.into())));
            std::future::poll_fn(|context| {
                // First, so that flushed bytes count as written even if the peer closes right
                // after.
                if flush {
                    if let Poll::Ready(result) = Pin::new(&mut *stream).poll_flush(context) {
                        return Poll::Ready(IoEvent::Flushed(result));
                    }
                }
                let mut buffer = ReadBuf::new(&mut inbox);
                if let Poll::Ready(result) = Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                    return Poll::Ready(IoEvent::Read(result.map(|()| buffer.filled().len())));
                }
                if !slices.is_empty() {
                    if let Poll::Ready(result) = Pin::new(&mut *stream).poll_write_vectored(context, slices) {
                        return Poll::Ready(IoEvent::Wrote(result));
                    }
                }
                poll_wait(context, woken.as_mut(), timer.as_mut())
            })
            .await
        };
        let now = Instant::now();
        match happened {
            IoEvent::Woken | IoEvent::Time => {}
            IoEvent::Wrote(Ok(0)) => self.closed_by_server(),
            IoEvent::Wrote(Ok(count)) => self.delivery.wrote(now, count),
            IoEvent::Flushed(Ok(())) => {
                for chunk in self.delivery.flushed(now) {
                    self.delivered(chunk, Outcome::Written);
                }
            }
            IoEvent::Read(Ok(0)) => self.closed_by_server(),
            IoEvent::Read(Ok(count)) => {
                active.acks.feed(inbox.get(..count).unwrap_or_default());
                self.read_acks();
            }
            IoEvent::Read(Err(error)) | IoEvent::Wrote(Err(error)) | IoEvent::Flushed(Err(error)) => {
                self.connection_lost(&ConnectionError::Io(error));
            }
        }
    }

    pub(super) fn read_acks(&mut self) {
        while let Some(active) = self.connection.as_mut() {
            let reply = match active.acks.reply() {
                Ok(Some(reply)) => reply,
                Ok(None) => return,
                Err(error) => return self.connection_lost(&ConnectionError::Protocol(error.to_string())),
            };
            match reply {
                Reply::Ack(id) => match self.delivery.acked(&id) {
                    Acked::Delivered(chunk) => self.delivered(*chunk, Outcome::Acknowledged),
                    Acked::Mismatch => self.connection_lost(&ConnectionError::AckMismatch),
                    Acked::NothingInFlight => {}
                },
                Reply::Nack if self.delivery.in_flight() > 0 => {
                    self.connection_lost(&ConnectionError::AckMismatch);
                }
                Reply::Helo => self.connection_lost(&ConnectionError::SharedKeyRequired),
                // Other replies carry nothing; reading them drains the socket.
                _ => {}
            }
        }
    }

    /// The server closed the connection.
    fn closed_by_server(&mut self) {
        let unacknowledged = self.delivery.unacknowledged();
        self.connection_lost(&ConnectionError::ClosedByServer { unacknowledged });
    }

    /// Ends a failed connection; unacknowledged chunks are sent again over the next one.
    pub(super) fn connection_lost(&mut self, error: &ConnectionError) {
        let now = Instant::now();
        self.connection = None;
        let counters = &self.shared.counters;
        counters.connected.store(false, Relaxed);
        let quiet = matches!(error, ConnectionError::ClosedByServer { .. })
            && self.delivery.in_flight() == 0
            && self.delivery.was_healthy(now);
        if !quiet {
            counters.connection_losses.fetch_add(1, Relaxed);
            self.report_error(error);
        }
        let given_up = self.delivery.lost(now);
        self.count_resent();
        self.give_up(given_up);
    }

    fn count_resent(&mut self) {
        let resent = self.delivery.resent();
        self.shared
            .counters
            .resent_chunks
            .fetch_add(resent - self.resent, Relaxed);
        self.resent = resent;
    }

    /// Closes the connection gracefully, so that no reset destroys bytes on their way.
    pub(super) async fn close_connection(&mut self) {
        self.delivery.closed();
        self.shared.counters.connected.store(false, Relaxed);
        let Some(mut active) = self.connection.take() else {
            return;
        };
        let stream = &mut active.connection.stream;
        let shutdown = async {
            stream.shutdown().await?;
            if self.shared.options.policy.request_ack {
                // Everything is acknowledged: the server has read it all.
                return Ok(());
            }
            let mut inbox = [0; READ_BYTES];
            loop {
                let mut buffer = ReadBuf::new(&mut inbox);
                std::future::poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer))
                    .await?;
                if buffer.filled().is_empty() {
                    return Ok::<(), io::Error>(());
                }
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, shutdown).await;
    }
}
