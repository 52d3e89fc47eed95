//! Threads and tasks without which the server does nothing useful: which of them have ended though nobody asked.
//!
//! Owns the first such sentence. `/health` shows it, so that a supervisor starts the program anew; the journal keeps
//! everything until then. It restarts nothing itself: what panicked once does so again.

use std::sync::{Arc, OnceLock};

/// What has ended, if anything. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Vital(Arc<OnceLock<String>>);

impl Vital {
    /// Goes with a thread or task; when it is dropped before [`Guard::done`], that one has ended before its time.
    pub(super) fn guard(&self, what: &'static str) -> Guard {
        Guard {
            vital: self.clone(),
            what,
            why: "it panicked",
            done: false,
        }
    }

    /// The first that ended.
    pub(super) fn lost(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// See [`Vital::guard`].
#[derive(Debug)]
pub(super) struct Guard {
    vital: Vital,
    what: &'static str,
    why: &'static str,
    done: bool,
}

impl Guard {
    /// It ended as it should.
    pub(super) fn done(mut self) {
        self.done = true;
    }

    /// It cannot go on, for this reason.
    pub(super) fn lost(mut self, why: &'static str) {
        self.why = why;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let text = format!(
            "{} has ended ({}): nothing gets on until Windrow is started again; what was acknowledged is in the journal",
            self.what, self.why
        );
        tracing::error!("{text}");
        // The first is the cause of the others.
        let _ = self.vital.0.set(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_as_it_should_be_is_none() {
        let vital = Vital::default();
        vital.guard("gathering").done();
        assert_eq!(vital.lost(), None);
    }

    #[test]
    fn a_panic_is_said_and_the_first_one_counts() {
        let vital = Vital::default();
        let guard = vital.guard("gathering");
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        vital.guard("standard output").lost("it is closed");
        let said = vital.lost().unwrap();
        assert!(said.starts_with("gathering has ended (it panicked)"), "{said}");
    }
}
