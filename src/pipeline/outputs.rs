//! Configured outputs: opens them and starts their threads and tasks.
//!
//! Owns the queues in front of the outputs and the handles of what runs. What an output does is in
//! `crate::output`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::BuildError;
use super::liveness::Liveness;
use crate::config::{Config, OutputKind};
use crate::gather::field_names;
use crate::memory::to_usize;
use crate::metrics::{DeadLetterSource, Direction, DocumentResult, Metrics, OutputError};
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};
use crate::output::elasticsearch::{self, DocumentFormat, Elasticsearch};
use crate::output::silent::{self, Asking};
use crate::output::sqlite::{self, SqliteReader, SqliteWriter, TransactionSummary, WriteObserver};
use crate::output::{Batch, Destinations, Framing, OutputId, SealedDocument, Watchdog, stdout};
use crate::search::embedded::{
    self, EmbeddedSearch, IndexConfig, IndexError, IndexProgress, Indexer, RunningIndexer,
};
use windrow_trace::UnionError;

/// Batches that wait in front of an output at most. The gatherer bounds their bytes.
const QUEUE_BATCHES: usize = 256;

/// Pause before the dead letter is tried again.
const DEAD_LETTER_RETRY: Duration = Duration::from_millis(500);
/// How often outputs are asked whether they have ended.
const FINISH_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Of the memory limit, a step of the search index takes this fraction, and at least so many bytes.
const INDEX_BUFFER_FRACTION: u64 = 32;
const MIN_INDEX_BUFFER_BYTES: usize = 1 << 20;

/// An output that is open and not started.
#[derive(Debug)]
enum OpenOutput {
    Sqlite(SqliteWriter),
    Stdout,
    Elasticsearch(Elasticsearch),
}

/// The outputs of one server, in the order of their ids.
#[derive(Debug)]
pub(super) struct Outputs {
    opened: Vec<OpenOutput>,
    store: Option<Store>,
    search: Option<EmbeddedSearch>,
    indexer: Option<Indexer>,
    watchdogs: Vec<(OutputKind, Arc<Watchdog>)>,
    destinations: Arc<Destinations>,
}

/// The store that `/logs` reads.
#[derive(Clone, Debug)]
pub enum Store {
    /// The embedded store.
    Sqlite(Arc<SqliteReader>),
    /// Elasticsearch.
    Elasticsearch(Elasticsearch),
}

/// The threads and tasks of the started outputs.
pub(super) struct RunningOutputs {
    threads: Vec<std::thread::JoinHandle<()>>,
    tasks: tokio_util::task::TaskTracker,
    /// Stopped when it is dropped; nothing waits for what it has not indexed.
    _indexer: Option<RunningIndexer>,
}

impl Outputs {
    /// Opens every output that the configuration names.
    pub(super) fn open(config: &Config) -> Result<Self, BuildError> {
        let destinations = open_destinations(config)?;
        let mut opened = Vec::new();
        let mut store = None;
        let (mut search, mut indexer) = (None, None);
        for kind in &config.outputs {
            match kind {
                OutputKind::Sqlite => {
                    let path = config.sqlite.path.clone();
                    let mut writer =
                        SqliteWriter::open(config.sqlite.clone(), to_usize(config.trace.max_trace_bytes))?;
                    let reader = Arc::new(SqliteReader::open(&path)?);
                    match open_search(config, &reader) {
                        Ok(Some((found, opened))) => {
                            writer.note_merges_for(Arc::clone(found.progress().merges()));
                            (search, indexer) = (Some(found), Some(opened));
                        }
                        Ok(None) => {}
                        // Storing does not depend on it.
                        Err(error) => {
                            tracing::error!(%error, "the search index cannot be opened; traces are found by id only");
                        }
                    }
                    writer.route_to(Arc::clone(&destinations));
                    opened.push(OpenOutput::Sqlite(writer));
                    // The embedded store answers fastest, so it is preferred whatever the order.
                    store = Some(Store::Sqlite(reader));
                }
                OutputKind::Stdout => opened.push(OpenOutput::Stdout),
                OutputKind::Elasticsearch => {
                    let output = open_elasticsearch_for(config, &destinations)?;
                    store = store.or_else(|| Some(Store::Elasticsearch(output.clone())));
                    opened.push(OpenOutput::Elasticsearch(output));
                }
            }
        }
        let watchdogs = config.outputs.iter().map(|kind| (*kind, Arc::default()));
        Ok(Self {
            opened,
            store,
            search,
            indexer,
            watchdogs: watchdogs.collect(),
            destinations,
        })
    }

    /// The registry of destinations.
    pub(super) fn destinations(&self) -> &Arc<Destinations> {
        &self.destinations
    }

    /// The watchdog of each output.
    pub(super) fn watchdogs(&self) -> &[(OutputKind, Arc<Watchdog>)] {
        &self.watchdogs
    }

