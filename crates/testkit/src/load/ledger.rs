//! Which records were sent and which acknowledged: the client's side of the bargain, kept apart from anything
//! that the server says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use serde_json::Value;

use super::{Load, wire};

/// How far a record came, from the client's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Never written to a socket: must not be stored.
    Unsent,
    /// Written, not acknowledged: may be stored, once.
    Sent,
    /// Acknowledged: must be stored, once.
    Acknowledged,
}

/// One mark for each record of a load.
#[derive(Debug)]
pub struct Ledger {
    load: Arc<Load>,
    marks: Vec<AtomicU8>,
}

impl Ledger {
    pub(super) fn new(load: Arc<Load>) -> Self {
        let records = usize::try_from(load.records()).expect("a load fits into memory");
        Self {
            load,
            marks: (0..records).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// The load whose records these are.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// The mark of one line.
    pub fn mark(&self, trace: u64, line: u32) -> Mark {
        match self.marks[self.index(trace, line)].load(Relaxed) {
            0 => Mark::Unsent,
            1 => Mark::Sent,
            _ => Mark::Acknowledged,
        }
    }

    /// Number of acknowledged records.
    pub fn acknowledged(&self) -> u64 {
        self.marks.iter().filter(|mark| mark.load(Relaxed) == 2).count() as u64
    }

    /// For a load without acks that a server has read to the end: all that was sent must be stored.
    pub fn trust_all_sent(&self) {
        for mark in &self.marks {
            if mark.load(Relaxed) == 1 {
                mark.store(2, Relaxed);
            }
        }
    }

    /// All records as JSON in the order of their times, taken for acknowledged: whoever gets them must deliver them.
    pub(super) fn records_in_order(&self) -> Vec<Value> {
        let load = &*self.load;
        let mut places: Vec<(u64, u32)> = (0..load.traces)
            .flat_map(|trace| (0..load.lines).map(move |line| (trace, line)))
            .collect();
        places.sort_unstable_by_key(|&(trace, line)| load.sequence(trace, line));
        self.raise(&places, Mark::Acknowledged);
        places
            .into_iter()
            .map(|(trace, line)| wire::json(load, trace, line))
            .collect()
    }

    pub(super) fn raise(&self, records: &[(u64, u32)], to: Mark) {
        for &(trace, line) in records {
            self.marks[self.index(trace, line)].fetch_max(to as u8, Relaxed);
        }
    }

    fn index(&self, trace: u64, line: u32) -> usize {
        usize::try_from(trace * u64::from(self.load.lines) + u64::from(line))
            .expect("a load fits into memory")
    }
}
