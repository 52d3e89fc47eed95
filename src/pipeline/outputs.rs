//! The configured outputs, opened and started.
//!
//! Owns the threads and tasks that write, and how long their ends are waited for. What an output does is its own file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::BuildError;
use super::vital::Vital;
use crate::config::{Config, OutputKind};
use crate::metrics::{DeadLetterSource, Direction, DocumentResult, Metrics, OutputError};
use crate::output::dead_letter::{DeadLetter, Entry, EntryContent};
use crate::output::elasticsearch::{self, DocumentFormat, Elasticsearch};
use crate::output::sqlite::{self, SqliteReader, SqliteWriter, TransactionSummary, WriteObserver};
use crate::output::{Batch, Framing, OutputId, SealedDocument, stdout};
use windrow_trace::NotOurs;

/// Batches that wait in front of an output. Their bytes are bounded by the gatherer.
const QUEUE: usize = 256;

#[derive(Debug)]
enum Opened {
    Sqlite(SqliteWriter),
    Stdout,
    Elasticsearch(Elasticsearch),
}

/// The outputs of one server, in the order of their ids.
#[derive(Debug)]
pub(super) struct Outputs {
    opened: Vec<Opened>,
    store: Option<Store>,
}

/// Where `/logs` reads.
#[derive(Clone, Debug)]
pub enum Store {
    /// The embedded store.
    Sqlite(Arc<SqliteReader>),
    /// Elasticsearch.
    Elasticsearch(Elasticsearch),
}

/// What was started.
pub(super) struct Running {
    threads: Vec<std::thread::JoinHandle<()>>,
    tasks: tokio_util::task::TaskTracker,
}

impl Outputs {
    pub(super) fn open(config: &Config) -> Result<Self, BuildError> {
        let mut opened = Vec::new();
        let mut store = None;
        for kind in &config.outputs {
            match kind {
                OutputKind::Sqlite => {
                    let path = config.sqlite.path.clone();
                    opened.push(Opened::Sqlite(SqliteWriter::open(config.sqlite.clone())?));
                    // The embedded store answers fastest, so it is preferred whatever the order.
                    store = Some(Store::Sqlite(Arc::new(SqliteReader::open(&path)?)));
                }
                OutputKind::Stdout => opened.push(Opened::Stdout),
                OutputKind::Elasticsearch => {
                    let output = open_elasticsearch(config)?;
                    store = store.or_else(|| Some(Store::Elasticsearch(output.clone())));
                    opened.push(Opened::Elasticsearch(output));
                }
            }
        }
        Ok(Self { opened, store })
    }

    pub(super) fn store(&self) -> Option<Store> {
        self.store.clone()
    }

    pub(super) fn elasticsearch(&self) -> Option<Elasticsearch> {
        self.opened.iter().find_map(|opened| match opened {
            Opened::Elasticsearch(output) => Some(output.clone()),
            _ => None,
        })
    }

    /// What has to stand before each document, so that an output can send the text of a batch as it is.
    pub(super) fn framing(&self) -> Option<Box<dyn Framing>> {
        Some(self.elasticsearch()?.framing())
    }

    pub(super) fn start(
        self,
        metrics: &Arc<Metrics>,
        dead_letter: &Arc<DeadLetter>,
        give_up: &Arc<AtomicBool>,
        abandon: &CancellationToken,
        vital: &Vital,
    ) -> io::Result<(Vec<mpsc::Sender<Batch>>, Running)> {
        let mut senders = Vec::new();
        let mut running = Running {
            threads: Vec::new(),
            tasks: tokio_util::task::TaskTracker::new(),
        };
        for (id, opened) in (0..).zip(self.opened) {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let id = OutputId(id);
            match opened {
                Opened::Sqlite(writer) => {
                    let observer = SqliteObserver {
                        metrics: Arc::clone(metrics),
                        dead_letter: Arc::clone(dead_letter),
                        give_up: Arc::clone(give_up),
                    };
                    let give_up = Arc::clone(give_up);
                    let guard = vital.guard("the embedded store");
                    let run = move || {
                        sqlite::run(writer, id, receiver, observer, &|| {
                            give_up.load(Ordering::Relaxed)
                        });
                        guard.done();
                    };
                    running
                        .threads
                        .push(std::thread::Builder::new().name("sqlite".into()).spawn(run)?);
                }
                Opened::Stdout => {
                    let metrics = Arc::clone(metrics);
                    let guard = vital.guard("standard output");
                    let run = move || {
                        let out = metrics.output(OutputKind::Stdout);
                        let count = |batch: &Batch| {
                            out.documents[DocumentResult::Created].inc_by(batch.len() as u64);
                            out.proc_records.inc_by(batch.lines());
                        };
                        match stdout::run(io::stdout(), id, receiver, count) {
                            Ok(()) => guard.done(),
                            Err(error) => {
                                tracing::error!(%error, "standard output is gone; documents stay in the journal");
                                guard.lost("nobody reads it any more");
                            }
                        }
                    };
                    running
                        .threads
                        .push(std::thread::Builder::new().name("stdout".into()).spawn(run)?);
                }
                Opened::Elasticsearch(output) => {
                    let dead_letter = Arc::clone(dead_letter);
                    output.report_to(Arc::clone(metrics));
                    let guard = vital.guard("the Elasticsearch output");
                    let abandon = abandon.clone();
                    running.tasks.spawn(async move {
                        output.run(id, receiver, dead_letter, abandon).await;
                        guard.done();
                    });
                }
            }
            senders.push(sender);
        }
        running.tasks.close();
        Ok((senders, running))
    }
}

impl Running {
    /// Whether all have ended by then.
    pub(super) async fn finish_by(&self, deadline: Instant) -> bool {
        loop {
            if self.tasks.is_empty() && self.threads.iter().all(std::thread::JoinHandle::is_finished) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Counts what the embedded store does, and puts aside what it cannot join.
struct SqliteObserver {
    metrics: Arc<Metrics>,
    dead_letter: Arc<DeadLetter>,
    give_up: Arc<AtomicBool>,
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
        tracing::error!(%error, "the embedded store does not take documents; trying again");
    }

    fn rejected(&mut self, document: &SealedDocument, why: &NotOurs) {
        let entry = Entry {
            time: jiff::Timestamp::now(),
            source: DeadLetterSource::Sqlite.as_str().into(),
            status: None,
            kind: "not_ours".into(),
            reason: why.to_string(),
            index: None,
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
            tracing::error!(%error, "the dead letter takes nothing; the embedded store waits until it does");
            std::thread::sleep(Duration::from_millis(500));
        }
        self.metrics.dead_letter_documents[DeadLetterSource::Sqlite].inc();
        self.metrics.output(OutputKind::Sqlite).documents[DocumentResult::Rejected].inc();
    }
}

/// The Elasticsearch output as it is configured; nothing is sent yet.
///
/// # Errors
///
/// A setting that cannot be used.
pub fn open_elasticsearch(config: &Config) -> Result<Elasticsearch, elasticsearch::OpenError> {
    let format = DocumentFormat {
        union: windrow_trace::union,
        part_ids: windrow_trace::part_ids,
    };
    Elasticsearch::open(config.elasticsearch.clone(), format)
}
