//! Common part of the demo's HTTP applications: trace ids, the log lines of a request, metrics,
//! health and graceful stop. Does not know any route.

use std::{
    future::{Future, IntoFuture as _},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Error, app_log::AppLog, id};

/// The header that carries a trace id from one application to the next.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

/// A longer trace id in a header is replaced by a new one, so that clients cannot fill the log.
const MAX_TRACE_ID_BYTES: usize = 256;

/// The trace id of the request at hand; an extension of the request.
#[derive(Clone, Debug)]
pub struct TraceId(pub Arc<str>);

/// The log and the metrics of one application.
#[derive(Debug)]
pub struct Telemetry {
    log: AppLog,
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    errors: Family<RequestLabels, Counter>,
    latency: Family<RequestLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    log_failures: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    method: String,
    path: String,
}

impl Telemetry {
    /// Metrics that start at zero, and lines that go to `log`.
    #[must_use]
    pub fn new(log: AppLog) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let errors = Family::default();
        let latency: Family<RequestLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let in_flight = Gauge::default();
        let log_failures = Counter::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register(
            "http_request_errors",
            "Requests answered with a 5xx status",
            errors.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time to answer a request",
            latency.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests being answered",
            in_flight.clone(),
        );
        registry.register(
            "log_write_failures",
            "Log lines that could not be written",
            log_failures.clone(),
        );
        Self {
            log,
            registry,
            requests,
            errors,
            latency,
            in_flight,
            log_failures,
        }
    }

    /// Writes a log line. A line that cannot be written is counted and reported on standard error;
    /// its request is answered all the same.
    pub fn log(&self, level: &str, trace: &TraceId, message: &str, fields: &[(&str, Value)]) {
        if let Err(error) = self.log.write(level, &trace.0, message, fields)
            && self.log_failures.inc().is_multiple_of(1000)
        {
            tracing::error!("log lines cannot be written (said once in 1000 times): {error}");
        }
    }

    /// Requests that are being answered now.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }
}

/// Adds to the business routes what every application has: the trace id and the log line `request
/// completed` around each of them, `/health` and `/metrics` beside them.
pub fn instrument(routes: Router<Arc<Telemetry>>, telemetry: Arc<Telemetry>) -> Router {
    routes
        .route_layer(middleware::from_fn_with_state(Arc::clone(&telemetry), observe))
        .route("/health", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

/// Opens the port.
///
/// # Errors
/// [`Error::PortInUse`] with the variable to change, or [`Error::Bind`].
pub async fn bind(address: SocketAddr, variable: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { address, variable },
            _ => Error::Bind { address, source },
        })
}

/// Serves until `stop`, then lets the requests in flight end, for at most `grace`, and finishes the
/// log.
///
/// # Errors
/// [`Error::StopTimeout`] when requests did not end in time; whatever keeps the log from
/// being finished.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let served = serve_router(listener, router, stop, grace, || telemetry.in_flight()).await;
    telemetry.log.finish(grace).await?;
    served
}

/// [`serve`] for programs without an application log.
///
/// # Errors
/// [`Error::StopTimeout`] when requests did not end in time.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
    in_flight: impl Fn() -> i64,
) -> Result<(), Error> {
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        ended = &mut server => return ended.map_err(Error::io("the HTTP server stopped")),
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(grace, server).await {
        Ok(ended) => ended.map_err(Error::io("the HTTP server stopped")),
        Err(_) => Err(Error::StopTimeout {
            grace,
            in_flight: in_flight(),
        }),
    }
}

/// The trace id of a request: the caller's when it sent a usable one, else a fresh one.
fn trace_id(headers: &HeaderMap) -> TraceId {
    let sent = headers
        .get(TRACE_HEADER)
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    match sent {
        Some(id) if !id.is_empty() && id.len() <= MAX_TRACE_ID_BYTES => TraceId(id.into()),
        _ => TraceId(id::trace_id().into()),
    }
}

async fn observe(State(telemetry): State<Arc<Telemetry>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let trace = trace_id(request.headers());
    let labels = RequestLabels {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
    };
    request.extensions_mut().insert(trace.clone());
    let in_flight = InFlight::enter(&telemetry.in_flight);

    let mut response = next.run(request).await;

    let took = started.elapsed();
    let status = response.status();
    telemetry.log(
        if status.is_server_error() { "error" } else { "info" },
        &trace,
        "request completed",
        &[
            ("method", labels.method.as_str().into()),
            ("path", labels.path.as_str().into()),
            ("status", status.as_u16().into()),
            (
                "latencyMs",
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX).into(),
            ),
        ],
    );
    telemetry.requests.get_or_create(&labels).inc();
    if status.is_server_error() {
        telemetry.errors.get_or_create(&labels).inc();
    }
    telemetry
        .latency
        .get_or_create(&labels)
        .observe(took.as_secs_f64());
    drop(in_flight);
    if let Ok(value) = HeaderValue::from_str(&trace.0) {
        response.headers_mut().insert(TRACE_HEADER, value);
    }
    response
}

/// Counts a request also when its client goes away and the handler is dropped half-way.
struct InFlight(Gauge);

impl InFlight {
    fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn metrics(State(telemetry): State<Arc<Telemetry>>) -> impl Future<Output = Response> {
    let mut text = String::new();
    let encoded = prometheus_client::encoding::text::encode(&mut text, &telemetry.registry);
    std::future::ready(match encoded {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}

/// Content type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from a handler that does nothing to one that a client gives up on.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
