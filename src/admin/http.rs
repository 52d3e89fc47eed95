//! HTTP/1.1 server of the admin port, with limits against slow clients.
//!
//! A request header must arrive within [`HEADER_TIMEOUT`], and a response must be read without a
//! pause longer than [`STALL_TIMEOUT`]. Module `slots` bounds the connections.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::slots::{Busy, Slot, SlotKind, Slots};
use super::{PROBE_PATHS, problem};
use crate::logging::{WarningLimiter, WarningPeer};
use crate::write_timeout::WriteTimeout;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after a failed accept, such as for too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled; then finishes the requests in progress and returns.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut slots = Slots::default();
    let tracker = TaskTracker::new();
    let warnings = WarningLimiter::default();
    while let Some((stream, slot)) = stop
        .run_until_cancelled(next(&listener, &mut slots, &warnings))
        .await
    {
        let (router, stop) = (router.clone(), stop.clone());
        tracker.spawn(connection(
            stream,
            router,
            slot,
            stop,
            HEADER_TIMEOUT,
            STALL_TIMEOUT,
        ));
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

/// The next connection and its slot.
async fn next(listener: &TcpListener, slots: &mut Slots, warnings: &WarningLimiter) -> (TcpStream, Slot) {
    loop {
        let accepted = listener.accept().await;
        for repeated in warnings.end_window(std::time::Instant::now()) {
            let count = repeated.count;
            tracing::warn!("repeated warning: admin: … {count} more connections could not be accepted");
        }
        match accepted {
            Ok((stream, _)) => return (stream, slots.take().await),
            Err(error) => {
                if warnings.admit("accept", WarningPeer::Local) {
                    tracing::warn!(%error, "admin: a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

pub(super) async fn connection(
    stream: TcpStream,
    router: Router,
    slot: Slot,
    stop: CancellationToken,
    header_timeout: Duration,
    stall_timeout: Duration,
) {
    // Responses are written in one piece; Nagle's algorithm would delay the end of a large one.
    let _ = stream.set_nodelay(true);
    let Slot { activity, closed } = slot;
    let io = TokioIo::new(WriteTimeout::new(stream, stall_timeout, {
        let activity = Arc::clone(&activity);
        move || Busy::new(Arc::clone(&activity))
    }));
    let for_probes = activity.kind() == SlotKind::Probe;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let busy = Busy::new(Arc::clone(&activity));
        let served = !for_probes || PROBE_PATHS.contains(&request.uri().path());
        let response = served.then(|| router.call(request.map(Body::new)));
        async move {
            let response = match response {
                Some(response) => response.await?,
                None => overloaded(),
            };
            Ok::<_, std::convert::Infallible>(response.map(|body| BusyBody { body, _busy: busy }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .keep_alive(!for_probes)
        .max_buf_size(32 * 1024)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closed.cancelled() => {
            tracing::debug!("admin: an idle connection was closed for another one");
            return;
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin: connection ended");
    }
}

/// The response in a slot for probes to a request that is none.
fn overloaded() -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "all connections are busy with responses that are not read yet: ask again",
        &PROBE_PATHS.join(", "),
    )
}

/// The body of a response: until its end the connection is busy.
struct BusyBody {
    body: Body,
    _busy: Busy,
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
