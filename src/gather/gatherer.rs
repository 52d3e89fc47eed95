//! Gatherer: the thread that joins the records of each trace and seals traces into documents.
//!
//! Owns the trace table, the known shapes and the order of work. Records read back from the journal
//! after a restart take the same way as new ones.

mod fairness;
mod message;
mod nested;
mod origin;
mod prefetch;
mod rewriting;
mod routing;
mod sections;
mod silent;
mod tally;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forward_protocol::entries::Decompressor;
use forward_protocol::frame::messages;
use tokio::sync::mpsc;

use self::fairness::Turn;
use self::origin::{Anonymous, Arrival};
use self::sections::Section;
use super::batcher::DocumentBatcher;
use super::classifier::completion_fields;
use super::duplicate_window::DuplicateWindow;
use super::gauges::Gauges;
use super::key_watch::KeyWatch;
use super::open_traces::{OpenTraces, OpenTracesProbe};
use super::record_queue::{Polled, QueueConsumer, RecordQueue};
use super::reject_buffer::{RejectBuffer, RejectReason};
use super::rewrite::{JsonText, PartialLimits, PartialLines, RootNames};
use super::router::Router;
use super::settings::Settings;
use super::silent_lookup::SilentLookup;
use super::tag_interner::TagInterner;
use crate::admission::{AdmissionControl, BypassReason};
use crate::allocator::{self, IdleCollector};
use crate::buffer_pool::BufferPool;
use crate::claim::{RecordClaim, Release};
use crate::clock::unix_us;
use crate::cluster::ResumedLines;
use crate::metrics::{FlushReason, Metrics};
use crate::output::silent::Asking;
use crate::output::{Batch, BatchTap, Framing, LineCounters};
use windrow_journal::{Journal, Record};
use windrow_trace::{PartId, SealReason, ShapeRegistry, Table};

/// Longest wait for a record before due traces are sealed.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Traces that are sealed between two journal records; twice the number that the last record
/// completed, if that is more.
const MIN_SEALED_PER_RECORD: usize = 256;
/// How often the size of the journal is checked (µs).
const JOURNAL_CHECK_INTERVAL_US: i64 = 200_000;
/// How often documents in flight are compared with their budget while it is exceeded.
const OUTPUT_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What the gatherer works with.
pub(crate) struct Dependencies {
    pub(crate) journal: Journal,
    pub(crate) outputs: Vec<mpsc::Sender<Batch>>,
    /// Where silent traces are looked up; `None`: nowhere.
    pub(crate) asking: Option<Asking>,
    /// Told of unfinished lines among the records before this LSN.
    pub(crate) resumed: Option<(u64, ResumedLines)>,
    pub(crate) tap: Arc<BatchTap>,
    /// Bytes of documents that the outputs have not confirmed.
    pub(crate) output_bytes: Arc<AtomicUsize>,
    pub(crate) framing: Option<Box<dyn Framing>>,
    pub(crate) account: Arc<LineCounters>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rejects: RejectBuffer,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) open_traces: Arc<OpenTracesProbe>,
    /// Where records go, if that is not the same for all.
    pub(crate) router: Option<Router>,
    pub(crate) admission: Arc<AdmissionControl>,
    pub(crate) buffer_pool: Arc<BufferPool>,
    /// Set when the shutdown grace is over: waits for outputs end.
    pub(crate) stop: Arc<AtomicBool>,
}

/// State of the gathering thread.
pub(crate) struct Gatherer {
    settings: Settings,
    journal: Journal,
    table: Table<RecordClaim>,
    duplicates: DuplicateWindow,
    shapes: ShapeRegistry,
    batcher: DocumentBatcher,
    account: Arc<LineCounters>,
    metrics: Arc<Metrics>,
    rejects: RejectBuffer,
    gauges: Arc<Gauges>,
    open_traces: Arc<OpenTracesProbe>,
    admission: Arc<AdmissionControl>,
    buffer_pool: Arc<BufferPool>,
    release: Release,
    stop: Arc<AtomicBool>,
    decompressor: Decompressor,
    tags: TagInterner,
    root_names: RootNames,
    json_text: JsonText,
    partial: PartialLines,
    /// Where short records are taken from while a long one is gathered.
    queue: Option<Arc<RecordQueue>>,
    turn: Turn,
    key_watch: KeyWatch,
    /// Decides where records go; `None`: all to the default destination.
    router: Option<Box<Router>>,
    silent_lookup: Option<Box<SilentLookup>>,
    resumed: Option<(u64, ResumedLines)>,
}

