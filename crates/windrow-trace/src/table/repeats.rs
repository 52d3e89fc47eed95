//! Search for a part that a trace has already: the same records came in two chunks that were cut
//! differently.

use super::Table;
use crate::document::state::SealReason;
use crate::source::SourceId;
use crate::trace_id::TraceId;

impl<H: Clone> Table<H> {
    /// Whether another source than `source` brought the trace the part of `source`. A trace that
    /// lingers is opened for the answer and keeps its deadline.
    #[cold]
    pub fn has_part_of(&mut self, id: TraceId<'_>, source: SourceId) -> bool {
        if let Some((due, trace)) = self.lingering.take(id) {
            self.bytes += trace.memory_bytes();
            let (key, slot) = self.open.open(id);
            *slot = trace;
            slot.has_deadline = true;
            self.set_deadline(due, SealReason::Completed, key);
        }
        let Some(part) = self.sources.get(source).map(|source| source.part) else {
            return false;
        };
        let Some((_, trace)) = self.open.find(id) else {
            return false;
        };
        let mut others = trace.parts.iter().filter(|part| part.source != source);
        others.any(|other| {
            self.sources
                .get(other.source)
                .is_some_and(|known| known.part == part)
        })
    }
}
