//! Connection of the HTTP and OTLP inputs: the TLS handshake, HTTP/1.1 or HTTP/2, and its end.
//!
//! What a peer can make large is bounded: headers, HTTP/2 windows and streams, and the time without
//! a request.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::listener::Protocol;
use super::server::HttpServer;
use crate::input::forward::{CloseReason, log_close};
use crate::write_timeout::WriteTimeout;

/// Read buffer of an HTTP/1.1 connection, and the longest header.
const MAX_BUFFER_BYTES: usize = 32 << 10;
/// Bytes that an HTTP/2 client may send before they are read.
const HTTP2_WINDOW_BYTES: u32 = 128 << 10;
const HTTP2_MAX_STREAMS: u32 = 32;
const HTTP2_MAX_HEADER_BYTES: u32 = 16 << 10;
/// Interval of pings by which a vanished HTTP/2 client is noticed.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time that requests in progress have once the server stops.
const STOP_TIME: Duration = Duration::from_secs(4);

/// Spawns the tasks of HTTP/2 streams where the server waits for them.
#[derive(Clone)]
struct TrackedExecutor(TaskTracker);

impl<F> Executor<F> for TrackedExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves an accepted connection until it ends.
pub(super) async fn accept(stream: TcpStream, peer: IpAddr, protocol: Protocol, server: Arc<HttpServer>) {
    let context = Arc::clone(&server.input);
    let Some(tls) = &context.tls else {
        serve(stream, peer, protocol, server).await;
        return;
    };
    let handshake = timeout(context.handshake_timeout, tls.accept_http(stream));
    let accepted = tokio::select! {
        biased;
        accepted = handshake => accepted,
        () = context.stop_timeout() => return,
    };
    let reason = match accepted {
        Ok(Ok(stream)) => {
            serve(stream, peer, protocol, server).await;
            return;
        }
        // Health checks and scanners connect and close.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => CloseReason::Probe,
        Ok(Err(error)) => CloseReason::Tls(error),
        Err(_) => CloseReason::HandshakeTimeout(context.handshake_timeout),
    };
    log_close(&reason, Some(peer), &context);
}

async fn serve<S>(stream: S, peer: IpAddr, protocol: Protocol, server: Arc<HttpServer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let context = Arc::clone(&server.input);
    let idle_timeout = server.idle_timeout;
    let activity = Arc::new(Activity::new());
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let running = Running::begin(&seen);
        let server = Arc::clone(&server);
        async move {
            let response = server.answer(request, peer, protocol).await;
            drop(running);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TrackedExecutor(context.tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        // It begins with the end of the request before.
        .header_read_timeout(idle_timeout)
        .max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_concurrent_streams(HTTP2_MAX_STREAMS)
        .max_header_list_size(HTTP2_MAX_HEADER_BYTES)
        .max_send_buf_size(MAX_BUFFER_BYTES)
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    let io = TokioIo::new(WriteTimeout::new(stream, context.ack_timeout, || ()));
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);

    let opened = Instant::now();
    let mut first_request = Some(Box::pin(sleep(context.handshake_timeout)));
    let mut age = context
        .max_connection_age
        .map(|age| Box::pin(sleep_until(opened + age)));
    let mut stopping = false;
    // Hyper ends idle connections of HTTP/1 itself.
    let mut idle = Some(Box::pin(sleep(idle_timeout)));
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = wait(&mut first_request) => {
                first_request = None;
                if !activity.has_begun() {
                    tracing::debug!(%peer, "connection ended: no request came");
                    return;
                }
            }
            () = wait(&mut idle) => {
                idle = match activity.idle_until(idle_timeout) {
                    Some(until) => Some(Box::pin(sleep_until(until))),
                    None => {
                        connection.as_mut().graceful_shutdown();
                        None
                    }
                };
            }
            () = wait(&mut age) => {
                age = None;
                context.metrics.input_connections_aged.inc();
                connection.as_mut().graceful_shutdown();
            }
            () = context.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = stop_time(&context.stop) => {
                tracing::debug!(%peer, "connection ended: the server stops");
                return;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Requests of a connection.
struct Activity {
    opened: Instant,
    begun: AtomicUsize,
    running: AtomicUsize,
    /// When the last one ended, in ms after `opened`.
    ended: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            begun: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        }
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// When the connection may have been idle for `timeout`; `None`: it has.
    fn idle_until(&self, timeout: Duration) -> Option<Instant> {
        if self.running.load(Ordering::Relaxed) > 0 {
            return Some(Instant::now() + timeout);
        }
        let ended = self.opened + Duration::from_millis(self.ended.load(Ordering::Relaxed));
        Some(ended + timeout).filter(|until| *until > Instant::now())
    }
}

/// A request in progress.
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = self.0.opened.elapsed().as_millis() as u64;
        self.0.ended.store(ended, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Completes with the timer; never, if there is none.
async fn wait(timer: &mut Option<std::pin::Pin<Box<tokio::time::Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// Completes [`STOP_TIME`] after the server has begun to stop.
async fn stop_time(stop: &tokio_util::sync::CancellationToken) {
    stop.cancelled().await;
    sleep(STOP_TIME).await;
}
