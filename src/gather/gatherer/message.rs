//! Gathering of one message: duplicate check, walk over its entries, and each record into its trace
//! or a document of its own.
//!
//! This is the hot path of the server: every record passes through `entries` and `add`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use forward_protocol::entries::{Compression, Damage, Entries, Entry, Group, Piece, Time};
use forward_protocol::frame::{Message, Payload};

use super::Gatherer;
use super::tally::Tally;
use crate::claim::RecordClaim;
use crate::gather::classifier::{Classification, RecordClassifier, classify_slow};
use crate::gather::metadata;
use crate::gather::reject_buffer::RejectReason;
use crate::gather::settings::{Settings, max_entry_bytes, max_records};
use crate::metrics::FlushReason;
use windrow_journal::Record;
use windrow_trace::{
    AddOutcome, IncomingRecord, PartId, SlotHint, Source, SourceId, TraceId, UntracedRecord,
};

/// Bad entries of a message that are rejected one by one. If there are more, the whole message is
/// rejected once: a small compressed payload can hold millions of bad entries, and the rejected
/// input must not grow faster than intake.
const MAX_REJECTED_ENTRIES: u32 = 16;
/// Bad entries after which the walk over a message ends; the whole message is rejected by then.
const MAX_BAD_ENTRIES: u32 = 10_000;

/// Records that are prefetched together while the open traces exceed the processor's cache.
const PREFETCH_RECORDS: usize = 16;
/// Smallest payload of entries that is worth prefetching for.
const MIN_PREFETCH_BYTES: usize = 4 << 10;

/// A message of a journal record.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) record: &'a Record,
    /// Number of the message in the record.
    pub(super) ordinal: i64,
    /// When it is gathered (µs).
    pub(super) now: i64,
    pub(super) claim: &'a RecordClaim,
}

/// What the messages without a chunk id of one journal record share.
pub(super) struct Anonymous {
    pub(super) part: PartId,
    /// Number of their records so far.
    pub(super) position: u32,
    /// Source and tag of the last one.
    pub(super) source: Option<(SourceId, Arc<str>)>,
}

/// Where the records of a message come from.
#[derive(Clone, Copy)]
struct MessageOrigin<'a> {
    source: SourceId,
    part: PartId,
    /// When the message was received (µs).
    received: i64,
    /// When it is gathered (µs); read once per journal record, since reading the clock costs as
    /// much as gathering a record.
    now: i64,
    tag: &'a Arc<str>,
    claim: &'a RecordClaim,
}

/// The entries of a message.
enum MessageEntries<'a> {
    Plain(Entries<'a>),
    Compressed {
        compression: Compression,
        bytes: &'a [u8],
    },
}

impl MessageEntries<'_> {
    /// Records after which the walk over a compressed message ends: a small one may not hold up all
    /// others. The work for a plain message is bounded by its size.
    fn max_records(&self) -> u64 {
        match self {
            Self::Plain(_) => u64::MAX,
            Self::Compressed { bytes, .. } => max_records(bytes.len()),
        }
    }
}

/// Pipeline of records whose traces are being prefetched into the processor's cache, in three
/// stages.
struct PrefetchPipeline<'a> {
    /// Walked; the index entries of their traces are being fetched.
    walked: Vec<Walked<'a>>,
    /// Their traces are being fetched.
    fetching: Vec<Walked<'a>>,
    /// The records of their traces are being fetched; these are added next.
    fetched: Vec<Walked<'a>>,
}

impl PrefetchPipeline<'_> {
    fn new() -> Self {
        let [walked, fetching, fetched] = [(); 3].map(|()| Vec::with_capacity(PREFETCH_RECORDS));
        Self {
            walked,
            fetching,
            fetched,
        }
    }
}

/// A classified record.
struct Walked<'a> {
    entry: Entry<'a>,
    classification: Classification<'a>,
    id: Option<TraceId<'a>>,
    /// The group of events that it belongs to.
    group: Option<Group<'a>>,
    /// Number of the record in its part.
    number: u32,
    /// Where the trace probably is.
    guess: Option<SlotHint>,
}

