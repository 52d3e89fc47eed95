//! Join across midnight: merges two documents of one trace in the indices of two neighbouring days.
//!
//! A document's index is the UTC day of its first event. Parts of one trace that are
//! gathered apart (by several instances, or because one was late) can have first events on both
//! sides of a day's boundary, and then two documents with the same id exist, which Elasticsearch
//! cannot see: `_id` is unique in one index only.
//!
//! **Rule.** After the write of a document whose first event is within `trace_life` of midnight is
//! acknowledged, the writer reads the neighbouring index with a realtime read. If both documents
//! exist, the earlier index wins: the union is written there (compare-and-set on the version read),
//! and when that is acknowledged the later document is deleted (compare-and-set on the version
//! whose content is in the union). Only then is the document confirmed to the journal.
//!
//! **Why one document remains.** Writer A writes E (earlier index) and then reads F (later
//! index); writer B writes F and then reads E. Reads and writes of one document are linearised by
//! its primary shard. If A did not see F, A's read of F came before B's write of F; then B's read
//! of E came after B's write of F, after A's read of F, after A's write of E: B sees E. So at least
//! one of the two sees both, and it joins them. If both see both, both try the same:
//! compare-and-set lets one write at a time into E, a repeated union changes nothing, and a delete
//! of F that came second finds nothing, which is success. More parts change nothing: each writer of
//! F looks for E after its own write, so the last writer of F finds E or E was written after it
//! looked, and then E's writer finds F.
//!
//! **Why nothing is lost.** F is deleted only at the version whose content is in E durably. A part
//! that was merged into F meanwhile changed its version: the delete conflicts and both are read
//! again. A merge into F that finds F deleted creates it again, and looks for E after that. A
//! writer that dies in between has not confirmed; its part is replayed from the journal, conflicts
//! or creates, and comes here again.
//!
//! If the union has no space in the earlier document, the lines that it lacks become continuations
//! before the later document is deleted; these are never joined, because their index depends on
//! their own lines.
//!
//! The rule reaches one day to each side: a trace's longest life is bounded by 12 hours.

use std::sync::Arc;

use super::backoff::contention_pause;
use super::bulk::{self, BulkDocument, BulkResponse, ItemResult};
use super::client::Client;
use super::index_pattern::DayIndex;
use super::merge::write_continuations;
use super::mget::{self, MgetItem};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult};
use super::stats::Stats;
use windrow_trace::{BoundedUnion, Union};

/// Documents looked up in one `_mget`. Few have a sibling, so no source is read.
const MAX_MGET_DOCUMENTS: usize = 1000;

/// Nothing is left to join. How the document itself was stored is known from its own write.
const JOIN_DONE: DocumentOutcome = DocumentOutcome::Stored(StoreResult::Unchanged);

/// Compare-and-set rounds before a document returns to the queue.
const MAX_CAS_ROUNDS: u32 = 8;

/// Looks for siblings of the written `documents[at]` and joins them. Sets `outcomes[at]` back to a
/// retry where that fails.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome
/// [`RetryReason::NotAttempted`].
pub(crate) async fn join_all<D: BulkDocument>(
    client: &Client,
    documents: &[D],
    written: Vec<usize>,
    outcomes: &mut [DocumentOutcome],
) -> Result<(), RequestError> {
    let mut pairs = Vec::new();
    let mut own_outcomes = Vec::with_capacity(written.len());
    for &at in &written {
        let first_ns = documents[at].first_ns();
        let own = client.indices.of(first_ns);
        if let Some(before) = client.indices.before(first_ns, client.trace_life) {
            pairs.push(Pair {
                at,
                other: before.clone(),
                earlier: before,
                later: own.clone(),
            });
        }
        if let Some(after) = client.indices.after(first_ns, client.trace_life) {
            pairs.push(Pair {
                at,
                other: after.clone(),
                earlier: own,
                later: after,
            });
        }
        // Until its neighbours are read, it does not count as stored.
        own_outcomes.push(std::mem::replace(
            &mut outcomes[at],
            DocumentOutcome::Retry(RetryReason::NotAttempted),
        ));
    }
    let pair_documents: Vec<usize> = pairs.iter().map(|pair| pair.at).collect();
    let mut results = vec![JOIN_DONE; pairs.len()];
    let mut error = None;
    'all: for (start, chunk) in pairs.chunks(MAX_MGET_DOCUMENTS).enumerate() {
        let wanted: Vec<_> = chunk
            .iter()
            .map(|pair| (&*pair.other.index, documents[pair.at].id()))
            .collect();
        let found = match mget::mget(client, &wanted, false).await {
            Ok(found) => found,
            Err(failed) => {
                results[start * MAX_MGET_DOCUMENTS..].fill(DocumentOutcome::Retry(RetryReason::NotAttempted));
                error = Some(failed);
                break;
            }
        };
        for (n, (pair, found)) in chunk.iter().zip(found).enumerate() {
            let n = start * MAX_MGET_DOCUMENTS + n;
            results[n] = match found {
                MgetItem::Missing => JOIN_DONE,
                MgetItem::Failed(_) => DocumentOutcome::Retry(RetryReason::Throttled),
                MgetItem::Found { .. } => match join_pair(client, pair, &documents[pair.at]).await {
                    Ok(outcome) => outcome,
                    Err(failed) => {
                        results[n..].fill(DocumentOutcome::Retry(RetryReason::NotAttempted));
                        error = Some(failed);
                        break 'all;
                    }
                },
            };
        }
    }
    // Of the results of both neighbours the failure counts.
    for (at, outcome) in written.into_iter().zip(own_outcomes) {
        outcomes[at] = outcome;
    }
    for (at, result) in pair_documents.into_iter().zip(results) {
        if result != JOIN_DONE {
            // It is written; the retry will find it.
            documents[at].mark_uncertain();
            outcomes[at] = result;
        }
    }
    error.map_or(Ok(()), Err)
}

