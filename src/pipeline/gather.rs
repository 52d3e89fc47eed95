//! Gathering: takes journal records from the feed, finds the records of each trace in them, and hands sealed documents
//! to the outputs. One thread; live records and those of an earlier life go the same way.
//!
//! Owns the trace table, the window of known chunks, the known shapes, and the order of things. Documents are rendered
//! and handed over by the outbox; what outputs do with them is not known here.

mod wiring;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forward_protocol::entries::{Decompressor, Entries, Entry};
use forward_protocol::frame::{Message, Payload, messages};

pub(crate) use self::wiring::{Gauges, Settings, Wiring};
use super::aside::{Aside, Why};
use super::feed::{Next, Outlet};
use super::look::{Found, Look, look_again, metadata, watched};
use super::outbox::Outbox;
use super::tags::Tags;
use super::window::Window;
use crate::brake::{Brake, Free};
use crate::clock::unix_us;
use crate::hold::{Held, Hold, Release};
use crate::journal::{Journal, Record};
use crate::metrics::{FlushReason, Metrics};
use crate::output::Account;
use crate::trace::{Added, Incoming, PartId, Reason, ShapeId, Shapes, Single, Table};

/// How often sealing is looked at when no records come.
const TICK: Duration = Duration::from_millis(50);
/// Traces that are sealed between two journal records, or twice as many as became complete by the last one.
const SEALED_AT_ONCE: usize = 256;
/// Bad entries of a message that go to the dead letter one by one. If there are more, the message goes there as a whole:
/// a small payload can be made to hold millions of them, and the dead letter must not grow faster than what is received.
const BAD_ENTRIES: u32 = 16;
/// After so many bad entries the rest of a message is not looked at any more: it is no message, and it is in the dead
/// letter as a whole.
const HOPELESS: u32 = 10_000;

pub(crate) struct Gatherer {
    settings: Settings,
    journal: Journal,
    table: Table<Hold>,
    window: Window,
    shapes: Shapes,
    outbox: Outbox,
    account: Arc<Account>,
    metrics: Arc<Metrics>,
    aside: Aside,
    gauges: Arc<Gauges>,
    brake: Arc<Brake>,
    release: Release,
    stop: Arc<AtomicBool>,
    decompressor: Decompressor,
    tags: Tags,
}

/// A message of a journal record.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    record: &'a Record,
    /// Its number in the record.
    ordinal: i64,
    /// When it is gathered.
    now: i64,
    /// The part of what has no chunk id.
    anonymous: PartId,
    hold: &'a Hold,
}

/// Where a message's records come from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    part: PartId,
    received: i64,
    /// When it is gathered; once for a whole journal record, since asking costs as much as a record does.
    now: i64,
    tag: &'a Arc<str>,
    hold: &'a Hold,
}

impl Gatherer {
    pub(crate) fn new(settings: Settings, wiring: Wiring) -> Self {
        let Wiring {
            journal,
            outputs,
            output_bytes,
            framing,
            account,
            metrics,
            aside,
            gauges,
            brake,
            stop,
        } = wiring;
        let outbox = Outbox::new(
            outputs,
            framing,
            output_bytes,
            settings.output_budget,
            Arc::clone(&account),
        );
        let releasing = journal.clone();
        Self {
            table: Table::new(settings.table.clone()),
            window: Window::new(settings.window),
            shapes: Shapes::new(
                settings.names.clone(),
                watched(&settings.names, &settings.complete),
            ),
            tags: Tags::new(settings.tag_prefix.clone()),
            settings,
            journal,
            outbox,
            account,
            metrics,
            aside,
            gauges,
            brake,
            release: Arc::new(move |lsn| releasing.release(lsn)),
            stop,
            decompressor: Decompressor::new(),
        }
    }

    /// Runs until the feed is closed. Open traces stay in the journal, unless they are to be written at the end.
    pub(crate) fn run(mut self, mut outlet: Outlet) {
        let mut look_at_journal = 0;
        let mut all_sealed = true;
        loop {
            let patience = if all_sealed { TICK } else { Duration::ZERO };
            let busy = match outlet.next(patience) {
                Next::Record(record) => {
                    self.gauges.idle.store(false, Ordering::Relaxed);
                    self.take(&record);
                    true
                }
                Next::Nothing => false,
                Next::Closed => break,
            };
            let now = unix_us();
            all_sealed = self.seal_due(now);
            if now >= look_at_journal {
                look_at_journal = now + 200_000;
                self.make_room_in_journal(now);
            }
            if self.outbox.is_due(now) {
                self.hand_over();
            }
            let idle = !busy && all_sealed && self.outbox.is_empty();
            if idle && self.table.is_empty() {
                self.table.rest();
            }
            self.publish(idle);
        }
        if self.settings.flush_on_exit {
            while let Some(closed) = self.table.close_any(Reason::Shutdown) {
                let reason = closed.reason;
                self.outbox
                    .trace(&self.settings.names, &self.shapes, closed, unix_us());
                self.sealed(reason, FlushReason::Shutdown);
            }
        }
        self.hand_over();
        self.publish(true);
    }

