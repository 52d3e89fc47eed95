//! Elasticsearch output (7.17 to 9, and OpenSearch): exactly one document per trace, whatever
//! fails.
//!
//! | file | what it owns |
//! |---|---|
//! | `scheduler` | the event loop: how many bulk requests are in flight, and when |
//! | `queue` | documents that wait to be sent, grouped into bulk requests |
//! | `congestion`, `backoff` | concurrency limit (AIMD), pauses and jitter |
//! | `delivery` | one bulk request: confirms, dead-letters or returns each document |
//! | `upsert` | writing one batch: create, then `heal`, then `merge`, then `join` |
//! | `heal` | refused fields move to `windrow.unmapped` |
//! | `merge` | union with existing documents by compare-and-set |
//! | `join` | one trace in the indices of two days, or in generations |
//! | `completed` | which silent traces have a complete document |
//! | `copy` | documents that are written a second time, by condition |
//! | `target`, `generations` | what an index name stands for: index, alias, data stream |
//! | `settle` | documents that were written soon after a rollover |
//! | `deferred`, `drain` | documents that wait for an operator, on disk |
//! | `client`, `http`, `nodes`, `node` | requests; connections, credentials, dead nodes |
//! | `bulk`, `mget`, `body_pool` | formats of `_bulk` and `_mget`; memory |
//! | `outcome` | what responses mean |
//! | `index_pattern` | names of daily indices |
//! | `template`, `install`, `lifecycle` | index template and policy, and their installation |
//! | `search`, `trace_search` | `/logs`; the search API |
//! | `dead_letter_replay`, `inspect` | `windrow replay`, `windrow check` |
//! | `stats`, `health`, `index_watch` | counters; why documents wait |
//!
//! Uses `_bulk`, `_mget`, `_search` and one template: no scripts, no pipelines.

mod backoff;
mod body_pool;
mod bulk;
mod client;
mod completed;
mod congestion;
mod connection_error;
mod copy;
mod dead_letter_replay;
mod deferred;
mod delivery;
mod drain;
mod format;
mod generations;
mod heal;
mod health;
mod http;
mod index_pattern;
mod index_watch;
mod inspect;
mod install;
mod join;
mod lifecycle;
mod merge;
mod mget;
mod node;
mod nodes;
mod outcome;
mod queue;
mod scheduler;
mod search;
mod settle;
mod stats;
mod target;
mod template;
mod trace_search;
mod upsert;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use copy::CopyRule;
pub use format::DocumentFormat;
pub use health::{OutputHealth, OutputState, WaitReason};
pub(crate) use index_pattern::IndexPattern;
pub use inspect::Finding;
pub use nodes::OpenError;
pub use outcome::Rejection;
pub use stats::Stats;
pub use trace_search::ElasticsearchSearch;

use super::dead_letter::DeadLetter;
use super::{Batch, Destinations, Framing, OutputId};
use crate::config::ElasticsearchConfig;
use crate::metrics::Metrics;
use deferred::Deferred;
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
        let destinations =
            Destinations::single(&config.index, config.data_stream).map_err(OpenError::Index)?;
        Self::open_for(config, format, Arc::new(destinations))
    }

    /// [`Self::open`], for documents of these destinations.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(
        config: ElasticsearchConfig,
        format: DocumentFormat,
        destinations: Arc<Destinations>,
    ) -> Result<Self, OpenError> {
        let upserter = Arc::new(Upserter::open(&config, format, destinations, Arc::default())?);
        Ok(Self {
            upserter,
            config: Arc::new(config),
            health: Arc::default(),
        })
    }

    /// The framing with which a rendered batch is a bulk body.
    pub fn framing(&self) -> Box<dyn Framing> {
        Box::new(bulk::CreateFraming::new(&self.upserter.client.destinations))
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
            deferred: open_deferred(&self.config).await,
            settling: Arc::default(),
            blocked_retry: self.config.blocked_retry,
            account: OnceLock::new(),
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

/// The folder of deferred documents, if it can be used.
async fn open_deferred(config: &ElasticsearchConfig) -> Option<Arc<Deferred>> {
    let (folder, limit) = (config.deferred_dir.clone()?, config.deferred_limit);
    let open = move || Deferred::open(&folder, limit);
    match tokio::task::spawn_blocking(open).await {
        Ok(Ok(deferred)) => Some(Arc::new(deferred)),
        Ok(Err(error)) => {
            tracing::error!(%error, "the folder of deferred documents cannot be used; documents that wait for an operator wait in memory");
            None
        }
        Err(_) => None,
    }
}
