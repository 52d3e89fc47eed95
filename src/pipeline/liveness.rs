//! Liveness: whether a thread or task that the server cannot do without has ended unexpectedly.
//!
//! Owns the first such failure. `/health` shows it, so that a supervisor restarts the program; the
//! journal keeps everything until then. Restarts nothing itself: what panicked once would panic
//! again.

use std::sync::{Arc, OnceLock};

/// The first failure, if any. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Liveness(Arc<OnceLock<String>>);

impl Liveness {
    /// A guard for the thread or task `name`: dropped before [`Guard::finish`], it reports a
    /// failure.
    pub(super) fn guard(&self, name: &'static str) -> Guard {
        Guard {
            liveness: self.clone(),
            name,
            reason: "it panicked",
            finished: false,
        }
    }

    /// The first failure.
    pub(super) fn failure(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Watches one thread or task.
#[derive(Debug)]
pub(super) struct Guard {
    liveness: Liveness,
    name: &'static str,
    reason: &'static str,
    finished: bool,
}

impl Guard {
    /// Reports an orderly end.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }

    /// Reports a failure with a reason.
    pub(super) fn fail(mut self, reason: &'static str) {
        self.reason = reason;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let text = format!(
            "{} has ended ({}): no document is delivered until Windrow is started again; what was acknowledged is in the journal",
            self.name, self.reason
        );
        tracing::error!("{text}");
        // The first failure is the cause of later ones.
        let _ = self.liveness.0.set(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orderly_end_is_no_failure() {
        let liveness = Liveness::default();
        liveness.guard("gathering").finish();
        assert_eq!(liveness.failure(), None);
    }

    #[test]
    fn a_panic_is_reported_and_the_first_failure_counts() {
        let liveness = Liveness::default();
        let guard = liveness.guard("gathering");
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        liveness.guard("standard output").fail("it is closed");
        let failure = liveness.failure().unwrap();
        assert!(
            failure.starts_with("gathering has ended (it panicked)"),
            "{failure}"
        );
    }
}
