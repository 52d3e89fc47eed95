//! Prefetching of traces: while the open traces exceed the processor's cache, classified records
//! pass through a pipeline in which their traces are fetched before they are added.

use forward_protocol::entries::{Group, Time};

use super::Gatherer;
use super::origin::MessageOrigin;
use super::tally::Tally;
use crate::gather::classifier::Classification;
use crate::gather::metadata;
use crate::output::DestinationId;
use windrow_trace::{SlotHint, TraceId};

/// Records that are prefetched together while the open traces exceed the processor's cache.
pub(super) const PREFETCH_RECORDS: usize = 16;
/// Smallest payload of entries that is worth prefetching for.
pub(super) const MIN_PREFETCH_BYTES: usize = 4 << 10;

/// Pipeline of records whose traces are being prefetched into the processor's cache, in three
/// stages.
pub(super) struct PrefetchPipeline<'a> {
    /// Walked; the index entries of their traces are being fetched.
    pub(super) walked: Vec<Waiting<'a>>,
    /// Their traces are being fetched.
    fetching: Vec<Waiting<'a>>,
    /// The records of their traces are being fetched; these are added next.
    fetched: Vec<Waiting<'a>>,
}

impl PrefetchPipeline<'_> {
    pub(super) fn new() -> Self {
        let [walked, fetching, fetched] = [(); 3].map(|()| Vec::with_capacity(PREFETCH_RECORDS));
        Self {
            walked,
            fetching,
            fetched,
        }
    }
}

/// A classified record.
#[derive(Clone, Copy)]
pub(super) struct Walked<'a> {
    pub(super) time: Time,
    /// A MessagePack map.
    pub(super) record: &'a [u8],
    /// The metadata of the event itself.
    pub(super) metadata: Option<&'a [u8]>,
    /// By reference: a copy for each record would cost more than all else here.
    pub(super) classification: &'a Classification<'a>,
    /// The id of its trace, which its destination is a part of.
    pub(super) id: Option<TraceId<'a>>,
    pub(super) destination: DestinationId,
    /// The group of events that it belongs to.
    pub(super) group: Option<Group<'a>>,
    /// Number of the record in its part.
    pub(super) number: u32,
}

/// A [`Walked`] record that waits for its trace.
pub(super) struct Waiting<'a> {
    pub(super) time: Time,
    pub(super) record: &'a [u8],
    pub(super) metadata: Option<&'a [u8]>,
    pub(super) classification: Classification<'a>,
    pub(super) id: Option<TraceId<'a>>,
    pub(super) destination: DestinationId,
    pub(super) group: Option<Group<'a>>,
    pub(super) number: u32,
    /// Where the trace probably is.
    pub(super) guess: Option<SlotHint>,
}

impl Waiting<'_> {
    #[inline(always)]
    fn walked(&self) -> Walked<'_> {
        Walked {
            time: self.time,
            record: self.record,
            metadata: self.metadata,
            classification: &self.classification,
            id: self.id,
            destination: self.destination,
            group: self.group,
            number: self.number,
        }
    }
}

impl Gatherer {
    /// Advances the pipeline by one stage: prefetches for the first two, adds the records of the
    /// last.
    #[inline(never)]
    pub(super) fn advance(
        &mut self,
        pipeline: &mut PrefetchPipeline<'_>,
        scratch: &mut Vec<u8>,
        origin: &mut MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        for walked in &mut pipeline.walked {
            walked.guess = walked.id.and_then(|id| self.table.prefetch_trace(id));
        }
        for guess in pipeline.fetching.iter().filter_map(|walked| walked.guess) {
            self.table.prefetch_records(guess);
        }
        for walked in &pipeline.fetched {
            let metadata = metadata::merge(walked.metadata, walked.group, scratch);
            self.add(&walked.walked(), metadata, origin, tally);
        }
        pipeline.fetched.clear();
        std::mem::swap(&mut pipeline.fetching, &mut pipeline.fetched);
        std::mem::swap(&mut pipeline.walked, &mut pipeline.fetching);
    }

    /// Adds all records in the pipeline: one step per stage empties it.
    pub(super) fn drain(
        &mut self,
        pipeline: &mut PrefetchPipeline<'_>,
        scratch: &mut Vec<u8>,
        origin: &mut MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        for _ in 0..3 {
            self.advance(pipeline, scratch, origin, tally);
        }
    }
}
