//! Destinations of records: which trace a record joins, that it becomes a document of its own, or
//! that it is dropped.

use super::Gatherer;
use super::origin::MessageOrigin;
use super::prefetch::Walked;
use super::tally::Tally;
use crate::gather::classifier::Captured;
use crate::gather::router::Routable;
use crate::metrics::FlushReason;
use crate::output::DestinationId;
use windrow_trace::{TraceId, UntracedRecord};

impl Gatherer {
    /// The id of the trace that a record joins; none of a dropped record.
    #[inline(always)]
    pub(super) fn trace_id<'i>(
        &self,
        id: Option<&'i [u8]>,
        destination: DestinationId,
    ) -> Option<TraceId<'i>> {
        let id = self.table.trace_id(id?);
        match destination {
            DestinationId::DEFAULT => Some(id),
            DestinationId::DROPPED => None,
            DestinationId(number) => Some(id.with_destination(number)),
        }
    }

    /// Where a record goes. `captured`: of a record of a known shape.
    #[inline]
    pub(super) fn destination<'a>(
        &mut self,
        routable: &Routable<'_, 'a>,
        captured: Option<&Captured<'a>>,
        tally: &mut Tally,
    ) -> DestinationId {
        let Some(router) = &mut self.router else {
            return DestinationId::DEFAULT;
        };
        let view = self.shapes.view();
        let routed = match captured {
            Some(captured) if routable.metadata.is_none() && routable.group.is_none() => {
                router.route(routable, captured, view)
            }
            _ => router.route_slowly(routable, view),
        };
        tally.fallbacks += u64::from(routed.is_fallback);
        routed.destination
    }

    /// Makes a document of a record without a trace id.
    // Always inlined, as what calls it: the classification then needs no memory.
    #[inline(always)]
    pub(super) fn single(
        &mut self,
        walked: &Walked<'_>,
        metadata: &[u8],
        time: i64,
        origin: &MessageOrigin<'_>,
    ) {
        let classification = walked.classification;
        let view = self.shapes.view();
        let single = UntracedRecord {
            shape: classification.shape.and_then(|id| self.shapes.get(id)),
            time,
            tag: origin.tag,
            record: walked.record,
            metadata,
            level: classification.facts.level,
            service: classification.facts.service,
        };
        self.batcher.push_single(
            view,
            &single,
            origin.part,
            walked.number,
            origin.claim,
            walked.destination,
        );
        self.metrics.traces_flushed[FlushReason::NoTrace].inc();
        self.send_batch_if_full();
    }
}
