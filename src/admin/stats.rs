//! `/api/v1/stats`: every number of the pipeline, and with `series=1` the last hour of the most
//! important ones.
//!
//! A task samples the counters; nothing is computed on the way of the data.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::AdminShared;
use super::guard::parameter;
use crate::metrics::{DocumentResult, LatencyCounts, Metrics, Output};

/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Samples of one point of the series.
const SAMPLES_PER_POINT: u64 = 5;
/// Points that are kept: an hour.
const MAX_POINTS: usize = 360;

/// The last hour.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Series>);

#[derive(Debug, Default)]
struct Series {
    samples: u64,
    now: Point,
    points: VecDeque<Point>,
    last_sample: Counters,
    last_point: Counters,
}

/// Rates between two samples, and gauges at the second.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    /// Unix s.
    time: f64,
    records_per_second: f64,
    documents_per_second: f64,
    errors_per_second: f64,
    ack_median_ms: Option<f64>,
    ack_p99_ms: Option<f64>,
    journal_bytes: i64,
    memory_bytes: i64,
}

/// Counters at a sample.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    /// Unix s; 0 before the first sample.
    time: f64,
    records: u64,
    documents: u64,
    errors: u64,
    acks: LatencyCounts,
}

impl Counters {
    fn read(metrics: &Metrics, outputs: &[Output]) -> Self {
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let (mut documents, mut errors) = (0, metrics.input_violations.sum() + metrics.input_poison.sum());
        for output in outputs {
            let output = metrics.output(*output);
            documents += output.documents.sum() - output.documents[DocumentResult::Rejected].get();
            errors += output.errors.sum();
        }
        Self {
            time,
            records: metrics.input_records.get(),
            documents,
            errors,
            acks: metrics.input_ack_seconds.counts(),
        }
    }

    fn point_since(&self, before: &Self, metrics: &Metrics) -> Point {
        let seconds = (self.time - before.time).max(0.001);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let is_first = before.time == 0.0;
        let rated = |now, then| if is_first { 0.0 } else { rate(now, then) };
        Point {
            time: self.time,
            records_per_second: rated(self.records, before.records),
            documents_per_second: rated(self.documents, before.documents),
            errors_per_second: rated(self.errors, before.errors),
            ack_median_ms: self.acks.quantile_since(&before.acks, 0.5),
            ack_p99_ms: self.acks.quantile_since(&before.acks, 0.99),
            journal_bytes: metrics.journal_bytes.get(),
            memory_bytes: metrics.memory_used_bytes.get(),
        }
    }
}

