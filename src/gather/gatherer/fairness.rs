//! Fairness between a long message and others: between two of its sections, short records that wait
//! behind it are gathered.
//!
//! Work is counted in bytes after decompression, each record with a fixed overhead, so that empty
//! records count too.

use std::time::{Duration, Instant};

use forward_protocol::frame::{Limits, Payload, messages};
use windrow_journal::Record;

use super::Gatherer;
use crate::clock::unix_us;

/// Work of one message after which others have their turn: some tens of milliseconds. A section has
/// up to 4 MiB.
const TURN_COST_BYTES: usize = 3 << 20;
/// Longest journal record that is gathered inside another one.
const MAX_SHORT_BYTES: usize = 256 << 10;
/// Its longest compressed payload: it can hold a thousand times as much.
const MAX_SHORT_COMPRESSED_BYTES: usize = 16 << 10;
/// Longest turn of others.
const TURN_TIMEOUT: Duration = Duration::from_millis(50);

/// What is being gathered, and for how long.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Work since others had their turn.
    cost_bytes: usize,
    /// Records of others are being gathered inside a long message.
    is_nested: bool,
}

impl Gatherer {
    /// Begins a journal record of its own.
    pub(super) fn begin_turn(&mut self) {
        if !self.turn.is_nested {
            self.turn.cost_bytes = 0;
        }
    }

    /// Counts a section of `cost_bytes`, and gathers records of others if it is their turn. Traces
    /// may be sealed meanwhile: call it between two sections, since a part is never divided.
    pub(super) fn yield_turn(&mut self, cost_bytes: usize) {
        self.turn.cost_bytes += cost_bytes;
        if self.turn.is_nested || self.turn.cost_bytes < TURN_COST_BYTES {
            return;
        }
        self.turn.cost_bytes = 0;
        let Some(queue) = self.queue.clone() else {
            return;
        };
        self.turn.is_nested = true;
        let suspended = self.rejects.suspend_record();
        let (begin, limits) = (Instant::now(), self.settings.frame);
        while begin.elapsed() < TURN_TIMEOUT
            && let Some(record) = queue.take_short(|record| is_short(record, limits))
        {
            self.gather(record);
        }
        self.tags.interrupt();
        self.rejects.resume_record(suspended);
        self.turn.is_nested = false;
        self.tend(unix_us());
    }
}

/// Whether gathering a record takes little time.
fn is_short(record: &Record, limits: Limits) -> bool {
    record.payload.len() <= MAX_SHORT_BYTES
        && messages(&record.payload, limits)
            .flatten()
            .all(|message| match message.payload(limits.depth) {
                Payload::Compressed { bytes, .. } => bytes.len() <= MAX_SHORT_COMPRESSED_BYTES,
                _ => true,
            })
}