    pub(super) fn store(&self) -> Option<Store> {
        self.store.clone()
    }

    /// The search of the embedded store, if it has an index.
    pub(super) fn search(&self) -> Option<EmbeddedSearch> {
        self.search.clone()
    }

    pub(super) fn elasticsearch(&self) -> Option<Elasticsearch> {
        self.opened.iter().find_map(|opened| match opened {
            OpenOutput::Elasticsearch(output) => Some(output.clone()),
            _ => None,
        })
    }

    /// What is written before each document, so that Elasticsearch can send the text of a batch as
    /// it is.
    pub(super) fn framing(&self) -> Option<Box<dyn Framing>> {
        Some(self.elasticsearch()?.framing())
    }

    /// Starts to answer questions about silent traces, if a store takes documents that another
    /// instance may complete.
    pub(super) fn answer_silent(&self, stop: &CancellationToken) -> Option<Asking> {
        let (id, output) = (0..).zip(&self.opened).find_map(|(id, opened)| match opened {
            OpenOutput::Elasticsearch(output) => Some((OutputId(id), output.clone())),
            _ => None,
        })?;
        let (asking, answering) = silent::channel();
        tokio::spawn(output.answer(id, answering, stop.clone()));
        Some(asking)
    }

    /// Starts the outputs and returns the senders of their queues. `give_up` ends waits for a full
    /// dead letter, `abandon` the work of the Elasticsearch output.
    pub(super) fn start(
        self,
        metrics: &Arc<Metrics>,
        dead_letter: &Arc<DeadLetter>,
        give_up: &Arc<AtomicBool>,
        abandon: &CancellationToken,
        liveness: &Liveness,
    ) -> io::Result<(Vec<mpsc::Sender<Batch>>, RunningOutputs)> {
        let destinations = self.destinations;
        let mut senders = Vec::new();
        let mut running = RunningOutputs {
            threads: Vec::new(),
            tasks: tokio_util::task::TaskTracker::new(),
            _indexer: self.indexer.map(Indexer::start).transpose()?,
        };
        for (id, (opened, (_, watchdog))) in (0..).zip(self.opened.into_iter().zip(self.watchdogs)) {
            let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
            let id = OutputId(id);
            match opened {
                OpenOutput::Sqlite(writer) => {
                    let observer = SqliteObserver {
                        metrics: Arc::clone(metrics),
                        dead_letter: Arc::clone(dead_letter),
                        give_up: Arc::clone(give_up),
                        destinations: Arc::clone(&destinations),
                    };
                    let give_up = Arc::clone(give_up);
                    let guard = liveness.guard("the embedded store");
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()?;
                    let run = move || {
                        let stop = || give_up.load(Ordering::Relaxed);
                        sqlite::run(writer, id, receiver, observer, &watchdog, &runtime, &stop);
                        guard.finish();
                    };
                    running
                        .threads
                        .push(std::thread::Builder::new().name("sqlite".into()).spawn(run)?);
                }
                OpenOutput::Stdout => {
                    let destinations = Arc::clone(&destinations);
                    let metrics = Arc::clone(metrics);
                    let guard = liveness.guard("standard output");
                    let run = move || {
                        let out = metrics.output(OutputKind::Stdout);
                        let count = |batch: &Batch| {
                            let (documents, lines) = batch.counts_for(id);
                            out.documents[DocumentResult::Created].inc_by(documents);
                            out.proc_records.inc_by(lines);
                        };
                        match stdout::run(io::stdout(), id, receiver, &destinations, &watchdog, count) {
                            Ok(()) => guard.finish(),
                            Err(error) => {
                                tracing::error!(%error, "standard output is closed; documents stay in the journal");
                                guard.fail("it was closed");
                            }
                        }
                    };
                    running
                        .threads
                        .push(std::thread::Builder::new().name("stdout".into()).spawn(run)?);
                }
                OpenOutput::Elasticsearch(output) => {
                    let dead_letter = Arc::clone(dead_letter);
                    output.report_to(Arc::clone(metrics));
                    let guard = liveness.guard("the Elasticsearch output");
                    let abandon = abandon.clone();
                    running.tasks.spawn(async move {
                        output.run(id, receiver, dead_letter, abandon).await;
                        guard.finish();
                    });
                }
            }
            senders.push(sender);
        }
        running.tasks.close();
        Ok((senders, running))
    }
}

impl RunningOutputs {
    /// Waits for all outputs to end; `false` when the deadline passes first.
    pub(super) async fn finish_by(&self, deadline: Instant) -> bool {
        loop {
            if self.tasks.is_empty() && self.threads.iter().all(std::thread::JoinHandle::is_finished) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(FINISH_POLL_INTERVAL).await;
        }
    }
}

