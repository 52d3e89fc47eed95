//! Join over indices: merges documents of one trace in the indices of two neighbouring days, or in
//! several generations of a rollover alias or of a data stream.
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
//! **Generations.** The same holds for the indices behind a rollover alias or a data stream, where the
//! older one wins: see [`super::generations`] for which of them can hold a part of a trace, and
//! [`super::settle`] for nodes that do not know of a rollover yet. A record without a trace can be in
//! two of them when it was written again after a rollover; the later one is deleted.

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
use super::settle::Unsettled;
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
    document.is_trace() && index_pattern::near_boundary(document.first_ns(), client.trace_life)
        || client.targets.any_generations() && {
            let all = indices(client, document);
            let is_new = |place: &Arc<str>| all[..] != [place.clone()];
            all.len() > 1 || batch.places.get(&at).is_some_and(is_new)
        }
}

/// The indices in which a document may be, the oldest first.
fn indices<D: BulkDocument>(client: &Client, document: &D) -> Vec<Arc<str>> {
    // A record without a trace has no parts with other times.
    let life = document.is_trace().then_some(client.trace_life);
    indices_of(client, document.destination(), document.first_ns(), life)
}

/// The indices in which a document of a destination may be whose first event known here is at
/// `first_ns`, the oldest first. `life`: how far from it other parts of its trace may begin.
pub(super) fn indices_of(
    client: &Client,
    destination: DestinationId,
    first_ns: i64,
    life: Option<std::time::Duration>,
) -> Vec<Arc<str>> {
    let indices = client.destinations.indices(destination);
    let names = [
        life.and_then(|life| indices.before(first_ns, life)),
        Some(indices.of(first_ns)),
        life.and_then(|life| indices.after(first_ns, life)),
    ];
    let mut all = Vec::new();
    for name in names.into_iter().flatten() {
        match client.targets.known(&name.index) {
            Target::Generations(generations) => {
                let candidates = generations.candidates(first_ns, client.trace_life);
                all.extend(candidates.into_iter().map(Arc::<str>::from));
            }
            Target::Index | Target::Missing | Target::Unusable(_) => all.push(Arc::from(&*name.index)),
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
    let looks: Vec<Look> = written.iter().map(|&at| Look::of(client, batch, at)).collect();
    // Until the other indices are read, they do not count as stored.
    let not_attempted = DocumentOutcome::Retry(RetryReason::NotAttempted);
    let mut own_outcomes = Vec::with_capacity(written.len());
    for &at in &written {
        own_outcomes.push(std::mem::replace(&mut batch.outcomes[at], not_attempted.clone()));
    }
    let mut results = Vec::with_capacity(looks.len());
    let done = join_looks(client, batch, &looks, &mut results).await;
    results.resize(looks.len(), not_attempted);
    for ((at, own), result) in written.into_iter().zip(own_outcomes).zip(results) {
        batch.outcomes[at] = if result == JOIN_DONE {
            own
        } else {
            // It is written; the retry will find it.
            batch.documents[at].mark_uncertain();
            result
        };
    }
    done
}

/// Where a written document is, and where siblings of it may be.
struct Look {
    at: usize,
    destination: DestinationId,
    is_trace: bool,
    /// All of these indices, the oldest first.
    indices: Vec<Arc<str>>,
    /// The position of the one that holds it.
    own: usize,
}

impl Look {
    fn of<D: BulkDocument>(client: &Client, batch: &Upsert<'_, D>, at: usize) -> Self {
        let document = &batch.documents[at];
        let place = batch.place(client, at);
        let mut indices = indices(client, document);
        // An index that is not among them is newer: there was a rollover, which the store does not
        // show yet.
        let own = indices.iter().position(|index| *index == place);
        let own = own.unwrap_or_else(|| {
            client.targets.doubt(&batch.name(client, at));
            indices.push(place);
            indices.len() - 1
        });
        Self {
            at,
            destination: document.destination(),
            is_trace: document.is_trace(),
            indices,
            own,
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.indices.len()).filter(|n| *n != self.own)
    }
}

/// Looks, and joins what is found. Adds one result for each look that was done.
async fn join_looks<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    looks: &[Look],
    results: &mut Vec<DocumentOutcome>,
) -> Result<(), RequestError> {
    let mut rest = looks;
    while !rest.is_empty() {
        let mut lookups = 0;
        let fits = rest.iter().take_while(|look| {
            lookups += look.indices.len() - 1;
            lookups <= MAX_MGET_DOCUMENTS
        });
        let (chunk, more) = rest.split_at(fits.count().max(1));
        rest = more;
        let wanted: Vec<_> = chunk
            .iter()
            .flat_map(|look| {
                let id = batch.documents[look.at].id();
                look.others().map(move |n| (&*look.indices[n], id))
            })
            .collect();
        let found = if wanted.is_empty() {
            Vec::new()
        } else {
            mget::mget(client, &wanted, Fields::None).await?
        };
        let mut found = found.into_iter();
        for look in chunk {
            let others: Vec<_> = look.others().zip(found.by_ref()).collect();
            results.push(join_found(client, batch, look, others).await?);
        }
    }
    Ok(())
}

/// Joins a document with the siblings that were found, all into the earliest.
async fn join_found<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    look: &Look,
    others: Vec<(usize, MgetItem)>,
) -> Result<DocumentOutcome, RequestError> {
    let mut holders = Vec::new();
    for (n, item) in others {
        match item {
            MgetItem::Missing => {}
            MgetItem::Failed { kind, reason } => {
                return Ok(unreadable(client, &look.indices[n], &kind, &reason));
            }
            MgetItem::Found { .. } => holders.push(n),
        }
    }
    if holders.is_empty() {
        return Ok(JOIN_DONE);
    }
    holders.push(look.own);
    holders.sort_unstable();
    let earliest = holders[0];
    for &later in &holders[1..] {
        let pair = Pair {
            destination: look.destination,
            is_trace: look.is_trace,
            has_ours: [earliest, later].contains(&look.own),
            earlier: look.indices[earliest].clone(),
            later: look.indices[later].clone(),
        };
        let mut joined = Joined::default();
        let id = batch.documents[look.at].id();
        let outcome = join_pair(client, &pair, id, batch.json(look.at), &mut joined).await?;
        let Joined { left, unsettled } = joined;
        batch.note_unsettled_of(look.at, unsettled);
        if let Some(left) = left {
            batch.note_left(client, look.at, || left);
        }
        if outcome != JOIN_DONE {
            return Ok(outcome);
        }
    }
    Ok(JOIN_DONE)
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
    destination: DestinationId,
    is_trace: bool,
    /// The document in hand was written to one of them.
    has_ours: bool,
    earlier: Arc<str>,
    later: Arc<str>,
}

