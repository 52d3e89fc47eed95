//! Delivery of one bulk request: confirms each document, dead-letters it, or returns it for a
//! retry.
//!
//! Does not decide when a document is retried: the queue does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::bulk::{self, BulkDocument};
use super::deferred::Deferred;
use super::health::{NoteSource, OutputHealth, WaitReason};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult, without_content};
use super::settle::Settling;
use super::upsert::{Upserter, WriteResult};
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};
use crate::output::{Batch, DestinationId, LineCounters, OutputId, SealedDocument};

/// A document that is not confirmed, and its delivery history.
#[derive(Clone)]
pub(super) struct PendingDocument {
    pub(super) sealed: SealedDocument,
    /// It was sent before.
    pub(super) sent: bool,
    /// How many times the cluster rejected it for now.
    pub(super) throttled: u32,
    /// It waits for an operator.
    pub(super) blocked: bool,
    /// When it first was not written.
    pub(super) since: Option<Instant>,
}

impl PendingDocument {
    pub(super) fn new(sealed: SealedDocument) -> Self {
        Self {
            sealed,
            sent: false,
            throttled: 0,
            blocked: false,
            since: None,
        }
    }
}

impl BulkDocument for PendingDocument {
    fn id(&self) -> &str {
        self.sealed.id()
    }
    fn is_trace(&self) -> bool {
        self.sealed.is_trace()
    }
    fn first_ns(&self) -> i64 {
        self.sealed.first_ns()
    }
    fn destination(&self) -> DestinationId {
        self.sealed.destination()
    }
    fn json(&self) -> &[u8] {
        self.sealed.json()
    }
    fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        self.sealed.framed()
    }
    fn mark_uncertain(&self) {
        self.sealed.note_uncertain();
    }
    fn mark_unchanged(&self) {
        self.sealed.note_unchanged();
    }
    fn mark_merged(&self, new_lines: u32) {
        self.sealed.note_merged(new_lines);
    }
}

/// The documents of one bulk request.
#[derive(Clone)]
pub(super) enum BulkContent {
    /// A batch as it was rendered, none of it sent before.
    Rendered(Batch),
    /// Documents from which a body is built.
    Documents(Arc<Vec<PendingDocument>>),
}

impl BulkContent {
    /// Number of documents.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rendered(batch) => batch.len(),
            Self::Documents(documents) => documents.len(),
        }
    }

    /// Approximate bytes of the bulk body.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Rendered(batch) => batch.framed().map_or(0, Bytes::len),
            Self::Documents(documents) => documents.iter().map(bulk::cost).sum(),
        }
    }

    /// Each document.
    pub(super) fn documents(&self) -> Arc<Vec<PendingDocument>> {
        match self {
            Self::Rendered(batch) => Arc::new(batch.documents().map(PendingDocument::new).collect()),
            Self::Documents(documents) => Arc::clone(documents),
        }
    }
}

/// What all delivery tasks share.
pub(crate) struct DeliveryContext {
    pub(crate) upserter: Arc<Upserter>,
    pub(crate) dead_letter: Arc<DeadLetter>,
    pub(crate) health: Arc<OutputHealth>,
    pub(crate) output: OutputId,
    /// Where documents wait for an operator; without it they wait in memory.
    pub(crate) deferred: Option<Arc<Deferred>>,
    /// Documents that are written and not settled.
    pub(crate) settling: Arc<Settling>,
    /// A document whose shard is unavailable for longer waits for an operator.
    pub(crate) blocked_retry: Duration,
    /// The counters of the lines of all documents, once one was deferred.
    pub(crate) account: OnceLock<Arc<LineCounters>>,
}

/// A document that waits for an operator.
struct BlockedDocument {
    at: usize,
    reason: String,
    /// It alone is refused, not its index.
    alone: bool,
}

