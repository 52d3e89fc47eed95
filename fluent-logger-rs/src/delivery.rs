//! The delivery state machine: which chunk goes when, over which connection, and what an answer means.
//!
//! Owns the chunks in flight, the acks they wait for, the order of resends, the pauses between attempts and the
//! age of the connection. Pure: no sockets and no clock, every moment is an argument; [`crate::worker`] does
//! what it says.
//!
//! Invariants:
//! * `chunks[..sent]` were written wholly on the present connection and wait for their acks; `chunks[sent]` may
//!   be written in part (`offset` bytes); the rest waits. Without a connection `sent == 0` and `offset == 0`.
//! * The order of `chunks` is the order in which they were sealed; it never changes, so a resend is in order.
//! * A chunk leaves by an ack, or without acks when its last byte left; else only when it is given up.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use crate::chunk::Chunk;
use crate::random::Random;

/// How delivery behaves (validated in `options.rs`).
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) request_ack: bool,
    pub(crate) in_flight: usize,
    pub(crate) retry_wait: Duration,
    pub(crate) max_retry_wait: Duration,
    pub(crate) max_retry: Option<u32>,
    pub(crate) ack_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) reconnect_interval: Option<Duration>,
    /// Share of the interval by which a reconnect may come earlier or later, 0 to 1.
    pub(crate) reconnect_jitter: f64,
    pub(crate) endpoints: usize,
    pub(crate) failover: bool,
}

/// What the worker should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before this moment, unless something happens.
    Sleep(Option<Instant>),
    /// Connect to this address; `turn` chooses among the IP addresses behind its name.
    Connect { endpoint: usize, turn: usize },
    /// Read, and write if there is something to write, until this moment.
    Exchange { write: bool, until: Option<Instant> },
    /// Close the connection in good order: nothing is unacknowledged. Then say `closed`.
    Close,
    /// Drop the connection: it failed. Then say `lost`.
    Drop(Failure),
}

/// Why a connection is dropped by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    AckTimeout,
    WriteTimeout,
}

/// What an ack meant.
#[derive(Debug)]
pub(crate) enum Acked {
    /// The chunk is delivered.
    Delivered(Box<Chunk>),
    /// It was for nothing in flight, while something is: drop the connection.
    Mismatch,
    /// Nothing is in flight: it does no harm.
    Unasked,
}

#[derive(Debug)]
enum State {
    Away {
        not_before: Option<Instant>,
    },
    Connecting,
    Open {
        since: Instant,
        /// When it is old enough to be replaced.
        expires: Option<Instant>,
        /// The server wants one chunk per connection (HELO with `keepalive` false).
        single: bool,
        /// Something was delivered over it.
        useful: bool,
        /// Something waits for the socket to take it, since, or taken from last at, this moment.
        progress: Option<Instant>,
    },
}

#[derive(Debug)]
pub(crate) struct Delivery {
    policy: Policy,
    random: Random,
    chunks: VecDeque<Chunk>,
    sent: usize,
    offset: usize,
    unflushed: bool,
    state: State,
    /// Address to be tried next, and how many attempts were made in all.
    endpoint: usize,
    turn: usize,
    /// Addresses that failed in this round; after all of them comes a pause.
    failed_in_round: usize,
    failed_rounds: u32,
    resent: u64,
}

