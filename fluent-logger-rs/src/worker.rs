//! Worker task: moves events from the queue to the connection.
//!
//! Owns the loop and the clock; [`crate::delivery`] decides each step. It ends when the logger is
//! closed and everything is delivered or the deadline is over. If its runtime ends first,
//! undelivered events return to `Shared`, where `close` finds them.

mod connection;
mod spooling;

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Instant;

use forward_protocol::ack::AckReader;

use crate::callbacks::Callbacks;
use crate::chunk::{self, Chunk};
use crate::connect::Connector;
use crate::connection::Connection;
use crate::delivery::{Delivery, Failure, Step};
use crate::error::{ConnectionError, FlushError, SendError};
use crate::event::{Event, Outcome, Report};
use crate::queue::{Batch, Due};
use crate::random::Random;
use crate::shared::{PendingFlush, Shared};
use crate::spool::Spool;

pub(crate) struct Worker {
    shared: Arc<Shared>,
    callbacks: Callbacks,
    connector: Connector,
    delivery: Delivery,
    connection: Option<ActiveConnection>,
    spool: Option<Spool>,
    resent: u64,
}

/// The current connection.
struct ActiveConnection {
    connection: Connection,
    acks: AckReader,
}

/// Event that ended an exchange or a wait.
enum IoEvent {
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
            connection: None,
            spool: None,
            resent: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut backoff_skipped = false;
        loop {
            let now = Instant::now();
            let view = self.collect(now);
            if let Some(deadline) = view.deadline {
                let spooled = self.spool.as_ref().is_none_or(Spool::is_idle);
                if (view.due == Due::Never && self.delivery.is_empty() && spooled) || deadline <= now {
                    break;
                }
                if !backoff_skipped {
                    backoff_skipped = true;
                    self.delivery.skip_backoff();
                }
            }
            let until = view.until();
            match self.delivery.step(now, view.due == Due::Now) {
                Step::Sleep(moment) => {
                    // During a backoff a batch that becomes due changes nothing, unless it can be
                    // spooled.
                    let until = if self.spool.is_some() {
                        earliest(moment, until)
                    } else if moment.is_some() {
                        earliest(moment, view.deadline)
                    } else {
                        until
                    };
                    wait(&self.shared, until).await;
                }
                Step::Connect { endpoint, attempt } => self.connect(endpoint, attempt).await,
                Step::Exchange { write, until: moment } => {
                    self.exchange(write, earliest(moment, until)).await;
                }
                Step::Close => self.close_connection().await,
                Step::Drop(failure) => {
                    let options = &self.shared.options.policy;
                    let error = match failure {
                        Failure::AckTimeout => ConnectionError::AckTimeout(options.ack_timeout),
                        Failure::WriteTimeout => ConnectionError::WriteTimeout(options.write_timeout),
                    };
                    self.connection_lost(&error);
                }
            }
        }
        self.spool_rest().await;
        if self.delivery.is_empty() {
            self.close_connection().await;
        }
        // Drop returns the rest to `Shared`.
    }

    /// Makes chunks of a batch; with a spool they are spooled before they may be sent.
    fn seal(&mut self, batch: Batch) {
        let options = &self.shared.options;
        let random = self.delivery.random();
        for chunk in chunk::seal(batch, options.mode, options.policy.request_ack, random) {
            match &mut self.spool {
                Some(spool) => spool.write(chunk),
                None => self.delivery.push(chunk),
            }
        }
    }

    /// Whether another batch should be sealed.
    fn wants_more(&self, now: Instant) -> bool {
        match &self.spool {
            Some(spool) => spool.wants_more(),
            None => self.delivery.wants_more(now),
        }
    }

    /// Takes from the queue what may be sealed now and completes the flushes that are done.
    fn collect(&mut self, now: Instant) -> QueueView {
        self.collect_spooled();
        let shared = Arc::clone(&self.shared);
        let mut inner = shared.lock();
        let deadline = inner.close.as_ref().map(|close| close.deadline);
        if deadline.is_some() {
            inner.queue.flush();
        }
        let dropped = std::mem::take(&mut inner.dropped);
        let mut batches = Vec::new();
        let mut sealed = 0;
        // Usually one at a time: a batch that is taken can no longer grow or be dropped.
        while sealed == 0 && self.wants_more(now) {
            let Some(batch) = inner.queue.take(now) else { break };
            sealed += batch.events();
            batches.push(batch);
        }
        let waits = self.delivery.is_open() || self.spool.is_some();
        let due = if batches.is_empty() && waits && !self.wants_more(now) {
            // The window is full: an ack or the spool wakes the worker, not the queue.
            if inner.queue.due(now) == Due::Never {
                Due::Never
            } else {
                Due::Now
            }
        } else {
            inner.queue.due(now)
        };
        let not_spooled = [
            inner.queue.oldest(),
            self.spool.as_ref().and_then(Spool::oldest),
            batches.iter().map(|batch| batch.first).min(),
        ];
        let not_spooled = not_spooled.into_iter().flatten().min().unwrap_or(u64::MAX);
        let not_settled = self.delivery.oldest().unwrap_or(u64::MAX).min(not_spooled);
        let (done, waiting): (Vec<PendingFlush>, _) =
            std::mem::take(&mut inner.flushes).into_iter().partition(|flush| {
                flush.mark
                    <= if flush.spool_only {
                        not_spooled
                    } else {
                        not_settled
                    }
            });
        inner.flushes = waiting;
        drop(inner);

        for flush in done {
            let lost = shared.lost() - flush.lost_before;
            let result = match self.delivery.not_spooled() {
                events @ 1.. if flush.spool_only => Err(FlushError::NotSpooled { events }),
                _ if lost > 0 => Err(FlushError::Lost { events: lost }),
                _ => Ok(()),
            };
            let _ = flush.done.send(result);
        }
        for (tag, events) in dropped {
            let events = usize::try_from(events).unwrap_or(usize::MAX);
            self.report(Report::new(tag, events, Outcome::Dropped));
        }
        for batch in batches {
            self.seal(batch);
        }
        let in_flight = self.delivery.in_flight() as u64;
        shared.counters.in_flight_chunks.store(in_flight, Relaxed);
        QueueView { due, deadline }
    }

    async fn connect(&mut self, endpoint: usize, attempt: usize) {
        let mut connecting = pin!(self.connector.clone().connect(endpoint, attempt));
        let result = loop {
            let (deadline, until) = if self.spool.is_some() {
                // Batches that become due meanwhile are spooled.
                let view = self.collect(Instant::now());
                (view.deadline, view.until())
            } else {
                let deadline = self.shared.lock().close.as_ref().map(|close| close.deadline);
                (deadline, deadline)
            };
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // The deadline of `close` is over; `run` ends.
                self.delivery.closed();
                return;
            }
            if let Some(result) = or_woken(&self.shared, connecting.as_mut(), until).await {
                break result;
            }
        };
        let now = Instant::now();
        match result {
            Ok(mut connection) => {
                let counters = &self.shared.counters;
                counters.connections.fetch_add(1, Relaxed);
                counters.connected.store(true, Relaxed);
                self.shared.lock().address = Some(connection.address.clone());
                self.delivery.connected(now, connection.keepalive);
                let mut acks = AckReader::new();
                acks.feed(&std::mem::take(&mut connection.unread));
                self.connection = Some(ActiveConnection { connection, acks });
                self.read_acks();
            }
            Err(error) => {
                self.shared.counters.connect_failures.fetch_add(1, Relaxed);
                self.report_error(&error);
                let given_up = self.delivery.connect_failed(now);
                self.give_up(given_up);
            }
        }
    }

    fn delivered(&self, chunk: Chunk, outcome: Outcome) {
        let counters = &self.shared.counters;
        counters.delivered_chunks.fetch_add(1, Relaxed);
        counters.delivered_events.fetch_add(chunk.events as u64, Relaxed);
        if let (Some(spool), Some(file)) = (&self.spool, chunk.file) {
            spool.remove(file);
        }
        self.settle(chunk.events, chunk.cost);
        for waiter in chunk.waiters {
            waiter.complete(Ok(()));
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
                waiter.complete(Err(SendError::GaveUp { attempts }));
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
        self.shared.notify_room();
    }

    fn report(&self, report: Report) {
        let Some(callback) = &self.callbacks.delivery else {
            return;
        };
        self.run_callback(|| callback(report));
    }

    fn report_error(&self, error: &ConnectionError) {
        self.shared.lock().last_error = Some(error.to_string());
        if let Some(callback) = &self.callbacks.connection_error {
            self.run_callback(|| callback(error));
        }
    }

    /// Runs a callback; its panic must not end the delivery.
    fn run_callback(&self, call: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            self.shared.counters.callback_panics.fetch_add(1, Relaxed);
        }
    }
}

