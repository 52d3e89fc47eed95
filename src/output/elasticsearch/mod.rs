//! Elasticsearch output (7.17 to 9, and OpenSearch): exactly one document per trace, whatever
//! fails.
//!
//! | file | what it owns |
//! |---|---|
//! | `scheduler` | the event loop: how many bulk requests are in flight, and when |
//! | `queue` | documents that wait to be sent, grouped into bulk requests |
//! | `congestion`, `backoff` | concurrency limit (AIMD), pauses and jitter |
//! | `delivery` | one bulk request: confirms, dead-letters or returns each document |
//! | `upsert` | writing one batch: create, then `merge`, then `midnight` |
//! | `merge` | union with existing documents by compare-and-set |
//! | `midnight` | one trace in the indices of two days |
//! | `client`, `nodes` | requests; connections, credentials, dead nodes |
//! | `bulk`, `mget` | formats of `_bulk` and `_mget` |
//! | `outcome` | what responses mean |
//! | `index_pattern` | names of daily indices |
//! | `template`, `dead_letter_replay` | index template, `windrow replay` |
//! | `search`, `trace_search` | `/logs`; the search API |
//! | `stats`, `health` | counters; why documents wait |
//!
//! Uses `_bulk`, `_mget`, `_search` and one template: no scripts, no pipelines.

mod backoff;
mod bulk;
mod client;
mod congestion;
mod dead_letter_replay;
mod delivery;
mod format;
mod health;
mod index_pattern;
mod merge;
mod mget;
mod midnight;
mod nodes;
mod outcome;
mod queue;
mod scheduler;
mod search;
mod stats;
mod template;
mod trace_search;
mod upsert;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use format::DocumentFormat;
pub use health::{OutputHealth, OutputState, WaitReason};
pub use nodes::OpenError;
pub use outcome::Rejection;
pub use stats::Stats;
pub use trace_search::ElasticsearchSearch;

use super::dead_letter::DeadLetter;
use super::{Batch, Framing, OutputId};
use crate::config::ElasticsearchConfig;
use crate::metrics::Metrics;
use delivery::DeliveryContext;
use scheduler::BulkScheduler;
use upsert::Upserter;

/// The Elasticsearch output. Cheap to clone; shared by scheduler, search and replay.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    upserter: Arc<Upserter>,
    config: Arc<ElasticsearchConfig>,
    health: Arc<OutputHealth>,
}

impl Elasticsearch {
    /// Checks the configuration and reads the certificate files. Sends nothing: Elasticsearch may
    /// be down.
    ///
    /// # Errors
    /// A value cannot be used; the message says which and why.
    pub fn open(config: ElasticsearchConfig, format: DocumentFormat) -> Result<Self, OpenError> {
        let upserter = Arc::new(Upserter::open(&config, format, Arc::default())?);
        Ok(Self {
            upserter,
            config: Arc::new(config),
            health: Arc::default(),
        })
    }

    /// The framing with which a rendered batch is a bulk body.
    pub fn framing(&self) -> Box<dyn Framing> {
        Box::new(bulk::CreateFraming::new(Arc::clone(
            &self.upserter.client.indices,
        )))
    }

    /// Writes documents and confirms each once it is durable, in Elasticsearch or in the dead
    /// letter. Returns when the channel is closed and everything is confirmed, or at once when
    /// `stop` is cancelled: what is not confirmed then stays in the journal. To drain with a
    /// deadline: drop the sender, wait, then cancel.
    pub async fn run(
        self,
        output: OutputId,
        documents: mpsc::Receiver<Batch>,
        dead_letter: Arc<DeadLetter>,
        stop: CancellationToken,
    ) {
        let context = DeliveryContext {
            upserter: self.upserter,
            dead_letter,
            health: self.health,
            output,
        };
        BulkScheduler::new(context, (*self.config).clone())
            .run(documents, stop)
            .await;
    }

    /// The newest documents by `@timestamp`, of one trace or of all, as they are stored. A document
    /// is found after the next refresh of its index, 1 s by default.
    ///
    /// # Errors
    /// A message for the reader: Elasticsearch is down, refuses, or its response cannot be read.
    pub async fn recent(&self, trace_id: Option<&str>, limit: usize) -> Result<Vec<Box<RawValue>>, String> {
        search::recent(&self.upserter.client, trace_id, limit).await
    }

    /// Sends one search to all indices.
    pub(crate) async fn search(&self, body: &serde_json::Value) -> Result<bytes::Bytes, String> {
        search::send(&self.upserter.client, body).await
    }

    /// Why documents wait, for `/ready`.
    pub fn health(&self) -> &Arc<OutputHealth> {
        &self.health
    }

    /// Counts in `metrics` too, under the label `output="elasticsearch"`.
    pub fn report_to(&self, metrics: Arc<Metrics>) {
        self.upserter.client.stats.report_to(metrics);
    }

    /// Counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.upserter.client.stats
    }
}
