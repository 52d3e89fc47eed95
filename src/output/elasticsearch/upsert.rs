//! Upsert of a batch of documents: create, heal, merge what exists already, join over the indices
//! of two days, of a rollover alias or of a data stream.
//!
//! Every document gets an outcome. Does not retry: the scheduler decides when.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::body_pool::BodyPool;
use super::bulk::{self, BulkDocument, BulkResponse, ItemResult};
use super::client::{Client, Verdict};
use super::format::DocumentFormat;
use super::heal::{self, HealedDocuments};
use super::index_pattern::IndexPattern;
use super::nodes::OpenError;
use super::outcome::{DocumentOutcome, RequestError, RetryReason, StoreResult};
use super::settle::Unsettled;
use super::stats::Stats;
use super::target::Target;
use super::{copy, index_pattern, join, merge};
use crate::config::ElasticsearchConfig;
use crate::memory::to_usize;
use crate::output::{DestinationId, Destinations};

/// Concurrent merges: each holds the documents that it reads in memory.
const MAX_CONCURRENT_MERGES: usize = 2;

/// Names of a batch whose targets are resolved. An import of old records may touch hundreds.
const MAX_RESOLVED_DAYS: i64 = 8;

/// Result of writing a batch.
pub(crate) enum WriteResult {
    /// The first request failed as a whole: nothing is known about any document.
    Failed(RequestError),
    /// All documents were created.
    AllCreated,
    /// One outcome per document, the error that stopped a later step, if one did, and what is not
    /// settled.
    PerDocument(Vec<DocumentOutcome>, Option<RequestError>, Vec<Unsettled>),
}

/// The documents of one upsert, and what is known of each.
pub(crate) struct Upsert<'d, D> {
    pub(crate) documents: &'d [D],
    pub(crate) outcomes: Vec<DocumentOutcome>,
    /// The indices that hold them, where that is not the index of their day.
    pub(crate) places: HashMap<usize, Arc<str>>,
    /// Those of which the store refused fields.
    pub(crate) healed: HealedDocuments,
    /// What is stored, where that is not the document as it is written. Only if copies are made.
    pub(crate) left: HashMap<usize, Bytes>,
    /// Those that may get a sibling in an older generation, with copies and continuations.
    pub(crate) unsettled: Vec<Unsettled>,
}

/// What is left to do after the request that creates documents.
pub(crate) struct Rest {
    /// Positions of documents that exist already.
    exist: Vec<usize>,
    refused: Vec<(usize, ItemResult)>,
    /// Some may have siblings in other indices.
    joins: bool,
    /// Some may have copies.
    copies: bool,
    /// Some may not be settled.
    unsettled: bool,
}

impl Rest {
    fn is_done(&self) -> bool {
        let Self {
            joins,
            copies,
            unsettled,
            ..
        } = self;
        self.exist.is_empty() && self.refused.is_empty() && !joins && !copies && !unsettled
    }
}

impl<'d, D: BulkDocument> Upsert<'d, D> {
    /// What the response to the request that creates `documents` says of each. Without failures the
    /// outcomes are left empty: all are created.
    pub(crate) fn of_response(client: &Client, documents: &'d [D], response: BulkResponse) -> (Self, Rest) {
        let mut batch = Self {
            documents,
            outcomes: Vec::new(),
            places: HashMap::new(),
            healed: HealedDocuments::new(),
            left: HashMap::new(),
            unsettled: Vec::new(),
        };
        let mut exist = Vec::new();
        let mut refused = Vec::new();
        if let BulkResponse::Items(items) = response {
            batch.outcomes.reserve_exact(items.len());
            for (at, item) in items.into_iter().enumerate() {
                if let Some(place) = item.place() {
                    batch.places.insert(at, place.into());
                }
                let day = client.index_of(&documents[at]);
                batch.outcomes.push(match client.judge(&day.index, item) {
                    Verdict::Outcome(outcome) => outcome,
                    Verdict::Conflict if documents[at].is_trace() => {
                        exist.push(at);
                        DocumentOutcome::Retry(RetryReason::NotAttempted)
                    }
                    // Its id is unique to this record: it was written before.
                    Verdict::Conflict => {
                        documents[at].mark_unchanged();
                        DocumentOutcome::Stored(StoreResult::Unchanged)
                    }
                    Verdict::Refused(item) => {
                        refused.push((at, item));
                        DocumentOutcome::Retry(RetryReason::NotAttempted)
                    }
                });
            }
        }
        let joins = (0..documents.len()).any(|at| join::may_have_siblings(client, &batch, at));
        let rest = Rest {
            exist,
            refused,
            joins,
            copies: !client.copies.is_empty() && documents.iter().any(|document| !document.is_copy()),
            unsettled: client.targets.any_unsettled(),
        };
        (batch, rest)
    }

