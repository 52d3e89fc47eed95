//! Delivery state of a batch: which outputs have confirmed which documents, and how their lines are
//! counted.
//!
//! A batch with a uniform outcome has one bit per output. Documents get states of their own when an
//! output reports about a single one. Knows neither text nor claims.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::meta::DocumentMeta;
use crate::output::OutputId;

/// Delivery states of all documents of a batch.
#[derive(Debug)]
pub(super) struct DeliveryStates {
    /// One bit per output that has not confirmed the whole batch. Initial value of `each`, and
    /// unused afterwards.
    whole: Mutex<u8>,
    each: OnceLock<Box<[DeliveryState]>>,
}

/// Delivery state of one document.
#[derive(Debug)]
pub(super) struct DeliveryState {
    /// One bit per output that has not confirmed it yet.
    waiting: AtomicU8,
    /// Lines that an output had before.
    repeated: AtomicU32,
    /// 1 if an output can never store it.
    dead: AtomicU8,
    /// 1 if it waits for an output on disk.
    deferred: AtomicU8,
    /// 1 if a write whose response was lost may have stored it.
    uncertain: AtomicU8,
    /// 1 if it was merged with an existing document.
    merged: AtomicU8,
}

/// Documents of one batch that all outputs have confirmed, and their lines by outcome.
#[derive(Debug, Default)]
pub(super) struct ConfirmedCounts {
    pub(super) documents: usize,
    pub(super) lines: u64,
    pub(super) delivered: u64,
    pub(super) repeated: u64,
    pub(super) late: u64,
    pub(super) dead: u64,
    pub(super) deferred: u64,
}

impl DeliveryStates {
    /// States for documents that `outputs` outputs (1 to 8) have to confirm.
    pub(super) fn new(outputs: u8) -> Self {
        Self {
            whole: Mutex::new(u8::MAX >> (8 - outputs.clamp(1, 8))),
            each: OnceLock::new(),
        }
    }

    /// States for documents that do not all go to all outputs.
    pub(super) fn of_each(outputs: u8, rows: &[DocumentMeta]) -> Self {
        let made = Self::new(outputs);
        let all = *made.whole.lock().unwrap_or_else(PoisonError::into_inner);
        made.each.get_or_init(|| {
            rows.iter()
                .map(|row| DeliveryState::new(all & row.outputs))
                .collect()
        });
        made
    }

    /// The state of document number `at`.
    pub(super) fn of(&self, rows: &[DocumentMeta], at: u32) -> &DeliveryState {
        let each = self.each.get().unwrap_or_else(|| {
            // While this lock is held no output confirms the whole batch.
            let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = || rows.iter().map(|_| DeliveryState::new(*whole)).collect();
            self.each.get_or_init(begin)
        });
        &each[at as usize]
    }

    /// `output` has all documents, which have `lines` lines. Returns those that all outputs have
    /// confirmed now.
    pub(super) fn confirm_all(&self, rows: &[DocumentMeta], lines: u64, output: OutputId) -> ConfirmedCounts {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = ConfirmedCounts::default();
        if let Some(each) = self.each.get() {
            drop(whole);
            for (row, state) in rows.iter().zip(each) {
                if state.confirm(output) {
                    counts.add(row, state);
                }
            }
        } else {
            let before = *whole;
            *whole &= !bit(output);
            if before == bit(output) {
                counts.documents = rows.len();
                counts.lines = lines;
                counts.delivered = lines;
            }
        }
        counts
    }
}

impl DeliveryState {
    fn new(waiting: u8) -> Self {
        Self {
            waiting: AtomicU8::new(waiting),
            repeated: AtomicU32::new(0),
            dead: AtomicU8::new(0),
            deferred: AtomicU8::new(0),
            uncertain: AtomicU8::new(0),
            merged: AtomicU8::new(0),
        }
    }

