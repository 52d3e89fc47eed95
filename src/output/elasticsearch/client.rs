//! Client of one cluster: `_bulk` and other requests, counted and classified.
//!
//! Does not retry, and knows nothing of what is written.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elasticsearch::http::Method;
use tokio::time::Instant;

use super::bulk::{self, BulkResponse, ItemResult};
use super::format::DocumentFormat;
use super::index_pattern::IndexPattern;
use super::nodes::{Nodes, OpenError, Request, Response, SendError};
use super::outcome::{
    DocumentOutcome, ItemClass, Rejection, RequestError, RetryReason, StoreResult, classify_item,
};
use super::stats::Stats;
use crate::config::ElasticsearchConfig;

/// Longest response to a bulk request.
const MAX_BULK_RESPONSE_BYTES: u64 = 64 << 20;

/// Sends requests to one cluster; counts and classifies the responses.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) nodes: Nodes,
    pub(crate) indices: Arc<IndexPattern>,
    pub(crate) format: DocumentFormat,
    pub(crate) stats: Arc<Stats>,
    pub(crate) trace_life: Duration,
    gzip_level: u32,
}

impl Client {
    pub(crate) fn open(
        config: &ElasticsearchConfig,
        format: DocumentFormat,
        stats: Arc<Stats>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            nodes: Nodes::open(config)?,
            indices: Arc::new(IndexPattern::parse(&config.index).map_err(OpenError::Index)?),
            format,
            stats,
            trace_life: config.trace_life,
            gzip_level: config.gzip_level.min(9),
        })
    }

    /// Sends a bulk body of `expected` items.
    ///
    /// # Errors
    /// The request failed as a whole.
    pub(crate) async fn bulk(&self, body: Bytes, expected: usize) -> Result<BulkResponse, RequestError> {
        let started = Instant::now();
        let length = body.len();
        let gzip = self.gzip_level > 0;
        let body = if gzip {
            compress(body, self.gzip_level).await?
        } else {
            body
        };
        self.stats.sending(length, body.len());
        let request = Request {
            method: Method::Post,
            path: "/_bulk".into(),
            query: &[("filter_path", bulk::RESPONSE_FILTER)],
            body,
            ndjson: true,
            gzip,
            max_response_bytes: Some(MAX_BULK_RESPONSE_BYTES),
        };
        let response = match self.nodes.send(&request).await {
            // The writes may have been applied, and may be repeated: fewer of them have a shorter
            // response.
            Err(SendError::ResponseTooLarge(bytes)) if expected > 1 => {
                Err(RequestError::TooLarge(too_long(&request, bytes)))
            }
            other => other.map_err(|error| request_error(&request, error)),
        };
        let response = response
            .and_then(Response::success)
            .and_then(|body| bulk::parse(&body, expected).map_err(RequestError::Broken));
        match &response {
            Ok(_) => self.stats.answered(started.elapsed()),
            Err(error) => {
                self.stats.failed(error);
                let (kind, reason) = (error.label(), error.reason());
                tracing::debug!(kind, bytes = length, reason, "bulk request failed");
            }
        }
        response
    }

    /// Sends any other request.
    ///
    /// # Errors
    /// There is no response, or it is longer than the request allows.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Response, RequestError> {
        let sent = self.nodes.send(request).await;
        sent.map_err(|error| request_error(request, error))
    }

    /// The outcome of a bulk item, or `None` for a conflict. Counts a failure.
    pub(crate) fn outcome_of(&self, item: ItemResult) -> Option<DocumentOutcome> {
        let ItemResult { status, kind, reason } = item;
        let class = classify_item(status, &kind, &reason);
        if class != ItemClass::Written {
            self.stats.item_failed(status, &kind);
        }
        Some(match class {
            ItemClass::Written => DocumentOutcome::Stored(StoreResult::Created),
            ItemClass::Conflict => return None,
            ItemClass::Retry => DocumentOutcome::Retry(RetryReason::Throttled),
            ItemClass::Blocked => DocumentOutcome::Blocked(format!("status {status} {kind}: {reason}")),
            ItemClass::Permanent => DocumentOutcome::Rejected(Rejection { status, kind, reason }),
        })
    }
}

fn request_error(request: &Request, error: SendError) -> RequestError {
    match error {
        SendError::Request(error) => error,
        SendError::ResponseTooLarge(bytes) => RequestError::Broken(too_long(request, bytes)),
    }
}

/// Why a response is not read.
fn too_long(request: &Request, bytes: u64) -> String {
    let limit = request.max_response_bytes.unwrap_or_default();
    format!(
        "the response to {} is too long (at least {bytes} bytes, the limit is {limit}): the node is not Elasticsearch, \
         or a proxy in front of it is broken",
        request.path
    )
}

/// gzip on a blocking thread: level 1 takes about 5 ms per MiB, too long for a reactor thread.
async fn compress(body: Bytes, level: u32) -> Result<Bytes, RequestError> {
    let work = tokio::task::spawn_blocking(move || {
        let mut encoder = flate2::write::GzEncoder::new(
            Vec::with_capacity(body.len() / 4),
            flate2::Compression::new(level),
        );
        encoder.write_all(&body)?;
        encoder.finish()
    });
    match work.await {
        Ok(Ok(packed)) => Ok(packed.into()),
        Ok(Err(error)) => Err(RequestError::Broken(format!("compression failed: {error}"))),
        Err(error) => Err(RequestError::Broken(format!("compression failed: {error}"))),
    }
}
