//! Join over indices: merges two documents of one trace in the indices of two neighbouring days, or
//! in two indices of a rollover alias.
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
//! before the later document is deleted. The day of a continuation depends on its own lines only.
//!
//! The rule reaches one day to each side: a trace's longest life is bounded by 12 hours.
//!
//! **Rollover aliases.** The same holds for the indices behind an alias, where the older one wins:
//! see [`super::target`] for which of them can hold a part of a trace.

use std::sync::Arc;

use bytes::Bytes;

use super::backoff::contention_pause;
use super::bulk::{self, BulkDocument, BulkResponse, ItemResult};
use super::client::{Client, Verdict};
use super::heal::Healing;
use super::index_pattern;
use super::merge::write_continuations;
use super::mget::{self, Fields, MgetItem};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult, is_read_blocked};
use super::stats::Stats;
use super::target::Target;
use super::upsert::Upsert;
use crate::output::DestinationId;
use windrow_trace::{BoundedUnion, Union};

/// Documents looked up in one `_mget`. Few have a sibling, so no source is read.
const MAX_MGET_DOCUMENTS: usize = 1000;

/// Nothing is left to join. How the document itself was stored is known from its own write.
const JOIN_DONE: DocumentOutcome = DocumentOutcome::Stored(StoreResult::Unchanged);

/// Compare-and-set rounds before a document returns to the queue.
const MAX_CAS_ROUNDS: u32 = 8;

/// Whether document number `at` may have a sibling in another index. Cheap where names stand for
/// indices: called for every document.
pub(crate) fn may_have_siblings<D: BulkDocument>(client: &Client, batch: &Upsert<'_, D>, at: usize) -> bool {
    let document = &batch.documents[at];
    if !document.is_trace() {
        return false;
    }
    index_pattern::near_boundary(document.first_ns(), client.trace_life)
        || client.targets.any_generations() && {
            let all = indices(client, document);
            let is_new = |place: &Arc<str>| all[..] != [place.clone()];
            all.len() > 1 || batch.places.get(&at).is_some_and(is_new)
        }
}

/// The indices in which the trace of a document may be, the oldest first.
fn indices<D: BulkDocument>(client: &Client, document: &D) -> Vec<Arc<str>> {
    indices_of(client, document.destination(), document.first_ns())
}

/// The indices in which a trace of a destination may be, of which a part begins at `first_ns`, the
/// oldest first.
pub(super) fn indices_of(client: &Client, destination: DestinationId, first_ns: i64) -> Vec<Arc<str>> {
    let indices = client.destinations.indices(destination);
    let names = [
        indices.before(first_ns, client.trace_life),
        Some(indices.of(first_ns)),
        indices.after(first_ns, client.trace_life),
    ];
    let mut all = Vec::new();
    for name in names.into_iter().flatten() {
        match client.targets.known(&name.index) {
            target @ Target::Generations(_) => {
                let candidates = target.candidates(first_ns, client.trace_life);
                all.extend(candidates.into_iter().map(Arc::<str>::from));
            }
            Target::Index | Target::Unusable(_) => all.push(Arc::from(&*name.index)),
        }
    }
    all
}

/// Looks for siblings of the written documents at the positions `written` and joins them. Sets
/// their outcomes back to a retry where that fails.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome
/// [`RetryReason::NotAttempted`].
pub(crate) async fn join_all<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    written: Vec<usize>,
) -> Result<(), RequestError> {
    let mut pairs = Vec::new();
    let mut own_outcomes = Vec::with_capacity(written.len());
    for &at in &written {
        let own = batch.place(client, at);
        let all = indices(client, &batch.documents[at]);
        // An index that is not among them is newer: the alias was rolled over since it was looked
        // at.
        let position = all.iter().position(|index| *index == own).unwrap_or(all.len());
        if position == all.len() {
            client.targets.doubt(&batch.name(client, at));
        }
        for (n, other) in all.into_iter().enumerate().filter(|(n, _)| *n != position) {
            let (earlier, later) = if n < position {
                (other.clone(), own.clone())
            } else {
                (own.clone(), other.clone())
            };
            pairs.push(Pair {
                at,
                destination: batch.documents[at].destination(),
                other,
                earlier,
                later,
            });
        }
        // Until its neighbours are read, it does not count as stored.
        own_outcomes.push(std::mem::replace(
            &mut batch.outcomes[at],
            DocumentOutcome::Retry(RetryReason::NotAttempted),
        ));
    }
    let pair_documents: Vec<usize> = pairs.iter().map(|pair| pair.at).collect();
    let mut results = vec![JOIN_DONE; pairs.len()];
    let mut error = None;
    'all: for (start, chunk) in pairs.chunks(MAX_MGET_DOCUMENTS).enumerate() {
        let wanted: Vec<_> = chunk
            .iter()
            .map(|pair| (&*pair.other, batch.documents[pair.at].id()))
            .collect();
        let found = match mget::mget(client, &wanted, Fields::None).await {
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
                MgetItem::Failed { kind, reason } => unreadable(client, &pair.other, &kind, &reason),
                MgetItem::Found { .. } => {
                    let mut left = None;
                    let id = batch.documents[pair.at].id();
                    match join_pair(client, pair, id, batch.json(pair.at), &mut left).await {
                        Ok(outcome) => {
                            if let Some(left) = left {
                                batch.note_left(client, pair.at, || left);
                            }
                            outcome
                        }
                        Err(failed) => {
                            results[n..].fill(DocumentOutcome::Retry(RetryReason::NotAttempted));
                            error = Some(failed);
                            break 'all;
                        }
                    }
                }
            };
        }
    }
    // Of the results of both neighbours the failure counts.
    for (at, outcome) in written.into_iter().zip(own_outcomes) {
        batch.outcomes[at] = outcome;
    }
    for (at, result) in pair_documents.into_iter().zip(results) {
        if result != JOIN_DONE {
            // It is written; the retry will find it.
            batch.documents[at].mark_uncertain();
            batch.outcomes[at] = result;
        }
    }
    error.map_or(Ok(()), Err)
}