/// Result of a delivery task: the error of the request, and the documents to be sent again.
#[derive(Default)]
pub(super) struct Completion {
    pub(super) error: Option<RequestError>,
    /// The first request failed as a request_failed: nothing is known about any document.
    pub(super) request_failed: bool,
    /// The request failed as a whole, and its only document waits for an operator.
    pub(super) isolated: bool,
    /// Indices of documents to be retried.
    pub(super) retries: Vec<(usize, RetryReason)>,
    /// Indices of documents that wait for an operator.
    pub(super) blocked: Vec<usize>,
}

/// Sends one bulk request and everything that follows from its response. `suspect`: other requests
/// pass while this one fails.
pub(super) async fn deliver(
    context: Arc<DeliveryContext>,
    content: BulkContent,
    suspect: bool,
) -> Completion {
    let upserter = &context.upserter;
    let started = Instant::now();
    let (documents, written) = match &content {
        BulkContent::Documents(documents) => (Arc::clone(documents), upserter.write(&documents[..]).await),
        BulkContent::Rendered(batch) => {
            let text = batch.framed().cloned().unwrap_or_default();
            let sent = upserter
                .write_rendered(&text, batch.len(), batch.destinations(), batch.first_between())
                .await;
            match sent {
                Ok(()) => {
                    batch.confirm(context.output);
                    upserter
                        .client
                        .stats
                        .confirmed(StoreResult::Created, batch.len() as u64, batch.lines());
                    return Completion::default();
                }
                Err(sent) => {
                    let documents = content.documents();
                    let written = match sent {
                        Some(sent) => upserter.complete(&documents[..], sent).await,
                        None => upserter.write(&documents[..]).await,
                    };
                    (documents, written)
                }
            }
        }
    };
    let (outcomes, mut error, unsettled) = match written {
        WriteResult::AllCreated => {
            context.confirm(StoreResult::Created, documents.iter());
            return Completion::default();
        }
        // A single document cannot be split: it can never be written.
        WriteResult::Failed(RequestError::TooLarge(reason)) if documents.len() == 1 => {
            let kind = "document_too_large".into();
            (
                vec![DocumentOutcome::Rejected(Rejection {
                    status: 413,
                    kind,
                    reason,
                })],
                None,
                Vec::new(),
            )
        }
        // Not an error in the document's content, which is the 400 of an item: an operator must
        // look. The document waits alone and delays no other.
        WriteResult::Failed(RequestError::Malformed(reason)) if documents.len() == 1 => {
            return context.blocked(&documents, reason, true).await;
        }
        WriteResult::Failed(error) if suspect && documents.len() == 1 && error.may_be_content() => {
            return context.blocked(&documents, error.reason().to_owned(), true).await;
        }
        WriteResult::Failed(error) => {
            return Completion {
                error: Some(error),
                request_failed: true,
                ..Completion::default()
            };
        }
        WriteResult::PerDocument(outcomes, error, unsettled) => (outcomes, error, unsettled),
    };
    if !unsettled.is_empty() {
        let held = unsettled.iter().map(|one| &documents[one.at].sealed);
        let claims = SealedDocument::claims(held);
        context.settling.add(unsettled, claims);
    }
    // Creating is allowed and a later step is not, such as reading: only documents that need it
    // wait.
    let not_allowed = error.take_if(|error| error.needs_operator());
    let mut completion = Completion {
        error,
        ..Completion::default()
    };
    let mut rejected = Vec::new();
    let mut blocked = Vec::new();
    for (at, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            DocumentOutcome::Stored(done) => context.confirm(done, std::iter::once(&documents[at])),
            DocumentOutcome::Retry(RetryReason::NotAttempted) if not_allowed.is_some() => {
                let reason = not_allowed.as_ref().map_or("", RequestError::reason).to_owned();
                let alone = false;
                blocked.push(BlockedDocument { at, reason, alone });
            }
            DocumentOutcome::Retry(RetryReason::Unavailable) if context.waits_long(&documents[at]) => {
                let reason = context.last_reason(&documents[at]);
                let alone = false;
                blocked.push(BlockedDocument { at, reason, alone });
            }
            DocumentOutcome::Retry(why) => completion.retries.push((at, why)),
            DocumentOutcome::Blocked(reason) => {
                let alone = false;
                blocked.push(BlockedDocument { at, reason, alone });
            }
            DocumentOutcome::Rejected(rejection) => rejected.push((at, rejection)),
            // The index takes others: the document is at fault.
            DocumentOutcome::Refused(rejection) if context.index_accepts(&documents[at], started) => {
                rejected.push((at, rejection));
            }
            DocumentOutcome::Refused(Rejection { status, kind, reason }) => {
                let reason = format!("status {status} {kind}: {}", without_content(&reason));
                let alone = true;
                blocked.push(BlockedDocument { at, reason, alone });
            }
        }
    }
    if !rejected.is_empty() {
        context
            .dead_letter(&documents, rejected, &mut completion.blocked)
            .await;
    }
    if !blocked.is_empty() {
        context.defer(&documents, blocked, &mut completion.blocked).await;
    }
    completion
}

