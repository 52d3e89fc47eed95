//! Status of the running server: readiness with reasons, and gauges that mirror the stages.
//!
//! Reads the stages when it is asked; the admin port shows it. Runs nothing and does no I/O: it is
//! asked on reactor threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::dead_letter_watch::DeadLetterWatch;
use super::liveness::Liveness;
use super::outputs::Store;
use super::progress::Progress;
use crate::cluster::{Cluster, PeerView};
use crate::config::OutputKind;
use crate::gather::{Gauges, RecordQueue};
use crate::input::forward::ConnectionLimiter;
use crate::metrics::{Counter, Metrics};
use crate::output::dead_letter::DeadLetter;
use crate::output::elasticsearch::Elasticsearch;
use crate::output::{LineCounters, Watchdog};
use crate::search::embedded::EmbeddedSearch;
use windrow_journal::{Journal, SYNC_BUCKETS, Usage};

/// Whether the server accepts chunks and delivers documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
    /// What an operator should look at although the server is ready.
    pub notes: Vec<String>,
    /// Why only a restart of the program helps, if that is so.
    pub fatal: Option<String>,
}

/// Journal failures of this duration are fatal: the open files may belong to a mount that is gone,
/// and only a restart opens them again.
const FATAL_JOURNAL_FAILURE: Duration = Duration::from_secs(60);

/// The stages that the status is read from.
#[derive(Clone, Debug)]
pub(super) struct StatusSources {
    pub(super) journal: Journal,
    pub(super) queue: Arc<RecordQueue>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) account: Arc<LineCounters>,
    pub(super) output_bytes: Arc<AtomicUsize>,
    pub(super) dead_letter: Arc<DeadLetter>,
    /// Whether rejected input can be written.
    pub(super) rejected: Arc<Watchdog>,
    pub(super) dead_letter_watch: DeadLetterWatch,
    pub(super) limiter: Arc<ConnectionLimiter>,
    pub(super) elasticsearch: Option<Elasticsearch>,
    pub(super) store: Option<Store>,
    pub(super) search: Option<EmbeddedSearch>,
    pub(super) watchdogs: Vec<(OutputKind, Arc<Watchdog>)>,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) memory_limit: u64,
    pub(super) liveness: Liveness,
    pub(super) progress: Progress,
}

/// A view of the running server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Status(StatusSources);

impl Status {
    pub(super) fn new(sources: StatusSources) -> Self {
        Self(sources)
    }

