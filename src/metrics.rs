//! Metrics of the process, for Prometheus and the page.
//!
//! Owns [`Metrics`], which is created once and shared as `Arc<Metrics>`. Every field is a handle to
//! an atomic: counting needs no lookup by name or label. Labels are enums, so every series exists
//! from the start, at zero, and peers cannot create new ones.
//!
//! Does not serve the metrics (`admin` does). Gauges that mirror state of other components are set
//! at each scrape, see [`Metrics::on_scrape`].
//!
//! Names: prefix `windrow_`; counters end in `_total`, sizes in `_bytes`, times in `_seconds`.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::registry::Registry;

mod cluster;
mod labels;
mod latency;
mod mirror;
mod per_label;
mod reference;
mod registrar;
#[cfg(test)]
mod tests;

pub use labels::{
    DeadLetterSource, DecodeError, Direction, DocumentResult, Dropped, FlushReason, Handshake, HttpStatus,
    Kept, Label, MadeText, Mode, Output, OutputError, Poison, Refused, Violation,
};

pub use cluster::ClusterMetrics;
pub use latency::{LatencyCounts, LatencyHistogram};
pub use mirror::MirroredHistogram;
pub use per_label::PerLabel;
use registrar::Registrar;

/// A monotonic counter.
pub type Counter = prometheus_client::metrics::counter::Counter<u64, AtomicU64>;
/// A gauge.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;
/// A floating-point gauge, for seconds.
pub type GaugeF64 = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;
/// A histogram.
pub type Histogram = prometheus_client::metrics::histogram::Histogram;

type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Content type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process.
pub struct Metrics {
    // Intake.
    /// Records decoded, repeated chunks included.
    pub input_records: Counter,
    /// Bytes read from sockets, before decompression.
    pub input_bytes: Counter,
    /// Messages, by carrier mode.
    pub input_messages: PerLabel<Mode, Counter>,
    /// Requests to the HTTP and OTLP inputs, by the status of the answer. Of gRPC the status is 200.
    pub http_requests: PerLabel<HttpStatus, Counter>,
    /// Open connections.
    pub input_connections: Gauge,
    /// Connections accepted since the start.
    pub input_connections_total: Counter,
    /// Connections refused because of a limit.
    pub input_connections_refused: PerLabel<Refused, Counter>,
    /// Connections that the server closed after an ack at the configured age.
    pub input_connections_aged: Counter,
    /// Acks sent.
    pub input_chunks_acked: Counter,
    /// Time from a complete message to its ack.
    pub input_ack_seconds: LatencyHistogram,
    /// Repeated chunks (equal tag, id and payload): acked again, not processed again.
    pub input_chunks_duplicate: Counter,
    /// Records in repeated chunks.
    pub records_duplicate: Counter,
    /// Parts of lines that were joined to the last part of their line.
    pub records_joined: Counter,
    /// Records that a route dropped.
    pub records_dropped: Counter,
    /// Records that went to a fallback for lack of destinations.
    pub destinations_fallback_records: Counter,
    /// Malformed input that was skipped, by reason.
    pub input_decode_errors: PerLabel<DecodeError, Counter>,
    /// Well-formed input that can never be accepted: rejected and acked.
    pub input_poison: PerLabel<Poison, Counter>,
    /// Connections closed because framing was lost or a limit was exceeded; nothing was acked.
    pub input_violations: PerLabel<Violation, Counter>,
    /// Records with an invalid time, which was replaced by the time of arrival.
    pub input_time_invalid: Counter,
    /// Records with a time outside of `trace.time_window`, which was replaced by the time of arrival.
    pub input_time_outside: Counter,
    /// Records of traces whose text is not a text field, by what it was made of.
    pub input_text_made: PerLabel<MadeText, Counter>,
    /// Handshakes, by result.
    pub handshakes: PerLabel<Handshake, Counter>,
    /// UDP heartbeats answered.
    pub heartbeats: Counter,
    /// UDP heartbeats that were not answered: over a limit, or from an address or port that gets no
    /// answer.
    pub heartbeats_ignored: Counter,

    /// Handing over between instances.
    pub cluster: ClusterMetrics,

