//! Reserve below the limit of the journal: clients that send little go on beside one that has filled
//! the journal.
//!
//! Long appends leave the reserve to short ones. Of those a source gets as much as is free (dynamic
//! thresholds, Choudhury and Hahne): one source leaves half of the reserve, two leave a third.

use std::collections::{HashMap, VecDeque};

use crate::format::RECORD_HEADER_BYTES;
use crate::queue::{PendingAppend, SHORT_PAYLOAD_BYTES};

/// Sources are told apart by their number modulo this, which bounds the memory.
const SOURCES: u64 = 1 << 12;

/// What sources have of the reserve.
#[derive(Default)]
pub(crate) struct Reserve {
    /// Bytes by source, since the reserve was last left.
    used_bytes: HashMap<u64, u64>,
    /// A source that has nothing of it may not find space either.
    pub(crate) is_full: bool,
}

impl Reserve {
    /// There is space outside of the reserve.
    pub(crate) fn leave(&mut self) {
        if !self.used_bytes.is_empty() {
            self.used_bytes.clear();
        }
    }

    /// Moves the appends that may use the reserve to the front, and gives their number.
    #[cold]
    pub(crate) fn admit(&mut self, backlog: &mut VecDeque<PendingAppend>, free_bytes: u64) -> usize {
        self.is_full = free_bytes < RECORD_HEADER_BYTES + SHORT_PAYLOAD_BYTES as u64;
        let mut used_bytes = self.used_bytes.clone();
        let mut free_bytes = free_bytes;
        // No order is lost: each connection waits for one append.
        let (mut admitted, others): (VecDeque<_>, VecDeque<_>) = backlog.drain(..).partition(|pending| {
            let bytes = pending.max_bytes();
            let used = used_bytes.entry(pending.source % SOURCES).or_default();
            let fits = pending.is_short() && *used + bytes <= free_bytes;
            if fits {
                *used += bytes;
                free_bytes -= bytes;
            }
            fits
        });
        let count = admitted.len();
        admitted.extend(others);
        *backlog = admitted;
        count
    }

    /// Counts an append that is written to the reserve.
    pub(crate) fn record(&mut self, pending: &PendingAppend) {
        *self.used_bytes.entry(pending.source % SOURCES).or_default() += pending.max_bytes();
    }
}
