//! Counters and health of a logging sidecar, served on `/health` and `/metrics`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Counters, and the current failure.
#[derive(Debug)]
pub struct Status {
    registry: Registry,
    lines: Counter,
    chunks: Counter,
    failures: Counter,
    behind: Gauge,
    trouble: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    error: String,
}

impl Default for Status {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sidecar_logs");
        let (lines, chunks, failures) = (Counter::default(), Counter::default(), Counter::default());
        let behind: Gauge = Gauge::default();
        registry.register("lines", "Lines acknowledged by the server", lines.clone());
        registry.register("chunks", "Chunks acknowledged by the server", chunks.clone());
        registry.register(
            "failures",
            "Tries that failed: deliveries, file accesses",
            failures.clone(),
        );
        registry.register(
            "behind_bytes",
            "Bytes in the log that are not delivered",
            behind.clone(),
        );
        Self {
            registry,
            lines,
            chunks,
            failures,
            behind,
            trouble: Mutex::default(),
        }
    }
}

impl Status {
    /// Lines acknowledged.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.get()
    }

    /// Attempts that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    pub(super) fn behind(&self, bytes: u64) {
        self.behind.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn delivered(&self, lines: usize) {
        self.lines.inc_by(lines as u64);
        self.chunks.inc();
        if let Some(trouble) = self.trouble().take() {
            tracing::info!(
                "delivering again after {:.1} s of trouble",
                trouble.since.elapsed().as_secs_f64()
            );
        }
    }

    /// Counts a failure; logs it when it is new or differs from the last one.
    pub(super) fn failed(&self, error: &str) {
        self.failures.inc();
        let mut trouble = self.trouble();
        match &mut *trouble {
            Some(trouble) if trouble.error == error => {}
            Some(trouble) => {
                tracing::warn!("still not delivering: {error}");
                error.clone_into(&mut trouble.error);
            }
            None => {
                tracing::warn!("not delivering, will try again: {error}");
                *trouble = Some(Failing {
                    since: Instant::now(),
                    error: error.to_owned(),
                });
            }
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Failing>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `/health` (503 when nothing could be delivered for a while) and `/metrics`.
pub fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn health(State(status): State<Arc<Status>>) -> Response {
    match &*status.trouble() {
        Some(trouble) if trouble.since.elapsed() >= UNHEALTHY_AFTER => {
            let text = format!(
                "not delivering for {} s: {}\n",
                trouble.since.elapsed().as_secs(),
                trouble.error
            );
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        _ => "ok\n".into_response(),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &status.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The sidecar is unhealthy after failing for this long: longer than a restart of the server.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(30);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