    // Gathering.
    /// Open traces.
    pub traces_open: Gauge,
    /// Bytes of open traces.
    pub traces_open_bytes: Gauge,
    /// Sealed parts, by what sealed them.
    pub traces_flushed: PerLabel<FlushReason, Counter>,
    /// Traces sealed early for lack of memory or slots (included in `traces_flushed`).
    pub traces_evicted: Counter,
    /// Complete traces sealed before `linger` had passed, because many waited and late lines were
    /// rare.
    pub traces_hurried: Counter,
    /// Silent traces that were looked up in the store.
    pub traces_looked_up: Counter,
    /// Of them, those whose document was complete.
    pub traces_found_complete: Counter,
    /// Records that arrived after their trace was sealed; they are merged into its document.
    pub records_late: Counter,
    /// Records that not every output has confirmed.
    pub records_open: Gauge,
    /// Records in parts that every output confirmed.
    pub records_delivered: Counter,
    /// Records that were rejected or went to the dead letter.
    pub records_dead_letter: Counter,

    // Outputs.
    outputs: [OutputMetrics; Output::ALL.len()],
    /// Records that an output rejected; each is in the dead letter.
    pub output_dropped_records: PerLabel<Dropped, Counter>,
    /// Documents stored with refused fields in `windrow.unmapped`.
    pub output_healed_documents: Counter,
    /// Documents that wait on disk for an operator.
    pub output_deferred_documents: Gauge,
    /// Bytes of their files.
    pub output_deferred_bytes: Gauge,

    // Journal.
    /// Bytes of all segment files.
    pub journal_bytes: Gauge,
    /// The configured limit.
    pub journal_limit_bytes: Gauge,
    /// Segment files.
    pub journal_segments: Gauge,
    /// Bytes written since the start.
    pub journal_written_bytes: Counter,
    /// Duration of a sync to disk.
    pub journal_fsync_seconds: MirroredHistogram,
    /// 1 while appends wait because the journal is at its limit or the disk is full.
    pub journal_blocked: Gauge,
    /// Damaged segments in quarantine.
    pub journal_quarantined: Counter,
    /// Segments whose file is missing or has no readable record.
    pub journal_lost_segments: Counter,
    /// Acknowledged chunks lost to damage or with a missing segment, where their number is known.
    pub journal_lost_records: Counter,

    // Dead letter.
    /// Documents in the dead letter, by who rejected them.
    pub dead_letter_documents: PerLabel<DeadLetterSource, Counter>,
    /// Bytes of the dead letter files.
    pub dead_letter_bytes: Gauge,

    // Rejected input.
    /// Rejected entries that were written.
    pub rejected_entries: Counter,
    /// Bytes of the files of rejected entries.
    pub rejected_bytes: Gauge,
    /// Rejected entries that were overwritten because of the limit.
    pub rejected_overwritten: Counter,
    /// Rejected entries that could not be written.
    pub rejected_lost: Counter,

    // Search.
    /// Documents that are stored and not in the search index.
    pub search_lag_documents: Gauge,
    /// Size of the search index.
    pub search_index_bytes: Gauge,
    /// Documents that were indexed, merged ones again.
    pub search_indexed_documents: Counter,
    /// Times that the search index was made again.
    pub search_rebuilds: Counter,

    // The process.
    /// Records received minus delivered, duplicate, joined, dropped, dead-lettered and open ones: 0 when
    /// idle.
    pub audit_difference: Gauge,
    /// Bytes accounted to the memory budget.
    pub memory_used_bytes: Gauge,
    /// The configured budget.
    pub memory_limit_bytes: Gauge,
    /// 1 while the server is ready.
    pub ready: Gauge,
    /// Lines of the log that were dropped.
    pub log_lines_dropped: Counter,
    /// Configuration reloads that were applied.
    pub reloads: Counter,
    uptime_seconds: GaugeF64,
    resident_bytes: Gauge,

    started: Instant,
    registry: Registry,
    refresh: Mutex<Vec<Refresh>>,
}

/// The metrics of one output.
pub struct OutputMetrics {
    /// Documents, by result.
    pub documents: PerLabel<DocumentResult, Counter>,
    /// Lines in confirmed documents.
    pub proc_records: Counter,
    /// Requests (or transactions) sent again.
    pub retries: Counter,
    /// Lines in repeated requests.
    pub retried_records: Counter,
    /// Failed requests or items, by reason; failures that are retried count too.
    pub errors: PerLabel<OutputError, Counter>,
    /// Bytes given to the output, before compression and after.
    pub bytes: PerLabel<Direction, Counter>,
    /// Latency of a request, or of a transaction.
    pub latency_seconds: Histogram,
    /// Requests in flight.
    pub in_flight: Gauge,
}