/// Counts what the embedded store does, and moves what it cannot merge to the dead letter.
struct SqliteObserver {
    metrics: Arc<Metrics>,
    dead_letter: Arc<DeadLetter>,
    give_up: Arc<AtomicBool>,
    destinations: Arc<Destinations>,
}

impl WriteObserver for SqliteObserver {
    fn written(&mut self, done: &TransactionSummary, took: Duration) {
        let out = self.metrics.output(OutputKind::Sqlite);
        out.documents[DocumentResult::Created].inc_by(done.created);
        out.documents[DocumentResult::Merged].inc_by(done.merged);
        out.documents[DocumentResult::Unchanged].inc_by(done.unchanged);
        out.proc_records.inc_by(done.lines);
        out.bytes[Direction::Sent].inc_by(done.bytes);
        out.latency_seconds.observe(took.as_secs_f64());
    }

    fn failed(&mut self, error: &sqlite::StoreError) {
        let out = self.metrics.output(OutputKind::Sqlite);
        out.errors[OutputError::Server].inc();
        out.retries.inc();
        tracing::error!(%error, "the embedded store cannot write documents; trying again");
    }

    fn rejected(&mut self, document: &SealedDocument, why: &UnionError) {
        let entry = Entry {
            time: jiff::Timestamp::now(),
            source: DeadLetterSource::Sqlite.as_str().into(),
            status: None,
            kind: "not_ours".into(),
            reason: why.to_string(),
            index: None,
            destination: self.destinations.name(document.destination()),
            id: Some(document.id().to_owned()),
            is_trace: Some(document.is_trace()),
            first_ns: Some(document.first_ns()),
            lines: Some(document.lines()),
            parts: windrow_trace::part_ids(document.json()),
            content: EntryContent::Document(document.shared_json()),
        };
        while let Err(error) = self.dead_letter.put(&entry) {
            if self.give_up.load(Ordering::Relaxed) {
                return;
            }
            tracing::error!(%error, "the dead letter cannot be written; the embedded store waits and tries again");
            std::thread::sleep(DEAD_LETTER_RETRY);
        }
        self.metrics.dead_letter_documents[DeadLetterSource::Sqlite].inc();
        self.metrics.output(OutputKind::Sqlite).documents[DocumentResult::Rejected].inc();
    }
}

/// Opens the search index of the embedded store, if it is to have one.
fn open_search(
    config: &Config,
    store: &Arc<SqliteReader>,
) -> Result<Option<(EmbeddedSearch, Indexer)>, IndexError> {
    if !config.sqlite.search {
        // It would not be up to date when it is switched on again.
        embedded::remove(&config.sqlite.path)?;
        return Ok(None);
    }
    let index = IndexConfig {
        store: config.sqlite.path.clone(),
        names: search_names(config),
        buffer_bytes: ((config.memory_limit / INDEX_BUFFER_FRACTION) as usize)
            .clamp(MIN_INDEX_BUFFER_BYTES, IndexConfig::MAX_BUFFER_BYTES),
    };
    let progress = Arc::<IndexProgress>::default();
    let indexer = Indexer::open(index.clone(), Arc::clone(&progress))?;
    let search = EmbeddedSearch::new(&index, Arc::clone(store), progress);
    Ok(Some((search, indexer)))
}

/// The fields of documents that hold text and trace id.
pub fn search_names(config: &Config) -> windrow_query::Names {
    let names = field_names(&config.trace);
    // Those of other documents stay searchable.
    let text = names.document.schema.text();
    let others = names.text.iter().map(String::as_str);
    let others = others.filter(|name| Some(*name) != text);
    windrow_query::Names {
        text: text.into_iter().chain(others).map(str::to_owned).collect(),
        key: names.key().to_owned(),
    }
}

/// Opens the configured Elasticsearch output; sends nothing yet.
///
/// # Errors
///
/// The setting that cannot be used.
pub fn open_elasticsearch(config: &Config) -> Result<Elasticsearch, elasticsearch::OpenError> {
    open_elasticsearch_for(config, &open_destinations(config)?)
}

/// The destinations of the configuration.
fn open_destinations(config: &Config) -> Result<Arc<Destinations>, elasticsearch::OpenError> {
    let destinations = Destinations::of(config).map_err(elasticsearch::OpenError::Index)?;
    Ok(Arc::new(destinations))
}

fn open_elasticsearch_for(
    config: &Config,
    destinations: &Arc<Destinations>,
) -> Result<Elasticsearch, elasticsearch::OpenError> {
    let format = DocumentFormat {
        union: windrow_trace::union_within,
        max_bytes: to_usize(config.trace.max_trace_bytes),
        part_ids: windrow_trace::part_ids,
        unmap: windrow_trace::unmap,
    };
    Elasticsearch::open_for(config.elasticsearch.clone(), format, Arc::clone(destinations))
}