/// Two indices in which one trace may have documents.
struct Pair {
    at: usize,
    /// The one in which it was not written.
    other: Arc<DayIndex>,
    earlier: Arc<DayIndex>,
    later: Arc<DayIndex>,
}

/// Joins the two documents of `document`'s trace, if there still are two.
async fn join_pair<D: BulkDocument>(
    client: &Client,
    pair: &Pair,
    document: &D,
) -> Result<DocumentOutcome, RequestError> {
    let id = document.id();
    let (earlier, later) = (&*pair.earlier.index, &*pair.later.index);
    for round in 0..MAX_CAS_ROUNDS {
        if round > 0 {
            tokio::time::sleep(contention_pause(round)).await;
        }
        let mut found = mget::mget(client, &[(earlier, id), (later, id)], true)
            .await?
            .into_iter();
        let (into, from, old, new) = match (found.next(), found.next()) {
            (
                Some(MgetItem::Found {
                    version: into,
                    source: old,
                }),
                Some(MgetItem::Found {
                    version: from,
                    source: new,
                }),
            ) => (into, from, old, new),
            // One is left: usually another writer joined them. Check that it contains ours.
            (Some(MgetItem::Found { source, .. }), Some(MgetItem::Missing))
            | (Some(MgetItem::Missing), Some(MgetItem::Found { source, .. })) => {
                return Ok(match client.format.union_of(&source, document.json(), id) {
                    Ok(BoundedUnion {
                        main: Union::Unchanged,
                        continuations,
                    }) if continuations.is_empty() => JOIN_DONE,
                    _ => DocumentOutcome::Retry(RetryReason::Contended),
                });
            }
            // Both were deleted: create and look up again.
            (Some(MgetItem::Missing), Some(MgetItem::Missing)) => {
                return Ok(DocumentOutcome::Retry(RetryReason::Contended));
            }
            // A shard is unavailable.
            _ => return Ok(DocumentOutcome::Retry(RetryReason::Throttled)),
        };
        // A foreign document with our id is not joined.
        let Ok(union) = client.format.union_of(&old, &new, id) else {
            return Ok(JOIN_DONE);
        };
        match union.main {
            Union::Unchanged => {}
            Union::Merged { document: json, .. } => {
                let mut body = Vec::with_capacity(json.len() + id.len() + 128);
                bulk::put_replace(&mut body, earlier, id, into, &json);
                match execute(client, body).await? {
                    None => continue,
                    Some(DocumentOutcome::Stored(_)) => {}
                    Some(DocumentOutcome::Rejected(Rejection { status, kind, reason })) => {
                        return Ok(DocumentOutcome::Rejected(Rejection {
                            status,
                            kind,
                            reason: format!(
                                "the union of the documents in {earlier} and {later} was rejected; both stay: {reason}"
                            ),
                        }));
                    }
                    Some(other) => return Ok(other),
                }
            }
        }
        if let (Some(outcome), _) = write_continuations(client, union.continuations).await? {
            return Ok(outcome);
        }
        let mut body = Vec::with_capacity(id.len() + 128);
        bulk::put_delete(&mut body, later, id, from);
        match execute(client, body).await? {
            None => {}
            Some(DocumentOutcome::Stored(_)) => {
                Stats::add(&client.stats.day_joins, 1);
                return Ok(JOIN_DONE);
            }
            Some(other) => return Ok(other),
        }
    }
    Ok(DocumentOutcome::Retry(RetryReason::Contended))
}

/// Executes one bulk action; `None` for a conflict.
async fn execute(client: &Client, body: Vec<u8>) -> Result<Option<DocumentOutcome>, RequestError> {
    match client.bulk(body.into(), 1).await? {
        BulkResponse::AllOk => Ok(Some(JOIN_DONE)),
        BulkResponse::Items(items) => match items.into_iter().next() {
            // The document was deleted already. (404 without an error; a missing index has one.)
            Some(ItemResult {
                status: 404, kind, ..
            }) if kind.is_empty() => Ok(Some(JOIN_DONE)),
            Some(item) => Ok(client.outcome_of(item)),
            None => Ok(Some(DocumentOutcome::Retry(RetryReason::Throttled))),
        },
    }
}
