//! Answers to the question which of some silent traces have a complete document in the store.
//!
//! Reads one short field of each document. Asks nothing while the store has enough to do.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Elasticsearch;
use super::client::Client;
use super::health::OutputState;
use super::join::indices_of;
use super::mget::{self, Fields, MgetItem};
use super::outcome::RequestError;
use crate::output::silent::{Answer, Answering};
use crate::output::{DestinationId, OutputId, document_id};
use windrow_trace::{SealReason, SilentTrace};

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    windrow: Sealed<'a>,
}

#[derive(Deserialize)]
struct Sealed<'a> {
    reason: &'a str,
}

impl Elasticsearch {
    /// Answers until nobody asks any more, or until `stop`.
    pub(crate) async fn answer(self, output: OutputId, mut answering: Answering, stop: CancellationToken) {
        let answer = async {
            while let Some(silent) = answering.questions.recv().await {
                let answer = if self.is_busy() {
                    Answer::Refused
                } else {
                    self.look_up(output, silent).await.unwrap_or_else(|error| {
                        tracing::debug!(?error, "silent traces were not looked up");
                        Answer::Refused
                    })
                };
                if answering.answers.send(answer).await.is_err() {
                    return;
                }
            }
        };
        stop.run_until_cancelled(answer).await;
    }

    /// Whether documents wait for the store.
    fn is_busy(&self) -> bool {
        let stats = self.stats();
        self.health.state() != OutputState::Ok || stats.in_flight.load(Relaxed) >= stats.limit.load(Relaxed)
    }

    async fn look_up(&self, output: OutputId, mut silent: Vec<SilentTrace>) -> Result<Answer, RequestError> {
        let client = &self.upserter.client;
        let is_ours = |trace: &SilentTrace| {
            let destination = client.destinations.get(DestinationId(trace.destination));
            destination.outputs & (1 << output.0) != 0
        };
        silent.retain(is_ours);
        resolve(client, &silent).await;
        let (mut wanted, mut traces) = (Vec::new(), Vec::new());
        for (at, trace) in silent.iter().enumerate() {
            let id = document_id(&trace.id);
            for index in indices_of(
                client,
                DestinationId(trace.destination),
                trace.first_ns,
                Some(client.trace_life),
            ) {
                wanted.push((index, id.clone()));
                traces.push(at);
            }
        }
        if wanted.is_empty() {
            return Ok(Answer::Complete(Vec::new()));
        }
        let pairs: Vec<(&str, &str)> = wanted.iter().map(|(index, id)| (&**index, &**id)).collect();
        let found = mget::mget(client, &pairs, Fields::Reason).await?;
        let complete: HashSet<usize> = traces
            .into_iter()
            .zip(found)
            .filter(|(_, found)| is_complete(found))
            .map(|(at, _)| at)
            .collect();
        let silent = silent.into_iter().enumerate();
        let complete = silent.filter(|(at, _)| complete.contains(at));
        Ok(Answer::Complete(complete.map(|(_, trace)| trace).collect()))
    }
}

/// Finds out what the names of the indices stand for: an instance that has written nothing yet does
/// not know it.
async fn resolve(client: &Client, silent: &[SilentTrace]) {
    let mut names = HashSet::new();
    for trace in silent {
        let destination = client.destinations.get(DestinationId(trace.destination));
        let day = destination.indices.of(trace.first_ns);
        if !names.contains(&*day.index) {
            let resolve = client
                .targets
                .resolve(client, &day.index, destination.is_data_stream);
            resolve.await;
            names.insert(day.index.to_string());
        }
    }
}

fn is_complete(found: &MgetItem) -> bool {
    let MgetItem::Found { source, .. } = found else {
        return false;
    };
    serde_json::from_slice(source)
        .is_ok_and(|Source { windrow }| windrow.reason == SealReason::Completed.as_str())
}
