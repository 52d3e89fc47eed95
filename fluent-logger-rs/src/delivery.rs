//! Delivery state machine: which chunk is written when, over which connection, and what an ack
//! means.
//!
//! Owns the chunks in flight, the acks they wait for, the order of resends, the backoff between
//! attempts and the age of the connection. Pure: no sockets and no clock, every moment is an
//! argument; [`crate::worker`] executes its steps.
//!
//! Invariants:
//! * `chunks[..sent]` were written completely on the current connection and wait for their acks;
//!   `chunks[sent]` may be written in part (`offset` bytes); the rest waits. Without a connection
//!   `sent == 0` and `offset == 0`.
//! * The order of `chunks` is the order in which they were sealed; it never changes, so a resend
//!   keeps the order.
//! * A chunk is removed by its ack, without acks when its last byte was written, or when it is
//!   given up.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use crate::chunk::Chunk;
use crate::options::DeliveryPolicy;
use crate::random::Random;

/// What the worker should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait until this moment or a wake-up.
    Sleep(Option<Instant>),
    /// Connect to this address; `attempt` selects among the IP addresses of its name.
    Connect { endpoint: usize, attempt: usize },
    /// Read, and write if there is something to write, until this moment.
    Exchange { write: bool, until: Option<Instant> },
    /// Close the connection gracefully: nothing is unacknowledged. Then call `closed`.
    Close,
    /// Drop the connection: it failed. Then call `lost`.
    Drop(Failure),
}

/// Why the logger drops a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    AckTimeout,
    WriteTimeout,
}

/// Result of an ack.
#[derive(Debug)]
pub(crate) enum Acked {
    /// The chunk is delivered.
    Delivered(Box<Chunk>),
    /// It is for another chunk than those in flight: drop the connection.
    Mismatch,
    /// Nothing is in flight: ignore it.
    NothingInFlight,
}

#[derive(Debug)]
enum ConnectionState {
    Disconnected {
        not_before: Option<Instant>,
    },
    Connecting,
    Open {
        since: Instant,
        /// When it is old enough to be replaced.
        expires: Option<Instant>,
        /// The server wants one chunk per connection (HELO with `keepalive` false).
        one_chunk: bool,
        /// Something was delivered over it.
        delivered_any: bool,
        /// Last moment at which the socket accepted bytes, or at which bytes began to wait.
        progress: Option<Instant>,
    },
}

#[derive(Debug)]
pub(crate) struct Delivery {
    policy: DeliveryPolicy,
    random: Random,
    chunks: VecDeque<Chunk>,
    sent: usize,
    offset: usize,
    unflushed: bool,
    state: ConnectionState,
    /// Address to be tried next, and number of attempts so far.
    endpoint: usize,
    attempt: usize,
    /// Addresses that failed in this round; after all of them comes a backoff.
    failed_in_round: usize,
    failed_rounds: u32,
    resent: u64,
}

impl Delivery {
    pub(crate) fn new(policy: DeliveryPolicy, mut random: Random) -> Self {
        let attempt = usize::try_from(random.next() >> 40).unwrap_or(0);
        let endpoint = if policy.failover {
            0
        } else {
            attempt % policy.endpoints.max(1)
        };
        Self {
            policy,
            random,
            chunks: VecDeque::new(),
            sent: 0,
            offset: 0,
            unflushed: false,
            state: ConnectionState::Disconnected { not_before: None },
            endpoint,
            attempt,
            failed_in_round: 0,
            failed_rounds: 0,
            resent: 0,
        }
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Takes a sealed chunk.
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.chunks.push_back(chunk);
    }

