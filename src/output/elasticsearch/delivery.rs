//! One batch under way: writes it and settles each document. Owns what becomes of a document once the cluster has
//! answered: confirmed, in the dead letter, or given back to be sent again. When that is, is the queue's business.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::bulk::{self, BulkDocument};
use super::health::{Health, WaitReason};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult};
use super::upsert::{Upserter, WriteResult};
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};
use crate::output::{Batch, OutputId, SealedDocument};

/// A document and what came of it so far.
#[derive(Clone)]
pub(super) struct PendingDocument {
    pub(super) sealed: SealedDocument,
    /// It was sent before.
    pub(super) sent: bool,
    /// So often the cluster turned it away.
    pub(super) turned_away: u32,
    /// It waits for an operator.
    pub(super) blocked: bool,
}

impl PendingDocument {
    pub(super) fn new(sealed: SealedDocument) -> Self {
        Self {
            sealed,
            sent: false,
            turned_away: 0,
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

/// The documents of a request.
#[derive(Clone)]
pub(super) enum BulkContent {
    /// A batch as it was rendered, none of it sent before.
    Rendered(Batch),
    /// Documents from which a body is built.
    Documents(Arc<Vec<PendingDocument>>),
}

impl BulkContent {
    /// Documents in it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rendered(batch) => batch.len(),
            Self::Documents(items) => items.len(),
        }
    }

    /// Bytes that they take in a bulk body, nearly.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Rendered(batch) => batch.framed().map_or(0, Bytes::len),
            Self::Documents(items) => items.iter().map(bulk::cost).sum(),
        }
    }

    /// Each of them.
    pub(super) fn documents(&self) -> Arc<Vec<PendingDocument>> {
        match self {
            Self::Rendered(batch) => Arc::new(batch.documents().map(PendingDocument::new).collect()),
            Self::Documents(items) => Arc::clone(items),
        }
    }
}

/// What is shared with the tasks that carry out the requests.
pub(crate) struct DeliveryContext {
    pub(crate) upserter: Arc<Upserter>,
    pub(crate) dead_letter: Arc<DeadLetter>,
    pub(crate) health: Arc<Health>,
    pub(crate) output: OutputId,
}

/// What a request's task found: the problem of the request, and what must be sent again.
pub(super) struct Completion {
    pub(super) problem: Option<RequestError>,
    /// The first request failed as a whole: nothing is known of any item.
    pub(super) whole: bool,
    pub(super) again: Vec<(usize, RetryReason)>,
    pub(super) blocked: Vec<usize>,
}

/// Writes a batch and settles each document: confirmed, in the dead letter, or to be sent again.
pub(super) async fn deliver(parts: Arc<DeliveryContext>, load: BulkContent) -> Completion {
    let nothing = Completion {
        problem: None,
        whole: false,
        again: Vec::new(),
        blocked: Vec::new(),
    };
    let upserter = &parts.upserter;
    let (items, written) = match &load {
        BulkContent::Documents(items) => (Arc::clone(items), upserter.write(&items[..]).await),
        BulkContent::Rendered(batch) => {
            let text = batch.framed().cloned().unwrap_or_default();
            let sent = upserter
                .write_rendered(&text, batch.len(), batch.first_between())
                .await;
            match sent {
                Ok(()) => {
                    batch.confirm(parts.output);
                    upserter
                        .client
                        .stats
                        .confirmed(StoreResult::Created, batch.len() as u64, batch.lines());
                    return nothing;
                }
                Err(sent) => {
                    let items = load.documents();
                    let written = upserter.complete(&items[..], sent).await;
                    (items, written)
                }
            }
        }
    };
    let (outcomes, problem) = match written {
        WriteResult::AllCreated => {
            parts.confirm(StoreResult::Created, items.iter());
            return nothing;
        }
        // No document can be made shorter: alone it can never be written.
        WriteResult::Failed(RequestError::TooLarge(reason)) if items.len() == 1 => {
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
        // Neither a mistake of this document's content (that is an item's 400) nor of all documents: an operator
        // must look. It waits alone and holds up nothing else.
        WriteResult::Failed(RequestError::Malformed(reason)) if items.len() == 1 => {
            (vec![DocumentOutcome::Blocked(reason)], None)
        }
        WriteResult::Failed(problem) => {
            return Completion {
                problem: Some(problem),
                whole: true,
                ..nothing
            };
        }
        WriteResult::PerDocument(outcomes, problem) => (outcomes, problem),
    };
    let mut landed = Completion { problem, ..nothing };
    let mut rejected = Vec::new();
    for (at, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            DocumentOutcome::Stored(done) => parts.confirm(done, std::iter::once(&items[at])),
            DocumentOutcome::Retry(why) => landed.again.push((at, why)),
            DocumentOutcome::Blocked(reason) => {
                parts.health.set(WaitReason::Blocked, reason);
                landed.blocked.push(at);
            }
            DocumentOutcome::Rejected(rejection) => rejected.push((at, rejection)),
        }
    }
    if !rejected.is_empty() {
        parts.dead_letter(&items, rejected, &mut landed.blocked).await;
    }
    landed
}

impl DeliveryContext {
    fn confirm<'a>(&self, done: StoreResult, items: impl Iterator<Item = &'a PendingDocument>) {
        let (mut documents, mut lines) = (0, 0);
        let sealed = items.map(|item| {
            documents += 1;
            lines += u64::from(item.sealed.lines());
            &item.sealed
        });
        SealedDocument::confirm_all(sealed, self.output);
        self.upserter.client.stats.confirmed(done, documents, lines);
    }

    /// Writes documents to the dead letter, and confirms them when they are durable there. While it takes nothing
    /// they go round again: nothing is dropped, and a mapping that is mended meanwhile takes them.
    async fn dead_letter(
        &self,
        items: &Arc<Vec<PendingDocument>>,
        rejected: Vec<(usize, Rejection)>,
        blocked: &mut Vec<usize>,
    ) {
        let entries = rejected
            .iter()
            .map(|(at, rejection)| self.entry(&items[*at], rejection))
            .collect::<Vec<_>>();
        let dead_letter = self.dead_letter.clone();
        let put = tokio::task::spawn_blocking(move || dead_letter.put_all(&entries)).await;
        match put.map_err(std::io::Error::other).flatten() {
            Ok(()) => {
                self.health.clear(WaitReason::DeadLetter);
                let (_, first) = &rejected[0];
                tracing::warn!(
                    documents = rejected.len(), status = first.status, kind = %first.kind,
                    "Elasticsearch will never accept these documents as they are; they are in the dead letter"
                );
                for (at, rejection) in rejected {
                    let sealed = &items[at].sealed;
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
                    format!("the dead letter takes nothing: {error}"),
                );
                blocked.extend(rejected.iter().map(|(at, _)| *at));
            }
        }
    }

    fn entry(&self, item: &PendingDocument, rejection: &Rejection) -> Entry {
        let sealed = &item.sealed;
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
