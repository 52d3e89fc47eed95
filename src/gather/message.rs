//! One message on its way through gathering: told from one that was here before, its entries walked, each record added
//! to its trace or made a document of its own.
//!
//! Owns what is met on the way and is only known at the end: damage, bad entries, records that are too long.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use forward_protocol::entries::{Compression, Damage, Defect, Entries, Entry, Group, Piece, Time};
use forward_protocol::frame::{Message, Payload};

use super::aside::Why;
use super::look::{Found, Look, look_again, metadata};
use super::settings::longest_entry;
use super::{Gatherer, Settings};
use crate::hold::Hold;
use crate::metrics::FlushReason;
use windrow_journal::Record;
use windrow_trace::{
    AddOutcome, IncomingRecord, PartId, ShapeId, SlotHint, Source, SourceId, TraceId, UntracedRecord,
};

/// Bad entries of a message that go to the dead letter one by one. If there are more, the message goes there as a whole:
/// a small payload can be made to hold millions of them, and the dead letter must not grow faster than what is received.
const BAD_ENTRIES: u32 = 16;
/// After so many bad entries the rest of a message is not looked at any more: it is no message, and it is in the dead
/// letter as a whole.
const HOPELESS: u32 = 10_000;

/// So many records go together from step to step, while there are more open traces than the cache holds.
const AHEAD: usize = 16;
/// Bytes of records that are not worth it.
const FEW: usize = 4 << 10;

/// A message of a journal record.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) record: &'a Record,
    /// Its number in the record.
    pub(super) ordinal: i64,
    /// When it is gathered.
    pub(super) now: i64,
    pub(super) hold: &'a Hold,
}

/// What the messages of a journal record that have no chunk id have in common.
pub(super) struct Anonymous {
    pub(super) part: PartId,
    /// Of their records so far.
    pub(super) position: u32,
    /// Of those that came under the tag of the last one.
    pub(super) source: Option<(SourceId, Arc<str>)>,
}

/// Where a message's records come from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    source: SourceId,
    part: PartId,
    received: i64,
    /// When it is gathered; once for a whole journal record, since asking costs as much as a record does.
    now: i64,
    tag: &'a Arc<str>,
    hold: &'a Hold,
}

/// The entries of a message.
enum Content<'a> {
    Plain(Entries<'a>),
    Compressed {
        compression: Compression,
        bytes: &'a [u8],
    },
}

/// Records that wait until the processor has fetched their traces: those that were walked last, those of which the traces are
/// on their way, and those of which the traces' records are.
struct Ahead<'a> {
    walked: Vec<Walked<'a>>,
    fetching: Vec<Walked<'a>>,
    fetched: Vec<Walked<'a>>,
}

impl Ahead<'_> {
    fn new() -> Self {
        let [walked, fetching, fetched] = [(); 3].map(|()| Vec::with_capacity(AHEAD));
        Self {
            walked,
            fetching,
            fetched,
        }
    }
}

/// A record that was walked.
struct Walked<'a> {
    entry: Entry<'a>,
    found: Found<'a>,
    /// Its trace id.
    id: Option<TraceId<'a>>,
    /// The group of events in which it stands.
    group: Option<Group<'a>>,
    /// Its number in its part.
    number: u32,
    /// Where its trace may be.
    guess: Option<SlotHint>,
}

/// What was met while the entries of a message were walked.
#[derive(Default)]
struct Tally {
    records: u64,
    /// Times that are none.
    invalid: u64,
    /// Bad entries, and what is wrong with the last of them.
    bad: u32,
    defect: Option<Defect>,
    /// Records longer than a trace may be.
    too_long: u32,
}

