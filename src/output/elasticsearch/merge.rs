//! Merge with existing documents: read, unite, write back by compare-and-set.
//!
//! Uses no scripts, so it works on Elasticsearch 7.17 to 9 and OpenSearch.
//!
//! It is safe to stop at any point: each step leaves either the old document or one that contains
//! more of ours, and the union of a document with a part that it contains is that document. A
//! document that is returned as [`DocumentOutcome::Retry`] is created again, which conflicts and
//! leads here.
//!
//! The document is read in the index that the conflict names, if it does: behind an alias or an
//! ingest pipeline that is not the index of its day.

mod continuations;

use std::sync::Arc;

use bytes::Bytes;

use super::backoff::contention_pause;
use super::bulk::{self, BulkDocument, BulkResponse, Version};
use super::client::{Client, Verdict};
use super::heal::Healing;
use super::mget::{self, Fields, MgetItem};
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason, StoreResult, is_read_blocked};
use super::stats::Stats;
use super::upsert::Upsert;
use crate::runtime::block_in_place;
use windrow_trace::{BoundedUnion, Continuation, Union};

pub(super) use self::continuations::write_continuations;

/// Documents read in one `_mget`.
const MAX_MGET_DOCUMENTS: usize = 256;
/// Bytes of our side of these documents; `_mget` bounds the other side.
const MAX_MGET_BYTES: usize = 4 << 20;

/// Compare-and-set rounds before a contended document returns to the queue.
const MAX_CAS_ROUNDS: u32 = 6;

/// A document that exists for writes but cannot be read is reported after this many rounds.
const MAX_MISSES: u32 = 3;

/// Merges the documents at the positions `pending`, and sets their outcomes.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome
/// [`RetryReason::NotAttempted`].
pub(crate) async fn merge<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    pending: Vec<usize>,
) -> Result<(), RequestError> {
    let mut pending: Vec<(usize, u32)> = pending.into_iter().map(|at| (at, 0)).collect();
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
            let fits = rest.iter().take(MAX_MGET_DOCUMENTS).take_while(|&&(at, _)| {
                bytes += batch.json(at).len();
                bytes <= MAX_MGET_BYTES
            });
            let (chunk, more) = rest.split_at(fits.count().max(1));
            rest = more;
            merge_chunk(client, batch, chunk, &mut conflicts).await?;
        }
        for &(at, _) in &conflicts {
            batch.outcomes[at] = DocumentOutcome::Retry(RetryReason::Contended);
        }
        pending = conflicts;
    }
    Ok(())
}

