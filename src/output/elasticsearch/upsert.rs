//! Upsert of a batch of documents: create, merge what exists already, join across midnight.
//!
//! Every document gets an outcome. Does not retry: the scheduler decides when.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::bulk::{self, BulkDocument, BulkResponse};
use super::client::Client;
use super::format::DocumentFormat;
use super::nodes::OpenError;
use super::outcome::{DocumentOutcome, RequestError, RetryReason, StoreResult};
use super::stats::Stats;
use super::{index_pattern, merge, midnight};
use crate::config::ElasticsearchConfig;
use crate::memory::to_usize;

/// Concurrent merges: each holds the documents that it reads in memory.
const MAX_CONCURRENT_MERGES: usize = 2;

/// Result of writing a batch.
pub(crate) enum WriteResult {
    /// The first request failed as a whole: nothing is known about any document.
    Failed(RequestError),
    /// All documents were created.
    AllCreated,
    /// One outcome per document, and the error that stopped a later step, if one did.
    PerDocument(Vec<DocumentOutcome>, Option<RequestError>),
}

/// Writes documents to one cluster, whether they exist there or not.
#[derive(Debug)]
pub(crate) struct Upserter {
    pub(crate) client: Client,
    merging: Semaphore,
    bodies: BodyPool,
}

impl Upserter {
    pub(crate) fn open(
        config: &ElasticsearchConfig,
        format: DocumentFormat,
        stats: Arc<Stats>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            client: Client::open(config, format, stats)?,
            merging: Semaphore::new(MAX_CONCURRENT_MERGES),
            bodies: BodyPool {
                free: Mutex::default(),
                max_capacity_bytes: to_usize(config.bulk_bytes).saturating_mul(2),
            },
        })
    }

    /// Writes `documents`. Idempotent: may be repeated with any subset, whatever an earlier attempt
    /// did.
    pub(crate) async fn write<D: BulkDocument>(&self, documents: &[D]) -> WriteResult {
        let body = bulk::contiguous_text(documents.iter())
            .unwrap_or_else(|| bulk::create_body(&self.client.indices, documents.iter(), self.bodies.take()));
        let sent = self.client.bulk(body.clone(), documents.len()).await;
        self.bodies.put(body);
        self.complete(documents, sent).await
    }

    /// Sends a batch as it was rendered: `text` holds `documents` documents, whose first event
    /// times (Unix ns) lie in `between`. The response is the error when more is to do than to
    /// confirm all of them; pass it to [`Self::complete`].
    pub(crate) async fn write_rendered(
        &self,
        text: &Bytes,
        documents: usize,
        between: (i64, i64),
    ) -> Result<(), Result<BulkResponse, RequestError>> {
        match self.client.bulk(text.clone(), documents).await {
            Ok(BulkResponse::AllOk)
                if !index_pattern::some_near_boundary(between, self.client.trace_life) =>
            {
                Ok(())
            }
            sent => Err(sent),
        }
    }

    /// Handles the response to the request that creates `documents`: merges conflicts, joins across
    /// midnight.
    pub(crate) async fn complete<D: BulkDocument>(
        &self,
        documents: &[D],
        sent: Result<BulkResponse, RequestError>,
    ) -> WriteResult {
        let response = match sent {
            Err(error) => {
                if error.may_have_applied() {
                    documents.iter().for_each(BulkDocument::mark_uncertain);
                }
                return WriteResult::Failed(error);
            }
            Ok(response) => response,
        };
        let mut outcomes = Vec::new();
        let mut exist = Vec::new();
        if let BulkResponse::Items(items) = response {
            outcomes.reserve_exact(items.len());
            for (at, item) in items.into_iter().enumerate() {
                outcomes.push(match self.client.outcome_of(item) {
                    Some(outcome) => outcome,
                    None if documents[at].is_trace() => {
                        exist.push(at);
                        DocumentOutcome::Retry(RetryReason::NotAttempted)
                    }
                    // Its id is unique to this record: it was written before.
                    None => {
                        documents[at].mark_unchanged();
                        DocumentOutcome::Stored(StoreResult::Unchanged)
                    }
                });
            }
        }
        let near = |document: &D| {
            document.is_trace() && index_pattern::near_boundary(document.first_ns(), self.client.trace_life)
        };
        let joins = documents.iter().any(near);
        if exist.is_empty() && !joins {
            return if outcomes.is_empty() {
                WriteResult::AllCreated
            } else {
                WriteResult::PerDocument(outcomes, None)
            };
        }
        if outcomes.is_empty() {
            outcomes.resize(documents.len(), DocumentOutcome::Stored(StoreResult::Created));
        }
        Stats::add(&self.client.stats.conflicts, exist.len());
        // The semaphore is never closed.
        let _permit = self.merging.acquire().await;
        let mut error = None;
        if !exist.is_empty() {
            error = merge::merge(&self.client, documents, exist, &mut outcomes)
                .await
                .err();
        }
        if joins && error.is_none() {
            let written = (0..documents.len())
                .filter(|&at| matches!(outcomes[at], DocumentOutcome::Stored(_)) && near(&documents[at]));
            error = midnight::join_all(&self.client, documents, written.collect(), &mut outcomes)
                .await
                .err();
        } else if joins {
            // Their neighbours were not read: they must not count as stored.
            for (outcome, document) in outcomes
                .iter_mut()
                .zip(documents)
                .filter(|(_, document)| near(document))
            {
                if let DocumentOutcome::Stored(_) = outcome {
                    document.mark_uncertain();
                    *outcome = DocumentOutcome::Retry(RetryReason::NotAttempted);
                }
            }
        }
        WriteResult::PerDocument(outcomes, error)
    }
}

/// Pool of request bodies: new memory for 8 MiB costs as much as filling it.
#[derive(Debug)]
struct BodyPool {
    free: Mutex<Vec<Vec<u8>>>,
    max_capacity_bytes: usize,
}

impl BodyPool {
    /// More requests than this are in flight only while Elasticsearch is the bottleneck.
    const MAX_FREE: usize = 2;

    fn take(&self) -> Vec<u8> {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn put(&self, body: Bytes) {
        // A body that is still referenced is not reused.
        if let Ok(mut body) = body.try_into_mut()
            && body.capacity() <= self.max_capacity_bytes
        {
            body.clear();
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < Self::MAX_FREE {
                free.push(body.into());
            }
        }
    }
}