/// What a join leaves.
#[derive(Default)]
struct Joined {
    /// What is stored at the end, if that was read or written.
    left: Option<Bytes>,
    unsettled: Vec<Unsettled>,
}

/// Joins the two documents of a trace, if there still are two. `ours` is the document in hand.
async fn join_pair(
    client: &Client,
    pair: &Pair,
    id: &str,
    ours: &[u8],
    joined: &mut Joined,
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
                if !pair.is_trace || !pair.has_ours {
                    return Ok(JOIN_DONE);
                }
                return Ok(match client.format.union_of(&source, ours, id) {
                    Ok(BoundedUnion {
                        main: Union::Unchanged,
                        continuations,
                    }) if continuations.is_empty() => {
                        joined.left = Some(source);
                        JOIN_DONE
                    }
                    _ => DocumentOutcome::Retry(RetryReason::Contended),
                });
            }
            // Both were deleted: create and look up again.
            (Some(MgetItem::Missing), Some(MgetItem::Missing)) if pair.has_ours => {
                return Ok(DocumentOutcome::Retry(RetryReason::Contended));
            }
            (Some(MgetItem::Failed { kind, reason }), _) => {
                return Ok(unreadable(client, earlier, &kind, &reason));
            }
            (_, Some(MgetItem::Failed { kind, reason })) => {
                return Ok(unreadable(client, later, &kind, &reason));
            }
            (Some(MgetItem::Missing), Some(MgetItem::Missing)) => return Ok(JOIN_DONE),
            _ => return Ok(DocumentOutcome::Retry(RetryReason::Throttled)),
        };
        let union = if pair.is_trace {
            client.format.union_of(&old, &new, id)
        } else {
            // The same record, written twice.
            Ok(BoundedUnion::without_continuations(Union::Unchanged))
        };
        // A foreign document with our id is not joined.
        let Ok(union) = union else {
            return Ok(JOIN_DONE);
        };
        match union.main {
            Union::Unchanged => joined.left = Some(old.clone()),
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
                joined.left = Some(json.into());
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
        let written = write_continuations(client, pair.destination, union.continuations).await?;
        joined.unsettled.extend(written.2);
        if let Some(outcome) = written.0 {
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
