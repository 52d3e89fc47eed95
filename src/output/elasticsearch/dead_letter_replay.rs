//! Replay of dead-letter entries: one upsert per batch. The dead letter is their durable copy.

use tokio::time::{Duration, sleep};

use super::Elasticsearch;
use super::backoff::full_jitter;
use super::bulk::OwnedDocument;
use super::outcome::{DocumentOutcome, RequestError, StoreResult};
use super::settle::wait_until_settled;
use super::upsert::{Upserter, WriteResult};
use crate::output::DestinationId;
use crate::output::dead_letter::{Entry, EntryContent};
use crate::output::replay::ReplayOutcome;

/// Attempts at a document that Elasticsearch rejects for now; then its entry stays.
const MAX_ATTEMPTS: u32 = 5;
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What a refusal means whose type does not say whether document or index is at fault.
#[derive(Clone, Copy)]
pub(super) enum Refusals<'a> {
    /// The document is refused: its entry stays, and an operator looks.
    Final,
    /// It is refused if this is true of its entry, otherwise postponed.
    Decided(&'a (dyn Fn(&Entry) -> bool + Sync)),
}

impl Elasticsearch {
    /// Writes entries of the dead letter again; one outcome per entry. An entry that holds no
    /// document of this output, such as an undecodable chunk, is [`ReplayOutcome::NotReplayable`].
    pub async fn replay(&self, entries: &[Entry]) -> Vec<ReplayOutcome> {
        replay_entries(&self.upserter, self.config.backoff_base, entries, Refusals::Final).await
    }
}

/// Writes entries; one outcome per entry.
pub(super) async fn replay_entries(
    upserter: &Upserter,
    base: Duration,
    entries: &[Entry],
    refusals: Refusals<'_>,
) -> Vec<ReplayOutcome> {
    let mut outcomes = vec![ReplayOutcome::NotReplayable; entries.len()];
    let mut pending: Vec<usize> = (0..entries.len())
        .filter(|&at| document(upserter, &entries[at]).is_some())
        .collect();
    for attempt in 0..MAX_ATTEMPTS {
        if pending.is_empty() {
            break;
        }
        if attempt > 0 {
            sleep(full_jitter(base, MAX_PAUSE, attempt)).await;
        }
        let documents = pending.iter().filter_map(|&at| document(upserter, &entries[at]));
        let documents: Vec<OwnedDocument> = documents.collect();
        let written = match upserter.write(&documents).await {
            WriteResult::AllCreated => {
                vec![DocumentOutcome::Stored(StoreResult::Created); documents.len()]
            }
            WriteResult::PerDocument(mut written, _, unsettled) => {
                let open: Vec<usize> = unsettled.iter().map(|one| one.at).collect();
                // Nothing but the entry remembers the document.
                if let Err(reason) = wait_until_settled(upserter, unsettled, base).await {
                    for at in open {
                        written[at] = DocumentOutcome::Blocked(reason.clone());
                    }
                }
                written
            }
            WriteResult::Failed(error) => {
                let alone = documents.len() == 1;
                for &at in &pending {
                    outcomes[at] = match &error {
                        RequestError::TooLarge(reason) if alone => refused(413, "document_too_large", reason),
                        other => ReplayOutcome::Postponed(other.reason().to_owned()),
                    };
                }
                if let RequestError::TooLarge(_) | RequestError::Malformed(_) = error
                    && !alone
                {
                    for at in pending {
                        outcomes[at] = Box::pin(replay_entries(upserter, base, &entries[at..=at], refusals))
                            .await
                            .remove(0);
                    }
                    break;
                }
                continue;
            }
        };
        let mut retry = Vec::new();
        for (&at, outcome) in pending.iter().zip(written) {
            outcomes[at] = match outcome {
                DocumentOutcome::Stored(_) => ReplayOutcome::Written,
                DocumentOutcome::Retry(_) => {
                    retry.push(at);
                    ReplayOutcome::Postponed(why_not_now(upserter, &entries[at]))
                }
                DocumentOutcome::Blocked(reason) => ReplayOutcome::Postponed(reason),
                DocumentOutcome::Rejected(r) => refused(r.status, &r.kind, &r.reason),
                DocumentOutcome::Refused(r) => match refusals {
                    Refusals::Decided(accepts) if !accepts(&entries[at]) => {
                        ReplayOutcome::Postponed(format!("status {} {}: {}", r.status, r.kind, r.reason))
                    }
                    _ => refused(r.status, &r.kind, &r.reason),
                },
            };
        }
        pending = retry;
    }
    outcomes
}

/// Why the index of an entry does not take it now.
fn why_not_now(upserter: &Upserter, entry: &Entry) -> String {
    let client = &upserter.client;
    let document = document(upserter, entry);
    let reason = document.and_then(|document| client.watch.reason(&client.index_of(&document).index));
    reason.unwrap_or_else(|| "Elasticsearch rejected it for now".into())
}

fn refused(status: u16, kind: &str, reason: &str) -> ReplayOutcome {
    ReplayOutcome::Refused {
        status: Some(status),
        kind: kind.into(),
        reason: reason.into(),
    }
}

fn document(upserter: &Upserter, entry: &Entry) -> Option<OwnedDocument> {
    let destination = match &entry.destination {
        Some(name) => upserter.client.destinations.named(name)?,
        None => DestinationId::DEFAULT,
    };
    match (&entry.id, entry.first_ns, &entry.content) {
        (Some(id), Some(first_ns), EntryContent::Document(json)) => Some(OwnedDocument {
            id: id.clone(),
            is_trace: entry.is_trace.unwrap_or(true),
            first_ns,
            destination,
            json: json.clone(),
            is_copy: false,
        }),
        _ => None,
    }
}
