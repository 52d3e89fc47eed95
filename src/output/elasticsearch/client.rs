//! Client of one cluster: `_bulk` and other requests, counted and classified.
//!
//! Does not retry, and knows nothing of what is written.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::bulk::{self, BulkDocument, BulkResponse, ItemResult};
use super::copy::CopyRule;
use super::format::DocumentFormat;
use super::heal::WarnedFields;
use super::http::{Request, Response, SendError};
use super::index_pattern::{self, DayIndex, IndexPattern};
use super::index_watch::IndexWatch;
use super::nodes::{Nodes, OpenError};
use super::outcome::{
    DocumentOutcome, ItemClass, Rejection, RequestError, RetryReason, StoreResult, classify_item,
    is_about_content, without_content,
};
use super::stats::Stats;
use super::target::Targets;
use super::template;
use crate::config::{ElasticsearchConfig, OnConflict};
use crate::output::{DestinationId, Destinations};

/// Longest wait of a bulk request for a shard, for the creation of an index or for a mapping. An
/// item that waits holds up the answer for all others.
const SHARD_TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// The same while a shard is known to be unavailable.
const SHARD_TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// A mapping is read again when it is older.
const MAPPING_AGE: Duration = Duration::from_secs(10);

/// Indices whose mapping was prepared for healed documents.
const MAX_PREPARED: usize = 1024;

/// Longest mapping that is read: that of an alias has those of all its indices.
const MAX_MAPPING_BYTES: u64 = 32 << 20;

/// Longest response to a bulk request.
const MAX_BULK_RESPONSE_BYTES: u64 = 64 << 20;

/// Sends requests to one cluster; counts and classifies the responses.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) nodes: Nodes,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) copies: Vec<CopyRule>,
    pub(crate) format: DocumentFormat,
    pub(crate) stats: Arc<Stats>,
    pub(crate) trace_life: Duration,
    /// Longest time for which a node may not know of a rollover.
    pub(crate) rollover_settle: Duration,
    pub(crate) watch: IndexWatch,
    pub(crate) targets: Targets,
    pub(crate) warned_fields: WarnedFields,
    /// Refused fields are moved instead of refusing the document.
    pub(crate) heals: bool,
    prepared: Mutex<HashSet<Box<str>>>,
    /// The last mapping that was read.
    mapping: Mutex<Option<KnownMapping>>,
    shard_timeout: Duration,
    gzip_level: u32,
}

/// The properties of the mapping of an index.
#[derive(Debug)]
struct KnownMapping {
    index: Box<str>,
    read_at: Instant,
    properties: Arc<Value>,
}

/// What the result of a bulk item means.
pub(crate) enum Verdict {
    /// The outcome of the document.
    Outcome(DocumentOutcome),
    /// The document exists already, or changed since it was read.
    Conflict,
    /// It is refused as it is; it may be healed.
    Refused(ItemResult),
}

