//! Admin server: health, readiness, metrics, the API and the page, over HTTP/1.1.
//!
//! Owns the paths, the access rules and the limits against slow clients. Everything it shows comes
//! from [`AdminState`].
//!
//! What shows log content is guarded (modules `guard`, `session`); the files of the page have none,
//! and health and metrics are open, because probes and scrapers send no secrets. An error response
//! is JSON: `{"error":"…","allowed":"…"}`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, extract::Request};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::cluster::PeerView;
use crate::config::AdminConfig;
use crate::gather::OpenTracesProbe;
use crate::metrics::{self, Metrics, Output};
use crate::search::TraceSearch;

mod answer;
mod api;
mod assets;
mod dead_letter;
mod guard;
mod http;
mod logs;
mod open;
mod session;
mod slots;
mod stats;
mod tail;
#[cfg(test)]
mod tests;

pub use dead_letter::{DeadLetterAccess, Replaying};
pub use http::serve;
pub use tail::TailHub;

/// Every path, for the response to an unknown one.
const PATHS: &str = "/, /health, /ready, /metrics, /logs, /api/v1/health, /api/v1/uptime, \
     /api/v1/logs, /api/v1/metrics/prometheus, /api/v1/stats, /api/v1/open, /api/v1/tail, \
     /api/v1/dead-letter, /api/v1/traces, /api/v1/histogram, /api/v1/facets, /api/v1/openapi.json";

/// Addresses of the views of the page.
const VIEWS: [&str; 6] = ["/", "/live", "/open", "/dead-letter", "/server", "/trace/{id}"];

/// What the page may load: its own files and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

/// Longest body of a request, bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The paths of probes and scrapers, which are answered also while slow clients hold all other
/// connections.
const PROBE_PATHS: [&str; 5] = [
    "/health",
    "/api/v1/health",
    "/ready",
    "/metrics",
    "/api/v1/metrics/prometheus",
];

/// A searchable store of documents: the configured output that keeps them.
pub trait DocumentStore: Send + Sync + 'static {
    /// The newest documents first, those of one trace or all, at most `limit` documents and
    /// `max_bytes` bytes, of which no more is read into memory. The error is a message for the
    /// reader.
    fn recent<'a>(&'a self, trace_id: Option<&'a str>, limit: usize, max_bytes: usize)
    -> RecentDocuments<'a>;
}

/// The future result of a [`DocumentStore`].
pub type RecentDocuments<'a> = Pin<Box<dyn Future<Output = Result<FoundDocuments, String>> + Send + 'a>>;

/// Documents that a [`DocumentStore`] found.
#[derive(Debug, Default)]
pub struct FoundDocuments {
    /// The first ones, up to the bound in bytes.
    pub documents: Vec<Box<RawValue>>,
    /// Number of the others.
    pub omitted: usize,
}

/// Readiness of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Why the server is not ready; empty if it is.
    pub reasons: Vec<String>,
    /// What an operator should look at although the server is ready, such as a dead letter that is
    /// not empty.
    pub notes: Vec<String>,
    /// A failure that only a restart fixes: `/health` fails too, so that a supervisor restarts the
    /// server.
    pub fatal: Option<String>,
}

impl Readiness {
    /// Whether the server is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty() && self.fatal.is_none()
    }
}

