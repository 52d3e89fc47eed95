//! The worker: the one task that empties the queue into connections.
//!
//! Owns the sockets and the clock; what to do next it asks [`crate::delivery`]. It ends when the logger was
//! closed and everything is delivered or the deadline is over; if its runtime ends first, what it holds goes
//! back to `Shared`, where `close` finds it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use forward_protocol::ack::{AckReader, Reply};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::builder::Callbacks;
use crate::chunk::{self, Chunk};
use crate::connect::{Connection, Connector, Probe};
use crate::delivery::{Acked, Delivery, Failure, Step};
use crate::error::{ConnectionError, FlushError, SendError};
use crate::event::{Event, Outcome, Report};
use crate::queue::Due;
use crate::random::Random;
use crate::shared::Shared;

/// Messages put into one write at most.
const SLICES: usize = 32;

/// Bytes read at a time; acks are small.
const READ: usize = 8 * 1024;

/// How long an orderly farewell may take: the server has acknowledged everything, or got it all in order.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    shared: Arc<Shared>,
    callbacks: Callbacks,
    connector: Connector,
    delivery: Delivery,
    line: Option<Line>,
    resent: u64,
}

/// The present connection.
struct Line {
    connection: Connection,
    answers: AckReader,
}

/// What ended a wait.
enum Happened {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Flushed(io::Result<()>),
    Woken,
    Time,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        callbacks: Callbacks,
        connector: Connector,
        random: Random,
    ) -> Self {
        let delivery = Delivery::new(shared.options.policy.clone(), random);
        Self {
            shared,
            callbacks,
            connector,
            delivery,
            line: None,
            resent: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut hurried = false;
        loop {
            let now = Instant::now();
            let round = self.collect(now);
            if let Some(deadline) = round.deadline {
                if (round.due == Due::Never && self.delivery.is_empty()) || deadline <= now {
                    break;
                }
                if !hurried {
                    hurried = true;
                    self.delivery.hurry();
                }
            }
            let until_due = match round.due {
                Due::At(moment) => Some(moment),
                _ => None,
            };
            let until = [until_due, round.deadline].into_iter().flatten().min();
            match self.delivery.step(now, round.due == Due::Now) {
                Step::Sleep(moment) => {
                    // Without a connection what becomes due wakes only if nothing else is waited for.
                    let until = if moment.is_some() {
                        earliest(moment, round.deadline)
                    } else {
                        until
                    };
                    wait(&self.shared, until).await;
                }
                Step::Connect { endpoint, turn } => self.connect(endpoint, turn).await,
                Step::Exchange { write, until: moment } => {
                    self.exchange(write, earliest(moment, until)).await;
                }
                Step::Close => self.close_line().await,
                Step::Drop(failure) => {
                    let options = &self.shared.options.policy;
                    let error = match failure {
                        Failure::AckTimeout => ConnectionError::AckTimeout(options.ack_timeout),
                        Failure::WriteTimeout => ConnectionError::WriteTimeout(options.write_timeout),
                    };
                    self.lose(&error);
                }
            }
        }
        if self.delivery.is_empty() {
            self.close_line().await;
        }
        // Drop gives back what is left.
    }

    /// Takes from the queue what may be sealed now and answers those whose flush is complete.
    fn collect(&mut self, now: Instant) -> Round {
        let shared = Arc::clone(&self.shared);
        let mut inner = shared.lock();
        let deadline = inner.close.as_ref().map(|close| close.deadline);
        if deadline.is_some() {
            inner.queue.flush();
        }
        let dropped = std::mem::take(&mut inner.dropped);
        let mut batches = Vec::new();
        let mut sealed = 0;
        // One at a time in the usual case: what is taken can no longer be dropped and gathers no more.
        while sealed == 0 && self.delivery.wants_more(now) {
            let Some(batch) = inner.queue.take(now) else { break };
            sealed += batch.events();
            batches.push(batch);
        }
        let due = if batches.is_empty() && self.delivery.is_open() && !self.delivery.wants_more(now) {
            // The window is full: an ack will wake us, not the queue.
            if inner.queue.due(now) == Due::Never {
                Due::Never
            } else {
                Due::Now
            }
        } else {
            inner.queue.due(now)
        };
        let oldest = [
            inner.queue.oldest(),
            self.delivery.oldest(),
            batches.iter().map(|batch| batch.first).min(),
        ];
        let oldest = oldest.into_iter().flatten().min().unwrap_or(u64::MAX);
        let (done, waiting) = std::mem::take(&mut inner.flushes)
            .into_iter()
            .partition(|flush| flush.mark <= oldest);
        inner.flushes = waiting;
        drop(inner);

        let done: Vec<crate::shared::Flush> = done;
        for flush in done {
            let events = shared.lost() - flush.lost_before;
            let result = if events == 0 {
                Ok(())
            } else {
                Err(FlushError::Lost { events })
            };
            let _ = flush.done.send(result);
        }
        for (tag, events) in dropped {
            let events = usize::try_from(events).unwrap_or(usize::MAX);
            self.report(Report::new(tag, events, Outcome::Dropped));
        }
        let policy = &shared.options.policy;
        for batch in batches {
            let chunks = chunk::seal(
                batch,
                shared.options.mode,
                policy.request_ack,
                self.delivery.random(),
            );
            for chunk in chunks {
                self.delivery.push(chunk);
            }
        }
        let in_flight = self.delivery.in_flight() as u64;
        shared.counters.in_flight_chunks.store(in_flight, Relaxed);
        Round { due, deadline }
    }

    async fn connect(&mut self, endpoint: usize, turn: usize) {
        let mut connecting = pin!(self.connector.clone().connect(endpoint, turn));
        let result = loop {
            let deadline = self.shared.lock().close.as_ref().map(|close| close.deadline);
            match or_woken(&self.shared, connecting.as_mut(), deadline).await {
                Ended::Done(result) => break result,
                Ended::Woken => {}
                Ended::Time => {
                    // Closing, and no time left: `run` sees the deadline.
                    self.delivery.closed();
                    return;
                }
            }
        };
        let now = Instant::now();
        match result {
            Ok(mut connection) => {
                let counters = &self.shared.counters;
                counters.connections.fetch_add(1, Relaxed);
                counters.connected.store(true, Relaxed);
                self.shared.lock().address = Some(connection.address.clone());
                self.delivery.connected(now, connection.keep);
                let mut answers = AckReader::new();
                answers.feed(&std::mem::take(&mut connection.rest));
                self.line = Some(Line { connection, answers });
                self.read_answers();
            }
            Err(error) => {
                self.shared.counters.connect_failures.fetch_add(1, Relaxed);
                self.say(&error);
                let given_up = self.delivery.connect_failed(now);
                self.give_up(given_up);
            }
        }
    }

    /// One turn of reading and writing.
    async fn exchange(&mut self, write: bool, until: Option<Instant>) {
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

    fn read_answers(&mut self) {
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
    fn lose(&mut self, error: &ConnectionError) {
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
    async fn close_line(&mut self) {
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

    fn delivered(&self, chunk: Chunk, outcome: Outcome) {
        let counters = &self.shared.counters;
        counters.delivered_chunks.fetch_add(1, Relaxed);
        counters.delivered_events.fetch_add(chunk.events as u64, Relaxed);
        self.settle(chunk.events, chunk.cost);
        for waiter in chunk.waiters {
            waiter.tell(Ok(()));
        }
        self.report(Report::new(chunk.tag, chunk.events, outcome));
    }

    fn give_up(&self, chunks: Vec<Chunk>) {
        for chunk in chunks {
            let attempts = chunk.attempts;
            self.shared
                .counters
                .given_up
                .fetch_add(chunk.events as u64, Relaxed);
            self.settle(chunk.events, chunk.cost);
            let lost = Event::of_chunk(&chunk).collect();
            for waiter in chunk.waiters {
                waiter.tell(Err(SendError::GaveUp { attempts }));
            }
            self.report(Report::new(
                chunk.tag,
                chunk.events,
                Outcome::GaveUp { attempts, lost },
            ));
        }
    }

    fn settle(&self, events: usize, cost: usize) {
        self.shared.lock().queue.settle(events, cost);
        self.shared.announce_room();
    }

    fn report(&self, report: Report) {
        let Some(callback) = &self.callbacks.delivery else {
            return;
        };
        self.guarded(|| callback(report));
    }

    fn say(&self, error: &ConnectionError) {
        self.shared.lock().last_error = Some(error.to_string());
        if let Some(callback) = &self.callbacks.connection_error {
            self.guarded(|| callback(error));
        }
    }

    /// A callback that panics must not end the delivery.
    fn guarded(&self, call: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            self.shared.counters.callback_panics.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut rest: Vec<Event> = Vec::new();
        let mut waiters = Vec::new();
        for chunk in self.delivery.take_all() {
            rest.extend(Event::of_chunk(&chunk));
            waiters.extend(chunk.waiters);
        }
        let mut inner = self.shared.lock();
        inner.closed = true;
        inner.gone = true;
        while let Some(batch) = inner.queue.take_rest() {
            rest.extend(Event::of_batch(&batch));
            waiters.extend(batch.waiters.into_iter().map(|(_, waiter)| waiter));
        }
        let flushes = std::mem::take(&mut inner.flushes);
        let mut closers = inner.close.take().map(|close| close.done).unwrap_or_default();
        // The first to ask gets the events; the others learn that all is over.
        if let Some(first) = (!closers.is_empty()).then(|| closers.remove(0)) {
            if let Err(unclaimed) = first.send(rest) {
                inner.leftover = unclaimed;
            }
        } else {
            inner.leftover = rest;
        }
        drop(inner);
        for closer in closers {
            let _ = closer.send(Vec::new());
        }
        for flush in flushes {
            let _ = flush.done.send(Err(FlushError::Closed));
        }
        for waiter in waiters {
            waiter.tell(Err(SendError::Closed));
        }
        self.shared.counters.connected.store(false, Relaxed);
        self.shared.announce_room();
    }
}

/// What a look at the queue showed.
struct Round {
    due: Due,
    /// The logger closes: everything must be done by then.
    deadline: Option<Instant>,
}

enum Ended<T> {
    Done(T),
    Woken,
    Time,
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

/// Waits for the bell or the moment.
async fn wait(shared: &Shared, until: Option<Instant>) {
    let mut woken = pin!(shared.wake.notified());
    let mut timer = pin!(until.map(|until| tokio::time::sleep_until(until.into())));
    std::future::poll_fn(|context| poll_pause(context, woken.as_mut(), timer.as_mut())).await;
}

fn poll_pause(
    context: &mut Context<'_>,
    woken: Pin<&mut impl Future<Output = ()>>,
    timer: Pin<&mut Option<tokio::time::Sleep>>,
) -> Poll<Happened> {
    if woken.poll(context).is_ready() {
        return Poll::Ready(Happened::Woken);
    }
    match timer.as_pin_mut().map(|timer| timer.poll(context)) {
        Some(Poll::Ready(())) => Poll::Ready(Happened::Time),
        _ => Poll::Pending,
    }
}

/// Goes on with `work` until it is done, the bell rings or the moment comes.
async fn or_woken<T>(
    shared: &Shared,
    mut work: Pin<&mut impl Future<Output = T>>,
    until: Option<Instant>,
) -> Ended<T> {
    let mut woken = pin!(shared.wake.notified());
    let mut timer = pin!(until.map(|until| tokio::time::sleep_until(until.into())));
    std::future::poll_fn(|context| {
        if let Poll::Ready(result) = work.as_mut().poll(context) {
            return Poll::Ready(Ended::Done(result));
        }
        match poll_pause(context, woken.as_mut(), timer.as_mut()) {
            Poll::Ready(Happened::Woken) => Poll::Ready(Ended::Woken),
            Poll::Ready(_) => Poll::Ready(Ended::Time),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
