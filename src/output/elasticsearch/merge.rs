//! Merge with existing documents: read, unite, write back by compare-and-set.
//!
//! Uses no scripts, so it works on Elasticsearch 7.17 to 9 and OpenSearch.
//!
//! It is safe to stop at any point: each step leaves either the old document or one that contains
//! more of ours, and the union of a document with a part that it contains is that document. A
//! document that is returned as [`DocumentOutcome::Retry`] is created again, which conflicts and
//! leads here.

mod continuations;

use super::backoff::contention_pause;
use super::bulk::{self, BulkDocument, BulkResponse, Version};
use super::client::Client;
use super::index_pattern::IndexPattern;
use super::mget::{self, MgetItem};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult};
use super::stats::Stats;
use crate::runtime::block_in_place;
use windrow_trace::{BoundedUnion, Continuation, Union};

pub(super) use self::continuations::write_continuations;

/// Documents read in one `_mget`.
const MAX_MGET_DOCUMENTS: usize = 256;
/// Bytes of our side of these documents; `_mget` bounds the other side.
const MAX_MGET_BYTES: usize = 4 << 20;

/// Compare-and-set rounds before a contended document returns to the queue.
const MAX_CAS_ROUNDS: u32 = 6;

/// Merges `documents[at]` for each `at` in `pending`, and sets `outcomes[at]`.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome
/// [`RetryReason::NotAttempted`].
pub(crate) async fn merge<D: BulkDocument>(
    client: &Client,
    documents: &[D],
    pending: Vec<usize>,
    outcomes: &mut [DocumentOutcome],
) -> Result<(), RequestError> {
    let mut pending = pending;
    for round in 0..MAX_CAS_ROUNDS {
        if pending.is_empty() {
            break;
        }
        if round > 0 {
            // Other writers change the same documents: jitter separates them.
            tokio::time::sleep(contention_pause(round)).await;
        }
        let mut conflicts = Vec::new();
        let mut rest = &pending[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(MAX_MGET_DOCUMENTS).take_while(|&&at| {
                bytes += documents[at].json().len();
                bytes <= MAX_MGET_BYTES
            });
            let (chunk, more) = rest.split_at(fits.count().max(1));
            rest = more;
            merge_chunk(client, documents, chunk, outcomes, &mut conflicts).await?;
        }
        for &at in &conflicts {
            outcomes[at] = DocumentOutcome::Retry(RetryReason::Contended);
        }
        pending = conflicts;
    }
    Ok(())
}

/// One round for one chunk. New conflicts are added to `conflicts`.
async fn merge_chunk<D: BulkDocument>(
    client: &Client,
    documents: &[D],
    chunk: &[usize],
    outcomes: &mut [DocumentOutcome],
    conflicts: &mut Vec<usize>,
) -> Result<(), RequestError> {
    let days: Vec<_> = chunk
        .iter()
        .map(|&at| client.indices.day(IndexPattern::day_of(documents[at].first_ns())))
        .collect();
    let wanted: Vec<_> = chunk
        .iter()
        .zip(&days)
        .map(|(&at, day)| (&*day.index, documents[at].id()))
        .collect();
    let found = mget::mget(client, &wanted, true).await?;

    let found = chunk.iter().zip(wanted).zip(found);
    let (writes, continuations) = block_in_place(|| unite(client, documents, found, outcomes));
    // Two parts of one trace in a chunk were merged with the same version: one wins, the other
    // conflicts.
    let mut writes = &writes[..];
    while !writes.is_empty() {
        let mut bytes = 0;
        let fits = writes.iter().take_while(|write| {
            bytes += write.json.len();
            bytes <= 2 * MAX_MGET_BYTES
        });
        let (some, more) = writes.split_at(fits.count().max(1));
        writes = more;
        write_back(client, documents, some, outcomes, conflicts).await?;
    }
    for one in continuations {
        // Only once the existing document takes no further lines.
        if let DocumentOutcome::Stored(_) = outcomes[one.at] {
            one.write(client, documents, outcomes).await?;
        }
    }
    Ok(())
}

/// What one document adds to the continuations of an existing one.
struct PendingContinuations {
    at: usize,
    /// Lines that it adds to the existing document.
    new_lines: u32,
    continuations: Vec<Continuation>,
}

impl PendingContinuations {
    /// Writes them. Until all are stored, the document does not count as stored.
    async fn write<D: BulkDocument>(
        self,
        client: &Client,
        documents: &[D],
        outcomes: &mut [DocumentOutcome],
    ) -> Result<(), RequestError> {
        let document = &documents[self.at];
        let not_attempted = DocumentOutcome::Retry(RetryReason::NotAttempted);
        let stored = std::mem::replace(&mut outcomes[self.at], not_attempted);
        let written = write_continuations(client, self.continuations).await;
        let (outcome, lines) = written.inspect_err(|_| document.mark_uncertain())?;
        match outcome {
            None if self.new_lines + lines == 0 => document.mark_unchanged(),
            None => document.mark_merged(self.new_lines + lines),
            Some(_) => document.mark_uncertain(),
        }
        outcomes[self.at] = outcome.unwrap_or(stored);
        Ok(())
    }
}

