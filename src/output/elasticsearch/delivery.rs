//! Delivery of one bulk request: confirms each document, dead-letters it, or returns it for a
//! retry.
//!
//! Does not decide when a document is retried: the queue does.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::bulk::{self, BulkDocument};
use super::health::{OutputHealth, WaitReason};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult};
use super::upsert::{Upserter, WriteResult};
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};
use crate::output::{Batch, OutputId, SealedDocument};

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
}

impl PendingDocument {
    pub(super) fn new(sealed: SealedDocument) -> Self {
        Self {
            sealed,
            sent: false,
            throttled: 0,
            blocked: false,
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
}

/// Result of a delivery task: the error of the request, and the documents to be sent again.
#[derive(Default)]
pub(super) struct Completion {
    pub(super) error: Option<RequestError>,
    /// The first request failed as a request_failed: nothing is known about any document.
    pub(super) request_failed: bool,
    /// Indices of documents to be retried.
    pub(super) retries: Vec<(usize, RetryReason)>,
    /// Indices of documents that wait for an operator.
    pub(super) blocked: Vec<usize>,
}

/// Sends one bulk request and everything that follows from its response.
pub(super) async fn deliver(context: Arc<DeliveryContext>, content: BulkContent) -> Completion {
    let upserter = &context.upserter;
    let (documents, written) = match &content {
        BulkContent::Documents(documents) => (Arc::clone(documents), upserter.write(&documents[..]).await),
        BulkContent::Rendered(batch) => {
            let text = batch.framed().cloned().unwrap_or_default();
            let sent = upserter
                .write_rendered(&text, batch.len(), batch.first_between())
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
                    let written = upserter.complete(&documents[..], sent).await;
                    (documents, written)
                }
            }
        }
    };
    let (outcomes, error) = match written {
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
            )
        }
        // Not an error in the document's content, which is the 400 of an item: an operator must
        // look. The document waits alone and delays no other.
        WriteResult::Failed(RequestError::Malformed(reason)) if documents.len() == 1 => {
            (vec![DocumentOutcome::Blocked(reason)], None)
        }
        WriteResult::Failed(error) => {
            return Completion {
                error: Some(error),
                request_failed: true,
                ..Completion::default()
            };
        }
        WriteResult::PerDocument(outcomes, error) => (outcomes, error),
    };
    let mut completion = Completion {
        error,
        ..Completion::default()
    };
    let mut rejected = Vec::new();
    for (at, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            DocumentOutcome::Stored(done) => context.confirm(done, std::iter::once(&documents[at])),
            DocumentOutcome::Retry(why) => completion.retries.push((at, why)),
            DocumentOutcome::Blocked(reason) => {
                context.health.set(WaitReason::Blocked, reason);
                completion.blocked.push(at);
            }
            DocumentOutcome::Rejected(rejection) => rejected.push((at, rejection)),
        }
    }
    if !rejected.is_empty() {
        context
            .dead_letter(&documents, rejected, &mut completion.blocked)
            .await;
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
                let (_, first) = &rejected[0];
                tracing::warn!(
                    documents = rejected.len(), status = first.status, kind = %first.kind,
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
            index: Some(
                self.upserter
                    .client
                    .indices
                    .of(sealed.first_ns())
                    .index
                    .to_string(),
            ),
            id: Some(sealed.id().to_owned()),
            is_trace: Some(sealed.is_trace()),
            first_ns: Some(sealed.first_ns()),
            lines: Some(sealed.lines()),
            parts: (self.upserter.client.format.part_ids)(sealed.json()),
            content: EntryContent::Document(sealed.shared_json()),
        }
    }
}