/// One round for one chunk. New conflicts are added to `conflicts`.
async fn merge_chunk<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    chunk: &[(usize, u32)],
    conflicts: &mut Vec<(usize, u32)>,
) -> Result<(), RequestError> {
    let places: Vec<_> = chunk.iter().map(|&(at, _)| batch.place(client, at)).collect();
    let wanted: Vec<_> = chunk
        .iter()
        .zip(&places)
        .map(|(&(at, _), place)| (&**place, batch.documents[at].id()))
        .collect();
    let found = mget::mget(client, &wanted, Fields::All).await?;
    let found = chunk.iter().copied().zip(places).zip(found);
    let (writes, continuations) = block_in_place(|| unite(client, batch, found));
    // Two parts of one trace in a chunk were merged with the same version: one wins, the other
    // conflicts.
    let mut writes = writes.into_iter().peekable();
    while writes.peek().is_some() {
        let mut bytes = 0;
        let mut some = Vec::new();
        while let Some(write) =
            writes.next_if(|write| some.is_empty() || bytes + write.json.len() <= 2 * MAX_MGET_BYTES)
        {
            bytes += write.json.len();
            some.push(write);
        }
        write_back(client, batch, some, conflicts).await?;
    }
    for one in continuations {
        // Only once the existing document takes no further lines.
        if let DocumentOutcome::Stored(_) = batch.outcomes[one.at] {
            one.write(client, batch).await?;
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
        batch: &mut Upsert<'_, D>,
    ) -> Result<(), RequestError> {
        let document = &batch.documents[self.at];
        let not_attempted = DocumentOutcome::Retry(RetryReason::NotAttempted);
        let stored = std::mem::replace(&mut batch.outcomes[self.at], not_attempted);
        let written = write_continuations(client, document.destination(), self.continuations).await;
        let (outcome, lines, unsettled) = written.inspect_err(|_| document.mark_uncertain())?;
        batch.note_unsettled_of(self.at, unsettled);
        match outcome {
            None if self.new_lines + lines == 0 => document.mark_unchanged(),
            None => document.mark_merged(self.new_lines + lines),
            Some(_) => document.mark_uncertain(),
        }
        batch.outcomes[self.at] = outcome.unwrap_or(stored);
        Ok(())
    }
}

/// The union of each document with the existing one. Sets the outcomes of those that need no write
/// of it. Returns the writes, and the continuations to write after them.
fn unite<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    found: impl Iterator<Item = (((usize, u32), Arc<str>), MgetItem)>,
) -> (Vec<PendingWrite>, Vec<PendingContinuations>) {
    let (mut writes, mut all_continuations) = (Vec::new(), Vec::new());
    for (((at, misses), index), found) in found {
        let document = &batch.documents[at];
        let mut write = |misses, version, json| {
            writes.push(PendingWrite {
                at,
                misses,
                index: index.clone(),
                version,
                json,
                healing: Healing::default(),
            });
        };
        match found {
            MgetItem::Failed { kind, reason } if is_read_blocked(&kind) => {
                batch.outcomes[at] = DocumentOutcome::Blocked(format!("{index} cannot be read: {reason}"));
            }
            // It was deleted meanwhile, or the name stands for several indices: a create says where
            // it is.
            MgetItem::Failed { kind, .. } if kind == "illegal_argument_exception" => {
                client.targets.doubt(&index);
                write(misses, None, batch.json(at).to_vec());
            }
            MgetItem::Missing if misses < MAX_MISSES => write(misses + 1, None, batch.json(at).to_vec()),
            MgetItem::Missing => {
                client.targets.doubt(&index);
                batch.outcomes[at] = DocumentOutcome::Blocked(format!(
                    "{index}: creating document {:?} conflicts with one that exists, but reading it there finds none; \
                     look for an ingest pipeline that moves documents, or an alias that changed",
                    document.id()
                ));
            }
            MgetItem::Failed { reason, .. } => {
                client
                    .watch
                    .failed(&index, format!("an existing document cannot be read: {reason}"));
                batch.outcomes[at] = DocumentOutcome::Retry(RetryReason::Throttled);
            }
            MgetItem::Found { version, source } => {
                let union = client.format.union_of(&source, batch.json(at), document.id());
                let BoundedUnion { main, continuations } = match union {
                    Ok(union) => union,
                    Err(why) => {
                        batch.outcomes[at] = DocumentOutcome::Rejected(not_ours(&index, &why));
                        continue;
                    }
                };
                let mut added = 0;
                match main {
                    Union::Unchanged => {
                        document.mark_unchanged();
                        batch.note_left(client, at, || source);
                        batch.outcomes[at] = DocumentOutcome::Stored(StoreResult::Unchanged);
                    }
                    Union::Merged {
                        document: json,
                        new_lines,
                    } => {
                        document.mark_merged(new_lines);
                        added = new_lines;
                        write(misses, Some(version), json);
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
struct PendingWrite {
    at: usize,
    /// How often it conflicted and was not found.
    misses: u32,
    index: Arc<str>,
    /// The version to replace; `None` creates.
    version: Option<Version>,
    json: Vec<u8>,
    healing: Healing,
}

async fn write_back<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    writes: Vec<PendingWrite>,
    conflicts: &mut Vec<(usize, u32)>,
) -> Result<(), RequestError> {
    let mut body = Vec::with_capacity(writes.iter().map(|write| write.json.len() + 256).sum());
    for write in &writes {
        let id = batch.documents[write.at].id();
        match write.version {
            Some(version) => bulk::put_replace(&mut body, &write.index, id, version, &write.json),
            None => bulk::put_create(&mut body, &batch.name(client, write.at), id, &write.json),
        }
    }
    let located = writes.iter().any(|write| write.version.is_none());
    let answer = if located {
        client.bulk_located(body.into(), writes.len()).await
    } else {
        client.bulk(body.into(), writes.len()).await
    };
    let answer = match answer {
        Err(RequestError::TooLarge(reason)) => {
            if let [one] = &writes[..] {
                batch.outcomes[one.at] = DocumentOutcome::Rejected(Rejection {
                    status: 413,
                    kind: "merged_document_too_large".into(),
                    reason: format!(
                        "the union with the existing document has {} bytes: {reason}",
                        one.json.len()
                    ),
                });
                return Ok(());
            }
            let mut first = writes;
            let second = first.split_off(first.len() / 2);
            Box::pin(write_back(client, batch, first, conflicts)).await?;
            return Box::pin(write_back(client, batch, second, conflicts)).await;
        }
        Err(error) => {
            if error.may_have_applied() {
                writes
                    .iter()
                    .for_each(|write| batch.documents[write.at].mark_uncertain());
            }
            return Err(error);
        }
        Ok(answer) => answer,
    };
    let mut items = match answer {
        BulkResponse::AllOk => None,
        BulkResponse::Items(items) => Some(items.into_iter()),
    };
    let mut healed = Vec::new();
    for mut write in writes {
        let item = items.as_mut().and_then(Iterator::next);
        let place = item.as_ref().and_then(|item| Some(Arc::from(item.place()?)));
        let verdict = item.map_or(
            Verdict::Outcome(DocumentOutcome::Stored(StoreResult::Created)),
            |item| client.judge(&write.index, item),
        );
        if let Some(place) = place {
            batch.places.insert(write.at, place);
        }
        match verdict {
            Verdict::Conflict => conflicts.push((write.at, write.misses)),
            Verdict::Refused(item) => {
                match write.healing.next(client, &write.index, &write.json, &item).await {
                    Some(json) => {
                        client.prepare(&write.index).await;
                        write.json = json.into();
                        healed.push(write);
                    }
                    None => batch.outcomes[write.at] = client.refusal(item),
                }
            }
            Verdict::Outcome(DocumentOutcome::Stored(_)) => {
                if write.healing.has_moved() {
                    client.stats.healed();
                }
                batch.note_left(client, write.at, || Bytes::from(std::mem::take(&mut write.json)));
                let merged = write.version.is_some();
                if merged {
                    Stats::add(&client.stats.merges, 1);
                }
                batch.outcomes[write.at] = DocumentOutcome::Stored(if merged {
                    StoreResult::Merged
                } else {
                    StoreResult::Created
                });
            }
            Verdict::Outcome(outcome) => batch.outcomes[write.at] = outcome,
        }
    }
    if healed.is_empty() {
        return Ok(());
    }
    Box::pin(write_back(client, batch, healed, conflicts)).await
}

fn not_ours(index: &str, why: &windrow_trace::UnionError) -> Rejection {
    Rejection {
        status: 409,
        kind: "not_a_windrow_document".into(),
        reason: format!("{index} contains a foreign document with this id, which was not changed: {why}"),
    }
}
