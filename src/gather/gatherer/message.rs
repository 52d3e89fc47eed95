//! Gathering of one message: duplicate check, walk over its entries, and each record into its trace
//! or a document of its own.
//!
//! This is the hot path of the server: every record passes through `entries` and `add`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use forward_protocol::entries::{Compression, Damage, Entries, Piece, Time};
use forward_protocol::frame::{Message, Payload};

use super::Gatherer;
use super::origin::{Anonymous, Arrival, MessageOrigin};
use super::prefetch::{MIN_PREFETCH_BYTES, PREFETCH_RECORDS, PrefetchPipeline, Waiting, Walked};
use super::rewriting::StoredMessage;
use super::sections::Section;
use super::tally::Tally;
use crate::cluster::Share;
use crate::gather::classifier::{
    Capture, Captured, Classification, NoCapture, RecordClassifier, classify_slow,
};
use crate::gather::duplicate_window::Seen;
use crate::gather::metadata;
use crate::gather::reject_buffer::RejectReason;
use crate::gather::rewrite::is_candidate;
use crate::gather::router::Routable;
use crate::gather::settings::{max_entry_bytes, max_records};
use crate::output::DestinationId;
use windrow_trace::{AddOutcome, IncomingRecord, MadeId, PartId, SourceId, TextForm, record_cost};

/// Bad entries of a message that are rejected one by one. If there are more, the whole message is
/// rejected once: a small compressed payload can hold millions of bad entries, and the rejected
/// input must not grow faster than intake.
const MAX_REJECTED_ENTRIES: u32 = 16;
/// Bad entries after which the walk over a message ends; the whole message is rejected by then.
const MAX_BAD_ENTRIES: u32 = 10_000;

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

