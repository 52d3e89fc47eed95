//! Elasticsearch (7.17 to 9, and OpenSearch): one document for each trace, whatever fails in between.
//!
//! | file | what it owns |
//! |---|---|
//! | `config` | settings and defaults |
//! | `index` | index names of days |
//! | `nodes` | connections, credentials, dead nodes |
//! | `bulk`, `read` | formats of `_bulk` and `_mget` |
//! | `outcome` | what an answer means |
//! | `cluster` | writing one batch: create, then merge, then midnight |
//! | `merge` | union with what exists, compare-and-set |
//! | `midnight` | one trace in the indices of two days |
//! | `flow` | how fast |
//! | `writer` | how many batches under way, and when |
//! | `queue` | what waits, in batches |
//! | `batch` | one batch: confirmed, in the dead letter, or again |
//! | `template`, `recent` | index template, search |
//!
//! Nothing is asked of Elasticsearch but `_bulk`, `_mget`, `_search` and one template: no scripts, no pipelines.

mod batch;
mod bulk;
mod cluster;
mod config;
mod flow;
mod index;
mod merge;
mod midnight;
mod nodes;
mod outcome;
mod queue;
mod read;
mod recent;
mod replayed;
mod rules;
mod stats;
mod template;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use cluster::Rejection;
pub use config::{Auth, ClientCert, ElasticsearchConfig, Template};
pub use nodes::OpenError;
pub use rules::Rules;
pub use stats::{Cause, Health, State, Stats};

use super::dead_letter::DeadLetter;
use super::{Batch, Framing, OutputId};
use crate::metrics::Metrics;
use batch::Parts;
use cluster::Cluster;
use writer::Writer;

/// The output: cheap to clone, shared by the writer, the search and the replay.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    cluster: Arc<Cluster>,
    config: Arc<ElasticsearchConfig>,
    health: Arc<Health>,
}

impl Elasticsearch {
    /// Checks the settings and reads the certificate files. Nothing is sent: Elasticsearch may be away.
    ///
    /// # Errors
    /// A setting cannot be used; the message says which and why.
    pub fn open(config: ElasticsearchConfig, rules: Rules) -> Result<Self, OpenError> {
        let cluster = Arc::new(Cluster::open(&config, rules, Arc::default())?);
        Ok(Self {
            cluster,
            config: Arc::new(config),
            health: Arc::default(),
        })
    }

    /// What the documents of a batch should be framed with.
    pub fn framing(&self) -> Box<dyn Framing> {
        Box::new(bulk::CreateHeads::new(Arc::clone(&self.cluster)))
    }

    /// Writes documents and confirms each when it is durable, in Elasticsearch or in the dead letter. Ends when the
    /// channel is closed and everything is confirmed, or at once when `stop` is cancelled: what is not confirmed
    /// then stays in the journal. To drain with a bound: drop the sender, wait, then cancel.
    pub async fn run(
        self,
        output: OutputId,
        documents: mpsc::Receiver<Batch>,
        dead_letter: Arc<DeadLetter>,
        stop: CancellationToken,
    ) {
        let parts = Parts {
            cluster: self.cluster,
            dead_letter,
            health: self.health,
            output,
        };
        Writer::new(parts, (*self.config).clone())
            .run(documents, stop)
            .await;
    }

    /// The newest documents by `@timestamp`, of one trace or of all, as they are stored. A document is found about
    /// 1 s after it was written (the index's refresh interval).
    ///
    /// # Errors
    /// A sentence for the reader: Elasticsearch is away, refuses, or its answer cannot be read.
    pub async fn recent(&self, trace_id: Option<&str>, limit: usize) -> Result<Vec<Box<RawValue>>, String> {
        recent::recent(&self.cluster, trace_id, limit).await
    }

    /// Whether the output gets on, for `/ready`.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// From now on the output counts in `metrics` too, under the label `output="elasticsearch"`.
    pub fn report_to(&self, metrics: Arc<Metrics>) {
        self.cluster.stats.report_to(metrics);
    }

    /// Counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.cluster.stats
    }
}