impl Gatherer {
    /// Gathers one message.
    pub(super) fn message(&mut self, message: &Message<'_>, arrival: Arrival<'_>, anonymous: &mut Anonymous) {
        let Arrival {
            record, now, claim, ..
        } = arrival;
        let chunk = message
            .options
            .chunk
            .map(|chunk| PartId::of_chunk(message.tag, chunk, message.body));
        let is_new = chunk.is_none_or(|(hash, _)| self.duplicates.insert(hash));
        let depth = self.settings.frame.depth;
        let mut entries = match message.payload(depth) {
            Payload::Entries(entries) => MessageEntries::Plain(entries),
            Payload::Compressed { compression, bytes } => MessageEntries::Compressed { compression, bytes },
            Payload::Opaque(_) => {
                if is_new && !record.released {
                    self.metrics.input_records.inc();
                    self.rejects.reject(
                        RejectReason::Signal,
                        message.bytes,
                        Some(message.tag),
                        record.received_us,
                    );
                }
                return;
            }
        };
        if record.released || !is_new {
            // Records without a chunk id are numbered through the whole journal record.
            let mut count = 0;
            let limit = entries.max_records();
            self.walk(&mut entries, |_, piece| {
                if u64::from(count) >= limit {
                    return ControlFlow::Break(());
                }
                count += match piece {
                    Piece::Entries(entries) => entries.count() as u32,
                    Piece::TooLong => 1,
                };
                ControlFlow::Continue(())
            });
            if chunk.is_none() {
                anonymous.position += count;
            }
            if !record.released {
                self.metrics.input_records.inc_by(u64::from(count));
                self.metrics.input_chunks_duplicate.inc();
                self.account
                    .duplicate
                    .fetch_add(u64::from(count), Ordering::Relaxed);
            }
            return;
        }
        let tag = self.tags.take(message.tag);
        let received = record.received_us;
        let (part, received, mut position) = match chunk {
            // The ordinal keeps the order of lines with equal times that came in one read.
            Some((_, part)) => (part, received.saturating_add(arrival.ordinal), 0),
            None => (anonymous.part, received, anonymous.position),
        };
        let source = match &anonymous.source {
            Some((source, last_tag)) if chunk.is_none() && *last_tag == tag => *source,
            _ => {
                let source = self.table.begin_source(Source {
                    part,
                    received,
                    tag: Arc::clone(&tag),
                    hold: claim.clone(),
                });
                if chunk.is_none() {
                    let previous = anonymous.source.replace((source, Arc::clone(&tag)));
                    self.end(previous.map(|(source, _)| source));
                }
                source
            }
        };
        let origin = MessageOrigin {
            source,
            part,
            received,
            now,
            tag: &tag,
            claim,
        };
        let mut tally = Tally {
            rejectable_bytes: message.bytes.len(),
            ..Tally::default()
        };
        let limit = entries.max_records();
        let damage = self.walk(&mut entries, |gatherer, piece| match piece {
            // Between pieces only, so that it costs nothing for each record.
            _ if tally.records >= limit => {
                tally.record_limit = Some(limit);
                ControlFlow::Break(())
            }
            Piece::Entries(entries) => gatherer.entries(entries, origin, &mut position, &mut tally),
            Piece::TooLong => {
                position += 1;
                tally.records += 1;
                tally.too_long += 1;
                ControlFlow::Continue(())
            }
        });
        self.account_for(&tally, damage, message.bytes, origin);
        match chunk {
            Some(_) => self.end(Some(source)),
            None => anonymous.position = position,
        }
        self.tags.put_back(tag);
    }

    /// Ends a source: no more records come from it.
    pub(super) fn end(&mut self, source: Option<SourceId>) {
        if let Some(claim) = source.and_then(|source| self.table.end_source(source)) {
            claim.confirm();
        }
    }