    /// One journal record: a run of complete messages as they came.
    fn take(&mut self, record: &Record) {
        let hold = Held::begin(record.lsn, record.segment, Arc::clone(&self.release));
        let anonymous = PartId::of_position(self.journal.instance(), record.lsn);
        let mut position = 0;
        let limits = self.settings.frame;
        let now = unix_us();
        for (ordinal, message) in (0..).zip(messages(&record.payload, limits)) {
            let arrival = Arrival {
                record,
                ordinal,
                now,
                anonymous,
                hold: &hold,
            };
            match message {
                Ok(message) => self.message(&message, arrival, &mut position),
                Err(refused) if !record.released => {
                    self.metrics.input_records.inc();
                    self.aside.put(
                        Why::Message(&refused),
                        refused.bytes,
                        refused.tag,
                        record.received_us,
                    );
                    position += 1;
                }
                Err(_) => position += 1,
            }
        }
        self.table.settle();
        if self.aside.flush() {
            hold.confirm();
        }
    }

    fn message(&mut self, message: &Message<'_>, arrival: Arrival<'_>, position: &mut u32) {
        let Arrival {
            record, now, hold, ..
        } = arrival;
        let known = message
            .options
            .chunk
            .map(|chunk| PartId::of_chunk(message.tag, chunk, message.body));
        let fresh = known.is_none_or(|(hash, _)| self.window.insert(hash));
        let body;
        let depth = self.settings.frame.depth;
        let entries = match message.payload(depth) {
            Payload::Entries(entries) => entries,
            Payload::Compressed { compression, bytes } => {
                match self
                    .decompressor
                    .decompress(compression, bytes, self.settings.decompressed)
                {
                    Ok(done) => {
                        body = done.bytes;
                        if let Some(damage) = done.damage
                            && fresh
                            && !record.released
                        {
                            self.metrics.input_records.inc();
                            self.aside.put(
                                Why::Damage(damage),
                                message.bytes,
                                Some(message.tag),
                                record.received_us,
                            );
                        }
                        Entries::new(&body, depth)
                    }
                    Err(oversize) => {
                        // Intake measured it before; only a limit that was lowered since comes here.
                        self.metrics.input_records.inc();
                        self.aside.put(
                            Why::Oversize(oversize),
                            message.bytes,
                            Some(message.tag),
                            record.received_us,
                        );
                        return;
                    }
                }
            }
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
            let count = entries.count() as u32;
            if known.is_none() {
                *position += count;
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
        let mut own = 0;
        let received = record.received_us;
        let (part, received, position) = match known {
            // Lines of one time stand in the order in which they came, also when they came in one read.
            Some((_, part)) => (part, received.saturating_add(arrival.ordinal), &mut own),
            None => (arrival.anonymous, received, position),
        };
        let origin = Origin {
            part,
            received,
            now,
            tag: &tag,
            hold,
        };
        self.entries(entries, message.bytes, origin, position);
        self.tags.put(tag);
    }

    fn entries(&mut self, mut entries: Entries<'_>, message: &[u8], origin: Origin<'_>, position: &mut u32) {
        let (mut records, mut invalid, mut bad_ones) = (0u64, 0u64, 0u32);
        let mut defect = None;
        let mut scratch = Vec::new();
        loop {
            let mut look = Look::new(&self.shapes, &self.settings.complete);
            let Some(next) = entries.next_with(&mut look) else {
                break;
            };
            let found = look.found();
            records += 1;
            let number = *position;
            *position += 1;
            match next {
                Ok(entry) => {
                    let time = entry.time.or_received(origin.received.saturating_mul(1000));
                    invalid += u64::from(entry.time == forward_protocol::entries::Time::Invalid);
                    let metadata = metadata(&entry, &mut scratch);
                    let Settings { names, complete, .. } = &self.settings;
                    let found =
                        found.unwrap_or_else(|| look_again(&mut self.shapes, names, complete, entry.record));
                    self.record(&entry, &found, metadata, time, number, origin);
                }
                Err(bad) => {
                    bad_ones += 1;
                    if bad_ones <= BAD_ENTRIES {
                        let tag = Some(origin.tag.as_bytes());
                        self.aside
                            .put(Why::Entry(bad.defect), bad.bytes, tag, origin.received);
                    }
                    defect = Some(bad.defect);
                    if bad_ones >= HOPELESS {
                        break;
                    }
                }
            }
        }
        if let Some(defect) = defect.filter(|_| bad_ones > BAD_ENTRIES) {
            let tag = Some(origin.tag.as_bytes());
            self.aside.put_all(
                Why::Entries(defect),
                message,
                tag,
                origin.received,
                bad_ones - BAD_ENTRIES,
            );
        }
        self.metrics.input_records.inc_by(records);
        if invalid > 0 {
            self.metrics.input_time_invalid.inc_by(invalid);
        }
    }

    #[inline]
    fn record(
        &mut self,
        entry: &Entry<'_>,
        found: &Found<'_>,
        metadata: &[u8],
        time: i64,
        position: u32,
        origin: Origin<'_>,
    ) {
        let Some(key) = found.key else {
            self.single(entry, found.shape, metadata, time, position, origin);
            return;
        };
        let incoming = Incoming {
            key,
            time,
            part: origin.part,
            received: origin.received,
            position,
            record: entry.record,
            metadata,
            tag: origin.tag,
            completes: found.completes,
            shape: found.shape,
            text: found.text_in(entry.record),
        };
        if self.table.add(origin.now, &incoming, || origin.hold.another()) == Added::NoRoom {
            self.aside.put(
                Why::NoRoom { trace: key },
                entry.record,
                Some(origin.tag.as_bytes()),
                origin.received,
            );
        }
    }

    /// A record without a trace id is a document of its own, at once.
    fn single(
        &mut self,
        entry: &Entry<'_>,
        shape: Option<ShapeId>,
        metadata: &[u8],
        time: i64,
        position: u32,
        origin: Origin<'_>,
    ) {
        let names = &self.settings.names;
        let single = Single {
            shape: shape.and_then(|id| self.shapes.get(id)),
            time,
            tag: origin.tag,
            record: entry.record,
            metadata,
        };
        let id = origin.part.document_id(position);
        self.outbox.single(names, &single, id, origin.hold.another());
        self.metrics.traces_flushed[FlushReason::NoTrace].inc();
        if self.outbox.is_full() {
            self.hand_over();
        }
    }

    /// Seals what is due, though not everything at once: clients wait in the meantime, what they send then is due at once
    /// again, and so on. Says whether all was sealed.
    fn seal_due(&mut self, now: i64) -> bool {
        let mut left = SEALED_AT_ONCE.max(2 * self.table.take_completed());
        while left > 0 || self.table.is_too_full() {
            left = left.saturating_sub(1);
            let too_many = self.table.len() > self.settings.table.max_traces;
            let Some(closed) = self.table.next_closed(now) else {
                return true;
            };
            let reason = closed.reason;
            self.outbox.trace(&self.settings.names, &self.shapes, closed, now);
            let flushed = match reason {
                Reason::Completed => FlushReason::Completed,
                Reason::Idle => FlushReason::Idle,
                Reason::MaxAge => FlushReason::MaxAge,
                Reason::Shutdown => FlushReason::Shutdown,
                Reason::Evicted if too_many => FlushReason::MaxTraces,
                Reason::Evicted => FlushReason::Memory,
            };
            self.sealed(reason, flushed);
        }
        false
    }

    /// A trace is in the outbox: counts it, and empties the outbox if it is full.
    fn sealed(&mut self, reason: Reason, flushed: FlushReason) {
        self.metrics.traces_flushed[flushed].inc();
        if reason == Reason::Evicted {
            self.metrics.traces_evicted.inc();
        }
        if self.outbox.is_full() {
            self.hand_over();
        }
    }

    /// Past the soft limit the traces that keep the oldest segment are sealed early; they are joined later with what is
    /// still to come.
    fn make_room_in_journal(&mut self, now: i64) {
        let usage = self.journal.usage();
        if !usage.past_soft_limit() {
            return;
        }
        let Some(oldest) = usage.oldest_segment.map(|segment| segment.number) else {
            return;
        };
        let closed = self.table.close_holding(|hold| hold.segment() <= oldest);
        if !closed.is_empty() {
            tracing::debug!(
                traces = closed.len(),
                segment = oldest,
                "sealing traces early to free the oldest journal segment"
            );
        }
        for closed in closed {
            let reason = closed.reason;
            self.outbox.trace(&self.settings.names, &self.shapes, closed, now);
            self.sealed(reason, FlushReason::Journal);
        }
    }

    /// Gives what is rendered to every output; waits while they have enough.
    fn hand_over(&mut self) {
        let must_wait = !self.outbox.is_empty() && self.outbox.must_wait();
        if must_wait {
            self.wait_for_outputs();
        }
        self.outbox.hand_over(&self.brake);
    }

    fn wait_for_outputs(&mut self) {
        self.brake.set_free(Free::Outputs, true);
        while self.outbox.must_wait() {
            if self.stop.load(Ordering::Relaxed) {
                // What is not handed over stays in the journal.
                self.outbox.clear();
                break;
            }
            self.publish(false);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.brake.set_free(Free::Outputs, false);
    }

    fn publish(&self, idle: bool) {
        self.gauges.open_traces.store(self.table.len(), Ordering::Relaxed);
        self.gauges
            .open_bytes
            .store(self.table.bytes(), Ordering::Relaxed);
        self.gauges
            .open_lines
            .store(self.table.lines(), Ordering::Relaxed);
        self.gauges.idle.store(idle, Ordering::Relaxed);
    }
}
