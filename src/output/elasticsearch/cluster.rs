//! Writing a batch of documents, once: create, merge what exists already, join across midnight. Every document comes
//! back with an outcome. Owns no schedule: what must be tried again is the caller's business.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elasticsearch::http::Method;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::bulk::{self, Answer, Document, ItemResult};
use super::config::ElasticsearchConfig;
use super::index::{self, Indices};
use super::nodes::{NoReply, Nodes, OpenError, Reply, Request};
use super::outcome::{self, Problem, Verdict};
use super::rules::Rules;
use super::stats::Stats;
use super::{merge, midnight};

/// Merges under way at once: each holds the documents that it reads.
const MERGES: usize = 2;

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Elasticsearch has it durably.
    Done(Done),
    /// Not now.
    Again(Again),
    /// Not now; an operator must mend something.
    Blocked(String),
    /// Never.
    Rejected(Rejection),
}

/// Why a document is not written yet, which decides when it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Again {
    /// The cluster took the request and turned this document away: it needs a rest, a longer one each time.
    TurnedAway,
    /// A request failed as a whole, with this document or before it. How long the cluster is left alone is the flow's
    /// business; the document adds nothing to that.
    NotReached,
    /// Other writers are at the same document: soon, at another moment than they.
    Contended,
}

/// How a document came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// It is new.
    Created,
    /// It existed and got what it lacked.
    Merged,
    /// It existed and held everything already.
    Unchanged,
}

/// Why a document can never be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status of the item, 0 when Elasticsearch did not decide it.
    pub status: u16,
    /// `error.type` of Elasticsearch, or a name of ours.
    pub kind: String,
    /// `error.reason`.
    pub reason: String,
}

/// What became of a batch.
pub(crate) enum Written {
    /// The first request failed as a whole: nothing is known of any document.
    Failed(Problem),
    /// All documents are written.
    All,
    /// One outcome for each document; and the problem that stopped a later step, if one did.
    Each(Vec<Outcome>, Option<Problem>),
}

/// A connection to one cluster and the rules of writing to it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Nodes,
    pub(crate) indices: Indices,
    pub(crate) rules: Rules,
    pub(crate) stats: Arc<Stats>,
    pub(crate) trace_life: Duration,
    merging: Semaphore,
    bodies: Bodies,
    gzip_level: u32,
}

