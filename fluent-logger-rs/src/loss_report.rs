//! Loss report on stderr, for a logger that ends without `close`.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::shared::Shared;

/// Begins the close of a logger whose last handle is dropped, and says how many events depend on
/// the process living on.
pub(crate) fn report_dropped_handle(shared: &Shared, deadline: Instant) {
    let waiting = {
        let mut state = shared.lock();
        state.abandoned = true;
        if state.closed && !state.worker_ended {
            // An explicit `close` reports its result to its caller.
            None
        } else if shared.spooled() {
            Some(state.queue.waiting_events())
        } else {
            Some(state.queue.events())
        }
    };
    if let Some(lost) = shared.begin_close(deadline, None) {
        if !lost.is_empty() {
            report(&format!(
                "{} events are lost: the logger ended before they were delivered, and no `close` \
                 returned them",
                lost.len()
            ));
        }
        return;
    }
    if let Some(events @ 1..) = waiting {
        report(&format!(
            "the logger was dropped with {events} events not delivered yet; they are lost if the \
             process ends now. Keep `Logger::guard` in `main`, or call `close`"
        ));
    }
}

thread_local! {
    /// Loggers that were built on the main thread. Its destructors run when `main` returns (on Linux;
    /// elsewhere they may not).
    static OF_MAIN: RefCell<OfMain> = const { RefCell::new(OfMain(Vec::new())) };
}

/// Reports loggers that are neither closed nor dropped when the main thread ends: those in a global
/// subscriber, which is never dropped.
struct OfMain(Vec<Weak<Shared>>);

impl Drop for OfMain {
    fn drop(&mut self) {
        for shared in self.0.iter().filter_map(Weak::upgrade) {
            let events = {
                let state = shared.lock();
                match (state.closed, shared.spooled()) {
                    (true, _) => 0,
                    (false, true) => state.queue.waiting_events(),
                    (false, false) => state.queue.events(),
                }
            };
            if events > 0 {
                report(&format!(
                    "`main` ended with {events} events not delivered; they are lost. Keep \
                     `Logger::guard` in `main`, or call `close`"
                ));
            }
        }
    }
}

/// Remembers a logger if this is the main thread.
pub(crate) fn watch(shared: &Arc<Shared>) {
    if std::thread::current().name() == Some("main") {
        OF_MAIN.with_borrow_mut(|watched| {
            watched.0.retain(|known| known.strong_count() > 0);
            watched.0.push(Arc::downgrade(shared));
        });
    }
}

/// Writes one line to stderr. A closed stderr is ignored: there is no other place to report to.
pub(crate) fn report(message: &str) {
    let _ = writeln!(std::io::stderr(), "fluent-logger: {message}");
}