impl History {
    fn sample(&self, metrics: &Metrics, outputs: &[Output]) {
        metrics.refresh();
        let counters = Counters::read(metrics, outputs);
        let mut series = self.lock();
        series.now = counters.point_since(&series.last_sample, metrics);
        series.last_sample = counters;
        if series.samples.is_multiple_of(SAMPLES_PER_POINT) {
            let point = counters.point_since(&series.last_point, metrics);
            series.last_point = counters;
            if series.points.len() == MAX_POINTS {
                series.points.pop_front();
            }
            series.points.push_back(point);
        }
        series.samples += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Series> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples until `stop`.
pub(super) async fn sample(
    history: Arc<History>,
    metrics: Arc<Metrics>,
    outputs: Vec<Output>,
    stop: CancellationToken,
) {
    let sampling = async {
        loop {
            history.sample(&metrics, &outputs);
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(sampling).await;
}

/// Points of the series as columns.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Columns {
    time: Vec<f64>,
    records_per_second: Vec<f64>,
    documents_per_second: Vec<f64>,
    errors_per_second: Vec<f64>,
    ack_latency_ms: Vec<Option<f64>>,
    ack_latency_p99_ms: Vec<Option<f64>>,
    journal_bytes: Vec<i64>,
    memory_bytes: Vec<i64>,
}

impl Columns {
    fn of(series: &Series) -> Self {
        let mut columns = Self::default();
        for point in &series.points {
            columns.time.push(point.time);
            columns.records_per_second.push(point.records_per_second);
            columns.documents_per_second.push(point.documents_per_second);
            columns.errors_per_second.push(point.errors_per_second);
            columns.ack_latency_ms.push(point.ack_median_ms);
            columns.ack_latency_p99_ms.push(point.ack_p99_ms);
            columns.journal_bytes.push(point.journal_bytes);
            columns.memory_bytes.push(point.memory_bytes);
        }
        columns
    }
}

/// Answers with all numbers.
pub(super) async fn stats(State(shared): State<AdminShared>, uri: Uri) -> Response {
    let state = &shared.state;
    state.metrics.refresh();
    let readiness = (state.readiness)();
    let reasons: Vec<_> = readiness.fatal.iter().chain(&readiness.reasons).collect();
    let (now, columns) = {
        let series = shared.history.lock();
        let wanted = parameter(&uri, "series").is_some_and(|value| value == "1");
        (series.now, wanted.then(|| Columns::of(&series)))
    };
    let m = &state.metrics;
    let dead: u64 = m.dead_letter_documents.sum();
    let dead_by_source: serde_json::Map<_, _> = m
        .dead_letter_documents
        .iter()
        .map(|(source, count)| (source.as_str().to_owned(), count.get().into()))
        .collect();
    let documents: u64 = state
        .outputs
        .iter()
        .map(|output| m.output(*output).documents.sum())
        .sum();
    let mut body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": m.uptime().as_secs(),
        "readiness": { "ready": readiness.is_ready(), "reasons": reasons, "notes": readiness.notes },
        "listen": { "forward": state.forward_address },
        "now": {
            "recordsPerSecond": now.records_per_second,
            "documentsPerSecond": now.documents_per_second,
            "errorsPerSecond": now.errors_per_second,
            "ackLatencyMs": now.ack_median_ms,
            "ackLatencyP99Ms": now.ack_p99_ms,
            "documents": documents,
        },
        "input": {
            "connectionsOpen": m.input_connections.get(),
            "connectionsTotal": m.input_connections_total.get(),
            "records": m.input_records.get(),
            "recordsDuplicate": m.records_duplicate.get(),
            "chunksAcked": m.input_chunks_acked.get(),
            "rejected": m.input_poison.sum(),
            "violations": m.input_violations.sum(),
        },
        "open": {
            "traces": m.traces_open.get(),
            "bytes": m.traces_open_bytes.get(),
            "recordsUnconfirmed": m.records_open.get(),
            "recordsLate": m.records_late.get(),
            "sealed": m.traces_flushed.sum(),
        },
        "journal": {
            "bytes": m.journal_bytes.get(),
            "limitBytes": m.journal_limit_bytes.get(),
            "segments": m.journal_segments.get(),
            "blocked": m.journal_blocked.get() > 0,
        },
        "memory": { "usedBytes": m.memory_used_bytes.get(), "limitBytes": m.memory_limit_bytes.get() },
        "audit": { "difference": m.audit_difference.get() },
        "deadLetter": { "documents": dead, "bytes": m.dead_letter_bytes.get(), "bySource": dead_by_source },
        "rejected": {
            "entries": m.rejected_entries.get(),
            "overwritten": m.rejected_overwritten.get(),
            "bytes": m.rejected_bytes.get(),
        },
        "outputs": state.outputs.iter().map(|output| output_numbers(m, *output)).collect::<Vec<_>>(),
    });
    if m.search_index_bytes.get() > 0 {
        body["index"] = json!({
            "lag": m.search_lag_documents.get(),
            "bytes": m.search_index_bytes.get(),
            "indexed": m.search_indexed_documents.get(),
            "rebuilds": m.search_rebuilds.get(),
        });
    }
    if let Some(peers) = (state.peers)() {
        body["cluster"] = json!({
            "recordsHandedOver": m.cluster.records_handed_over.get(),
            "messagesTaken": m.cluster.messages_taken.get(),
            "kept": m.cluster.kept.sum(),
            "peers": peers,
        });
    }
    if let Some(columns) = columns {
        // Serialising numbers and options of them cannot fail.
        body["series"] = serde_json::to_value(columns).unwrap_or_default();
    }
    Json(body).into_response()
}

fn output_numbers(metrics: &Metrics, output: Output) -> Value {
    let of = metrics.output(output);
    let errors: serde_json::Map<_, _> = of
        .errors
        .iter()
        .filter(|(_, count)| count.get() > 0)
        .map(|(why, count)| (why.to_string(), count.get().into()))
        .collect();
    let done = |result| of.documents[result].get();
    json!({
        "name": output.as_str(),
        "created": done(DocumentResult::Created),
        "merged": done(DocumentResult::Merged),
        "unchanged": done(DocumentResult::Unchanged),
        "rejected": done(DocumentResult::Rejected),
        "inFlight": of.in_flight.get(),
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_rates_and_an_hour_is_kept() {
        let metrics = Metrics::new(&[Output::Sqlite]);
        let history = History::default();
        metrics.input_records.inc_by(1000);
        history.sample(&metrics, &[Output::Sqlite]);
        assert_eq!(
            history.lock().now.records_per_second,
            0.0,
            "what came before the start is no rate"
        );
        metrics.input_records.inc_by(1000);
        metrics.input_ack_seconds.observe(Duration::from_millis(3));
        history.sample(&metrics, &[Output::Sqlite]);
        let now = history.lock().now;
        assert!(now.records_per_second > 0.0);
        assert!(now.ack_median_ms.is_some_and(|ms| (2.0..=5.0).contains(&ms)));
        for _ in 0..MAX_POINTS as u64 * SAMPLES_PER_POINT + 10 {
            history.sample(&metrics, &[Output::Sqlite]);
        }
        let columns = Columns::of(&history.lock());
        assert_eq!(columns.time.len(), MAX_POINTS);
        assert!(columns.time.is_sorted());
    }
}