    /// Whether another batch should be sealed. Without a connection batches stay in the queue,
    /// where they still grow and can be dropped; with `max_retry` one is taken, so that it can be
    /// given up.
    pub(crate) fn wants_more(&self, now: Instant) -> bool {
        match &self.state {
            ConnectionState::Open { .. } => !self.draining(now) && self.chunks.len() < self.limit(),
            ConnectionState::Disconnected { .. } | ConnectionState::Connecting => {
                self.policy.max_retry.is_some() && self.chunks.is_empty()
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, ConnectionState::Open { .. })
    }

    /// Chunks written and not acknowledged, or being written.
    pub(crate) fn in_flight(&self) -> usize {
        self.sent + usize::from(self.offset > 0)
    }

    pub(crate) fn unacknowledged(&self) -> usize {
        self.sent
    }

    /// Chunks that were written again after a connection ended.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }

    /// Events of chunks that are not in the spool.
    pub(crate) fn not_spooled(&self) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| chunk.file.is_none());
        chunks.map(|chunk| chunk.events).sum()
    }

    /// Number of the oldest event that is not settled.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.chunks.iter().map(|chunk| chunk.first).min()
    }

    /// The next step at `now`; `work`: the queue has something due.
    pub(crate) fn step(&mut self, now: Instant, work: bool) -> Step {
        match &self.state {
            ConnectionState::Connecting => Step::Sleep(None),
            ConnectionState::Disconnected { not_before } => {
                if !work && self.chunks.is_empty() {
                    return Step::Sleep(None);
                }
                match not_before {
                    Some(moment) if *moment > now => Step::Sleep(Some(*moment)),
                    _ => {
                        let step = Step::Connect {
                            endpoint: self.endpoint,
                            attempt: self.attempt / self.policy.endpoints.max(1),
                        };
                        self.state = ConnectionState::Connecting;
                        step
                    }
                }
            }
            ConnectionState::Open { .. } => self.step_open(now),
        }
    }

    fn step_open(&mut self, now: Instant) -> Step {
        let acks_due = self.acks_due();
        if acks_due.is_some_and(|due| due <= now) {
            return Step::Drop(Failure::AckTimeout);
        }
        let draining = self.draining(now);
        if draining && self.sent == 0 && self.offset == 0 && !self.unflushed {
            return Step::Close;
        }
        let write = self.offset > 0 || (!draining && self.sent < self.window());
        let busy = write || self.unflushed;
        let write_timeout = self.policy.write_timeout;
        let ConnectionState::Open {
            expires, progress, ..
        } = &mut self.state
        else {
            return Step::Sleep(None);
        };
        *progress = busy.then(|| progress.unwrap_or(now));
        let stalled = progress.map(|progress| progress + write_timeout);
        if stalled.is_some_and(|stalled| stalled <= now) {
            return Step::Drop(Failure::WriteTimeout);
        }
        let age = expires.filter(|expires| *expires > now);
        Step::Exchange {
            write,
            until: [acks_due, stalled, age].into_iter().flatten().min(),
        }
    }

    /// No new chunk may be written to this connection: it expired, or delivered its one chunk.
    fn draining(&self, now: Instant) -> bool {
        match &self.state {
            ConnectionState::Open {
                expires,
                one_chunk,
                delivered_any,
                ..
            } => expires.is_some_and(|expires| expires <= now) || (*one_chunk && *delivered_any),
            _ => false,
        }
    }

    fn acks_due(&self) -> Option<Instant> {
        let written = self
            .chunks
            .iter()
            .take(self.sent)
            .filter_map(|chunk| chunk.written_at)
            .min()?;
        Some(written + self.policy.ack_timeout)
    }

    /// Chunks that may be in flight on this connection.
    fn limit(&self) -> usize {
        match &self.state {
            ConnectionState::Open { one_chunk: true, .. } => 1,
            _ => self.policy.in_flight,
        }
    }

    fn window(&self) -> usize {
        self.limit().min(self.chunks.len())
    }

    /// The bytes to be written next, in as many slices as fit.
    pub(crate) fn to_write<'a>(&'a self, now: Instant, slices: &mut [IoSlice<'a>]) -> usize {
        // A partly written chunk is always completed.
        let last = if self.draining(now) {
            self.sent + usize::from(self.offset > 0)
        } else {
            self.window()
        };
        let mut used = 0;
        let waiting = self.chunks.iter().take(last).skip(self.sent);
        for ((index, chunk), slice) in waiting.enumerate().zip(slices.iter_mut()) {
            let skip = if index == 0 { self.offset } else { 0 };
            *slice = IoSlice::new(chunk.message.get(skip..).unwrap_or_default());
            used += 1;
        }
        used
    }

    /// Whether the next byte to be written is the first of a chunk.
    pub(crate) fn at_chunk_start(&self) -> bool {
        self.offset == 0
    }

    /// Whether bytes were written since the last flush.
    pub(crate) fn unflushed(&self) -> bool {
        self.unflushed
    }

    /// A connection is open. `keepalive` is false when the server wants one chunk per connection.
    pub(crate) fn connected(&mut self, now: Instant, keepalive: bool) {
        let expires = self.policy.reconnect_interval.map(|interval| {
            let jitter = self.policy.reconnect_jitter;
            now + self
                .random
                .between(interval.mul_f64(1.0 - jitter), interval.mul_f64(1.0 + jitter))
        });
        self.state = ConnectionState::Open {
            since: now,
            expires,
            one_chunk: !keepalive,
            delivered_any: false,
            progress: None,
        };
        self.attempt = self.attempt.wrapping_add(1);
    }

    /// No connection could be made. Returns the chunks that are given up.
    pub(crate) fn connect_failed(&mut self, now: Instant) -> Vec<Chunk> {
        self.attempt = self.attempt.wrapping_add(1);
        self.next_endpoint();
        self.failed(now)
    }

    /// The connection broke or was dropped. Returns the chunks that are given up.
    pub(crate) fn lost(&mut self, now: Instant) -> Vec<Chunk> {
        let healthy = self.was_healthy(now);
        self.rewind();
        self.next_endpoint();
        if healthy {
            self.state = ConnectionState::Disconnected { not_before: None };
            return Vec::new();
        }
        self.failed(now)
    }

    /// Whether losing this connection needs no backoff: it delivered a chunk, or was idle. Without
    /// acks a write proves little, so that the connection must also have lasted for `retry_wait`.
    pub(crate) fn was_healthy(&self, now: Instant) -> bool {
        let ConnectionState::Open {
            since, delivered_any, ..
        } = &self.state
        else {
            return false;
        };
        let lived = now.saturating_duration_since(*since) >= self.policy.retry_wait;
        (*delivered_any && self.policy.request_ack) || (lived && (*delivered_any || self.in_flight() == 0))
    }

    /// The connection was closed gracefully.
    pub(crate) fn closed(&mut self) {
        self.rewind();
        if self.policy.failover {
            self.endpoint = 0;
        } else {
            self.next_endpoint();
        }
        self.state = ConnectionState::Disconnected { not_before: None };
    }

    fn next_endpoint(&mut self) {
        self.endpoint = (self.endpoint + 1) % self.policy.endpoints.max(1);
    }

    /// Starts the next attempt at once: the logger closes within a deadline.
    pub(crate) fn skip_backoff(&mut self) {
        if let ConnectionState::Disconnected { not_before } = &mut self.state {
            *not_before = None;
        }
    }

    fn rewind(&mut self) {
        self.resent += self.sent as u64 + u64::from(self.offset > 0);
        for chunk in self.chunks.iter_mut().take(self.sent) {
            chunk.written_at = None;
        }
        self.sent = 0;
        self.offset = 0;
        self.unflushed = false;
    }

    fn failed(&mut self, now: Instant) -> Vec<Chunk> {
        self.failed_in_round += 1;
        if self.failed_in_round < self.policy.endpoints {
            // Try the other addresses first.
            self.state = ConnectionState::Disconnected {
                not_before: Some(now),
            };
        } else {
            self.failed_in_round = 0;
            self.failed_rounds = self.failed_rounds.saturating_add(1);
            let backoff = self.backoff();
            self.state = ConnectionState::Disconnected {
                not_before: Some(now + backoff),
            };
        }
        let Some(max) = self.policy.max_retry else {
            return Vec::new();
        };
        for chunk in &mut self.chunks {
            chunk.attempts += 1;
        }
        let (given_up, kept) = self.chunks.drain(..).partition(|chunk| chunk.attempts > max);
        self.chunks = kept;
        Vec::from(given_up)
    }

    /// `retry_wait` doubled with each failed round, capped, and then between half and all of it.
    fn backoff(&mut self) -> Duration {
        let doublings = self.failed_rounds.saturating_sub(1).min(32);
        let full = self
            .policy
            .retry_wait
            .saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let full = full.min(self.policy.max_retry_wait);
        self.random.between(full / 2, full)
    }

    fn succeeded(&mut self) {
        self.failed_in_round = 0;
        self.failed_rounds = 0;
    }

    /// The socket accepted `count` bytes.
    pub(crate) fn wrote(&mut self, now: Instant, mut count: usize) {
        if let ConnectionState::Open { progress, .. } = &mut self.state {
            *progress = Some(now);
        }
        self.unflushed |= count > 0;
        while let Some(chunk) = self.chunks.get_mut(self.sent) {
            let left = chunk.message.len() - self.offset;
            if count < left {
                self.offset += count;
                return;
            }
            count -= left;
            self.offset = 0;
            self.sent += 1;
            chunk.written_at = Some(now);
            chunk.was_written = true;
            if count == 0 {
                return;
            }
        }
    }

    /// Everything written was flushed. Returns the chunks that this delivers: without acks, all of
    /// them.
    pub(crate) fn flushed(&mut self, now: Instant) -> Vec<Chunk> {
        self.unflushed = false;
        if self.policy.request_ack {
            return Vec::new();
        }
        let delivered: Vec<Chunk> = self.chunks.drain(..self.sent).collect();
        self.sent = 0;
        if let ConnectionState::Open {
            since, delivered_any, ..
        } = &mut self.state
        {
            *delivered_any |= !delivered.is_empty();
            if *delivered_any && now.duration_since(*since) >= self.policy.retry_wait {
                self.succeeded();
            }
        }
        delivered
    }

    /// The server acknowledged `id`.
    pub(crate) fn acked(&mut self, id: &[u8]) -> Acked {
        let position = self
            .chunks
            .iter()
            .take(self.sent)
            .position(|chunk| chunk.id.as_bytes() == id);
        let Some(chunk) = position.and_then(|index| self.chunks.remove(index)) else {
            return if self.in_flight() > 0 {
                Acked::Mismatch
            } else {
                Acked::NothingInFlight
            };
        };
        self.sent -= 1;
        if let ConnectionState::Open { delivered_any, .. } = &mut self.state {
            *delivered_any = true;
        }
        self.succeeded();
        Acked::Delivered(Box::new(chunk))
    }

    /// All chunks that are not settled, in order: the logger ends.
    pub(crate) fn take_all(&mut self) -> Vec<Chunk> {
        self.sent = 0;
        self.offset = 0;
        self.chunks.drain(..).collect()
    }
}

#[cfg(test)]
mod tests;