    /// `output` has the document. Returns whether it was the last output to confirm.
    pub(super) fn confirm(&self, output: OutputId) -> bool {
        // One atomic operation, so that exactly one of several outputs is the last.
        self.waiting.fetch_and(!bit(output), Ordering::AcqRel) == bit(output)
    }

    /// A write that may have stored it has no response.
    pub(super) fn note_uncertain(&self) {
        self.uncertain.store(1, Ordering::Release);
    }

    /// All of its `lines` were stored before, unless an uncertain write is the likely reason.
    pub(super) fn note_unchanged(&self, lines: u32) {
        if self.uncertain.load(Ordering::Acquire) == 0 {
            self.repeated.store(lines, Ordering::Release);
        }
    }

    /// It was merged with an existing document, which had `repeated` of its lines.
    pub(super) fn note_merged(&self, repeated: u32) {
        self.merged.store(1, Ordering::Release);
        self.repeated.store(repeated, Ordering::Release);
    }

    /// It waits for an output on disk.
    pub(super) fn note_deferred(&self) {
        self.deferred.store(1, Ordering::Release);
    }

    /// An output can never store it.
    pub(super) fn note_dead(&self) {
        self.dead.store(1, Ordering::Release);
    }
}

impl ConfirmedCounts {
    pub(super) fn add(&mut self, row: &DocumentMeta, state: &DeliveryState) {
        let lines = u64::from(row.lines);
        self.documents += 1;
        self.lines += lines;
        if state.dead.load(Ordering::Acquire) == 1 {
            self.dead += lines;
            return;
        }
        if state.deferred.load(Ordering::Acquire) == 1 {
            self.deferred += lines;
            return;
        }
        let repeated = u64::from(state.repeated.load(Ordering::Acquire));
        self.delivered += lines - repeated;
        self.repeated += repeated;
        if state.merged.load(Ordering::Acquire) == 1 {
            self.late += lines - repeated;
        }
    }
}

fn bit(output: OutputId) -> u8 {
    1 << (output.0 & 7)
}

#[cfg(test)]
mod tests {
    use super::super::meta::DocumentSpan;
    use super::*;

    fn rows() -> Vec<DocumentMeta> {
        [3, 1]
            .map(|lines| DocumentMeta::new(0..1, true, 0, lines, DocumentSpan::new(0, 0, 0)))
            .into()
    }

    #[test]
    fn the_last_output_that_confirms_the_whole_is_counted_once() {
        let (rows, states) = (rows(), DeliveryStates::new(3));
        let counts = |output| {
            let counts = states.confirm_all(&rows, 4, OutputId(output));
            (counts.documents, counts.lines, counts.delivered)
        };
        assert_eq!(counts(1), (0, 0, 0));
        assert_eq!(counts(1), (0, 0, 0));
        assert_eq!(counts(0), (0, 0, 0));
        assert_eq!(counts(2), (2, 4, 4));
        assert_eq!(counts(2), (0, 0, 0));
    }

    #[test]
    fn documents_begin_with_who_has_confirmed_the_whole() {
        let (rows, states) = (rows(), DeliveryStates::new(2));
        states.confirm_all(&rows, 4, OutputId(0));
        assert!(states.of(&rows, 1).confirm(OutputId(1)));
        let counts = states.confirm_all(&rows, 4, OutputId(1));
        assert_eq!((counts.documents, counts.delivered), (1, 3));
    }

    #[test]
    fn of_outputs_that_confirm_at_the_same_time_one_is_the_last() {
        for round in 0..200 {
            let (rows, states) = (rows(), DeliveryStates::new(2));
            let one_by_one = || {
                let confirmed = (0..2).map(|at| usize::from(states.of(&rows, at).confirm(OutputId(1))));
                confirmed.sum::<usize>()
            };
            let whole = || states.confirm_all(&rows, 4, OutputId(0)).documents;
            let counts = std::thread::scope(|scope| {
                let other = scope.spawn(one_by_one);
                whole() + other.join().unwrap()
            });
            assert_eq!(counts, 2, "round {round}");
        }
    }
}