impl Cluster {
    pub(crate) fn open(
        config: &ElasticsearchConfig,
        rules: Rules,
        stats: Arc<Stats>,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            nodes: Nodes::open(config)?,
            indices: Indices::parse(&config.index).map_err(OpenError::Index)?,
            rules,
            stats,
            trace_life: config.trace_life,
            merging: Semaphore::new(MERGES),
            bodies: Bodies {
                spare: Mutex::default(),
                longest: config.bulk_bytes.saturating_mul(2),
            },
            gzip_level: config.gzip_level.min(9),
        })
    }

    /// Writes `documents`. Safe to repeat with any part of them, whatever came of an earlier try.
    pub(crate) async fn write<D: Document>(&self, documents: &[D]) -> Written {
        let body = bulk::ready(documents.iter())
            .unwrap_or_else(|| bulk::creates(&self.indices, documents.iter(), self.bodies.take()));
        let sent = self.bulk(body.clone(), documents.len()).await;
        self.bodies.put(body);
        self.follow(documents, sent).await
    }

    /// Writes a batch as it was rendered: `text`, of so many documents, whose first event times lie between these. Gives the
    /// answer when more is to be done than to confirm all of them; see [`Self::follow`].
    pub(crate) async fn write_text(
        &self,
        text: &Bytes,
        documents: usize,
        between: (i64, i64),
    ) -> Result<(), Result<Answer, Problem>> {
        match self.bulk(text.clone(), documents).await {
            Ok(Answer::AllDone) if !index::some_near_boundary(between, self.trace_life) => Ok(()),
            sent => Err(sent),
        }
    }

    /// What is to be done after the answer to the request that creates `documents`.
    pub(crate) async fn follow<D: Document>(
        &self,
        documents: &[D],
        sent: Result<Answer, Problem>,
    ) -> Written {
        let answer = match sent {
            Err(problem) => {
                if problem.may_be_done() {
                    documents.iter().for_each(Document::unsettled);
                }
                return Written::Failed(problem);
            }
            Ok(answer) => answer,
        };
        let mut outcomes = Vec::new();
        let mut exist = Vec::new();
        if let Answer::Items(items) = answer {
            outcomes.reserve_exact(items.len());
            for (at, item) in items.into_iter().enumerate() {
                outcomes.push(match decide(item, &self.stats) {
                    Some(outcome) => outcome,
                    None if documents[at].is_trace() => {
                        exist.push(at);
                        Outcome::Again(Again::NotReached)
                    }
                    // The document is the only one of its id that there can ever be: it was written before.
                    None => {
                        documents[at].unchanged();
                        Outcome::Done(Done::Unchanged)
                    }
                });
            }
        }
        let near =
            |document: &D| document.is_trace() && index::near_boundary(document.first_ns(), self.trace_life);
        let joins = documents.iter().any(near);
        if exist.is_empty() && !joins {
            return if outcomes.is_empty() {
                Written::All
            } else {
                Written::Each(outcomes, None)
            };
        }
        if outcomes.is_empty() {
            outcomes.resize(documents.len(), Outcome::Done(Done::Created));
        }
        Stats::add(&self.stats.conflicts, exist.len());
        // Closed never: the semaphore lives as long as the cluster.
        let _few = self.merging.acquire().await;
        let mut problem = None;
        if !exist.is_empty() {
            problem = merge::merge(self, documents, exist, &mut outcomes).await.err();
        }
        if joins && problem.is_none() {
            let written = (0..documents.len())
                .filter(|&at| matches!(outcomes[at], Outcome::Done(_)) && near(&documents[at]));
            problem = midnight::settle(self, documents, written.collect(), &mut outcomes)
                .await
                .err();
        } else if joins {
            // Not looked at: they must not pass for done.
            for (outcome, document) in outcomes
                .iter_mut()
                .zip(documents)
                .filter(|(_, document)| near(document))
            {
                if let Outcome::Done(_) = outcome {
                    document.unsettled();
                    *outcome = Outcome::Again(Again::NotReached);
                }
            }
        }
        Written::Each(outcomes, problem)
    }

    /// Sends one bulk body of `expected` items.
    pub(crate) async fn bulk(&self, body: Bytes, expected: usize) -> Result<Answer, Problem> {
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
            query: &[("filter_path", bulk::FILTER)],
            body,
            lines: true,
            gzip,
            longest_answer: u64::MAX,
        };
        let answer = match self.nodes.send(&request).await {
            Ok(reply) => reply
                .success()
                .and_then(|body| bulk::parse(&body, expected).map_err(Problem::Broken)),
            Err(NoReply::Problem(problem)) => Err(problem),
            Err(NoReply::TooLong(bytes)) => Err(Problem::Broken(format!("answer of {bytes} bytes"))),
        };
        match &answer {
            Ok(_) => self.stats.answered(started.elapsed()),
            Err(problem) => {
                self.stats.failed(problem);
                let (kind, reason) = (problem.label(), problem.reason());
                tracing::debug!(kind, bytes = length, reason, "bulk request failed");
            }
        }
        answer
    }

    /// Sends a request that is not a bulk.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, Problem> {
        self.nodes.send(request).await.map_err(|no| match no {
            NoReply::Problem(problem) => problem,
            NoReply::TooLong(bytes) => Problem::Broken(format!("answer of {bytes} bytes")),
        })
    }
}

/// Bodies that were sent, for the next ones: fresh memory for 8 MiB costs as much as filling it.
#[derive(Debug)]
struct Bodies {
    spare: Mutex<Vec<BytesMut>>,
    longest: usize,
}

impl Bodies {
    /// Kept at most; more requests than this are under way only while Elasticsearch is the slower side.
    const MOST: usize = 2;

    fn take(&self) -> BytesMut {
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn put(&self, body: Bytes) {
        // Somebody who still holds it keeps it.
        if let Ok(mut body) = body.try_into_mut()
            && body.capacity() <= self.longest
        {
            body.clear();
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < Self::MOST {
                spare.push(body);
            }
        }
    }
}

/// The outcome of an item, or `None` for a conflict.
pub(crate) fn decide(item: ItemResult, stats: &Stats) -> Option<Outcome> {
    let ItemResult { status, kind, reason } = item;
    let verdict = outcome::item(status, &kind, &reason);
    if verdict != Verdict::Done {
        stats.item_failed(status, &kind);
    }
    Some(match verdict {
        Verdict::Done => Outcome::Done(Done::Created),
        Verdict::Conflict => return None,
        Verdict::Retry => Outcome::Again(Again::TurnedAway),
        Verdict::Blocked => Outcome::Blocked(format!("status {status} {kind}: {reason}")),
        Verdict::Poison => Outcome::Rejected(Rejection { status, kind, reason }),
    })
}

/// gzip on a blocking thread: level 1 takes about 5 ms a MiB, too long for a reactor thread.
async fn compress(body: Bytes, level: u32) -> Result<Bytes, Problem> {
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
        Ok(Err(error)) => Err(Problem::Broken(format!("compression failed: {error}"))),
        Err(error) => Err(Problem::Broken(format!("compression failed: {error}"))),
    }
}
