//! One batch under way: writes it and settles each document. Owns what becomes of a document once the cluster has
//! answered: confirmed, in the dead letter, or given back to be sent again. When that is, is the queue's business.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::bulk::{self, Document};
use super::cluster::{Again, Cluster, Done, Outcome, Rejection, Written};
use super::outcome::Problem;
use super::stats::{Cause, Health};
use crate::output::dead_letter::{Content, DeadLetter, Entry};
use crate::output::{Batch, OutputId, Sealed};

/// A document and what came of it so far.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) sealed: Sealed,
    /// It was sent before.
    pub(super) sent: bool,
    /// So often the cluster turned it away.
    pub(super) turned_away: u32,
    /// It waits for an operator.
    pub(super) blocked: bool,
}

impl Item {
    pub(super) fn new(sealed: Sealed) -> Self {
        Self {
            sealed,
            sent: false,
            turned_away: 0,
            blocked: false,
        }
    }
}

impl Document for Item {
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
    fn unsettled(&self) {
        self.sealed.note_unsettled();
    }
    fn unchanged(&self) {
        self.sealed.note_unchanged();
    }
    fn joined(&self, new_lines: u32) {
        self.sealed.note_joined(new_lines);
    }
}

/// The documents of a request.
#[derive(Clone)]
pub(super) enum Load {
    /// A batch as it was rendered, none of it sent before.
    Whole(Batch),
    Items(Arc<Vec<Item>>),
}

impl Load {
    /// Documents in it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(batch) => batch.len(),
            Self::Items(items) => items.len(),
        }
    }

    /// Bytes that they take in a bulk body, nearly.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Whole(batch) => batch.framed().map_or(0, Bytes::len),
            Self::Items(items) => items.iter().map(bulk::cost).sum(),
        }
    }

    /// Each of them.
    pub(super) fn items(&self) -> Arc<Vec<Item>> {
        match self {
            Self::Whole(batch) => Arc::new(batch.documents().map(Item::new).collect()),
            Self::Items(items) => Arc::clone(items),
        }
    }
}

/// What is shared with the tasks that carry out the requests.
pub(crate) struct Parts {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) dead_letter: Arc<DeadLetter>,
    pub(crate) health: Arc<Health>,
    pub(crate) output: OutputId,
}

/// What a request's task found: the problem of the request, and what must be sent again.
pub(super) struct Landed {
    pub(super) problem: Option<Problem>,
    /// The first request failed as a whole: nothing is known of any item.
    pub(super) whole: bool,
    pub(super) again: Vec<(usize, Again)>,
    pub(super) blocked: Vec<usize>,
}

/// Writes a batch and settles each document: confirmed, in the dead letter, or to be sent again.
pub(super) async fn carry_out(parts: Arc<Parts>, load: Load) -> Landed {
    let nothing = Landed {
        problem: None,
        whole: false,
        again: Vec::new(),
        blocked: Vec::new(),
    };
    let cluster = &parts.cluster;
    let (items, written) = match &load {
        Load::Items(items) => (Arc::clone(items), cluster.write(&items[..]).await),
        Load::Whole(batch) => {
            let text = batch.framed().cloned().unwrap_or_default();
            let sent = cluster
                .write_text(&text, batch.len(), batch.first_between())
                .await;
            match sent {
                Ok(()) => {
                    batch.confirm(parts.output);
                    cluster
                        .stats
                        .confirmed(Done::Created, batch.len() as u64, batch.lines());
                    return nothing;
                }
                Err(sent) => {
                    let items = load.items();
                    let written = cluster.follow(&items[..], sent).await;
                    (items, written)
                }
            }
        }
    };
    let (outcomes, problem) = match written {
        Written::All => {
            parts.confirm(Done::Created, items.iter());
            return nothing;
        }
        // No document can be made shorter: alone it can never be written.
        Written::Failed(Problem::TooLarge(reason)) if items.len() == 1 => {
            let kind = "document_too_large".into();
            (
                vec![Outcome::Rejected(Rejection {
                    status: 413,
                    kind,
                    reason,
                })],
                None,
            )
        }
        // Neither a mistake of this document's content (that is an item's 400) nor of all documents: an operator
        // must look. It waits alone and holds up nothing else.
        Written::Failed(Problem::Malformed(reason)) if items.len() == 1 => {
            (vec![Outcome::Blocked(reason)], None)
        }
        Written::Failed(problem) => {
            return Landed {
                problem: Some(problem),
                whole: true,
                ..nothing
            };
        }
        Written::Each(outcomes, problem) => (outcomes, problem),
    };
    let mut landed = Landed { problem, ..nothing };
    let mut rejected = Vec::new();
    for (at, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Done(done) => parts.confirm(done, std::iter::once(&items[at])),
            Outcome::Again(why) => landed.again.push((at, why)),
            Outcome::Blocked(reason) => {
                parts.health.set(Cause::Blocked, reason);
                landed.blocked.push(at);
            }
            Outcome::Rejected(rejection) => rejected.push((at, rejection)),
        }
    }
    if !rejected.is_empty() {
        parts.bury(&items, rejected, &mut landed.blocked).await;
    }
    landed
}

impl Parts {
    fn confirm<'a>(&self, done: Done, items: impl Iterator<Item = &'a Item>) {
        let (mut documents, mut lines) = (0, 0);
        let sealed = items.map(|item| {
            documents += 1;
            lines += u64::from(item.sealed.lines());
            &item.sealed
        });
        Sealed::confirm_all(sealed, self.output);
        self.cluster.stats.confirmed(done, documents, lines);
    }

    /// Writes documents to the dead letter, and confirms them when they are durable there. While it takes nothing
    /// they go round again: nothing is dropped, and a mapping that is mended meanwhile takes them.
    async fn bury(
        &self,
        items: &Arc<Vec<Item>>,
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
                self.health.clear(Cause::DeadLetter);
                let (_, first) = &rejected[0];
                tracing::warn!(
                    documents = rejected.len(), status = first.status, kind = %first.kind,
                    "Elasticsearch will never accept these documents as they are; they are in the dead letter"
                );
                for (at, rejection) in rejected {
                    let sealed = &items[at].sealed;
                    self.cluster.stats.buried(&rejection, u64::from(sealed.lines()));
                    sealed.confirm_dead(self.output);
                }
            }
            Err(error) => {
                self.health.set(
                    Cause::DeadLetter,
                    format!("the dead letter takes nothing: {error}"),
                );
                blocked.extend(rejected.iter().map(|(at, _)| *at));
            }
        }
    }

    fn entry(&self, item: &Item, rejection: &Rejection) -> Entry {
        let sealed = &item.sealed;
        Entry {
            time: jiff::Timestamp::now(),
            source: "elasticsearch".into(),
            status: Some(rejection.status).filter(|status| *status != 0),
            kind: rejection.kind.clone(),
            reason: rejection.reason.clone(),
            index: Some(self.cluster.indices.of(sealed.first_ns()).index.to_string()),
            id: Some(sealed.id().to_owned()),
            is_trace: Some(sealed.is_trace()),
            first_ns: Some(sealed.first_ns()),
            lines: Some(sealed.lines()),
            parts: (self.cluster.rules.part_ids)(sealed.json()),
            content: Content::Document(sealed.shared_json()),
        }
    }
}