/// What is due in the queue, and the deadline of `close`.
struct QueueView {
    due: Due,
    /// Deadline of `close`.
    deadline: Option<Instant>,
}

impl QueueView {
    /// When there is something to do without a wake-up.
    fn until(&self) -> Option<Instant> {
        let due = match self.due {
            Due::At(moment) => Some(moment),
            _ => None,
        };
        earliest(due, self.deadline)
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

/// Waits for a wake-up or the moment.
async fn wait(shared: &Shared, until: Option<Instant>) {
    let mut woken = pin!(shared.wake.notified());
    let mut timer = pin!(until.map(|until| tokio::time::sleep_until(until.into())));
    std::future::poll_fn(|context| poll_wait(context, woken.as_mut(), timer.as_mut())).await;
}

fn poll_wait(
    context: &mut Context<'_>,
    woken: Pin<&mut impl Future<Output = ()>>,
    timer: Pin<&mut Option<tokio::time::Sleep>>,
) -> Poll<IoEvent> {
    if woken.poll(context).is_ready() {
        return Poll::Ready(IoEvent::Woken);
    }
    match timer.as_pin_mut().map(|timer| timer.poll(context)) {
        Some(Poll::Ready(())) => Poll::Ready(IoEvent::Time),
        _ => Poll::Pending,
    }
}

/// Polls `work` until it is done. `None`: a wake-up or the moment came first.
async fn or_woken<T>(
    shared: &Shared,
    mut work: Pin<&mut impl Future<Output = T>>,
    until: Option<Instant>,
) -> Option<T> {
    let mut woken = pin!(shared.wake.notified());
    let mut timer = pin!(until.map(|until| tokio::time::sleep_until(until.into())));
    std::future::poll_fn(|context| {
        if let Poll::Ready(result) = work.as_mut().poll(context) {
            return Poll::Ready(Some(result));
        }
        poll_wait(context, woken.as_mut(), timer.as_mut()).map(|_| None)
    })
    .await
}