impl Gatherer {
    pub(super) fn message(&mut self, message: &Message<'_>, arrival: Arrival<'_>, anonymous: &mut Anonymous) {
        let Arrival {
            record, now, hold, ..
        } = arrival;
        let known = message
            .options
            .chunk
            .map(|chunk| PartId::of_chunk(message.tag, chunk, message.body));
        let fresh = known.is_none_or(|(hash, _)| self.window.insert(hash));
        let depth = self.settings.frame.depth;
        let mut entries = match message.payload(depth) {
            Payload::Entries(entries) => Content::Plain(entries),
            Payload::Compressed { compression, bytes } => Content::Compressed { compression, bytes },
            Payload::Opaque(_) => {
                if fresh && !record.released {
                    self.metrics.input_records.inc();
                    self.aside
                        .put(Why::Signal, message.bytes, Some(message.tag), record.received_us);
                }
                return;
            }
        };
        if record.released || !fresh {
            // Records of a message without a chunk id are numbered through the whole run.
            let mut count = 0;
            self.walk(&mut entries, |_, piece| {
                count += match piece {
                    Piece::Entries(entries) => entries.count() as u32,
                    Piece::TooLong => 1,
                };
                ControlFlow::Continue(())
            });
            if known.is_none() {
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
        let (part, received, mut position) = match known {
            // Lines of one time stand in the order in which they came, also when they came in one read.
            Some((_, part)) => (part, received.saturating_add(arrival.ordinal), 0),
            None => (anonymous.part, received, anonymous.position),
        };
        let source = match &anonymous.source {
            Some((source, its)) if known.is_none() && *its == tag => *source,
            _ => {
                let source = self.table.begin_source(Source {
                    part,
                    received,
                    tag: Arc::clone(&tag),
                    hold: hold.clone(),
                });
                if known.is_none() {
                    let before = anonymous.source.replace((source, Arc::clone(&tag)));
                    self.end(before.map(|(source, _)| source));
                }
                source
            }
        };
        let origin = Origin {
            source,
            part,
            received,
            now,
            tag: &tag,
            hold,
        };
        let mut tally = Tally::default();
        let damage = self.walk(&mut entries, |gatherer, piece| match piece {
            Piece::Entries(entries) => gatherer.entries(entries, origin, &mut position, &mut tally),
            Piece::TooLong => {
                position += 1;
                tally.records += 1;
                tally.too_long += 1;
                ControlFlow::Continue(())
            }
        });
        self.account_for(&tally, damage, message.bytes, origin);
        match known {
            Some(_) => self.end(Some(source)),
            None => anonymous.position = position,
        }
        self.tags.put(tag);
    }

    /// No more records come from this source.
    pub(super) fn end(&mut self, source: Option<SourceId>) {
        if let Some(hold) = source.and_then(|source| self.table.end_source(source)) {
            hold.confirm();
        }
    }

    /// Walks the entries of a message, in one piece or in several; says what is wrong with a compressed payload.
    #[inline]
    fn walk(
        &mut self,
        content: &mut Content<'_>,
        mut each: impl FnMut(&mut Self, Piece<'_, '_>) -> ControlFlow<()>,
    ) -> Option<Damage> {
        match content {
            Content::Plain(entries) => {
                let _done = each(self, Piece::Entries(entries));
                None
            }
            Content::Compressed { compression, bytes } => {
                let mut decompressor = std::mem::take(&mut self.decompressor);
                let depth = self.settings.frame.depth;
                let longest = longest_entry(self.settings.table.max_trace_bytes);
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
        origin: Origin<'_>,
        position: &mut u32,
        tally: &mut Tally,
    ) -> ControlFlow<()> {
        // Walked as a local, which stays in registers.
        let mut walk = entries.clone();
        let mut scratch = Vec::new();
        let first = *position;
        let mut records = 0;
        // At once costs less as long as the cache holds all traces, or where few records come together.
        let apart = self.table.exceeds_cache() && walk.rest() >= FEW;
        let mut ahead = apart.then(Ahead::new);
        loop {
            let mut look = Look::new(&self.shapes, &self.settings.complete);
            let Some(next) = walk.next_with(&mut look) else {
                break;
            };
            let found = look.found();
            let number = first.wrapping_add(records);
            records += 1;
            match next {
                Ok(entry) => {
                    let Settings { names, complete, .. } = &self.settings;
                    let found =
                        found.unwrap_or_else(|| look_again(&mut self.shapes, names, complete, entry.record));
                    let id = found.key.map(|key| self.table.trace_id(key));
                    let group = walk.group();
                    let walked = Walked {
                        entry,
                        found,
                        id,
                        group,
                        number,
                        guess: None,
                    };
                    let Some(ahead) = &mut ahead else {
                        let metadata = metadata(walked.entry.metadata, group, &mut scratch);
                        self.add(&walked, metadata, origin, tally);
                        continue;
                    };
                    if let Some(id) = walked.id {
                        self.table.prefetch_index_entry(id);
                    }
                    ahead.walked.push(walked);
                    if ahead.walked.len() == AHEAD {
                        self.add_all(ahead, &mut scratch, origin, tally);
                    }
                }
                Err(bad) => {
                    tally.bad += 1;
                    if tally.bad <= BAD_ENTRIES {
                        let tag = Some(origin.tag.as_bytes());
                        self.aside
                            .put(Why::Entry(bad.defect), bad.bytes, tag, origin.received);
                    }
                    tally.defect = Some(bad.defect);
                    if tally.bad >= HOPELESS {
                        break;
                    }
                }
            }
        }
        if let Some(ahead) = &mut ahead {
            // Each time those that were walked come a step nearer.
            for _ in 0..3 {
                self.add_all(ahead, &mut scratch, origin, tally);
            }
        }
        *entries = walk;
        *position = first.wrapping_add(records);
        tally.records += u64::from(records);
        if tally.bad >= HOPELESS {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Adds the records of which everything is fetched, and has the next fetched.
    #[inline(never)]
    fn add_all(
        &mut self,
        ahead: &mut Ahead<'_>,
        scratch: &mut Vec<u8>,
        origin: Origin<'_>,
        tally: &mut Tally,
    ) {
        for walked in &mut ahead.walked {
            walked.guess = walked.id.and_then(|id| self.table.prefetch_trace(id));
        }
        for guess in ahead.fetching.iter().filter_map(|walked| walked.guess) {
            self.table.prefetch_records(guess);
        }
        for walked in &ahead.fetched {
            let metadata = metadata(walked.entry.metadata, walked.group, scratch);
            self.add(walked, metadata, origin, tally);
        }
        ahead.fetched.clear();
        std::mem::swap(&mut ahead.fetching, &mut ahead.fetched);
        std::mem::swap(&mut ahead.walked, &mut ahead.fetching);
    }

    /// Adds a record that was walked to its trace, or makes a document of it.
    #[inline(always)]
    fn add(
        &mut self,
        Walked {
            entry,
            found,
            id,
            number,
            ..
        }: &Walked<'_>,
        metadata: &[u8],
        origin: Origin<'_>,
        tally: &mut Tally,
    ) {
        let time = entry.time.or_received(origin.received.saturating_mul(1000));
        tally.invalid += u64::from(entry.time == Time::Invalid);
        let record = entry.record;
        let added = match *id {
            None => self.single(record, found.shape, metadata, time, *number, origin),
            Some(id) => self.table.add(
                origin.now,
                &IncomingRecord {
                    id,
                    time,
                    source: origin.source,
                    position: *number,
                    record,
                    metadata,
                    completes: found.completes,
                    shape: found.shape,
                    text: found.text,
                },
            ),
        };
        match (added, id) {
            (AddOutcome::TooLong, _) => tally.too_long += 1,
            (AddOutcome::TraceFull, Some(id)) => {
                let (why, tag) = (Why::NoRoom { trace: id.bytes() }, origin.tag.as_bytes());
                self.aside.put(why, record, Some(tag), origin.received);
            }
            _ => {}
        }
    }

    /// Counts what was met in a message, and sets it aside as a whole if some of it can be had only so.
    fn account_for(&mut self, tally: &Tally, damage: Option<Damage>, message: &[u8], origin: Origin<'_>) {
        let mut aside = |why, records| {
            let tag = Some(origin.tag.as_bytes());
            self.aside.put_all(why, message, tag, origin.received, records);
        };
        if let Some(damage) = damage {
            self.metrics.input_records.inc();
            aside(Why::Damage(damage), 1);
        }
        if let Some(defect) = tally.defect.filter(|_| tally.bad > BAD_ENTRIES) {
            aside(Why::Entries(defect), tally.bad - BAD_ENTRIES);
        }
        if tally.too_long > 0 {
            let limit = self.settings.table.max_trace_bytes;
            aside(Why::TooLong { limit }, tally.too_long);
        }
        self.metrics.input_records.inc_by(tally.records);
        if tally.invalid > 0 {
            self.metrics.input_time_invalid.inc_by(tally.invalid);
        }
    }

    /// A record without a trace id is a document of its own, at once.
    fn single(
        &mut self,
        record: &[u8],
        shape: Option<ShapeId>,
        metadata: &[u8],
        time: i64,
        position: u32,
        origin: Origin<'_>,
    ) -> AddOutcome {
        if record.len() + metadata.len() > self.settings.table.max_trace_bytes {
            return AddOutcome::TooLong;
        }
        let names = &self.settings.names;
        let single = UntracedRecord {
            shape: shape.and_then(|id| self.shapes.get(id)),
            time,
            tag: origin.tag,
            record,
            metadata,
        };
        self.outbox
            .single(names, &single, origin.part, position, origin.hold);
        self.metrics.traces_flushed[FlushReason::NoTrace].inc();
        if self.outbox.is_full() {
            self.hand_over();
        }
        AddOutcome::Added
    }
}
