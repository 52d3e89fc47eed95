//! What exists already: read it, take the union, write it back against exactly the version that was read. Owns the
//! compare-and-set loop. No scripting, so it works on Elasticsearch 7.17 to 9 and OpenSearch.
//!
//! Why it is safe to give up at any point: each step leaves either the document as it was or one that holds more
//! of ours, and the union of a document with what it holds already is that document. Whoever gives a document back
//! as [`Outcome::Again`] has it created again, which conflicts, which comes here.

use std::time::Duration;

use bytes::BytesMut;

use super::bulk::{self, Answer, Document, Version};
use super::cluster::{Again, Cluster, Done, Outcome, Rejection, decide};
use super::index::Indices;
use super::outcome::Problem;
use super::read::{self, Found};
use super::stats::Stats;
use crate::runtime::block_in_place;
use windrow_trace::Union;

/// Documents and bytes of ours in one read; what is read may be longer, see [`read::mget`].
const CHUNK_DOCUMENTS: usize = 256;
const CHUNK_BYTES: usize = 4 << 20;

/// Rounds of compare-and-set before a document goes back to the queue: others write it too.
const ROUNDS: u32 = 6;

/// Merges `documents[at]` for each `at` of `pending`; their outcomes are set.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome [`Again::NotReached`].
pub(crate) async fn merge<D: Document>(
    cluster: &Cluster,
    documents: &[D],
    pending: Vec<usize>,
    outcomes: &mut [Outcome],
) -> Result<(), Problem> {
    let mut pending = pending;
    for round in 0..ROUNDS {
        if pending.is_empty() {
            break;
        }
        if round > 0 {
            // Others are at the same documents: let them finish, each after another time.
            tokio::time::sleep(super::flow::full_jitter(
                Duration::from_millis(10),
                Duration::from_millis(200),
                round,
            ))
            .await;
        }
        let mut conflicts = Vec::new();
        let mut rest = &pending[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(CHUNK_DOCUMENTS).take_while(|&&at| {
                bytes += documents[at].json().len();
                bytes <= CHUNK_BYTES
            });
            let (chunk, more) = rest.split_at(fits.count().max(1));
            rest = more;
            merge_chunk(cluster, documents, chunk, outcomes, &mut conflicts).await?;
        }
        for &at in &conflicts {
            outcomes[at] = Outcome::Again(Again::Contended);
        }
        pending = conflicts;
    }
    Ok(())
}

/// One round for one chunk. What conflicts again is added to `conflicts`.
async fn merge_chunk<D: Document>(
    cluster: &Cluster,
    documents: &[D],
    chunk: &[usize],
    outcomes: &mut [Outcome],
    conflicts: &mut Vec<usize>,
) -> Result<(), Problem> {
    let days: Vec<_> = chunk
        .iter()
        .map(|&at| cluster.indices.day(Indices::day_of(documents[at].first_ns())))
        .collect();
    let wanted: Vec<_> = chunk
        .iter()
        .zip(&days)
        .map(|(&at, day)| (&*day.index, documents[at].id()))
        .collect();
    let found = read::mget(cluster, &wanted, true).await?;

    let found = chunk.iter().zip(wanted).zip(found);
    let writes = block_in_place(|| unite(cluster, documents, found, outcomes));
    // Of two parts of one trace in one chunk both were merged with the same version: one wins, the other comes again.
    let mut writes = &writes[..];
    while !writes.is_empty() {
        let mut bytes = 0;
        let fits = writes.iter().take_while(|write| {
            bytes += write.json.len();
            bytes <= 2 * CHUNK_BYTES
        });
        let (some, more) = writes.split_at(fits.count().max(1));
        writes = more;
        write_back(cluster, documents, some, outcomes, conflicts).await?;
    }
    Ok(())
}

/// The union of each document with the one that is there. What there is nothing to write for is settled.
fn unite<'a, D: Document>(
    cluster: &Cluster,
    documents: &[D],
    found: impl Iterator<Item = ((&'a usize, (&'a str, &'a str)), Found)>,
    outcomes: &mut [Outcome],
) -> Vec<Write<'a>> {
    let mut writes = Vec::new();
    for ((&at, (index, id)), found) in found {
        let document = &documents[at];
        match found {
            Found::Failed(reason) => {
                tracing::debug!(%reason, "an existing document could not be read");
                outcomes[at] = Outcome::Again(Again::TurnedAway);
            }
            // Someone deleted it meanwhile.
            Found::Missing => writes.push(Write {
                at,
                index,
                id,
                version: None,
                json: document.json().to_vec(),
            }),
            Found::Here { version, source } => match (cluster.rules.union)(&source, document.json()) {
                Ok(Union::Unchanged) => {
                    document.unchanged();
                    outcomes[at] = Outcome::Done(Done::Unchanged);
                }
                Ok(Union::Merged {
                    document: json,
                    new_lines,
                }) => {
                    document.joined(new_lines);
                    writes.push(Write {
                        at,
                        index,
                        id,
                        version: Some(version),
                        json,
                    });
                }
                Err(why) => outcomes[at] = Outcome::Rejected(not_ours(index, &why)),
            },
        }
    }
    writes
}

/// One document to be written back.
struct Write<'a> {
    at: usize,
    index: &'a str,
    id: &'a str,
    /// The version to replace; `None` creates.
    version: Option<Version>,
    json: Vec<u8>,
}

async fn write_back<D: Document>(
    cluster: &Cluster,
    documents: &[D],
    writes: &[Write<'_>],
    outcomes: &mut [Outcome],
    conflicts: &mut Vec<usize>,
) -> Result<(), Problem> {
    let mut body = BytesMut::with_capacity(writes.iter().map(|w| w.json.len() + w.id.len() + 128).sum());
    for write in writes {
        match write.version {
            Some(version) => bulk::put_replace(&mut body, write.index, write.id, version, &write.json),
            None => bulk::put_create(&mut body, write.index, write.id, &write.json),
        }
    }
    let answer = match cluster.bulk(body.freeze(), writes.len()).await {
        Err(Problem::TooLarge(reason)) => match writes {
            [one] => {
                outcomes[one.at] = Outcome::Rejected(Rejection {
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
                Box::pin(write_back(cluster, documents, first, outcomes, conflicts)).await?;
                return Box::pin(write_back(cluster, documents, second, outcomes, conflicts)).await;
            }
        },
        Err(problem) => {
            if problem.may_be_done() {
                writes.iter().for_each(|write| documents[write.at].unsettled());
            }
            return Err(problem);
        }
        Ok(answer) => answer,
    };
    let mut items = match answer {
        Answer::AllDone => None,
        Answer::Items(items) => Some(items.into_iter()),
    };
    for write in writes {
        let outcome = match items.as_mut().and_then(Iterator::next) {
            None => Some(Outcome::Done(Done::Created)),
            Some(item) => decide(item, &cluster.stats),
        };
        match outcome {
            None => conflicts.push(write.at),
            Some(Outcome::Done(_)) if write.version.is_some() => {
                Stats::add(&cluster.stats.merges, 1);
                outcomes[write.at] = Outcome::Done(Done::Merged);
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
        reason: format!("{index} holds a document with this id; it was left as it is: {why}"),
    }
}
