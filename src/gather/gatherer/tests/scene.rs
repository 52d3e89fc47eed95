//! Test scene: a gatherer with a journal, a store of rejected input, and an output that only
//! collects batches.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::super::*;
use crate::gather::record_queue::RecordQueue;
use crate::output::SealedDocument;
use crate::output::dead_letter::RejectedStore;
use windrow_journal::{CommitSink, JournalOptions};

/// A gatherer and what it works with.
pub(super) struct Scene {
    pub(super) gatherer: Gatherer,
    pub(super) journal: Journal,
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) buffer_pool: Arc<BufferPool>,
}

impl Scene {
    /// Opens the journal and the store of rejected input in `folder`.
    pub(super) fn new(folder: &Path, max_trace_bytes: usize) -> Self {
        let mut settings = Settings::from_config(&crate::config::Config::default());
        settings.table.max_trace_bytes = max_trace_bytes;
        settings.max_part_bytes = windrow_trace::max_part_bytes(max_trace_bytes);
        Self::with_settings(folder, settings)
    }

    /// The same with other settings.
    pub(super) fn with_settings(folder: &Path, settings: Settings) -> Self {
        Self::with_sink(folder, settings, Box::new(()))
    }

    /// The same; `sink` gets what is appended to the journal.
    pub(super) fn with_sink(folder: &Path, settings: Settings, sink: Box<dyn CommitSink>) -> Self {
        Self::with_all(folder, settings, sink, None)
    }

    /// A gatherer with the routes of `config`.
    pub(super) fn with_routes(folder: &Path, config: &crate::config::Config) -> Self {
        let destinations = Arc::new(crate::output::Destinations::of(config).unwrap());
        let router = Router::new(config, &destinations);
        Self::with_all(folder, Settings::from_config(config), Box::new(()), router)
    }

    fn with_all(
        folder: &Path,
        mut settings: Settings,
        sink: Box<dyn CommitSink>,
        router: Option<Router>,
    ) -> Self {
        let (journal, _) = Journal::open(JournalOptions::new(folder.join("journal")), sink).unwrap();
        let rejected = RejectedStore::open(folder.join("rejected"), 64 << 20).unwrap();
        let (account, metrics) = (Arc::<LineCounters>::default(), Arc::new(Metrics::new(&[])));
        let (sender, batches) = mpsc::channel(1000);
        let (gauges, buffer_pool) = (Arc::<Gauges>::default(), Arc::<BufferPool>::default());
        let stop: Arc<AtomicBool> = Arc::default();
        let dependencies = Dependencies {
            journal: journal.clone(),
            outputs: vec![sender],
            asking: None,
            resumed: None,
            tap: BatchTap::new().0,
            output_bytes: Arc::default(),
            framing: None,
            account: Arc::clone(&account),
            metrics: Arc::clone(&metrics),
            rejects: RejectBuffer::new(rejected, metrics, account),
            gauges: Arc::clone(&gauges),
            open_traces: Arc::default(),
            router,
            admission: Arc::new(AdmissionControl::new(1)),
            buffer_pool: Arc::clone(&buffer_pool),
            stop,
        };
        settings.flush_on_exit = true;
        // The records of tests are received in 1970.
        settings.time_window = None;
        Self {
            gatherer: Gatherer::new(settings, dependencies),
            journal,
            batches,
            gauges,
            buffer_pool,
        }
    }

    /// Ends gathering and returns the documents by id, without their state.
    pub(super) fn finish(self) -> BTreeMap<String, Value> {
        let mut documents = BTreeMap::new();
        for sealed in self.seal() {
            let mut document: Value = serde_json::from_slice(sealed.json()).unwrap();
            document["windrow"].as_object_mut().unwrap().remove("state");
            // The id of a record without a trace id is not compared.
            let id = if sealed.is_trace() {
                sealed.id().to_string()
            } else {
                format!("single {}", documents.len())
            };
            assert!(documents.insert(id, document).is_none());
        }
        documents
    }

    /// Ends gathering and returns the documents, in order.
    pub(super) fn seal(self) -> Vec<SealedDocument> {
        let Self {
            gatherer,
            journal,
            mut batches,
            ..
        } = self;
        let queue = RecordQueue::new(1, Arc::new(AdmissionControl::new(1)));
        queue.close();
        gatherer.run(QueueConsumer::new(queue, journal));
        let mut documents = Vec::new();
        while let Some(batch) = batches.blocking_recv() {
            documents.extend(batch.documents());
        }
        documents
    }

    /// Gathers the journal record with this number.
    pub(super) fn gather(&mut self, number: usize, payload: Bytes) {
        self.gather_record(number, payload, false);
    }

    /// Gathers the journal record with this number, of this kind.
    pub(super) fn gather_kind(&mut self, number: usize, kind: u8, payload: Bytes) {
        self.gatherer.gather(Record {
            lsn: number as u64 + 1,
            segment: 1,
            received_us: (number as i64 + 1) * 1000,
            kind,
            payload,
            released: false,
        });
    }

    /// Gathers the journal record with this number; `released`: everything that was made of it is
    /// stored.
    pub(super) fn gather_record(&mut self, number: usize, payload: Bytes, released: bool) {
        self.gatherer.gather(Record {
            lsn: number as u64 + 1,
            segment: 1,
            received_us: (number as i64 + 1) * 1000,
            kind: crate::input::forward::FORWARD_MESSAGES,
            payload,
            released,
        });
    }
}