/// The union of each document with the existing one. Sets the outcomes of those that need no write
/// of it. Returns the writes, and the continuations to write after them.
fn unite<'a, D: BulkDocument>(
    client: &Client,
    documents: &[D],
    found: impl Iterator<Item = ((&'a usize, (&'a str, &'a str)), MgetItem)>,
    outcomes: &mut [DocumentOutcome],
) -> (Vec<PendingWrite<'a>>, Vec<PendingContinuations>) {
    let (mut writes, mut all_continuations) = (Vec::new(), Vec::new());
    for ((&at, (index, id)), found) in found {
        let document = &documents[at];
        match found {
            MgetItem::Failed(reason) => {
                tracing::debug!(%reason, "an existing document could not be read");
                outcomes[at] = DocumentOutcome::Retry(RetryReason::Throttled);
            }
            // It was deleted meanwhile.
            MgetItem::Missing => writes.push(PendingWrite {
                at,
                index,
                id,
                version: None,
                json: document.json().to_vec(),
            }),
            MgetItem::Found { version, source } => {
                let BoundedUnion { main, continuations } =
                    match client.format.union_of(&source, document.json(), id) {
                        Ok(union) => union,
                        Err(why) => {
                            outcomes[at] = DocumentOutcome::Rejected(not_ours(index, &why));
                            continue;
                        }
                    };
                let mut added = 0;
                match main {
                    Union::Unchanged => {
                        document.mark_unchanged();
                        outcomes[at] = DocumentOutcome::Stored(StoreResult::Unchanged);
                    }
                    Union::Merged {
                        document: json,
                        new_lines,
                    } => {
                        document.mark_merged(new_lines);
                        added = new_lines;
                        writes.push(PendingWrite {
                            at,
                            index,
                            id,
                            version: Some(version),
                            json,
                        });
                    }
                }
                if !continuations.is_empty() {
                    all_continuations.push(PendingContinuations {
                        at,
                        new_lines: added,
                        continuations,
                    });
                }
            }
        }
    }
    (writes, all_continuations)
}

/// A document to be written back.
struct PendingWrite<'a> {
    at: usize,
    index: &'a str,
    id: &'a str,
    /// The version to replace; `None` creates.
    version: Option<Version>,
    json: Vec<u8>,
}

async fn write_back<D: BulkDocument>(
    client: &Client,
    documents: &[D],
    writes: &[PendingWrite<'_>],
    outcomes: &mut [DocumentOutcome],
    conflicts: &mut Vec<usize>,
) -> Result<(), RequestError> {
    let mut body = Vec::with_capacity(writes.iter().map(|w| w.json.len() + w.id.len() + 128).sum());
    for write in writes {
        match write.version {
            Some(version) => bulk::put_replace(&mut body, write.index, write.id, version, &write.json),
            None => bulk::put_create(&mut body, write.index, write.id, &write.json),
        }
    }
    let answer = match client.bulk(body.into(), writes.len()).await {
        Err(RequestError::TooLarge(reason)) => match writes {
            [one] => {
                outcomes[one.at] = DocumentOutcome::Rejected(Rejection {
                    status: 413,
                    kind: "merged_document_too_large".into(),
                    reason: format!(
                        "the union with the existing document has {} bytes: {reason}",
                        one.json.len()
                    ),
                });
                return Ok(());
            }
            many => {
                let (first, second) = many.split_at(many.len() / 2);
                Box::pin(write_back(client, documents, first, outcomes, conflicts)).await?;
                return Box::pin(write_back(client, documents, second, outcomes, conflicts)).await;
            }
        },
        Err(error) => {
            if error.may_have_applied() {
                writes
                    .iter()
                    .for_each(|write| documents[write.at].mark_uncertain());
            }
            return Err(error);
        }
        Ok(answer) => answer,
    };
    let mut items = match answer {
        BulkResponse::AllOk => None,
        BulkResponse::Items(items) => Some(items.into_iter()),
    };
    for write in writes {
        let outcome = match items.as_mut().and_then(Iterator::next) {
            None => Some(DocumentOutcome::Stored(StoreResult::Created)),
            Some(item) => client.outcome_of(item),
        };
        match outcome {
            None => conflicts.push(write.at),
            Some(DocumentOutcome::Stored(_)) if write.version.is_some() => {
                Stats::add(&client.stats.merges, 1);
                outcomes[write.at] = DocumentOutcome::Stored(StoreResult::Merged);
            }
            Some(outcome) => outcomes[write.at] = outcome,
        }
    }
    Ok(())
}

fn not_ours(index: &str, why: &windrow_trace::UnionError) -> Rejection {
    Rejection {
        status: 409,
        kind: "not_a_windrow_document".into(),
        reason: format!("{index} contains a foreign document with this id, which was not changed: {why}"),
    }
}
