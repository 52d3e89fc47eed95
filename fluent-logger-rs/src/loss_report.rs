//! Loss report on stderr, for a logger that ends without `close`.

use std::io::Write as _;
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

/// Writes one line to stderr. A closed stderr is ignored: there is no other place to report to.
pub(crate) fn report(message: &str) {
    let _ = writeln!(std::io::stderr(), "fluent-logger: {message}");
}