    /// Heals refused documents, merges those that exist, and joins over indices. Sets their
    /// outcomes.
    ///
    /// # Errors
    /// A request failed as a whole; documents that were not reached have the outcome
    /// [`RetryReason::NotAttempted`].
    pub(crate) async fn finish(&mut self, client: &Client, rest: Rest) -> Result<(), RequestError> {
        let Rest {
            mut exist,
            refused,
            joins,
            copies,
            unsettled: _,
        } = rest;
        let documents = self.documents;
        if self.outcomes.is_empty() {
            self.outcomes
                .resize(documents.len(), DocumentOutcome::Stored(StoreResult::Created));
        }
        let mut done = Ok(());
        if !refused.is_empty() {
            done = heal::create_healed(client, self, refused, &mut exist).await;
        }
        Stats::add(&client.stats.conflicts, exist.len());
        // After a lost answer the next request may be answered.
        let goes_on = matches!(done, Ok(()) | Err(RequestError::Broken(_)));
        if !exist.is_empty() && goes_on {
            done = done.and(merge::merge(client, self, exist).await);
        }
        self.note_accepted(client);
        if joins {
            self.learn_places(client).await;
        }
        if joins && done.is_ok() {
            let written = stored_with_siblings(client, self);
            done = join::join_all(client, self, written).await;
        } else if joins {
            // Their siblings were not looked for: they must not count as stored.
            for at in stored_with_siblings(client, self) {
                documents[at].mark_uncertain();
                self.outcomes[at] = DocumentOutcome::Retry(RetryReason::NotAttempted);
            }
        }
        if copies && done.is_ok() {
            done = copy::write_copies(client, self).await;
        } else if copies {
            // Their copies are not written: they must not count as stored.
            for (outcome, document) in self.outcomes.iter_mut().zip(documents) {
                if let DocumentOutcome::Stored(_) = outcome {
                    document.mark_uncertain();
                    *outcome = DocumentOutcome::Retry(RetryReason::NotAttempted);
                }
            }
        }
        self.note_unsettled(client);
        done
    }

    /// Notes which indices accepted a document.
    fn note_accepted(&self, client: &Client) {
        let mut noted = None;
        for (at, document) in self.documents.iter().enumerate() {
            let day = (document.destination(), IndexPattern::day_of(document.first_ns()));
            let stored = self
                .outcomes
                .get(at)
                .is_none_or(|outcome| matches!(outcome, DocumentOutcome::Stored(_)));
            if stored && noted != Some(day) {
                noted = Some(day);
                client.watch.accepted(&client.index_of(document).index);
            }
        }
    }

    /// Document number `at` as it is written.
    pub(crate) fn json(&self, at: usize) -> &[u8] {
        self.healed
            .get(&at)
            .map_or_else(|| self.documents[at].json(), |json| &json[..])
    }

    /// Document number `at` as it is stored.
    pub(crate) fn left(&self, at: usize) -> &[u8] {
        self.left.get(&at).map_or_else(|| self.json(at), |json| &json[..])
    }

    /// Notes what is stored in the place of document number `at`, if it may be copied.
    pub(crate) fn note_left(&mut self, client: &Client, at: usize, json: impl FnOnce() -> Bytes) {
        if !client.copies.is_empty() {
            self.left.insert(at, json());
        }
    }

    /// The name to which it is written: an index or an alias.
    pub(crate) fn name(&self, client: &Client, at: usize) -> Arc<str> {
        let day = client.index_of(&self.documents[at]);
        Arc::from(&*day.index)
    }

