//! Lookup of silent traces: when the store is asked about them, and about how many.
//!
//! Where it does not pay it is nearly off: after a question that finds little, the next is asked after
//! a pause, which doubles each time. Owns one question at a time.

use std::collections::VecDeque;

use tokio::sync::mpsc::error::TryRecvError;
use windrow_trace::SilentTrace;

use crate::output::silent::{Answer, Asking};

/// Time between two questions (µs).
const INTERVAL_US: i64 = 250_000;
/// Time between two looks for the answer (µs).
const ANSWER_INTERVAL_US: i64 = 20_000;
/// Pause after a question was refused (µs). Mostly the store was not even asked.
const REFUSED_PAUSE_US: i64 = 1_000_000;
/// Pause after questions that found little, at first and at most (µs).
const FIRST_PAUSE_US: i64 = 1_000_000;
const MAX_PAUSE_US: i64 = 300_000_000;
/// Traces of a question, and before it is known whether it pays.
const MAX_ASKED: usize = 1000;
const FEW_ASKED: usize = 50;
/// Asking pays if it finds one in so many, judged by at least `MIN_JUDGED`.
const MIN_SHARE: u64 = 20;
const MIN_JUDGED: u64 = 20;

/// The lookups of one instance. Times in µs.
#[derive(Debug)]
pub(super) struct SilentLookup {
    asking: Asking,
    silence: i64,
    /// When there is something to do.
    due: i64,
    /// Traces of the question that is on its way.
    asked: Option<u64>,
    /// Complete ones that are not sealed yet.
    complete: VecDeque<SilentTrace>,
    payoff: Payoff,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// There is none.
    None,
    /// So many were looked up, and found complete.
    Counts { asked: u64, found: u64 },
}

impl SilentLookup {
    pub(super) fn new(asking: Asking, silence: i64) -> Self {
        Self {
            asking,
            silence,
            due: 0,
            asked: None,
            complete: VecDeque::new(),
            payoff: Payoff::default(),
        }
    }

    /// Whether there is something to do.
    #[inline]
    pub(super) fn is_due(&self, now: i64) -> bool {
        now >= self.due
    }

    pub(super) fn silence(&self) -> i64 {
        self.silence
    }

    /// Takes the answer, if it is there.
    pub(super) fn receive(&mut self, now: i64) -> News {
        let Some(asked) = self.asked else {
            return News::None;
        };
        match self.asking.answers.try_recv() {
            Ok(Answer::Complete(complete)) => {
                let found = complete.len() as u64;
                self.asked = None;
                self.complete.extend(complete);
                self.due = now + self.payoff.answered(asked, found);
                News::Counts { asked, found }
            }
            Ok(Answer::Refused) => {
                self.asked = None;
                self.due = now + REFUSED_PAUSE_US;
                News::None
            }
            Err(TryRecvError::Empty) => {
                self.due = now + ANSWER_INTERVAL_US;
                News::None
            }
            Err(TryRecvError::Disconnected) => {
                self.due = i64::MAX;
                News::None
            }
        }
    }

    /// The next trace to seal.
    pub(super) fn next_complete(&mut self) -> Option<SilentTrace> {
        self.complete.pop_front()
    }

    /// How many traces the next question may have; 0 while the last one is not done with.
    pub(super) fn limit(&self, now: i64) -> usize {
        match self.asked.is_some() || !self.complete.is_empty() || !self.is_due(now) {
            true => 0,
            false => self.payoff.limit(),
        }
    }

    /// Asks about these traces.
    pub(super) fn ask(&mut self, now: i64, silent: Vec<SilentTrace>) {
        let asked = silent.len() as u64;
        if asked > 0 && self.asking.questions.try_send(silent).is_ok() {
            self.asked = Some(asked);
            self.due = now + ANSWER_INTERVAL_US;
        } else {
            self.due = now + INTERVAL_US;
        }
    }

    /// Nothing can be asked for a while.
    pub(super) fn wait(&mut self, now: i64) {
        self.due = now + INTERVAL_US;
    }
}

