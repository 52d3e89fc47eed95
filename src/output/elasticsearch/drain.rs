//! Drain of the deferred documents: tries each index again from time to time, and writes what waits
//! for it when it takes documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::half_jitter;
use super::dead_letter_replay::{Refusals, replay_entries};
use super::deferred::{Deferred, Waiting};
use super::delivery::DeliveryContext;
use super::health::NoteSource;
use super::outcome::{Rejection, StoreResult};
use crate::output::dead_letter::Entry;
use crate::output::replay::{OnPostponed, ReplayOutcome, replay_with};

/// Tries deferred documents again until it is dropped.
pub(super) async fn run(context: Arc<DeliveryContext>, base: Duration, pause: Duration) {
    let Some(deferred) = context.deferred.clone() else {
        return std::future::pending().await;
    };
    // Threads that are writing deferred documents stop when this future is dropped.
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let mut pause_now = Duration::ZERO;
    loop {
        tokio::time::sleep(pause_now).await;
        pause_now = half_jitter(pause);
        let before = look(&context, &deferred).await;
        if before.is_empty() {
            continue;
        }
        for waiting in before {
            if context.upserter.client.nodes.alive() > 0 {
                drain(&context, base, waiting, &stop).await;
            }
        }
        look(&context, &deferred).await;
    }
}

/// The queues with documents, which are published.
async fn look(context: &DeliveryContext, deferred: &Arc<Deferred>) -> Vec<Waiting> {
    let deferred = Arc::clone(deferred);
    let found = tokio::task::spawn_blocking(move || {
        deferred.remove_empty();
        (deferred.waiting(), deferred.bytes())
    });
    let (waiting, bytes) = found.await.unwrap_or_default();
    let mut notes: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for queue in &waiting {
        let note = notes
            .entry(queue.index.clone())
            .or_insert_with(|| (0, queue.reason.clone()));
        note.0 += queue.documents;
    }
    context.health.set_notes(NoteSource::Deferred, &notes);
    let documents = waiting.iter().map(|queue| queue.documents).sum();
    context.upserter.client.stats.set_deferred(documents, bytes);
    waiting
}

/// Writes the documents of one index, if it takes them.
async fn drain(context: &Arc<DeliveryContext>, base: Duration, waiting: Waiting, stop: &CancellationToken) {
    if !waiting.alone {
        let folder = waiting.clone();
        let first = tokio::task::spawn_blocking(move || folder.first()).await;
        let Ok(Some(first)) = first else { return };
        let outcomes = send(context, base, std::slice::from_ref(&first), false).await;
        if let Some(ReplayOutcome::Postponed(reason)) = outcomes.first() {
            if let Some(deferred) = &context.deferred {
                deferred.still_waits(&waiting, reason);
            }
            return;
        }
    }
    let on_postponed = if waiting.alone {
        OnPostponed::GoOn
    } else {
        OnPostponed::Stop
    };
    let (context, stop) = (Arc::clone(context), stop.clone());
    let handle = tokio::runtime::Handle::current();
    // It reads and writes files between the requests.
    let drained = tokio::task::spawn_blocking(move || {
        let send = async |entries: &[Entry]| {
            let sent = stop
                .run_until_cancelled(send(&context, base, entries, true))
                .await;
            let stopped = || vec![ReplayOutcome::Postponed("Windrow stops".into()); entries.len()];
            sent.unwrap_or_else(stopped)
        };
        let replayed = replay_with(&waiting.folder, on_postponed, send, |_| {});
        (handle.block_on(replayed), waiting.index)
    });
    match drained.await {
        Ok((Ok(summary), index)) if summary.written > 0 => {
            tracing::info!(%index, documents = summary.written, left = summary.postponed, "deferred documents written");
        }
        Ok((Ok(_), _)) => {}
        Ok((Err(error), index)) => {
            tracing::warn!(%index, %error, "deferred documents cannot be read or written");
        }
        Err(error) => tracing::error!(%error, "the drain of deferred documents panicked"),
    }
}

/// Writes entries. Those that can never be written go to the dead letter, and count as written.
/// `last`: nothing sends them again, so they are counted.
async fn send(
    context: &DeliveryContext,
    base: Duration,
    entries: &[Entry],
    last: bool,
) -> Vec<ReplayOutcome> {
    let client = &context.upserter.client;
    let accepts = |entry: &Entry| {
        let (Some(index), now) = (&entry.index, Timestamp::now()) else {
            return false;
        };
        let age = Duration::try_from(now.duration_since(entry.time)).unwrap_or_default();
        let since = Instant::now().checked_sub(age);
        since.is_some_and(|since| client.watch.accepted_since(index, since))
    };
    let mut outcomes = replay_entries(&context.upserter, base, entries, Refusals::Decided(&accepts)).await;
    if !last {
        return outcomes;
    }
    for (entry, outcome) in entries.iter().zip(&mut outcomes) {
        let lines = u64::from(entry.lines.unwrap_or(0));
        match outcome {
            ReplayOutcome::Written => {
                client.stats.confirmed(StoreResult::Created, 1, lines);
                context.undefer(lines, false);
            }
            ReplayOutcome::Refused { status, kind, reason } => {
                let dead = Entry {
                    time: Timestamp::now(),
                    status: *status,
                    kind: kind.clone(),
                    reason: reason.clone(),
                    ..entry.clone()
                };
                let dead_letter = Arc::clone(&context.dead_letter);
                let put = tokio::task::spawn_blocking(move || dead_letter.put(&dead)).await;
                *outcome = match put.map_err(std::io::Error::other).flatten() {
                    Ok(()) => {
                        let rejection = Rejection {
                            status: status.unwrap_or(0),
                            kind: std::mem::take(kind),
                            reason: std::mem::take(reason),
                        };
                        client.stats.dead_lettered(&rejection, lines);
                        context.undefer(lines, true);
                        ReplayOutcome::Written
                    }
                    Err(error) => {
                        ReplayOutcome::Postponed(format!("the dead letter cannot be written: {error}"))
                    }
                };
            }
            ReplayOutcome::Postponed(_) | ReplayOutcome::NotReplayable => {}
        }
    }
    outcomes
}