impl Metrics {
    /// All metrics at zero. Only the given `outputs` have series with an `output` label; the
    /// handles of the other outputs exist but are not exported.
    #[must_use]
    pub fn new(outputs: &[Output]) -> Self {
        let mut r = Registrar {
            registry: Registry::with_prefix("windrow"),
        };
        let outputs = r.outputs(outputs);
        r.build_info();
        Self {
            input_records: r.counter("input_records", "Records decoded, repeated chunks included"),
            input_bytes: r.counter("input_bytes", "Bytes read from sockets"),
            input_messages: r.per_label("input_messages", "Messages by carrier mode"),
            http_requests: r.per_label("http_requests", "Requests to the HTTP and OTLP inputs by status"),
            input_connections: r.gauge("input_connections", "Open connections"),
            // The registry adds `_total` to a counter: the gauge above keeps the bare name.
            input_connections_total: r.counter("input_connections", "Connections accepted"),
            input_connections_refused: r.per_label(
                "input_connections_refused",
                "Connections refused because of a limit",
            ),
            input_connections_aged: r.counter(
                "input_connections_aged",
                "Connections closed after an ack at the configured age",
            ),
            input_chunks_acked: r.counter("input_chunks_acked", "Acks sent"),
            input_ack_seconds: r.register(
                "input_ack_seconds",
                "Time from a complete message to its ack",
                LatencyHistogram::default(),
            ),
            input_chunks_duplicate: r.counter("input_chunks_duplicate", "Repeated chunks: acked again, not processed again"),
            records_duplicate: r.counter("records_duplicate", "Records in repeated chunks"),
            records_joined: r.counter("records_joined", "Parts of lines that were joined to the last part of their line"),
            records_dropped: r.counter("records_dropped", "Records that a route dropped"),
            destinations_fallback_records: r.counter(
                "destinations_fallback_records",
                "Records whose index name was not used, because of elasticsearch.max_destinations or because it could be that of another destination: they went to the fallback",
            ),
            input_decode_errors: r.per_label(
                "input_decode_errors",
                "Malformed input that was skipped",
            ),
            input_poison: r.per_label(
                "input_poison",
                "Input that can never be accepted: rejected and acked",
            ),
            input_violations: r.per_label(
                "input_violations",
                "Connections closed without an ack for bad input",
            ),
            input_time_invalid: r.counter("input_time_invalid", "Records with an invalid time, replaced by the time of arrival"),
            input_time_outside: r.counter("input_time_outside", "Records with a time outside of trace.time_window, replaced by the time of arrival"),
            input_text_made: r.per_label("input_text_made", "Records of traces without a text, by what their text was made of"),
            handshakes: r.per_label("handshakes", "Handshakes by result"),
            heartbeats: r.counter("heartbeats", "UDP heartbeats answered"),
            heartbeats_ignored: r.counter(
                "heartbeats_ignored",
                "UDP heartbeats not answered: too many, or from an address or port that gets no answer",
            ),

            cluster: ClusterMetrics::new(&mut r),

            traces_open: r.gauge("traces_open", "Open traces"),
            traces_open_bytes: r.gauge("traces_open_bytes", "Bytes of open traces"),
            traces_flushed: r.per_label("traces_flushed", "Sealed parts by what sealed them"),
            traces_evicted: r.counter("traces_evicted", "Traces sealed early for lack of memory or slots"),
            traces_hurried: r.counter(
                "traces_hurried",
                "Complete traces sealed before `linger` had passed, because many waited and late lines were rare",
            ),
            traces_looked_up: r.counter("traces_looked_up", "Silent traces that were looked up in the store"),
            traces_found_complete: r.counter("traces_found_complete", "Silent traces whose document was complete in the store"),
            records_late: r.counter("records_late", "Records that arrived after their trace was sealed"),
            records_open: r.gauge("records_open", "Records that not every output has confirmed"),
            records_delivered: r.counter(
                "records_delivered",
                "Records in parts that every output confirmed",
            ),
            records_dead_letter: r.counter("records_dead_letter", "Records that were rejected or went to the dead letter"),

            outputs,
            output_dropped_records: r.per_label(
                "output_dropped_records",
                "Records that an output rejected; all are in the dead letter",
            ),
            output_healed_documents: r.counter(
                "output_healed_documents",
                "Documents stored with fields that the store refused in `windrow.unmapped`",
            ),
            output_deferred_documents: r.gauge(
                "output_deferred_documents",
                "Documents that wait on disk until an operator mends their index",
            ),
            output_deferred_bytes: r.gauge("output_deferred_bytes", "Bytes of the files of deferred documents"),

            journal_bytes: r.gauge("journal_bytes", "Bytes of all segment files"),
            journal_limit_bytes: r.gauge("journal_limit_bytes", "Configured limit of the journal"),
            journal_segments: r.gauge("journal_segments", "Segment files"),
            journal_written_bytes: r.counter("journal_written_bytes", "Bytes written to the journal"),
            journal_fsync_seconds: r.register(
                "journal_fsync_seconds",
                "Duration of a sync to disk",
                MirroredHistogram::default(),
            ),
            journal_blocked: r.gauge("journal_blocked", "1 while appends wait because the journal is at its limit or the disk is full"),
            journal_quarantined: r.counter("journal_quarantined", "Damaged segments in quarantine"),
            journal_lost_segments: r.counter(
                "journal_lost_segments",
                "Segments whose file is missing or has no readable record",
            ),
            journal_lost_records: r.counter(
                "journal_lost_records",
                "Unreleased journal records lost to damage or with a missing segment, where their number is known",
            ),

            dead_letter_documents: r
                .per_label("dead_letter_documents", "Documents written to the dead letter"),
            dead_letter_bytes: r.gauge("dead_letter_bytes", "Bytes of the dead letter files"),

            rejected_entries: r.counter("rejected_entries", "Entries of rejected input that were written"),
            rejected_bytes: r.gauge("rejected_bytes", "Bytes of the files of rejected input"),
            rejected_overwritten: r.counter(
                "rejected_overwritten",
                "Entries of rejected input overwritten by newer ones at `rejected.limit`",
            ),
            rejected_lost: r.counter(
                "rejected_lost",
                "Entries of rejected input that could not be written and are lost",
            ),

            search_lag_documents: r.gauge(
                "search_lag_documents",
                "Documents of the embedded store that are not in the search index yet",
            ),
            search_index_bytes: r.gauge("search_index_bytes", "Size of the search index of the embedded store"),
            search_indexed_documents: r.counter(
                "search_indexed_documents",
                "Documents put into the search index, merged ones again",
            ),
            search_rebuilds: r.counter("search_rebuilds", "Times that the search index was made again"),

            audit_difference: r.gauge(
                "audit_difference",
                "Records received minus delivered, duplicate, joined, dropped, dead-lettered and open ones; 0 when idle",
            ),
            memory_used_bytes: r.gauge("memory_used_bytes", "Bytes accounted to the memory budget"),
            memory_limit_bytes: r.gauge("memory_limit_bytes", "Configured memory budget"),
            ready: r.gauge("ready", "1 while the server is ready"),
            log_lines_dropped: r.counter(
                "log_lines_dropped",
                "Lines of the log dropped because standard error was not read in time",
            ),
            reloads: r.counter("reloads", "Configuration reloads that were applied"),
            uptime_seconds: r.register("uptime_seconds", "Seconds since the start", GaugeF64::default()),
            resident_bytes: r.gauge("process_resident_memory_bytes", "Resident memory of the process"),

            started: Instant::now(),
            registry: r.registry,
            refresh: Mutex::new(Vec::new()),
        }
    }