impl Gatherer {
    /// Gathers one message.
    pub(super) fn message(&mut self, message: &Message<'_>, arrival: Arrival<'_>, anonymous: &mut Anonymous) {
        let Arrival {
            record, now, claim, ..
        } = arrival;
        let share = Share::in_record(record, message);
        let (chunk, seen) = match &share {
            None => {
                let chunk = message.options.chunk;
                let chunk = chunk.map(|chunk| PartId::of_chunk(message.tag, chunk, message.body));
                let seen = chunk.map_or(Seen::Nothing, |(hash, _)| self.duplicates.insert_chunk(hash));
                (chunk.map(|(_, part)| part), seen)
            }
            Some(share) => {
                let hash = share.identity.chunk;
                let seen = self.duplicates.insert_share(hash, share.hash);
                (Some(PartId::of_hash(hash)), seen)
            }
        };
        let is_new = seen != Seen::All;
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
            // Parts of lines in a released record may belong to a line that ends in another.
            let received = record.received_us;
            let (part, received, first) = match chunk {
                Some(part) => (part, received.saturating_add(arrival.ordinal), 0),
                None => (anonymous.part, received, anonymous.position),
            };
            let stored = (record.released && is_new).then(|| StoredMessage {
                part,
                first,
                received,
                tag: self.tags.take(message.tag),
                arrival,
            });
            self.walk(&mut entries, |gatherer, piece| {
                if u64::from(count) >= limit {
                    return ControlFlow::Break(());
                }
                count += match (piece, &stored) {
                    (Piece::Entries(entries), Some(stored)) => gatherer.stored_parts(entries, stored, count),
                    (Piece::Entries(entries), None) => entries.count() as u32,
                    (Piece::TooLong, _) => 1,
                };
                ControlFlow::Continue(())
            });
            if let Some(stored) = stored {
                self.tags.put_back(stored.tag);
            }
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
        let (part, received, mut position, section) = match (chunk, &share) {
            (Some(part), Some(share)) => (part, share.identity.received, 0, Section::of_share(share)),
            // The ordinal keeps the order of lines with equal times that came in one read.
            (Some(part), None) => (
                part,
                received.saturating_add(arrival.ordinal),
                0,
                Section::default(),
            ),
            (None, _) => (anonymous.part, received, anonymous.position, anonymous.section),
        };
        let source = match &anonymous.source {
            Some((source, last_tag)) if chunk.is_none() && *last_tag == tag => *source,
            _ => {
                let source = self.begin_section(part, received, section, &tag, claim);
                if chunk.is_none() {
                    let previous = anonymous.source.replace((source, Arc::clone(&tag)));
                    self.end(previous.map(|(source, _)| source));
                }
                source
            }
        };
        let (earliest, latest) = self.settings.time_bounds(received);
        let mut origin = MessageOrigin {
            source,
            part,
            section,
            received,
            now,
            earliest,
            latest,
            tag: &tag,
            claim,
            nesting: 0,
            positions: share.as_ref().map_or(&[], |share| &share.positions),
            may_repeat: seen == Seen::Some,
        };
        let mut tally = Tally {
            rejectable_bytes: message.bytes.len(),
            ..Tally::default()
        };
        let lines = self.table.lines();
        let limit = entries.max_records();
        let damage = self.walk(&mut entries, |gatherer, piece| match piece {
            // Between pieces only, so that it costs nothing for each record.
            _ if tally.records >= limit => {
                tally.record_limit = Some(limit);
                ControlFlow::Break(())
            }
            Piece::Entries(entries) => gatherer.entries(entries, &mut origin, &mut position, &mut tally),
            Piece::TooLong => {
                position += 1;
                tally.records += 1;
                tally.too_long += 1;
                ControlFlow::Continue(())
            }
        });
        if let Some(bytes) = message.nested
            && self.nested_message(bytes, position, &origin, &mut tally)
        {
            tally.records += 1;
            position = position.wrapping_add(1);
        }
        if self.table.lines() != lines {
            self.key_watch.stop();
        }
        self.account_for(&tally, damage, message.bytes, &origin);
        match chunk {
            Some(_) => self.end(Some(origin.source)),
            None => {
                anonymous.position = position;
                anonymous.section = origin.section;
                if let Some((source, _)) = &mut anonymous.source {
                    *source = origin.source;
                }
            }
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
                let longest = max_entry_bytes(self.settings.max_record_bytes);
                let damage =
                    decompressor.walk(*compression, bytes, depth, longest, |piece| each(self, piece));
                self.decompressor = decompressor;
                damage
            }
        }
    }

    /// Gathers the entries of a piece.
    pub(super) fn entries(
        &mut self,
        entries: &mut Entries<'_>,
        origin: &mut MessageOrigin<'_>,
        position: &mut u32,
        tally: &mut Tally,
    ) -> ControlFlow<()> {
        if self.router.is_some() {
            self.entries_with::<Captured<'_>>(entries, origin, position, tally)
        } else {
            self.entries_with::<NoCapture<0>>(entries, origin, position, tally)
        }
    }

    /// [`Self::entries`], with or without routes.
    #[inline(never)]
    fn entries_with<'e, C: Capture<'e>>(
        &mut self,
        entries: &mut Entries<'e>,
        origin: &mut MessageOrigin<'_>,
        position: &mut u32,
        tally: &mut Tally,
    ) -> ControlFlow<()> {
        // A local copy stays in registers.
        let mut walk = entries.clone();
        let mut scratch = Vec::new();
        let mut made = MadeId::default();
        let mut captured = C::default();
        let mut classification = Classification::default();
        let first = *position;
        let mut records = 0;
        // Prefetching pays off once the open traces exceed the cache, and for a run of records.
        let prefetch = self.table.exceeds_cache() && walk.rest() >= MIN_PREFETCH_BYTES;
        let mut pipeline = prefetch.then(PrefetchPipeline::new);
        loop {
            captured.clear();
            let mut classifier = RecordClassifier::new(
                &self.shapes,
                &self.settings.complete,
                &mut captured,
                &mut classification,
            );
            let Some(next) = walk.next_with(&mut classifier) else {
                break;
            };
            let has_shape = classifier.finish();
            let number = first.wrapping_add(records);
            // Empty of all messages but shares.
            let number = origin.positions.get(number as usize).copied().unwrap_or(number);
            records += 1;
            match next {
                Ok(entry) => {
                    if !has_shape {
                        let complete = &self.settings.complete;
                        classification = classify_slow(&mut self.shapes, complete, entry.record, &mut made);
                    }
                    let group = walk.group();
                    if entry.metadata.is_some() || group.is_some() {
                        let view = self.shapes.view();
                        classification.read_metadata(view, entry.metadata, group, &mut made);
                    }
                    let destination = if C::ROUTES {
                        let routable = Routable {
                            tag: origin.tag,
                            record: entry.record,
                            classification: &classification,
                            metadata: entry.metadata,
                            group,
                        };
                        let captured = captured.values().filter(|_| has_shape);
                        self.destination(&routable, captured, tally)
                    } else {
                        DestinationId::DEFAULT
                    };
                    if classification.id_is_made
                        || is_candidate(&classification)
                        || self.partial.is_any_open()
                    {
                        // A made id lives until the next record: it cannot wait in the pipeline.
                        let walked = Walked {
                            time: entry.time,
                            record: entry.record,
                            metadata: entry.metadata,
                            classification: &classification,
                            id: self.trace_id(classification.id(&made), destination),
                            destination,
                            group,
                            number,
                        };
                        self.add_alone(&walked, pipeline.as_mut(), &mut scratch, origin, tally);
                        continue;
                    }
                    let id = self.trace_id(classification.facts.id, destination);
                    let Some(pipeline) = &mut pipeline else {
                        let metadata = metadata::merge(entry.metadata, group, &mut scratch);
                        let walked = Walked {
                            time: entry.time,
                            record: entry.record,
                            metadata: entry.metadata,
                            classification: &classification,
                            id,
                            destination,
                            group,
                            number,
                        };
                        self.add(&walked, metadata, origin, tally);
                        continue;
                    };
                    if let Some(id) = id {
                        self.table.prefetch_index_entry(id);
                    }
                    pipeline.walked.push(Waiting {
                        time: entry.time,
                        record: entry.record,
                        metadata: entry.metadata,
                        classification,
                        id,
                        destination,
                        group,
                        number,
                        guess: None,
                    });
                    if pipeline.walked.len() == PREFETCH_RECORDS {
                        self.advance(pipeline, &mut scratch, origin, tally);
                    }
                }
                Err(bad) if self.nested_message(bad.bytes, number, origin, tally) => {}
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
            self.drain(pipeline, &mut scratch, origin, tally);
        }
        *entries = walk;
        *position = first.wrapping_add(records);
        tally.records += u64::from(records);
        if tally.bad >= MAX_BAD_ENTRIES {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Adds a record to its trace, or makes a document of it if it has no trace id.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        walked: &Walked<'_>,
        metadata: &[u8],
        origin: &mut MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        self.count_in_section(record_cost(walked.record, metadata), origin);
        self.add_to_section(walked, metadata, origin, tally);
    }

    /// Adds a record that is counted in its section.
    #[inline(always)]
    pub(super) fn add_to_section(
        &mut self,
        walked: &Walked<'_>,
        metadata: &[u8],
        origin: &MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        let Walked {
            time,
            record,
            classification,
            id,
            destination,
            number,
            ..
        } = walked;
        let record = *record;
        let size = record_cost(record, metadata);
        if size > self.settings.table.max_trace_bytes && self.settings.is_too_long(record, metadata) {
            tally.too_long += 1;
            return;
        }
        let mut scratch = Vec::new();
        let (time, metadata) = match *time {
            Time::At(ns) if (origin.earliest..=origin.latest).contains(&ns) => (ns, metadata),
            Time::At(ns) => {
                tally.times_outside += 1;
                let metadata = metadata::with_original_time(metadata, ns, &mut scratch);
                (origin.received.saturating_mul(1000), metadata)
            }
            Time::Absent | Time::Invalid => {
                tally.invalid_times += u64::from(*time == Time::Invalid);
                (origin.received.saturating_mul(1000), metadata)
            }
        };
        match classification.text_form {
            TextForm::Field => {}
            _ if id.is_none() => {}
            TextForm::Value => tally.texts_of_values += 1,
            TextForm::Fields => tally.texts_of_fields += 1,
        }
        let Some(id) = *id else {
            if *destination == DestinationId::DROPPED {
                tally.dropped += 1;
                return;
            }
            if self.key_watch.is_watching() {
                self.key_watch.observe(self.shapes.view(), record);
            }
            self.single(walked, metadata, time, origin);
            return;
        };
        if origin.may_repeat && self.repeats(id, origin.source) {
            return;
        }
        let incoming = IncomingRecord {
            id,
            time,
            source: origin.source,
            position: *number,
            record,
            metadata,
            completes: classification.completes,
            shape: classification.trace_shape(),
            text: classification.facts.text,
            level: classification.facts.level,
            service: classification.facts.service,
        };
        if self.table.add(origin.now, &incoming, &self.shapes) == AddOutcome::TraceFull {
            self.add_to_full(&incoming, origin.now);
        }
    }
}
