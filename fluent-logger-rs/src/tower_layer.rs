//! Layer for `tower` services over HTTP (feature `tower`): axum, tonic, hyper.
//!
//! Owns the span and the completion record of each request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use forward_protocol::msgpack::write_str;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::logger::Logger;
use crate::record_map::RecordMap;
use crate::trace_context::{TraceContext, X_TRACE_ID};

/// A `tower` layer that gives each request a trace, a span and one record when it is answered.
///
/// * The trace id is that of the request's `traceparent` or `X-Trace-Id`, else a new one. Handlers
///   find it as [`TraceContext::current`] and in the extensions of the request; the answer carries
///   it in `X-Trace-Id`.
/// * The request is handled in a `tracing` span `request` with the fields `traceId`, `method` and
///   `path`, so that with a [`FluentLayer`](crate::FluentLayer) every event in it belongs to the
///   trace.
/// * When the head of the answer is ready, a record is sent: `request completed` with `method`,
///   `path`, `status`, `latencyMs` and `outcome` (`failure` for 5xx, an error of the service, or a
///   gRPC status other than 0). A request that is dropped unanswered has an `error` instead of a
///   status. Windrow takes the record for the end of the trace.
///
/// A [`FluentLayer`](crate::FluentLayer) beside it leaves
/// [`span_records`](crate::FluentLayer::span_records) off, else each request has two such records.
///
/// Records are sent by the logger directly: they need no subscriber and pass no filter. The names
/// are those of the logger's [`naming`](crate::Builder::naming).
///
/// ```no_run
/// # use std::time::Duration;
/// use axum::{Router, routing::get};
/// use fluent_logger::{Logger, RequestLayer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let logger = Logger::builder().address("127.0.0.1:24224").build()?;
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(RequestLayer::new(logger, "app"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RequestLayer {
    logger: Logger,
    tag: String,
    message: String,
}

impl RequestLayer {
    /// Sends the records with this tag.
    pub fn new(logger: Logger, tag: impl Into<String>) -> Self {
        Self {
            logger,
            tag: tag.into(),
            message: "request completed".to_owned(),
        }
    }

    /// The message of the records. Default: `request completed`, which completes a trace in Windrow
    /// (`trace.complete`).
    #[must_use]
    pub fn completion_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`RequestLayer`].
#[derive(Clone, Debug)]
pub struct RequestService<S> {
    inner: S,
    layer: RequestLayer,
}

impl<S, B, R> Service<Request<B>> for RequestService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequestFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let trace = TraceContext::extract(request.headers()).unwrap_or_default();
        let span = tracing::info_span!(
            "request",
            traceId = trace.trace_id(),
            method = request.method().as_str(),
            path = request.uri().path()
        );
        let completion = Completion {
            layer: self.layer.clone(),
            trace: trace.clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            started: Instant::now(),
            written: false,
        };
        request.extensions_mut().insert(trace.clone());
        let entered = (span.enter(), trace.enter());
        let future = self.inner.call(request);
        drop(entered);
        RequestFuture {
            future,
            span,
            trace,
            completion,
        }
    }
}

pin_project! {
    /// The future of [`RequestService`].
    pub struct RequestFuture<F> {
        #[pin]
        future: F,
        span: Span,
        trace: TraceContext,
        completion: Completion,
    }
}

impl<F> fmt::Debug for RequestFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFuture")
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

impl<F, R, E> Future for RequestFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut result = {
            let _entered = (this.span.enter(), this.trace.enter());
            ready!(this.future.poll(context))
        };
        match &mut result {
            Ok(response) => {
                if let Ok(id) = HeaderValue::from_str(this.trace.trace_id()) {
                    response.headers_mut().insert(X_TRACE_ID, id);
                }
                let failed = response.status().is_server_error() || grpc_failed(response.headers());
                this.completion.write(Some(response.status()), failed, None);
            }
            Err(_) => this.completion.write(None, true, Some("the service failed")),
        }
        Poll::Ready(result)
    }
}

/// Whether a gRPC answer without a body, which has its status in the head, is an error.
fn grpc_failed(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status != "0")
}

/// The record of a request that is not written yet.
struct Completion {
    layer: RequestLayer,
    trace: TraceContext,
    method: Method,
    uri: Uri,
    started: Instant,
    written: bool,
}

impl Completion {
    fn write(&mut self, status: Option<StatusCode>, failed: bool, error: Option<&str>) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let settings = self.layer.logger.settings();
        let names = settings.naming.names();
        self.layer.logger.log_written(&self.layer.tag, |out| {
            let mut map = RecordMap::new(out, names, names.trace_id, &[]);
            map.trace_id(self.trace.trace_id());
            map.own_text(names.level, if failed { "ERROR" } else { "INFO" });
            if settings.numeric_severity {
                map.own_number(names.severity, names.severities[if failed { 4 } else { 2 }]);
            }
            map.own_text(names.message, &self.layer.message);
            map.own_text(names.span_id, self.trace.span_id());
            if let Some(parent) = self.trace.parent_span_id() {
                map.own_text(names.parent_span_id, parent);
            }
            map.own_text(names.method, self.method.as_str());
            map.own_text(names.path, self.uri.path());
            if let Some(status) = status {
                map.own_number(names.status, u64::from(status.as_u16()));
            }
            map.own_duration(names.request_duration, self.started.elapsed());
            map.own_text(names.outcome, if failed { names.failure } else { names.success });
            if let Some(error) = error {
                map.own("error", |out| write_str(out, error.as_bytes()));
            }
            map.finish();
        });
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.write(None, true, Some("the request was dropped before its answer"));
    }
}