impl DeliveryContext {
    fn confirm<'a>(&self, done: StoreResult, documents: impl Iterator<Item = &'a PendingDocument>) {
        let (mut count, mut lines) = (0, 0);
        let sealed = documents.map(|document| {
            count += 1;
            lines += u64::from(document.sealed.lines());
            &document.sealed
        });
        SealedDocument::confirm_all(sealed, self.output);
        self.upserter.client.stats.confirmed(done, count, lines);
    }

    /// All documents of a request wait for an operator.
    async fn blocked(
        &self,
        documents: &Arc<Vec<PendingDocument>>,
        reason: String,
        alone: bool,
    ) -> Completion {
        let mut completion = Completion {
            isolated: true,
            ..Completion::default()
        };
        let blocked = (0..documents.len()).map(|at| BlockedDocument {
            at,
            reason: reason.clone(),
            alone,
        });
        self.defer(documents, blocked.collect(), &mut completion.blocked)
            .await;
        completion
    }

    fn index_of(&self, document: &PendingDocument) -> Arc<super::index_pattern::DayIndex> {
        self.upserter.client.index_of(document)
    }

    /// Whether the index of a refused document takes others: it took one since the document was
    /// first refused, or in the same request, which was sent at `started`.
    fn index_accepts(&self, document: &PendingDocument, started: Instant) -> bool {
        let index = self.index_of(document);
        let since = document.since.unwrap_or(started);
        self.upserter.client.watch.accepted_since(&index.index, since)
    }

    /// Lines of documents that waited on disk are stored, or in the dead letter.
    pub(super) fn undefer(&self, lines: u64, dead: bool) {
        if let Some(account) = self.account.get() {
            account.undefer(lines, dead);
        }
    }

    fn waits_long(&self, document: &PendingDocument) -> bool {
        self.deferred.is_some()
            && document
                .since
                .is_some_and(|since| since.elapsed() >= self.blocked_retry / 3)
    }

    fn last_reason(&self, document: &PendingDocument) -> String {
        let index = self.index_of(document);
        let reason = self.upserter.client.watch.reason(&index.index);
        format!("{}: {}", index.index, reason.unwrap_or_default())
    }

    /// Puts documents that wait for an operator on disk and confirms them. Those for which there is
    /// no room wait in memory: their positions are added to `blocked`.
    async fn defer(
        &self,
        documents: &Arc<Vec<PendingDocument>>,
        waiting: Vec<BlockedDocument>,
        blocked: &mut Vec<usize>,
    ) {
        let Some(deferred) = &self.deferred else {
            for BlockedDocument { at, reason, .. } in waiting {
                self.health.set(WaitReason::Blocked, reason);
                blocked.push(at);
            }
            return;
        };
        let mut groups: BTreeMap<(Arc<str>, bool), Vec<BlockedDocument>> = BTreeMap::new();
        for document in waiting {
            let index = Arc::from(&*self.index_of(&documents[document.at]).index);
            groups.entry((index, document.alone)).or_default().push(document);
        }
        for ((index, alone), group) in groups {
            let reason = group[0].reason.clone();
            let entries: Vec<Entry> = group
                .iter()
                .map(|waiting| {
                    let (kind, reason) = ("waits".into(), waiting.reason.clone());
                    let status = 0;
                    self.entry(&documents[waiting.at], &Rejection { status, kind, reason })
                })
                .collect();
            let (deferred, name, why) = (Arc::clone(deferred), Arc::clone(&index), reason.clone());
            let put = tokio::task::spawn_blocking(move || deferred.put(&name, alone, &why, &entries)).await;
            match put.map_err(std::io::Error::other).flatten() {
                Ok(()) => {
                    self.health
                        .note(NoteSource::Deferred, &index, group.len() as u64, &reason);
                    for waiting in &group {
                        self.account
                            .get_or_init(|| Arc::clone(documents[waiting.at].sealed.account()));
                        documents[waiting.at].sealed.confirm_deferred(self.output);
                    }
                }
                Err(error) => {
                    self.health.set(
                        WaitReason::Blocked,
                        format!("{reason}; its documents wait in memory, because they cannot be put on disk: {error}"),
                    );
                    blocked.extend(group.iter().map(|waiting| waiting.at));
                }
            }
        }
    }

    /// Writes documents to the dead letter and confirms them once they are durable there. While it
    /// fails they are retried: nothing is dropped, and a mapping that is fixed meanwhile accepts
    /// them.
    async fn dead_letter(
        &self,
        documents: &Arc<Vec<PendingDocument>>,
        rejected: Vec<(usize, Rejection)>,
        blocked: &mut Vec<usize>,
    ) {
        let entries = rejected
            .iter()
            .map(|(at, rejection)| self.entry(&documents[*at], rejection))
            .collect::<Vec<_>>();
        let dead_letter = self.dead_letter.clone();
        let put = tokio::task::spawn_blocking(move || dead_letter.put_all(&entries)).await;
        match put.map_err(std::io::Error::other).flatten() {
            Ok(()) => {
                self.health.clear(WaitReason::DeadLetter);
                let (at, first) = &rejected[0];
                let document = &documents[*at];
                tracing::warn!(
                    documents = rejected.len(), index = %self.index_of(document).index, id = document.sealed.id(),
                    status = first.status, kind = %first.kind, reason = %without_content(&first.reason),
                    "Elasticsearch rejected documents permanently; they are in the dead letter"
                );
                for (at, rejection) in rejected {
                    let sealed = &documents[at].sealed;
                    self.upserter
                        .client
                        .stats
                        .dead_lettered(&rejection, u64::from(sealed.lines()));
                    sealed.confirm_dead(self.output);
                }
            }
            Err(error) => {
                self.health.set(
                    WaitReason::DeadLetter,
                    format!("the dead letter cannot be written: {error}"),
                );
                blocked.extend(rejected.iter().map(|(at, _)| *at));
            }
        }
    }

    fn entry(&self, document: &PendingDocument, rejection: &Rejection) -> Entry {
        let sealed = &document.sealed;
        Entry {
            time: jiff::Timestamp::now(),
            source: "elasticsearch".into(),
            status: Some(rejection.status).filter(|status| *status != 0),
            kind: rejection.kind.clone(),
            reason: rejection.reason.clone(),
            index: Some(self.index_of(document).index.to_string()),
            destination: self.upserter.client.destinations.name(sealed.destination()),
            id: Some(sealed.id().to_owned()),
            is_trace: Some(sealed.is_trace()),
            first_ns: Some(sealed.first_ns()),
            lines: Some(sealed.lines()),
            parts: (self.upserter.client.format.part_ids)(sealed.json()),
            content: EntryContent::Document(sealed.shared_json()),
        }
    }
}