    /// The index that holds it.
    pub(crate) fn place(&self, client: &Client, at: usize) -> Arc<str> {
        self.places
            .get(&at)
            .cloned()
            .unwrap_or_else(|| self.name(client, at))
    }
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
        destinations: Arc<Destinations>,
        stats: Arc<Stats>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            client: Client::open(config, format, destinations, stats)?,
            merging: Semaphore::new(MAX_CONCURRENT_MERGES),
            bodies: BodyPool::new(to_usize(config.bulk_bytes).saturating_mul(2)),
        })
    }

    /// Writes `documents`. Idempotent: may be repeated with any subset, whatever an earlier attempt
    /// did.
    pub(crate) async fn write<D: BulkDocument>(&self, documents: &[D]) -> WriteResult {
        let times = documents.iter().map(BulkDocument::first_ns);
        let between = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
        let mut destinations: Vec<_> = documents.iter().map(BulkDocument::destination).collect();
        destinations.sort_unstable();
        destinations.dedup();
        let targets = self.targets(&destinations, between).await;
        let reason = |document: &D| {
            let day = self.client.index_of(document);
            match targets.get(&*day.index) {
                Some(Target::Unusable(reason)) => Some(reason.to_string()),
                _ => None,
            }
        };
        let mut outcomes: Vec<_> = documents
            .iter()
            .map(|document| reason(document).map(DocumentOutcome::Blocked))
            .collect();
        if outcomes.iter().all(Option::is_none) {
            return self.write_usable(documents, is_located(&targets)).await;
        }
        let positions: Vec<usize> = (0..documents.len())
            .filter(|&at| outcomes[at].is_none())
            .collect();
        let usable: Vec<&D> = positions.iter().map(|&at| &documents[at]).collect();
        let (written, error, mut unsettled) = if usable.is_empty() {
            (Vec::new(), None, Vec::new())
        } else {
            match self.write_usable(&usable, is_located(&targets)).await {
                WriteResult::AllCreated => (
                    vec![DocumentOutcome::Stored(StoreResult::Created); usable.len()],
                    None,
                    Vec::new(),
                ),
                WriteResult::PerDocument(outcomes, error, unsettled) => (outcomes, error, unsettled),
                WriteResult::Failed(error) => (
                    vec![DocumentOutcome::Retry(RetryReason::NotAttempted); usable.len()],
                    Some(error),
                    Vec::new(),
                ),
            }
        };
        for (&at, outcome) in positions.iter().zip(written) {
            outcomes[at] = Some(outcome);
        }
        for one in &mut unsettled {
            one.at = positions[one.at];
        }
        let not_attempted = DocumentOutcome::Retry(RetryReason::NotAttempted);
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| not_attempted.clone()));
        WriteResult::PerDocument(outcomes.collect(), error, unsettled)
    }

    async fn write_usable<D: BulkDocument>(&self, documents: &[D], located: bool) -> WriteResult {
        let body = bulk::contiguous_text(documents.iter()).unwrap_or_else(|| {
            bulk::create_body(&self.client.destinations, documents.iter(), self.bodies.take())
        });
        let sent = if located {
            self.client.bulk_located(body.clone(), documents.len()).await
        } else {
            self.client.bulk(body.clone(), documents.len()).await
        };
        self.bodies.put(body);
        self.complete(documents, sent).await
    }

    /// What the names of documents of these destinations between two times stand for.
    async fn targets(
        &self,
        destinations: &[DestinationId],
        between: (i64, i64),
    ) -> HashMap<Arc<str>, Target> {
        let (first, last) = (IndexPattern::day_of(between.0), IndexPattern::day_of(between.1));
        let mut targets = HashMap::new();
        for destination in destinations {
            let destination = self.client.destinations.get(*destination);
            let indices = &destination.indices;
            for day in first..=last.min(first.saturating_add(MAX_RESOLVED_DAYS)) {
                let day = indices.day(day);
                let resolve =
                    self.client
                        .targets
                        .resolve(&self.client, &day.index, destination.is_data_stream);
                let target = resolve.await;
                targets.insert(Arc::from(&*day.index), target);
            }
        }
        targets
    }

    /// Sends a batch as it was rendered: `text` holds `documents` documents of these destinations,
    /// whose first event times (Unix ns) lie in `between`. The response is the error when more is to do than to
    /// confirm all of them: pass it to [`Self::complete`], or without one, [`Self::write`] them.
    pub(crate) async fn write_rendered(
        &self,
        text: &Bytes,
        documents: usize,
        destinations: &[DestinationId],
        between: (i64, i64),
    ) -> Result<(), Option<Result<BulkResponse, RequestError>>> {
        if self
            .targets(destinations, between)
            .await
            .values()
            .any(|target| !matches!(target, Target::Index))
        {
            return Err(None);
        }
        match self.client.bulk(text.clone(), documents).await {
            Ok(BulkResponse::AllOk)
                if self.client.copies.is_empty()
                    && !index_pattern::some_near_boundary(between, self.client.trace_life) =>
            {
                for destination in destinations {
                    let indices = self.client.destinations.indices(*destination);
                    self.client.watch.accepted(&indices.of(between.1).index);
                }
                Ok(())
            }
            sent => Err(Some(sent)),
        }
    }

    /// Handles the response to the request that creates `documents`: heals refused ones, merges
    /// conflicts, joins over indices.
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
        let client = &self.client;
        let (mut batch, rest) = Upsert::of_response(client, documents, response);
        batch.note_accepted(client);
        if rest.is_done() {
            return if batch.outcomes.is_empty() {
                WriteResult::AllCreated
            } else {
                WriteResult::PerDocument(batch.outcomes, None, Vec::new())
            };
        }
        // The semaphore is never closed.
        let _permit = self.merging.acquire().await;
        let error = batch.finish(client, rest).await.err();
        WriteResult::PerDocument(batch.outcomes, error, batch.unsettled)
    }
}

/// Positions of the stored documents that may have siblings.
fn stored_with_siblings<D: BulkDocument>(client: &Client, batch: &Upsert<'_, D>) -> Vec<usize> {
    let stored = |at: &usize| matches!(batch.outcomes[*at], DocumentOutcome::Stored(_));
    (0..batch.documents.len())
        .filter(|at| stored(at) && join::may_have_siblings(client, batch, *at))
        .collect()
}

/// Whether the indices of documents are not known from their names.
fn is_located(targets: &HashMap<Arc<str>, Target>) -> bool {
    targets
        .values()
        .any(|target| matches!(target, Target::Generations(_) | Target::Missing))
}
