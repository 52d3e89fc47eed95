//! Fairness between long records and others: short records that wait behind long ones are gathered
//! between two of their sections, and between two of them.
//!
//! Work is counted in bytes after decompression, each record with a fixed overhead, so that empty
//! records count too.

use std::time::{Duration, Instant};

use forward_protocol::entries::{Decompressor, Entries};
use forward_protocol::frame::{Limits, Payload, messages};
use windrow_journal::Record;

use super::Gatherer;
use crate::clock::unix_us;

/// Work of one message after which others have their turn: some tens of milliseconds. A section has
/// up to 4 MiB.
const TURN_COST_BYTES: usize = 3 << 20;
/// Time after which others have their turn between two records.
const TURN_INTERVAL_US: i64 = 20_000;
/// Longest turn of others.
const TURN_TIMEOUT: Duration = Duration::from_millis(50);

/// Longest journal record that is gathered before others, as it came and decompressed.
const MAX_SHORT_BYTES: usize = 256 << 10;
/// Its longest compressed payload.
const MAX_SHORT_COMPRESSED_BYTES: usize = 16 << 10;
/// Its most log records.
const MAX_SHORT_RECORDS: usize = 2000;

/// What is being gathered, and for how long.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Work since others had their turn.
    cost_bytes: usize,
    /// Records of others are being gathered inside a long message.
    is_nested: bool,
    /// When others last had their turn between two records (µs).
    last_us: i64,
}

impl Gatherer {
    /// Begins a journal record of its own.
    pub(super) fn begin_turn(&mut self) {
        if !self.turn.is_nested {
            self.turn.cost_bytes = 0;
        }
    }

    /// Counts a section of `cost_bytes`, and gathers records of others than those with `tag` if it
    /// is their turn. Traces may be sealed meanwhile: call it between two sections, since a part is
    /// never divided.
    pub(super) fn yield_turn(&mut self, cost_bytes: usize, tag: &str) {
        self.turn.cost_bytes += cost_bytes;
        if self.turn.is_nested || self.turn.cost_bytes < TURN_COST_BYTES {
            return;
        }
        self.turn.cost_bytes = 0;
        if let Some(queue) = &self.queue {
            let tag = tag.strip_prefix(&*self.settings.tag_prefix).unwrap_or(tag);
            queue.begin_long(tag.as_bytes());
        }
        let suspended = self.rejects.suspend_record();
        self.gather_others();
        self.tags.interrupt();
        self.rejects.resume_record(suspended);
        self.tend(unix_us());
    }

    /// Gathers records of others between two records, if it is their turn.
    pub(super) fn yield_between(&mut self, now: i64) {
        if (0..TURN_INTERVAL_US).contains(&(now - self.turn.last_us)) {
            return;
        }
        let limits = self.settings.frame;
        if self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.is_held_up(|record| is_short(record, limits)))
        {
            self.gather_others();
        }
        self.turn.last_us = unix_us();
    }

    fn gather_others(&mut self) {
        let Some(queue) = self.queue.clone() else {
            return;
        };
        self.turn.is_nested = true;
        let (begin, limits) = (Instant::now(), self.settings.frame);
        while begin.elapsed() < TURN_TIMEOUT
            && let Some(record) = queue.take_short(|record| is_short(record, limits))
        {
            self.gather(record);
        }
        self.turn.is_nested = false;
    }
}

/// Whether gathering a record takes little time, and makes few documents.
fn is_short(record: &Record, limits: Limits) -> bool {
    if record.payload.len() > MAX_SHORT_BYTES {
        return false;
    }
    let (mut bytes, mut records) = (0, 0);
    for message in messages(&record.payload, limits) {
        let Ok(message) = message else {
            // It is rejected as a whole.
            continue;
        };
        match message.payload(limits.depth) {
            Payload::Entries(entries) => records += entries.take(MAX_SHORT_RECORDS + 1).count(),
            Payload::Compressed {
                compression,
                bytes: packed,
            } => {
                if packed.len() > MAX_SHORT_COMPRESSED_BYTES {
                    return false;
                }
                let left = MAX_SHORT_BYTES - bytes;
                let plain = Decompressor::new().decompress(compression, packed, left);
                let Ok(plain) = plain else {
                    return false;
                };
                bytes += plain.bytes.len();
                let entries = Entries::new(&plain.bytes, limits.depth);
                records += entries.take(MAX_SHORT_RECORDS + 1).count();
            }
            Payload::Opaque(_) => records += 1,
        }
        if records > MAX_SHORT_RECORDS {
            return false;
        }
    }
    true
}
