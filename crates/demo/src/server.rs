//! `demo server`: application of the first scene. `GET /hello` writes two lines with one trace id.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    app_log::AppLog,
    web::{self, Telemetry, TraceId},
};

/// How the server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The JSON log file.
    pub log_path: PathBuf,
    /// How long requests in flight may take after the stop signal.
    pub shutdown_timeout: Duration,
}

/// A server whose port and log file are open.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    shutdown_timeout: Duration,
}

impl Server {
    /// Opens the log file and the port.
    ///
    /// # Errors
    /// [`Error::LogFile`], [`Error::PortInUse`], [`Error::Bind`].
    pub async fn bind(options: &Options) -> Result<Self, Error> {
        let telemetry = Arc::new(Telemetry::new(AppLog::open(&options.log_path)?));
        let listener = web::bind(options.listen, "SERVER_PORT").await?;
        Ok(Self {
            listener,
            telemetry,
            shutdown_timeout: options.shutdown_timeout,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// See [`web::serve`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let routes = Router::new().route("/hello", get(hello));
        let router = web::instrument(routes, Arc::clone(&self.telemetry));
        web::serve(self.listener, router, self.telemetry, stop, self.shutdown_timeout).await
    }
}

/// Parameters of `/hello`, for slow and failing requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Behaviour {
    /// Milliseconds to work before the answer, at most [`MAX_DELAY_MS`].
    delay_ms: u64,
    /// The status of the answer.
    status: Option<u16>,
}

const MAX_DELAY_MS: u64 = 60_000;

async fn hello(
    State(telemetry): State<Arc<Telemetry>>,
    Extension(trace): Extension<TraceId>,
    Query(behaviour): Query<Behaviour>,
) -> (StatusCode, Json<Value>) {
    if behaviour.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(behaviour.delay_ms.min(MAX_DELAY_MS))).await;
    }
    let status = match behaviour.status.map(StatusCode::from_u16) {
        None => StatusCode::OK,
        // Only statuses that carry a body: an answer to a client must not be informational.
        Some(Ok(status)) if status.as_u16() >= 200 => status,
        Some(_) => StatusCode::BAD_REQUEST,
    };
    telemetry.log("info", &trace, "handler finished", &[]);
    (status, Json(json!({ "message": "hello", "traceId": &*trace.0 })))
}

#[cfg(test)]
mod tests;