    /// Walks the entries of a message, a compressed payload piece by piece; returns the damage of
    /// such a payload.
    #[inline]
    fn walk(
        &mut self,
        entries: &mut MessageEntries<'_>,
        mut each: impl FnMut(&mut Self, Piece<'_, '_>) -> ControlFlow<()>,
    ) -> Option<Damage> {
        match entries {
            MessageEntries::Plain(entries) => {
                let _done = each(self, Piece::Entries(entries));
                None
            }
            MessageEntries::Compressed { compression, bytes } => {
                let mut decompressor = std::mem::take(&mut self.decompressor);
                let depth = self.settings.frame.depth;
                let longest = max_entry_bytes(self.settings.table.max_trace_bytes);
                let damage =
                    decompressor.walk(*compression, bytes, depth, longest, |piece| each(self, piece));
                self.decompressor = decompressor;
                damage
            }
        }
    }

    /// Gathers the entries of a piece.
    fn entries(
        &mut self,
        entries: &mut Entries<'_>,
        origin: MessageOrigin<'_>,
        position: &mut u32,
        tally: &mut Tally,
    ) -> ControlFlow<()> {
        // A local copy stays in registers.
        let mut walk = entries.clone();
        let mut scratch = Vec::new();
        let first = *position;
        let mut records = 0;
        // Prefetching pays off once the open traces exceed the cache, and for a run of records.
        let prefetch = self.table.exceeds_cache() && walk.rest() >= MIN_PREFETCH_BYTES;
        let mut pipeline = prefetch.then(PrefetchPipeline::new);
        loop {
            let mut classifier = RecordClassifier::new(&self.shapes, &self.settings.complete);
            let Some(next) = walk.next_with(&mut classifier) else {
                break;
            };
            let classification = classifier.classification();
            let number = first.wrapping_add(records);
            records += 1;
            match next {
                Ok(entry) => {
                    let Settings { names, complete, .. } = &self.settings;
                    let classification = classification
                        .unwrap_or_else(|| classify_slow(&mut self.shapes, names, complete, entry.record));
                    let id = classification.trace_id.map(|id| self.table.trace_id(id));
                    let group = walk.group();
                    let walked = Walked {
                        entry,
                        classification,
                        id,
                        group,
                        number,
                        guess: None,
                    };
                    let Some(pipeline) = &mut pipeline else {
                        let metadata = metadata::merge(walked.entry.metadata, group, &mut scratch);
                        self.add(&walked, metadata, origin, tally);
                        continue;
                    };
                    if let Some(id) = walked.id {
                        self.table.prefetch_index_entry(id);
                    }
                    pipeline.walked.push(walked);
                    if pipeline.walked.len() == PREFETCH_RECORDS {
                        self.advance(pipeline, &mut scratch, origin, tally);
                    }
                }
                Err(bad) => {
                    tally.bad += 1;
                    if tally.bad <= MAX_REJECTED_ENTRIES && tally.admit(bad.bytes.len()) {
                        let tag = Some(origin.tag.as_bytes());
                        self.rejects
                            .reject(RejectReason::Entry(bad.defect), bad.bytes, tag, origin.received);
                    } else {
                        tally.bad_in_message += 1;
                    }
                    tally.defect = Some(bad.defect);
                    if tally.bad >= MAX_BAD_ENTRIES {
                        break;
                    }
                }
            }
        }
        if let Some(pipeline) = &mut pipeline {
            // One step per stage empties the pipeline.
            for _ in 0..3 {
                self.advance(pipeline, &mut scratch, origin, tally);
            }
        }
        *entries = walk;
        *position = first.wrapping_add(records);
        tally.records += u64::from(records);
        if tally.bad >= MAX_BAD_ENTRIES {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Advances the pipeline by one stage: prefetches for the first two, adds the records of the
    /// last.
    #[inline(never)]
    fn advance(
        &mut self,
        pipeline: &mut PrefetchPipeline<'_>,
        scratch: &mut Vec<u8>,
        origin: MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        for walked in &mut pipeline.walked {
            walked.guess = walked.id.and_then(|id| self.table.prefetch_trace(id));
        }
        for guess in pipeline.fetching.iter().filter_map(|walked| walked.guess) {
            self.table.prefetch_records(guess);
        }
        for walked in &pipeline.fetched {
            let metadata = metadata::merge(walked.entry.metadata, walked.group, scratch);
            self.add(walked, metadata, origin, tally);
        }
        pipeline.fetched.clear();
        std::mem::swap(&mut pipeline.fetching, &mut pipeline.fetched);
        std::mem::swap(&mut pipeline.walked, &mut pipeline.fetching);
    }

    /// Adds a record to its trace, or makes a document of it if it has no trace id.
    #[inline(always)]
    fn add(
        &mut self,
        Walked {
            entry,
            classification,
            id,
            number,
            ..
        }: &Walked<'_>,
        metadata: &[u8],
        origin: MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        let time = entry.time.or_received(origin.received.saturating_mul(1000));
        tally.invalid_times += u64::from(entry.time == Time::Invalid);
        let record = entry.record;
        let added = match *id {
            None => self.single(record, classification, metadata, time, *number, origin),
            Some(id) => self.table.add(
                origin.now,
                &IncomingRecord {
                    id,
                    time,
                    source: origin.source,
                    position: *number,
                    record,
                    metadata,
                    completes: classification.completes,
                    shape: classification.shape,
                    text: classification.text,
                    level: classification.context.level,
                    service: classification.context.service,
                },
            ),
        };
        match (added, id) {
            (AddOutcome::TooLong, _) => tally.too_long += 1,
            (AddOutcome::TraceFull, Some(_)) if !tally.admit(record.len()) => tally.full_in_message += 1,
            (AddOutcome::TraceFull, Some(id)) => {
                let reason = RejectReason::TraceFull { trace: id.bytes() };
                let tag = Some(origin.tag.as_bytes());
                self.rejects.reject(reason, record, tag, origin.received);
            }
            _ => {}
        }
    }

    /// Counts the tally of a message, and rejects the whole message if a part that cannot be kept
    /// has no bytes of its own.
    fn account_for(
        &mut self,
        tally: &Tally,
        damage: Option<Damage>,
        message: &[u8],
        origin: MessageOrigin<'_>,
    ) {
        let mut reject_message = |reason, records| {
            let tag = Some(origin.tag.as_bytes());
            self.rejects
                .reject_records(reason, message, tag, origin.received, records);
        };
        if let Some(damage) = damage {
            self.metrics.input_records.inc();
            reject_message(RejectReason::Damage(damage), 1);
        }
        if let Some(defect) = tally.defect.filter(|_| tally.bad_in_message > 0) {
            reject_message(RejectReason::Entries(defect), tally.bad_in_message);
        }
        if let Some(limit) = tally.record_limit {
            self.metrics.input_records.inc();
            reject_message(RejectReason::TooManyRecords { limit }, 1);
        }
        if tally.too_long > 0 {
            let limit = self.settings.table.max_trace_bytes;
            reject_message(RejectReason::TooLong { limit }, tally.too_long);
        }
        if tally.full_in_message > 0 {
            reject_message(RejectReason::TracesFull, tally.full_in_message);
        }
        self.metrics.input_records.inc_by(tally.records);
        if tally.invalid_times > 0 {
            self.metrics.input_time_invalid.inc_by(tally.invalid_times);
        }
    }

    /// Makes a document of a record without a trace id.
    fn single(
        &mut self,
        record: &[u8],
        classification: &Classification<'_>,
        metadata: &[u8],
        time: i64,
        position: u32,
        origin: MessageOrigin<'_>,
    ) -> AddOutcome {
        if record.len() + metadata.len() > self.settings.table.max_trace_bytes {
            return AddOutcome::TooLong;
        }
        let names = &self.settings.names;
        let single = UntracedRecord {
            shape: classification.shape.and_then(|id| self.shapes.get(id)),
            time,
            tag: origin.tag,
            record,
            metadata,
            level: classification.context.level,
            service: classification.context.service,
        };
        self.batcher
            .push_single(names, &single, origin.part, position, origin.claim);
        self.metrics.traces_flushed[FlushReason::NoTrace].inc();
        self.send_batch_if_full();
        AddOutcome::Added
    }
}
