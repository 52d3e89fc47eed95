//! The worker's present connection: one turn of reading and writing, what answers mean, and its end.
//!
//! Owns the socket calls; when to make them [`crate::delivery`] says.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use forward_protocol::ack::Reply;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{Happened, Worker, poll_pause};
use crate::connect::Probe;
use crate::delivery::Acked;
use crate::error::ConnectionError;
use crate::event::Outcome;

/// Messages put into one write at most.
const SLICES: usize = 32;

/// Bytes read at a time; acks are small.
const READ: usize = 8 * 1024;

/// How long an orderly farewell may take: the server has acknowledged everything, or got it all in order.
const FAREWELL: Duration = Duration::from_secs(1);

impl Worker {
    /// One turn of reading and writing.
    pub(super) async fn exchange(&mut self, write: bool, until: Option<Instant>) {
        let now = Instant::now();
        let Some(line) = self.line.as_mut() else {
            // Cannot be: the state says that a connection stands.
            self.delivery.closed();
            return;
        };
        if write && self.delivery.at_chunk_start() {
            match line.connection.stream.probe() {
                Probe::Quiet => {}
                // Let the runtime see what the operating system sees; the read below comes first.
                Probe::Readable => tokio::task::yield_now().await,
                Probe::Dead => return self.ended(),
            }
        }
        let mut inbox = [0; READ];
        let happened = {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = if write {
                self.delivery.to_write(now, &mut slices)
            } else {
                0
            };
            let slices = slices.get(..used).unwrap_or_default();
            let flush = self.delivery.unflushed();
            let stream = &mut line.connection.stream;
            let mut woken = pin!(self.shared.wake.notified());
            let mut timer = pin!(until.map(|until| tokio::time::sleep_until(until.into())));
            std::future::poll_fn(|context| {
                // First, so that what has left counts as written even if the peer closes right behind it.
                if flush {
                    if let Poll::Ready(result) = Pin::new(&mut *stream).poll_flush(context) {
                        return Poll::Ready(Happened::Flushed(result));
                    }
                }
                let mut buffer = ReadBuf::new(&mut inbox);
                if let Poll::Ready(result) = Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                    return Poll::Ready(Happened::Read(result.map(|()| buffer.filled().len())));
                }
                if !slices.is_empty() {
                    if let Poll::Ready(result) = Pin::new(&mut *stream).poll_write_vectored(context, slices) {
                        return Poll::Ready(Happened::Wrote(result));
                    }
                }
                poll_pause(context, woken.as_mut(), timer.as_mut())
            })
            .await
        };
        let now = Instant::now();
        match happened {
            Happened::Woken | Happened::Time => {}
            Happened::Wrote(Ok(0)) => self.ended(),
            Happened::Wrote(Ok(count)) => self.delivery.wrote(now, count),
            Happened::Flushed(Ok(())) => {
                for chunk in self.delivery.flushed(now) {
                    self.delivered(chunk, Outcome::Written);
                }
            }
            Happened::Read(Ok(0)) => self.ended(),
            Happened::Read(Ok(count)) => {
                line.answers.feed(inbox.get(..count).unwrap_or_default());
                self.read_answers();
            }
            Happened::Read(Err(error)) | Happened::Wrote(Err(error)) | Happened::Flushed(Err(error)) => {
                self.lose(&ConnectionError::Io(error));
            }
        }
    }

    pub(super) fn read_answers(&mut self) {
        while let Some(line) = self.line.as_mut() {
            let reply = match line.answers.reply() {
                Ok(Some(reply)) => reply,
                Ok(None) => return,
                Err(error) => return self.lose(&ConnectionError::Protocol(error.to_string())),
            };
            match reply {
                Reply::Ack(id) => match self.delivery.acked(&id) {
                    Acked::Delivered(chunk) => self.delivered(*chunk, Outcome::Acknowledged),
                    Acked::Mismatch => self.lose(&ConnectionError::AckMismatch),
                    Acked::Unasked => {}
                },
                Reply::Nack if self.delivery.in_flight() > 0 => self.lose(&ConnectionError::AckMismatch),
                Reply::Helo => self.lose(&ConnectionError::SharedKeyRequired),
                // Of no concern: the read side is drained, and that is all.
                _ => {}
            }
        }
    }

    /// The server closed the connection.
    fn ended(&mut self) {
        let unacknowledged = self.delivery.unacknowledged();
        self.lose(&ConnectionError::ClosedByServer { unacknowledged });
    }

    /// The connection is of no use any more; what was not acknowledged goes over the next one.
    pub(super) fn lose(&mut self, error: &ConnectionError) {
        let now = Instant::now();
        self.line = None;
        let counters = &self.shared.counters;
        counters.connected.store(false, Relaxed);
        let quiet = matches!(error, ConnectionError::ClosedByServer { .. })
            && self.delivery.in_flight() == 0
            && self.delivery.was_healthy(now);
        if !quiet {
            counters.connection_losses.fetch_add(1, Relaxed);
            self.say(error);
        }
        let given_up = self.delivery.lost(now);
        self.note_resent();
        self.give_up(given_up);
    }

    fn note_resent(&mut self) {
        let resent = self.delivery.resent();
        self.shared
            .counters
            .resent_chunks
            .fetch_add(resent - self.resent, Relaxed);
        self.resent = resent;
    }

    /// Ends the connection so that nothing on its way is destroyed by a reset.
    pub(super) async fn close_line(&mut self) {
        self.delivery.closed();
        self.shared.counters.connected.store(false, Relaxed);
        let Some(mut line) = self.line.take() else { return };
        let stream = &mut line.connection.stream;
        let farewell = async {
            stream.shutdown().await?;
            if self.shared.options.policy.request_ack {
                // Everything is acknowledged: the server has read it all.
                return Ok(());
            }
            let mut inbox = [0; READ];
            loop {
                let mut buffer = ReadBuf::new(&mut inbox);
                std::future::poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer))
                    .await?;
                if buffer.filled().is_empty() {
                    return Ok::<(), io::Error>(());
                }
            }
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