/// Whether asking pays.
#[derive(Debug, Default)]
struct Payoff {
    /// Since the last judgement.
    asked: u64,
    found: u64,
    pays: bool,
    pause: i64,
}

impl Payoff {
    fn limit(&self) -> usize {
        match self.pays {
            true => MAX_ASKED,
            false => FEW_ASKED,
        }
    }

    /// Counts an answer. Returns the time until the next question.
    fn answered(&mut self, asked: u64, found: u64) -> i64 {
        self.asked += asked;
        self.found += found;
        if self.asked < MIN_JUDGED {
            return INTERVAL_US.max(self.pause);
        }
        self.pays = self.found * MIN_SHARE >= self.asked;
        (self.asked, self.found) = (0, 0);
        self.pause = match self.pays {
            true => 0,
            false => (self.pause * 2).clamp(FIRST_PAUSE_US, MAX_PAUSE_US),
        };
        match asked as usize >= MAX_ASKED {
            // There are more.
            true if self.pays => 0,
            _ => INTERVAL_US.max(self.pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::silent::channel;

    fn silent(count: usize) -> Vec<SilentTrace> {
        let trace = |n: usize| SilentTrace {
            id: n.to_string().into_bytes(),
            destination: 0,
            first_ns: 0,
        };
        (0..count).map(trace).collect()
    }

    /// Asks about as many as may be at `now`, of which the store finds `found`. Returns how many
    /// were asked about, and when the next question may be.
    fn ask(
        lookup: &mut SilentLookup,
        store: &mut crate::output::silent::Answering,
        now: i64,
        found: usize,
    ) -> (usize, i64) {
        let limit = lookup.limit(now);
        lookup.ask(now, silent(limit));
        let mut question = store.questions.try_recv().unwrap();
        assert_eq!(question.len(), limit);
        question.truncate(found);
        store.answers.try_send(Answer::Complete(question)).unwrap();
        assert_eq!(lookup.limit(i64::MAX), 0, "one question at a time");
        let expected = News::Counts {
            asked: limit as u64,
            found: found as u64,
        };
        assert_eq!(lookup.receive(now), expected);
        for _ in 0..found {
            assert_eq!(lookup.limit(i64::MAX), 0, "these are sealed first");
            lookup.next_complete().unwrap();
        }
        assert!(lookup.next_complete().is_none());
        (limit, lookup.due)
    }

    #[test]
    fn where_little_is_found_the_pauses_grow() {
        let (asking, mut store) = channel();
        let mut lookup = SilentLookup::new(asking, 1);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let (asked, next) = ask(&mut lookup, &mut store, now, 2);
            assert_eq!(asked, FEW_ASKED);
            pauses.push((next - now) / 1_000_000);
            assert_eq!(lookup.limit(next - 1), 0);
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let (_, next) = ask(&mut lookup, &mut store, now, 3);
        assert_eq!(next - now, INTERVAL_US, "one in twenty pays");
        assert_eq!(lookup.limit(next), MAX_ASKED);
        let (_, again) = ask(&mut lookup, &mut store, next, 900);
        assert_eq!(again, next, "there are more");
    }

    #[test]
    fn a_store_that_refuses_is_asked_later() {
        let (asking, mut store) = channel();
        let mut lookup = SilentLookup::new(asking, 1);
        lookup.ask(0, silent(1));
        assert_eq!(lookup.receive(0), News::None);
        assert_eq!(lookup.due, ANSWER_INTERVAL_US);
        drop(store.questions.try_recv().unwrap());
        store.answers.try_send(Answer::Refused).unwrap();
        assert_eq!(lookup.receive(1), News::None);
        assert_eq!(lookup.limit(REFUSED_PAUSE_US), 0);
        assert_eq!(
            lookup.limit(REFUSED_PAUSE_US + 1),
            FEW_ASKED,
            "it says nothing of what is found"
        );
        lookup.ask(REFUSED_PAUSE_US + 1, silent(1));
        drop(store);
        assert_eq!(lookup.receive(i64::MAX - 1), News::None);
        assert_eq!(lookup.due, i64::MAX, "the output has ended");
    }
}
