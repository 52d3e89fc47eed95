//! Gathering: takes journal records from the feed, finds the records of each trace in them, and hands sealed documents
//! to the outputs. One thread; live records and those of an earlier life go the same way.
//!
//! Owns the trace table, the window of known chunks, the known shapes, and the order of things. Documents are rendered
//! and handed over by the outbox; what outputs do with them is not known here.

mod aside;
mod feed;
mod look;
mod message;
mod outbox;
mod peek;
mod settings;
mod tags;
mod window;
mod wiring;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forward_protocol::entries::Decompressor;
use forward_protocol::frame::messages;

pub(crate) use self::aside::Aside;
use self::aside::Why;
use self::feed::Next;
pub(crate) use self::feed::{Feed, Intake, Outlet};
use self::look::watched;
#[doc(hidden)]
pub use self::look::{Routed, route};
use self::message::{Anonymous, Arrival};
use self::outbox::Outbox;
pub use self::peek::Peek;
pub(crate) use self::settings::Settings;
use self::tags::Tags;
use self::window::Window;
pub(crate) use self::wiring::{Gauges, Wiring};
use crate::brake::{Brake, Free};
use crate::clock::unix_us;
use crate::hold::{Held, Hold, Release};
use crate::metrics::{FlushReason, Metrics};
use crate::output::LineCounters;
use crate::spares::Spares;
use windrow_journal::{Journal, Record};
use windrow_trace::{PartId, Reason, Shapes, Table};

/// How often sealing is looked at when no records come.
const TICK: Duration = Duration::from_millis(50);
/// Traces that are sealed between two journal records, or twice as many as became complete by the last one.
const SEALED_AT_ONCE: usize = 256;

pub(crate) struct Gatherer {
    settings: Settings,
    journal: Journal,
    table: Table<Hold>,
    window: Window,
    shapes: Shapes,
    outbox: Outbox,
    account: Arc<LineCounters>,
    metrics: Arc<Metrics>,
    aside: Aside,
    gauges: Arc<Gauges>,
    brake: Arc<Brake>,
    spares: Arc<Spares>,
    release: Release,
    stop: Arc<AtomicBool>,
    decompressor: Decompressor,
    tags: Tags,
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
            spares,
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
            spares,
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
                    self.gather(record);
                    true
                }
                Next::Nothing => false,
                Next::Closed => break,
            };
            let now = unix_us();
            all_sealed = self.seal_due(now);
            let hurried = self.table.take_hurried();
            if hurried > 0 {
                self.metrics.traces_hurried.inc_by(hurried as u64);
            }
            if now >= look_at_journal {
                look_at_journal = now + 200_000;
                self.make_room_in_journal(now);
            }
            if self.outbox.is_due(now) {
                self.hand_over();
            }
            let idle = !busy && all_sealed && self.outbox.is_empty();
            if idle {
                self.rest();
            }
            self.publish(idle);
        }
        if self.settings.flush_on_exit {
            let now = unix_us();
            while let Some(mut closed) = self.table.close_any(now, Reason::Shutdown) {
                let reason = closed.reason;
                self.outbox
                    .trace(&self.settings.names, &self.shapes, &mut closed, now);
                self.sealed(reason, FlushReason::Shutdown);
            }
        }
        self.hand_over();
        self.publish(true);
    }

    /// Takes a journal record in, after which it can be received into its buffer again.
    fn gather(&mut self, record: Record) {
        self.take(&record);
        self.spares.give(record.payload);
    }

    /// Gives memory back that is only kept to be used again.
    fn rest(&mut self) {
        self.spares.rest();
        self.outbox.rest();
        if self.table.is_empty() {
            self.table.rest();
        }
    }

    /// One journal record: a run of complete messages as they came.
    fn take(&mut self, record: &Record) {
        let hold = Held::begin(record.lsn, record.segment, Arc::clone(&self.release));
        let mut anonymous = Anonymous {
            part: PartId::of_position(self.journal.instance(), record.lsn),
            position: 0,
            source: None,
        };
        let limits = self.settings.frame;
        let now = unix_us();
        for (ordinal, message) in (0..).zip(messages(&record.payload, limits)) {
            let arrival = Arrival {
                record,
                ordinal,
                now,
                hold: &hold,
            };
            match message {
                Ok(message) => self.message(&message, arrival, &mut anonymous),
                Err(refused) if !record.released => {
                    self.metrics.input_records.inc();
                    self.aside.put(
                        Why::Message(&refused),
                        refused.bytes,
                        refused.tag,
                        record.received_us,
                    );
                    anonymous.position += 1;
                }
                Err(_) => anonymous.position += 1,
            }
        }
        self.end(anonymous.source.map(|(source, _)| source));
        self.table.settle();
        if self.aside.flush() {
            hold.confirm();
        }
    }

    /// Seals what is due, though not everything at once: clients wait in the meantime, what they send then is due at once
    /// again, and so on. Says whether all was sealed.
    fn seal_due(&mut self, now: i64) -> bool {
        let mut completed = 0;
        let all = self.seal_some(now, &mut completed);
        // Once for all: each count would wait until what was rendered before has reached the cache.
        self.metrics.traces_flushed[FlushReason::Completed].inc_by(completed);
        all
    }

    /// The same; adds those that were complete to `completed` instead of counting them.
    fn seal_some(&mut self, now: i64, completed: &mut u64) -> bool {
        let mut left = SEALED_AT_ONCE.max(2 * self.table.take_completed());
        while left > 0 || self.table.is_too_full() {
            left = left.saturating_sub(1);
            let too_many = self.table.len() > self.settings.table.max_traces;
            let Some(mut closed) = self.table.next_closed(now) else {
                return true;
            };
            let reason = closed.reason;
            self.outbox
                .trace(&self.settings.names, &self.shapes, &mut closed, now);
            let flushed = match reason {
                Reason::Completed => {
                    *completed += 1;
                    self.hand_over_if_full();
                    continue;
                }
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
        self.hand_over_if_full();
    }

    fn hand_over_if_full(&mut self) {
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
        let pinning = self.table.holding(|hold| hold.segment() <= oldest);
        if !pinning.is_empty() {
            tracing::debug!(
                traces = pinning.len(),
                segment = oldest,
                "sealing traces early to free the oldest journal segment"
            );
        }
        for id in pinning {
            let Some(mut closed) = self.table.close(&id) else {
                continue;
            };
            let reason = closed.reason;
            self.outbox
                .trace(&self.settings.names, &self.shapes, &mut closed, now);
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