impl Client {
    pub(crate) fn open(
        config: &ElasticsearchConfig,
        format: DocumentFormat,
        destinations: Arc<Destinations>,
        stats: Arc<Stats>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            nodes: Nodes::open(config)?,
            copies: destinations.copies().to_vec(),
            destinations,
            format,
            stats,
            trace_life: config.trace_life,
            rollover_settle: config.rollover_settle,
            watch: IndexWatch::default(),
            targets: Targets::default(),
            warned_fields: WarnedFields::default(),
            heals: config.on_conflict == OnConflict::Unmapped,
            prepared: Mutex::default(),
            mapping: Mutex::default(),
            shard_timeout: (config.request_timeout / 6).min(SHARD_TIMEOUT_MAX),
            gzip_level: config.gzip_level.min(9),
        })
    }

    /// The default destination's index of a day, for what concerns none in particular.
    pub(crate) fn default_indices(&self) -> Arc<IndexPattern> {
        self.destinations.indices(DestinationId::DEFAULT)
    }

    /// The names of all indices, or of all data streams, with as few others as possible, for the
    /// template.
    pub(crate) fn exact_patterns(&self, data_streams: bool) -> Vec<String> {
        let names = self.destinations.all_wildcards(data_streams);
        names.iter().flat_map(|name| index_pattern::exact(name)).collect()
    }

    /// The names of all indices, separated by commas, for searches.
    pub(crate) fn search_patterns(&self) -> String {
        let names = self.destinations.wildcards();
        let names: Vec<_> = names.iter().map(|name| index_pattern::wildcard(name)).collect();
        names.join(",")
    }

    /// The index of a document.
    pub(crate) fn index_of<D: BulkDocument>(&self, document: &D) -> Arc<DayIndex> {
        let indices = self.destinations.indices(document.destination());
        indices.of(document.first_ns())
    }

    /// Sends a bulk body of `expected` items.
    ///
    /// # Errors
    /// The request failed as a whole.
    pub(crate) async fn bulk(&self, body: Bytes, expected: usize) -> Result<BulkResponse, RequestError> {
        self.bulk_with(body, expected, false).await
    }

    /// [`Self::bulk`]; each item says in which index its document is.
    ///
    /// # Errors
    /// The request failed as a whole.
    pub(crate) async fn bulk_located(
        &self,
        body: Bytes,
        expected: usize,
    ) -> Result<BulkResponse, RequestError> {
        self.bulk_with(body, expected, true).await
    }

    async fn bulk_with(
        &self,
        body: Bytes,
        expected: usize,
        located: bool,
    ) -> Result<BulkResponse, RequestError> {
        let started = Instant::now();
        let length = body.len();
        let gzip = self.gzip_level > 0;
        let body = if gzip {
            compress(body, self.gzip_level).await?
        } else {
            body
        };
        self.stats.sending(length, body.len());
        let wait = if self.watch.is_shard_unavailable() {
            self.shard_timeout.min(SHARD_TIMEOUT_MIN)
        } else {
            self.shard_timeout
        };
        let filter = if located {
            bulk::LOCATED_RESPONSE_FILTER
        } else {
            bulk::RESPONSE_FILTER
        };
        let request = Request {
            method: Method::POST,
            path: format!(
                "/_bulk?timeout={}ms&filter_path={filter}",
                wait.as_millis().max(1)
            ),
            query: &[],
            body,
            ndjson: true,
            gzip,
            max_response_bytes: MAX_BULK_RESPONSE_BYTES,
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
            .and_then(|body| bulk::parse(&body, expected, located).map_err(RequestError::Broken));
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

    /// What the result of an item that was sent to `index` means. Counts a failure.
    pub(crate) fn judge(&self, index: &str, item: ItemResult) -> Verdict {
        let item = if item.is_in_failure_store() {
            ItemResult {
                status: 400,
                kind: "failure_store".into(),
                reason: "the data stream put it into its failure store, without the reason".into(),
                ..item
            }
        } else {
            item
        };
        let class = classify_item(item.status, &item.kind);
        if class == ItemClass::Written {
            return Verdict::Outcome(DocumentOutcome::Stored(StoreResult::Created));
        }
        self.stats.item_failed(item.status, &item.kind);
        if class == ItemClass::Conflict {
            return Verdict::Conflict;
        }
        let ItemResult {
            status, kind, reason, ..
        } = &item;
        let said = format!("status {status} {kind}: {}", without_content(reason));
        self.watch.failed(index, said.clone());
        Verdict::Outcome(match class {
            ItemClass::Unavailable => {
                self.watch.shard_unavailable();
                DocumentOutcome::Retry(RetryReason::Unavailable)
            }
            ItemClass::Blocked => {
                self.targets.doubt(index);
                DocumentOutcome::Blocked(format!("{index}: {said}"))
            }
            ItemClass::Refused => return Verdict::Refused(item),
            _ => DocumentOutcome::Retry(RetryReason::Throttled),
        })
    }

    /// The outcome of a refused document that is not healed.
    pub(crate) fn refusal(&self, item: ItemResult) -> DocumentOutcome {
        let ItemResult {
            status, kind, reason, ..
        } = item;
        let about_content = is_about_content(status, &kind);
        let rejection = Rejection { status, kind, reason };
        if about_content {
            DocumentOutcome::Rejected(rejection)
        } else {
            DocumentOutcome::Refused(rejection)
        }
    }

    /// The properties of the mapping of an index, at most some seconds old.
    pub(crate) async fn mapping(&self, index: &str) -> Option<Arc<Value>> {
        {
            let mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = &*mapping
                && *known.index == *index
                && known.read_at.elapsed() < MAPPING_AGE
            {
                return Some(Arc::clone(&known.properties));
            }
        }
        let mut request = Request::json(Method::GET, format!("/{index}/_mapping"), "");
        request.max_response_bytes = MAX_MAPPING_BYTES;
        let answer = self.ask(&request).await.and_then(Response::success).ok()?;
        let answer: serde_json::Map<String, Value> = serde_json::from_slice(&answer).ok()?;
        let (_, newest) = answer.into_iter().next_back()?;
        let properties = Arc::new(newest.pointer("/mappings/properties")?.clone());
        let known = KnownMapping {
            index: index.into(),
            read_at: Instant::now(),
            properties: Arc::clone(&properties),
        };
        *self.mapping.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Some(properties)
    }

    /// Prepares the mapping of an index for healed documents, once: an index that was made without
    /// Windrow's template would map the moved fields again. Best effort.
    pub(crate) async fn prepare(&self, index: &str) {
        {
            let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            if prepared.len() >= MAX_PREPARED || !prepared.insert(index.into()) {
                return;
            }
        }
        for unmapped in template::unmapped_mappings() {
            let body = template::healed_mapping(&unmapped).to_string();
            let request = Request::json(Method::PUT, format!("/{index}/_mapping"), body);
            match self.ask(&request).await.and_then(Response::success) {
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(
                        index,
                        reason = error.reason(),
                        "the mapping of windrow.unmapped was not added"
                    );
                }
            }
        }
    }
}

/// Prefix of the indices in which a data stream keeps what it refuses, with status 201.
const FAILURE_STORE: &str = ".fs-";

impl ItemResult {
    /// Whether the store put the document where it keeps what it refuses.
    pub(crate) fn is_in_failure_store(&self) -> bool {
        self.index
            .as_ref()
            .is_some_and(|index| index.starts_with(FAILURE_STORE))
    }

    /// The index that holds the document, if that was asked for.
    pub(crate) fn place(&self) -> Option<&str> {
        self.index.as_deref().filter(|_| !self.is_in_failure_store())
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
    let limit = request.max_response_bytes;
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