    /// Whether chunks are accepted and documents delivered.
    pub fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        let usage = self.0.journal.usage();
        readiness.fatal = fatal(&usage, self.0.liveness.failure());
        if let Some(blocked) = &usage.blocked {
            readiness.reasons.push(format!(
                "intake is stopped: {blocked} ({} of {} bytes of journal in use)",
                usage.bytes, usage.limit_bytes
            ));
        }
        if let Some(max) = self.0.limiter.reached() {
            readiness.reasons.push(format!(
                "all {max} connections are in use, further ones are refused: raise forward.max_connections"
            ));
        }
        if let Some(elasticsearch) = &self.0.elasticsearch {
            for (_, reason, _) in elasticsearch.health().reasons() {
                readiness.reasons.push(format!("elasticsearch: {reason}"));
            }
            let notes = elasticsearch.health().notes();
            readiness
                .notes
                .extend(notes.into_iter().map(|note| format!("elasticsearch: {note}")));
        }
        for (kind, watchdog) in &self.0.watchdogs {
            if let Some(reason) = watchdog.wait_reason() {
                readiness.reasons.push(format!("{}: {reason}", kind.as_str()));
            }
        }
        let dead = self.0.dead_letter_watch.usage();
        let waits = self.0.dead_letter.wait_reason();
        if let Some(reason) = waits.filter(|_| !dead.full) {
            readiness.reasons.push(format!(
                "the dead letter cannot be written, and an output waits for it: {reason} ({})",
                self.0.dead_letter.folder().display()
            ));
        }
        if let Some(reason) = self.0.dead_letter_watch.stall_reason() {
            readiness.reasons.push(format!(
                "the dead letter cannot be read: {reason} ({})",
                self.0.dead_letter.folder().display()
            ));
        }
        if dead.full {
            readiness.reasons.push(format!(
                "the dead letter is full ({} of {} bytes in {}): run `windrow replay`, or move its files away",
                dead.bytes,
                dead.limit,
                self.0.dead_letter.folder().display()
            ));
        } else if dead.entries > 0 {
            readiness.notes.push(format!(
                "the dead letter holds {} entries in {}: look at their reasons, then run `windrow replay`",
                dead.entries,
                self.0.dead_letter.folder().display()
            ));
        }
        if let Some(reason) = self.0.rejected.wait_reason() {
            readiness.notes.push(format!(
                "rejected input cannot be written and may be lost: {reason}"
            ));
        }
        // A reason that a stage gives itself says more.
        if readiness.reasons.is_empty() {
            readiness.reasons.extend(self.0.progress.stall(Instant::now()));
        }
        if self.0.queue.backlog().on_disk {
            readiness
                .notes
                .push("gathering is behind: chunks wait in the journal".into());
        }
        if let Some(cluster) = &self.0.cluster {
            readiness.notes.extend(cluster.notes());
        }
        if usage.lost_segments > 0 {
            readiness.notes.push(format!(
                "{} journal segments are missing or unreadable, {} records were lost in all",
                usage.lost_segments, usage.lost_records
            ));
        }
        if usage.quarantined_segments > 0 {
            readiness.notes.push(format!(
                "{} damaged journal segments are in quarantine, {} records were lost",
                usage.quarantined_segments, usage.lost_records
            ));
        }
        readiness
    }

    /// The other instances; `None` if none are configured.
    pub fn peers(&self) -> Option<Vec<PeerView>> {
        self.0.cluster.as_ref().map(|cluster| cluster.peers())
    }

    /// The store that `/logs` reads, if an output can be read.
    pub fn store(&self) -> Option<Store> {
        self.0.store.clone()
    }

    /// The Elasticsearch output, if it is configured.
    pub(crate) fn elasticsearch(&self) -> Option<Elasticsearch> {
        self.0.elasticsearch.clone()
    }

    /// The search of the embedded store, if it has an index.
    pub fn search(&self) -> Option<EmbeddedSearch> {
        self.0.search.clone()
    }

    /// Updates the gauges of `metrics` from the stages at each scrape.
    pub(super) fn mirror_in(&self, metrics: &Metrics) {
        let status = self.clone();
        metrics.on_scrape(move |metrics| status.mirror(metrics));
    }

    fn mirror(&self, metrics: &Metrics) {
        let StatusSources {
            journal,
            queue,
            gauges,
            account,
            output_bytes,
            dead_letter_watch,
            ..
        } = &self.0;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let load = |value: &AtomicUsize| value.load(Ordering::Relaxed) as u64;
        let usage = journal.usage();
        metrics.journal_bytes.set(gauge(usage.bytes));
        metrics.journal_limit_bytes.set(gauge(usage.limit_bytes));
        metrics.journal_segments.set(gauge(usage.segments as u64));
        metrics.journal_blocked.set(i64::from(usage.blocked.is_some()));
        set(&metrics.journal_quarantined, usage.quarantined_segments);
        set(&metrics.journal_lost_segments, usage.lost_segments);
        set(&metrics.journal_lost_records, usage.lost_records);
        set(&metrics.journal_written_bytes, usage.record_bytes);
        metrics
            .journal_fsync_seconds
            .set(&SYNC_BUCKETS, &usage.sync_buckets, usage.sync_time);
        metrics
            .dead_letter_bytes
            .set(gauge(dead_letter_watch.usage().bytes));

        metrics.traces_open.set(gauge(load(&gauges.open_traces)));
        metrics.traces_open_bytes.set(gauge(load(&gauges.open_bytes)));
        let queued = queue.backlog().bytes;
        metrics.memory_used_bytes.set(gauge(
            queued as u64 + load(&gauges.open_bytes) + load(output_bytes),
        ));
        metrics.memory_limit_bytes.set(gauge(self.0.memory_limit));

        if let Some(search) = &self.0.search {
            let progress = search.progress();
            metrics.search_lag_documents.set(gauge(progress.lag()));
            metrics.search_index_bytes.set(gauge(progress.bytes()));
            set(&metrics.search_indexed_documents, progress.indexed());
            set(&metrics.search_rebuilds, progress.rebuilds());
        }

        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let (delivered, duplicate, joined, dead) = (
            count(&account.delivered),
            count(&account.duplicate),
            count(&account.joined),
            count(&account.dead),
        );
        let dropped = count(&account.dropped);
        let open = count(&gauges.open_lines) + count(&account.in_flight) + count(&account.deferred);
        set(&metrics.records_late, count(&account.late));
        set(&metrics.records_delivered, delivered);
        set(&metrics.records_duplicate, duplicate);
        set(&metrics.records_joined, joined);
        set(&metrics.records_dropped, dropped);
        set(&metrics.records_dead_letter, dead);
        metrics.records_open.set(gauge(open));
        let received = metrics.input_records.get();
        metrics
            .audit_difference
            .set(gauge(received) - gauge(delivered + duplicate + joined + dropped + dead + open));
        let readiness = self.readiness();
        let ready = readiness.reasons.is_empty() && readiness.fatal.is_none();
        metrics.ready.set(i64::from(ready));
    }
}

/// Why only a restart helps, if that is so. Faults outside the program (Elasticsearch away, a full
/// disk) are not fatal.
fn fatal(journal: &Usage, ended: Option<&str>) -> Option<String> {
    if let Some(thread) = journal.panicked_thread {
        return Some(format!(
            "the journal's {thread} thread has panicked: nothing more is acknowledged until Windrow is started again"
        ));
    }
    if let (Some(blocked), Some(time)) = (&journal.blocked, journal.failing)
        && time >= FATAL_JOURNAL_FAILURE
    {
        return Some(format!(
            "the journal could not be written for {} s, {blocked}: check the disk and start Windrow again; \
             what was acknowledged is on it",
            time.as_secs()
        ));
    }
    ended.map(str::to_owned)
}

fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use windrow_journal::Blocked;

    #[test]
    fn a_disk_that_keeps_failing_is_fatal_and_a_full_one_is_not() {
        let mut usage = Usage::default();
        assert_eq!(fatal(&usage, None), None);
        usage.blocked = Some(Blocked::NoSpace);
        assert_eq!(fatal(&usage, None), None);
        usage.blocked = Some(Blocked::Failing("Input/output error".into()));
        usage.failing = Some(FATAL_JOURNAL_FAILURE / 2);
        assert_eq!(fatal(&usage, None), None, "the journal retries");
        usage.failing = Some(FATAL_JOURNAL_FAILURE);
        let said = fatal(&usage, None).unwrap();
        assert!(
            said.contains("60 s") && said.contains("Input/output error"),
            "{said}"
        );
    }

    #[test]
    fn an_ended_thread_is_fatal() {
        let said = fatal(&Usage::default(), Some("gathering has ended"));
        assert_eq!(said.as_deref(), Some("gathering has ended"));
        let mut usage = Usage::default();
        usage.panicked_thread = Some("writer");
        let said = fatal(&usage, Some("gathering has ended")).unwrap();
        assert!(
            said.contains("journal's writer thread"),
            "the cause comes first: {said}"
        );
    }
}