/// The outcome of a document whose sibling could not be read.
fn unreadable(client: &Client, index: &str, kind: &str, reason: &str) -> DocumentOutcome {
    if is_read_blocked(kind) {
        DocumentOutcome::Blocked(format!("{index} cannot be read: {reason}"))
    } else {
        client
            .watch
            .failed(index, format!("an existing document cannot be read: {reason}"));
        DocumentOutcome::Retry(RetryReason::Throttled)
    }
}

/// Two indices in which one trace may have documents.
struct Pair {
    at: usize,
    destination: DestinationId,
    /// The one in which it was not written.
    other: Arc<str>,
    earlier: Arc<str>,
    later: Arc<str>,
}

/// Joins the two documents of a trace, if there still are two. `ours` is the document in hand; what
/// is stored at the end is put into `left`.
async fn join_pair(
    client: &Client,
    pair: &Pair,
    id: &str,
    ours: &[u8],
    left: &mut Option<Bytes>,
) -> Result<DocumentOutcome, RequestError> {
    let (earlier, later) = (&*pair.earlier, &*pair.later);
    for round in 0..MAX_CAS_ROUNDS {
        if round > 0 {
            tokio::time::sleep(contention_pause(round)).await;
        }
        let mut found = mget::mget(client, &[(earlier, id), (later, id)], Fields::All)
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
                return Ok(match client.format.union_of(&source, ours, id) {
                    Ok(BoundedUnion {
                        main: Union::Unchanged,
                        continuations,
                    }) if continuations.is_empty() => {
                        *left = Some(source);
                        JOIN_DONE
                    }
                    _ => DocumentOutcome::Retry(RetryReason::Contended),
                });
            }
            // Both were deleted: create and look up again.
            (Some(MgetItem::Missing), Some(MgetItem::Missing)) => {
                return Ok(DocumentOutcome::Retry(RetryReason::Contended));
            }
            (Some(MgetItem::Failed { kind, reason }), _) => {
                return Ok(unreadable(client, earlier, &kind, &reason));
            }
            (_, Some(MgetItem::Failed { kind, reason })) => {
                return Ok(unreadable(client, later, &kind, &reason));
            }
            _ => return Ok(DocumentOutcome::Retry(RetryReason::Throttled)),
        };
        // A foreign document with our id is not joined.
        let Ok(union) = client.format.union_of(&old, &new, id) else {
            return Ok(JOIN_DONE);
        };
        match union.main {
            Union::Unchanged => *left = Some(old.clone()),
            Union::Merged {
                document: mut json, ..
            } => {
                let mut healing = Healing::default();
                let written = loop {
                    let mut body = Vec::with_capacity(json.len() + id.len() + 128);
                    bulk::put_replace(&mut body, earlier, id, into, &json);
                    match execute(client, earlier, body).await? {
                        Verdict::Refused(item) => match healing.next(client, earlier, &json, &item).await {
                            Some(healed) => json = healed.into(),
                            None => break Some(client.refusal(item)),
                        },
                        Verdict::Conflict => break None,
                        Verdict::Outcome(outcome) => break Some(outcome),
                    }
                };
                *left = Some(json.into());
                match written {
                    None => continue,
                    Some(DocumentOutcome::Stored(_)) if healing.has_moved() => client.stats.healed(),
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
        if let (Some(outcome), _) = write_continuations(client, pair.destination, union.continuations).await?
        {
            return Ok(outcome);
        }
        let mut body = Vec::with_capacity(id.len() + 128);
        bulk::put_delete(&mut body, later, id, from);
        match execute(client, later, body).await? {
            Verdict::Conflict => {}
            Verdict::Outcome(DocumentOutcome::Stored(_)) => {
                Stats::add(&client.stats.day_joins, 1);
                return Ok(JOIN_DONE);
            }
            Verdict::Outcome(other) => return Ok(other),
            Verdict::Refused(item) => return Ok(client.refusal(item)),
        }
    }
    Ok(DocumentOutcome::Retry(RetryReason::Contended))
}

/// Executes one bulk action on an index.
async fn execute(client: &Client, index: &str, body: Vec<u8>) -> Result<Verdict, RequestError> {
    let done = Verdict::Outcome(JOIN_DONE);
    match client.bulk(body.into(), 1).await? {
        BulkResponse::AllOk => Ok(done),
        BulkResponse::Items(items) => match items.into_iter().next() {
            // The document was deleted already. (404 without an error; a missing index has one.)
            Some(ItemResult {
                status: 404, kind, ..
            }) if kind.is_empty() => Ok(done),
            Some(item) => Ok(client.judge(index, item)),
            None => Ok(Verdict::Outcome(DocumentOutcome::Retry(RetryReason::Throttled))),
        },
    }
}