/// What the admin port shows.
#[derive(Clone)]
pub struct AdminState {
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Called for each `/ready`, `/health` and `/api/v1/stats`. It must not block.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// The other instances, for `/api/v1/stats`; `None` if none are configured. It must not block.
    pub peers: Arc<dyn Fn() -> Option<Vec<PeerView>> + Send + Sync>,
    /// The store of recent documents; `None` if no output keeps them.
    pub store: Option<Arc<dyn DocumentStore>>,
    /// The store of traces that can be searched; `None` if no output can.
    pub search: Option<Arc<dyn TraceSearch>>,
    /// Names of the fields with text and trace id.
    pub names: windrow_query::Names,
    /// Outputs that the page shows.
    pub outputs: Vec<Output>,
    /// The address of the Forward port, for the first steps that the page shows.
    pub forward_address: Option<String>,
    /// The traces that are being gathered.
    pub open_traces: Option<Arc<OpenTracesProbe>>,
    /// The refused documents.
    pub dead_letter: Option<DeadLetterAccess>,
    /// The readers of sealed traces.
    pub tail: Option<Arc<TailHub>>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState")
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// State shared by the handlers.
#[derive(Clone)]
struct AdminShared {
    state: AdminState,
    guard: Arc<guard::Guard>,
    budget: answer::AnswerBudget,
    history: Arc<stats::History>,
    /// Ends the answers that have no end.
    stop: CancellationToken,
}

/// The router of the admin server, for [`serve`]. On a runtime: starts a task that samples the
/// metrics until `stop`.
pub fn router(state: AdminState, config: &AdminConfig, stop: &CancellationToken) -> Router {
    let guard = Arc::new(guard::Guard::new(config));
    let history = Arc::<stats::History>::default();
    tokio::spawn(stats::sample(
        Arc::clone(&history),
        Arc::clone(&state.metrics),
        state.outputs.clone(),
        stop.clone(),
    ));
    let shared = AdminShared {
        state,
        guard,
        budget: answer::AnswerBudget::new(),
        history,
        stop: stop.clone(),
    };
    let guarded = Router::new()
        .route("/logs", get(logs::logs))
        .route("/api/v1/logs", get(logs::logs))
        .route("/api/v1/stats", get(stats::stats))
        .route("/api/v1/open", get(open::open))
        .route("/api/v1/dead-letter", get(dead_letter::list))
        .route("/api/v1/dead-letter/replay", post(dead_letter::replay))
        .route("/api/v1/tail", get(tail::tail))
        .merge(api::routes())
        .route_layer(middleware::from_fn_with_state(shared.clone(), guard::check));
    let views = VIEWS.iter().fold(Router::new(), |router, path| {
        router.route(path, get(assets::index))
    });
    let page = views
        .route("/assets/{*path}", get(assets::asset))
        .route("/api/v1/login", post(session::login))
        .route("/api/v1/logout", post(session::logout))
        .route_layer(middleware::from_fn_with_state(shared.clone(), guard::check_page));
    Router::new()
        .route("/health", get(health))
        .route("/api/v1/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(prometheus))
        .route("/api/v1/metrics/prometheus", get(prometheus))
        .route("/api/v1/uptime", get(uptime))
        .merge(guarded)
        .merge(page)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(headers))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(shared)
}

async fn health(State(shared): State<AdminShared>) -> Response {
    match (shared.state.readiness)().fatal {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn ready(State(shared): State<AdminShared>) -> Response {
    let readiness = (shared.state.readiness)();
    let is_ready = readiness.is_ready();
    shared.state.metrics.ready.set(i64::from(is_ready));
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let reasons: Vec<_> = readiness.fatal.into_iter().chain(readiness.reasons).collect();
    (
        status,
        Json(json!({ "ready": is_ready, "reasons": reasons, "notes": readiness.notes })),
    )
        .into_response()
}

async fn prometheus(State(shared): State<AdminShared>) -> Response {
    let metrics = &shared.state.metrics;
    metrics
        .ready
        .set(i64::from((shared.state.readiness)().is_ready()));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.encode()).into_response()
}

/// The fields of Fluent Bit's `/api/v1/uptime`.
async fn uptime(State(shared): State<AdminShared>) -> Response {
    let uptime = shared.state.metrics.uptime();
    let text = crate::config::format_duration(std::time::Duration::from_secs(uptime.as_secs()));
    Json(json!({ "uptime_sec": uptime.as_secs(), "uptime_hr": format!("Windrow has been running: {text}") }))
        .into_response()
}

async fn unknown_path(request: Request) -> Response {
    let what = format!("no such path: {}", request.uri().path());
    problem(StatusCode::NOT_FOUND, &what, PATHS)
}

async fn wrong_method(request: Request) -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("{} is not answered here", request.method()),
        "GET, HEAD; POST for /api/v1/login, /api/v1/logout, /api/v1/dead-letter/replay",
    )
}

/// Adds headers: no caching unless the handler allows it, no content sniffing, only own scripts.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An error response with what is wrong and what is allowed.
fn problem(status: StatusCode, what: &str, allowed: &str) -> Response {
    let body = if allowed.is_empty() {
        json!({ "error": what })
    } else {
        json!({ "error": what, "allowed": allowed })
    };
    (status, Json(body)).into_response()
}