impl Gatherer {
    pub(crate) fn new(settings: Settings, dependencies: Dependencies) -> Self {
        let Dependencies {
            journal,
            outputs,
            asking,
            resumed,
            tap,
            output_bytes,
            framing,
            account,
            metrics,
            rejects,
            gauges,
            open_traces,
            router,
            admission,
            buffer_pool,
            stop,
        } = dependencies;
        let mut batcher = DocumentBatcher::new(
            outputs,
            tap,
            framing,
            output_bytes,
            settings.output_budget_bytes,
            Arc::clone(&account),
        );
        let mut shapes = ShapeRegistry::new(settings.names.clone(), completion_fields(&settings.complete));
        if let Some(router) = &router {
            shapes = shapes.capturing(router.captured_names());
            batcher.route_to(router.destinations());
        }
        let releasing = journal.clone();
        Self {
            table: Table::new(settings.table.clone()),
            duplicates: DuplicateWindow::new(settings.duplicate_window),
            shapes,
            tags: TagInterner::new(settings.tag_prefix.clone()),
            root_names: RootNames::new(&settings.names),
            json_text: JsonText::new(settings.parse_json, settings.frame.depth),
            partial: PartialLines::new(PartialLimits {
                max_bytes: settings.partial_bytes,
                max_line_bytes: settings.table.max_trace_bytes,
                timeout: settings.table.idle_timeout,
            }),
            key_watch: KeyWatch::default(),
            silent_lookup: asking
                .zip(settings.silence)
                .map(|(asking, silence)| Box::new(SilentLookup::new(asking, silence))),
            settings,
            journal,
            batcher,
            account,
            metrics,
            rejects,
            gauges,
            open_traces,
            admission,
            buffer_pool,
            release: Arc::new(move |lsn| releasing.release(lsn)),
            stop,
            decompressor: Decompressor::new(),
            router: router.map(Box::new),
            resumed,
            queue: None,
            turn: Turn::default(),
        }
    }

    /// Runs until the queue is closed. Open traces stay in the journal, unless the settings ask to
    /// write them.
    pub(crate) fn run(mut self, mut queue: QueueConsumer) {
        self.queue = Some(queue.queue());
        let mut next_journal_check = 0;
        let mut all_sealed = true;
        let mut collector = IdleCollector::default();
        loop {
            let timeout = if all_sealed { POLL_TIMEOUT } else { Duration::ZERO };
            let busy = match queue.poll(timeout) {
                Polled::Record(record) => {
                    self.gauges.idle.store(false, Ordering::Relaxed);
                    self.note_resumed(Some(record.lsn));
                    self.gather(record);
                    true
                }
                Polled::Timeout => {
                    self.note_resumed(None);
                    false
                }
                Polled::Closed => break,
            };
            let now = unix_us();
            self.expire_parts(now);
            all_sealed = self.tend(now);
            self.yield_between(now);
            if self
                .silent_lookup
                .as_ref()
                .is_some_and(|lookup| lookup.is_due(now))
            {
                self.look_up_silent(now);
            }
            if now >= next_journal_check {
                next_journal_check = now + JOURNAL_CHECK_INTERVAL_US;
                self.relieve_journal(now);
                self.rejects.sum_up_warnings();
            }
            let idle = !busy && all_sealed && self.batcher.is_empty();
            if idle {
                self.shrink();
                if collector.is_due(Instant::now()) {
                    allocator::collect();
                }
            } else {
                collector.busy();
            }
            self.publish(idle);
            self.answer_open_traces(now);
        }
        if self.settings.flush_on_exit {
            let now = unix_us();
            self.partial.give_back_holding(|_| true);
            self.write_given_back(now);
            while let Some(mut closed) = self.table.seal_any(now, SealReason::Shutdown) {
                let reason = closed.reason;
                self.batcher
                    .push_trace(&self.settings.names, &self.shapes, &mut closed, now);
                self.sealed(reason, FlushReason::Shutdown);
            }
        }
        self.send_batch();
        self.rejects.write();
        self.publish(true);
    }

