//! Traces that are silent here, and complete in the store: they are sealed at once.

use super::Gatherer;
use crate::gather::silent_lookup::News;
use crate::metrics::FlushReason;

/// Traces that are sealed in one step.
const MAX_SEALED: usize = 256;

impl Gatherer {
    /// Seals traces that the store has complete, and asks about others. Bounded work.
    #[cold]
    #[inline(never)]
    pub(super) fn look_up_silent(&mut self, now: i64) {
        let Some(lookup) = &mut self.silent_lookup else {
            return;
        };
        if let News::Counts { asked, found } = lookup.receive(now) {
            self.metrics.traces_looked_up.inc_by(asked);
            self.metrics.traces_found_complete.inc_by(found);
        }
        for _ in 0..MAX_SEALED {
            let Some(lookup) = &mut self.silent_lookup else {
                return;
            };
            let silence = lookup.silence();
            let Some(silent) = lookup.next_complete() else {
                break;
            };
            let id = self.table.trace_id(&silent.id);
            let id = id.with_destination(silent.destination);
            let Some(mut closed) = self.table.seal_silent(now, silence, id) else {
                continue;
            };
            let reason = closed.reason;
            self.batcher
                .push_trace(&self.settings.names, &self.shapes, &mut closed, now);
            self.sealed(reason, FlushReason::CompletedElsewhere);
        }
        let Some(lookup) = &mut self.silent_lookup else {
            return;
        };
        let limit = lookup.limit(now);
        if limit == 0 {
            return;
        }
        // The completion record may be among what waits here.
        let is_behind = self.queue.as_ref().is_some_and(|queue| queue.backlog().on_disk);
        if is_behind || self.batcher.is_over_budget() {
            lookup.wait(now);
            return;
        }
        let silent = self.table.find_silent(now, lookup.silence(), limit);
        lookup.ask(now, silent);
    }
}