    /// The metrics of one output.
    #[must_use]
    pub fn output(&self, output: Output) -> &OutputMetrics {
        let [elasticsearch, sqlite, stdout] = &self.outputs;
        match output {
            Output::Elasticsearch => elasticsearch,
            Output::Sqlite => sqlite,
            Output::Stdout => stdout,
        }
    }

    /// Registers a function that is called before each [`encode`](Self::encode), to set gauges from
    /// state of other components. It must not block.
    pub fn on_scrape(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        self.refresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(refresh));
    }

    /// Calls the functions of [`on_scrape`](Self::on_scrape).
    pub fn refresh(&self) {
        self.uptime_seconds.set(self.uptime().as_secs_f64());
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        for refresh in self.refresh.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            refresh(self);
        }
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn encode(&self) -> String {
        self.refresh();
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a `String` cannot fail, and no collector returns an error.
        if let Err(fmt::Error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!("metrics could not be written as text");
        }
        to_prometheus_text(&text)
    }

    /// The page `docs/metrics.md`: every metric with its type, labels and meaning.
    #[must_use]
    pub fn reference_markdown() -> String {
        reference::markdown(&Self::new(Output::ALL))
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OutputMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputMetrics").finish_non_exhaustive()
    }
}

/// Converts OpenMetrics, where a counter's family has no `_total` and would collide with a gauge of
/// the same name, to the Prometheus text format, which uses a counter's full name and has no end
/// marker.
fn to_prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                text.extend(["# HELP ", name, total, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, total, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

/// Resident memory in bytes, on Linux; `None` elsewhere.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