    /// Tells which lines go on after a restart, once all records of the previous run are gathered:
    /// at the first new one, or when none is left.
    #[inline]
    fn note_resumed(&mut self, next: Option<u64>) {
        let queue = self.queue.as_ref();
        let is_over = |first_new: u64| match next {
            Some(lsn) => lsn >= first_new,
            None => !queue.is_some_and(|queue| queue.backlog().on_disk),
        };
        if let Some((_, lines)) = self.resumed.take_if(|(first_new, _)| is_over(*first_new)) {
            let prefix = &self.settings.tag_prefix;
            let tags = self.partial.tags();
            lines.known(tags.map(|tag| tag.strip_prefix(&**prefix).unwrap_or(tag).as_bytes()));
        }
    }

    /// Does what is due: seals traces, sends the batch, writes rejected input. Returns whether all
    /// due traces are sealed.
    fn tend(&mut self, now: i64) -> bool {
        let all_sealed = self.seal_due(now);
        let hurried = self.table.take_sealed_early();
        if hurried > 0 {
            self.metrics.traces_hurried.inc_by(hurried as u64);
        }
        self.rejects.write_due();
        if self.batcher.is_due(now) {
            self.send_batch();
        }
        self.publish(false);
        all_sealed
    }

    /// Gathers a journal record and returns its buffer to the pool.
    fn gather(&mut self, record: Record) {
        self.begin_turn();
        self.gather_messages(&record);
        self.buffer_pool.put(record.payload);
    }

    /// Frees memory that is only kept for reuse.
    fn shrink(&mut self) {
        self.buffer_pool.shrink();
        self.batcher.shrink();
        self.json_text.shrink();
        self.decompressor = Decompressor::new();
        if self.table.is_empty() {
            self.table.shrink();
        }
    }