impl Delivery {
    pub(crate) fn new(policy: Policy, mut random: Random) -> Self {
        let turn = usize::try_from(random.next() >> 40).unwrap_or(0);
        let endpoint = if policy.failover {
            0
        } else {
            turn % policy.endpoints.max(1)
        };
        Self {
            policy,
            random,
            chunks: VecDeque::new(),
            sent: 0,
            offset: 0,
            unflushed: false,
            state: State::Away { not_before: None },
            endpoint,
            turn,
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

    /// Whether another batch should be sealed. Without a connection batches stay in the queue, where they keep
    /// gathering and can be dropped; with `max_retry` one is taken, so that it can be given up.
    pub(crate) fn wants_more(&self, now: Instant) -> bool {
        match &self.state {
            State::Open { .. } => !self.draining(now) && self.chunks.len() < self.limit(),
            State::Away { .. } | State::Connecting => {
                self.policy.max_retry.is_some() && self.chunks.is_empty()
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
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

    /// What to do at `now`; `work` says whether the queue has something due.
    pub(crate) fn step(&mut self, now: Instant, work: bool) -> Step {
        match &self.state {
            State::Connecting => Step::Sleep(None),
            State::Away { not_before } => {
                if !work && self.chunks.is_empty() {
                    return Step::Sleep(None);
                }
                match not_before {
                    Some(moment) if *moment > now => Step::Sleep(Some(*moment)),
                    _ => {
                        let step = Step::Connect {
                            endpoint: self.endpoint,
                            turn: self.turn / self.policy.endpoints.max(1),
                        };
                        self.state = State::Connecting;
                        step
                    }
                }
            }
            State::Open { .. } => self.step_open(now),
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
        let State::Open {
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

    /// No new chunk may go over this connection: it is too old, or had its one chunk.
    fn draining(&self, now: Instant) -> bool {
        match &self.state {
            State::Open {
                expires,
                single,
                useful,
                ..
            } => expires.is_some_and(|expires| expires <= now) || (*single && *useful),
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
            State::Open { single: true, .. } => 1,
            _ => self.policy.in_flight,
        }
    }

    fn window(&self) -> usize {
        self.limit().min(self.chunks.len())
    }

    /// The bytes to be written next, in as many slices as fit.
    pub(crate) fn to_write<'a>(&'a self, now: Instant, slices: &mut [IoSlice<'a>]) -> usize {
        // A chunk begun is always finished.
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

    /// The next byte to be written is the first of a chunk.
    pub(crate) fn at_chunk_start(&self) -> bool {
        self.offset == 0
    }

    /// Whether bytes were written since the last flush.
    pub(crate) fn unflushed(&self) -> bool {
        self.unflushed
    }

    /// A connection stands. `keep` is false when the server wants one chunk per connection.
    pub(crate) fn connected(&mut self, now: Instant, keep: bool) {
        let expires = self.policy.reconnect_interval.map(|interval| {
            let jitter = self.policy.reconnect_jitter;
            now + self
                .random
                .between(interval.mul_f64(1.0 - jitter), interval.mul_f64(1.0 + jitter))
        });
        self.state = State::Open {
            since: now,
            expires,
            single: !keep,
            useful: false,
            progress: None,
        };
        self.turn = self.turn.wrapping_add(1);
    }

    /// No connection could be made. Returns the chunks that are given up.
    pub(crate) fn connect_failed(&mut self, now: Instant) -> Vec<Chunk> {
        self.turn = self.turn.wrapping_add(1);
        self.next_endpoint();
        self.failed(now)
    }

    /// The connection broke or was dropped. Returns the chunks that are given up.
    pub(crate) fn lost(&mut self, now: Instant) -> Vec<Chunk> {
        let healthy = self.was_healthy(now);
        self.rewind();
        self.next_endpoint();
        if healthy {
            self.state = State::Away { not_before: None };
            return Vec::new();
        }
        self.failed(now)
    }

    /// Whether the loss of this connection is no reason for a pause. An idle one that the server closes is
    /// none; without acks a write proves little, so that connection must have lived a while.
    pub(crate) fn was_healthy(&self, now: Instant) -> bool {
        let State::Open { since, useful, .. } = &self.state else {
            return false;
        };
        let lived = now.saturating_duration_since(*since) >= self.policy.retry_wait;
        (*useful && self.policy.request_ack) || (lived && (*useful || self.in_flight() == 0))
    }

    /// The connection was closed in good order.
    pub(crate) fn closed(&mut self) {
        self.rewind();
        if self.policy.failover {
            self.endpoint = 0;
        } else {
            self.next_endpoint();
        }
        self.state = State::Away { not_before: None };
    }

    fn next_endpoint(&mut self) {
        self.endpoint = (self.endpoint + 1) % self.policy.endpoints.max(1);
    }

    /// Lets the next attempt begin at once: the logger closes and has only so much time.
    pub(crate) fn hurry(&mut self) {
        if let State::Away { not_before } = &mut self.state {
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
            // The other addresses first.
            self.state = State::Away {
                not_before: Some(now),
            };
        } else {
            self.failed_in_round = 0;
            self.failed_rounds = self.failed_rounds.saturating_add(1);
            let pause = self.pause();
            self.state = State::Away {
                not_before: Some(now + pause),
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
    fn pause(&mut self) -> Duration {
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

    /// The socket took `count` bytes.
    pub(crate) fn wrote(&mut self, now: Instant, mut count: usize) {
        if let State::Open { progress, .. } = &mut self.state {
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

    /// All that was written left for the network. Returns what is delivered by that: without acks, everything.
    pub(crate) fn flushed(&mut self, now: Instant) -> Vec<Chunk> {
        self.unflushed = false;
        if self.policy.request_ack {
            return Vec::new();
        }
        let delivered: Vec<Chunk> = self.chunks.drain(..self.sent).collect();
        self.sent = 0;
        if let State::Open { since, useful, .. } = &mut self.state {
            *useful |= !delivered.is_empty();
            if *useful && now.duration_since(*since) >= self.policy.retry_wait {
                self.succeeded();
            }
        }
        delivered
    }

    /// The server acknowledged `id`.
    pub(crate) fn acked(&mut self, id: &[u8]) -> Acked {
        let place = self
            .chunks
            .iter()
            .take(self.sent)
            .position(|chunk| chunk.id.as_bytes() == id);
        let Some(chunk) = place.and_then(|place| self.chunks.remove(place)) else {
            return if self.in_flight() > 0 {
                Acked::Mismatch
            } else {
                Acked::Unasked
            };
        };
        self.sent -= 1;
        if let State::Open { useful, .. } = &mut self.state {
            *useful = true;
        }
        self.succeeded();
        Acked::Delivered(Box::new(chunk))
    }

    /// Everything that is not settled, in order: the logger ends.
    pub(crate) fn take_all(&mut self) -> Vec<Chunk> {
        self.sent = 0;
        self.offset = 0;
        self.chunks.drain(..).collect()
    }
}

#[cfg(test)]
mod tests;
