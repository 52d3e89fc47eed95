//! Progress of gathering and of the outputs together: whether what waits gets on.
//!
//! Finds every stall, also one that the stage itself does not notice, such as a server that takes a
//! request and does not answer it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often progress is looked at.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// Time without progress that is reported.
const STALL_TIMEOUT: Duration = Duration::from_secs(4);

/// What waits in front of a stage, and what the stage has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StageSample {
    pub(super) waiting: bool,
    /// A counter that grows with the work.
    pub(super) done: u64,
}

/// The last samples. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<[StageProgress; 2]>>);

#[derive(Clone, Copy, Debug, Default)]
struct StageProgress {
    done: u64,
    stalled_since: Option<Instant>,
}

impl Progress {
    /// Records samples of gathering and of the outputs.
    pub(super) fn sample(&self, samples: [StageSample; 2], now: Instant) {
        for (progress, sample) in self.lock().iter_mut().zip(samples) {
            if !sample.waiting || sample.done != progress.done {
                progress.stalled_since = None;
            }
            if sample.waiting {
                progress.stalled_since.get_or_insert(now);
            }
            progress.done = sample.done;
        }
    }

    /// Why a stage does not get on. Gathering waits for the outputs, so it is mentioned only when
    /// they are not the cause.
    pub(super) fn stall(&self, now: Instant) -> Option<String> {
        let [gathering, outputs] = *self.lock();
        let stalled = |stage: StageProgress| {
            let time = now.duration_since(stage.stalled_since?);
            (time >= STALL_TIMEOUT).then_some(time.as_secs())
        };
        if let Some(seconds) = stalled(outputs) {
            return Some(format!(
                "the outputs do not get on: documents wait, and none was confirmed for {seconds} s"
            ));
        }
        let seconds = stalled(gathering)?;
        Some(format!(
            "gathering does not get on: chunks wait, and none was gathered for {seconds} s"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, [StageProgress; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_without_progress_is_stalled() {
        let progress = Progress::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let sample = |waiting, done| StageSample { waiting, done };
        let idle = sample(false, 0);
        progress.sample([idle, sample(true, 1)], at(0));
        progress.sample([idle, sample(true, 2)], at(3));
        progress.sample([idle, sample(true, 2)], at(6));
        assert_eq!(progress.stall(at(6)), None);
        assert!(
            progress
                .stall(at(7))
                .unwrap()
                .contains("none was confirmed for 4 s")
        );
        progress.sample([sample(true, 9), sample(false, 2)], at(8));
        assert_eq!(progress.stall(at(8)), None);
        let said = progress.stall(at(13)).unwrap();
        assert!(said.starts_with("gathering does not get on"), "{said}");
    }
}