    /// Gathers the messages of one journal record.
    fn gather_messages(&mut self, record: &Record) {
        let claim = RecordClaim::new(record.lsn, record.segment, Arc::clone(&self.release));
        let mut anonymous = Anonymous {
            part: PartId::of_position(self.journal.instance(), record.lsn),
            position: 0,
            source: None,
            section: Section::default(),
        };
        let limits = self.settings.frame;
        let now = unix_us();
        for (ordinal, message) in (0..).zip(messages(&record.payload, limits)) {
            let arrival = Arrival {
                record,
                ordinal,
                now,
                claim: &claim,
            };
            match message {
                Ok(message) => self.message(&message, arrival, &mut anonymous),
                Err(refused) if !record.released => {
                    self.metrics.input_records.inc();
                    self.rejects.reject(
                        RejectReason::Message(&refused),
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
        self.table.move_completed();
        self.partial.end_record(&claim, record.payload.len());
        self.rejects.end_record(claim);
    }

    /// Seals due traces, a bounded number at a time, so that clients do not wait for all of them
    /// and then send all at once. Returns whether none is left.
    fn seal_due(&mut self, now: i64) -> bool {
        let mut completed = 0;
        let all = self.seal_some(now, &mut completed);
        // Counted once: each atomic addition would wait until the rendered text has reached the
        // cache.
        self.metrics.traces_flushed[FlushReason::Completed].inc_by(completed);
        all
    }

    /// Does the work of [`Self::seal_due`]; adds the number of complete traces to `completed`
    /// instead of counting them.
    fn seal_some(&mut self, now: i64, completed: &mut u64) -> bool {
        let mut left = MIN_SEALED_PER_RECORD.max(2 * self.table.take_completed());
        while left > 0 || self.table.is_too_full() {
            left = left.saturating_sub(1);
            let too_many = self.table.len() > self.settings.table.max_traces;
            let Some(mut closed) = self.table.next_sealed(now) else {
                return true;
            };
            let reason = closed.reason;
            self.batcher
                .push_trace(&self.settings.names, &self.shapes, &mut closed, now);
            let flushed = match reason {
                SealReason::Completed => {
                    *completed += 1;
                    self.send_batch_if_full();
                    continue;
                }
                SealReason::Idle => FlushReason::Idle,
                SealReason::MaxAge => FlushReason::MaxAge,
                SealReason::Shutdown => FlushReason::Shutdown,
                SealReason::Evicted if too_many => FlushReason::MaxTraces,
                SealReason::Evicted => FlushReason::Memory,
            };
            self.sealed(reason, flushed);
        }
        false
    }

    /// Counts a sealed trace, and sends the batch if it is full.
    fn sealed(&mut self, reason: SealReason, flushed: FlushReason) {
        self.metrics.traces_flushed[flushed].inc();
        if reason == SealReason::Evicted {
            self.metrics.traces_evicted.inc();
        }
        self.send_batch_if_full();
    }

    fn send_batch_if_full(&mut self) {
        if self.batcher.is_full() {
            self.send_batch();
        }
    }

    /// Past the journal's soft limit, seals the traces that pin its oldest segment; lines that come
    /// later are merged into their documents.
    fn relieve_journal(&mut self, now: i64) {
        let usage = self.journal.usage();
        if !usage.past_soft_limit() {
            return;
        }
        let Some(oldest) = usage.oldest_segment.map(|segment| segment.number) else {
            return;
        };
        self.partial.give_back_holding(|claim| claim.segment() <= oldest);
        self.write_given_back(now);
        let pinning = self.table.ids_holding(|claim| claim.segment() <= oldest);
        if !pinning.is_empty() {
            tracing::debug!(
                traces = pinning.len(),
                segment = oldest,
                "sealing traces early to free the oldest journal segment"
            );
        }
        for (id, destination) in pinning {
            let id = self.table.trace_id(&id).with_destination(destination);
            let Some(mut closed) = self.table.seal(id) else {
                continue;
            };
            let reason = closed.reason;
            self.batcher
                .push_trace(&self.settings.names, &self.shapes, &mut closed, now);
            self.sealed(reason, FlushReason::Journal);
        }
    }

    /// Sends the batch to every output; waits first while the documents in flight exceed their
    /// budget.
    fn send_batch(&mut self) {
        if !self.batcher.is_empty() && self.batcher.is_over_budget() {
            self.wait_for_outputs();
        }
        self.batcher.send(&self.admission);
    }

    fn wait_for_outputs(&mut self) {
        self.admission.set_bypass(BypassReason::OutputsFull, true);
        while self.batcher.is_over_budget() {
            if self.stop.load(Ordering::Relaxed) {
                // What is not sent stays in the journal.
                self.batcher.clear();
                break;
            }
            self.publish(false);
            self.answer_open_traces(unix_us());
            std::thread::sleep(OUTPUT_POLL_INTERVAL);
        }
        self.admission.set_bypass(BypassReason::OutputsFull, false);
    }

    fn answer_open_traces(&self, now: i64) {
        self.open_traces.answer(|limit| OpenTraces {
            total: self.table.len(),
            lines: self.table.lines(),
            now,
            traces: self.table.overview(limit),
        });
    }

    fn publish(&self, idle: bool) {
        self.gauges.open_traces.store(self.table.len(), Ordering::Relaxed);
        self.gauges
            .open_bytes
            .store(self.table.bytes() + self.partial.bytes(), Ordering::Relaxed);
        self.gauges
            .open_lines
            .store(self.table.lines() + self.partial.waiting(), Ordering::Relaxed);
        self.gauges.idle.store(idle, Ordering::Relaxed);
    }
}
