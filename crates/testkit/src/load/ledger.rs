//! Ledger of a load: one mark for each record, how far it came as the client saw it. Knows nothing
//! of what the server stored.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::shape::Load;

/// How far a record came, as the client saw it.
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
    /// By trace and line.
    marks: Vec<AtomicU8>,
    /// For each connection the marks of its records, in the order in which they are sent.
    sent_over: Vec<Vec<usize>>,
}

impl Ledger {
    pub(super) fn new(load: Arc<Load>) -> Self {
        let records = usize::try_from(load.records()).expect("a load fits into memory");
        let order = load.order();
        let sent_over = (0..order.connections)
            .map(|connection| {
                let lines = order.of_connection(connection);
                lines.map(|(trace, line)| index(&load, trace, line)).collect()
            })
            .collect();
        Self {
            load,
            marks: (0..records).map(|_| AtomicU8::new(0)).collect(),
            sent_over,
        }
    }

    /// The load whose records these are.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// The mark of one line.
    pub fn mark(&self, trace: u64, line: u32) -> Mark {
        match self.marks[index(&self.load, trace, line)].load(Relaxed) {
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

    /// Raises the mark of one line.
    pub(super) fn raise_line(&self, trace: u64, line: u32, to: Mark) {
        self.marks[index(&self.load, trace, line)].fetch_max(to as u8, Relaxed);
    }

    /// Raises the marks of records by their places in the order of their connection.
    pub(super) fn raise(&self, connection: usize, records: &Range<u64>, to: Mark) {
        let place = |n: u64| usize::try_from(n).expect("a load fits into memory");
        for &mark in &self.sent_over[connection][place(records.start)..place(records.end)] {
            self.marks[mark].fetch_max(to as u8, Relaxed);
        }
    }
}

fn index(load: &Load, trace: u64, line: u32) -> usize {
    usize::try_from(trace * u64::from(load.lines) + u64::from(line)).expect("a load fits into memory")
}
