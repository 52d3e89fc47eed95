//! Test scene: a gatherer with a journal, a store of rejected input, and an output that only collects batches.

use std::path::Path;

use bytes::Bytes;

use super::super::*;
use crate::output::dead_letter::RejectedStore;
use windrow_journal::JournalOptions;

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
        let (journal, _) = Journal::open(JournalOptions::new(folder.join("journal")), Box::new(())).unwrap();
        let rejected = RejectedStore::open(folder.join("rejected"), 64 << 20).unwrap();
        let (account, metrics) = (Arc::<LineCounters>::default(), Arc::new(Metrics::new(&[])));
        let (sender, batches) = mpsc::channel(1000);
        let (gauges, buffer_pool) = (Arc::<Gauges>::default(), Arc::<BufferPool>::default());
        let stop: Arc<AtomicBool> = Arc::default();
        let dependencies = Dependencies {
            journal: journal.clone(),
            outputs: vec![sender],
            tap: BatchTap::new().0,
            output_bytes: Arc::default(),
            framing: None,
            account: Arc::clone(&account),
            metrics: Arc::clone(&metrics),
            rejects: RejectBuffer::new(rejected, metrics, account),
            gauges: Arc::clone(&gauges),
            open_traces: Arc::default(),
            admission: Arc::new(AdmissionControl::new(1)),
            buffer_pool: Arc::clone(&buffer_pool),
            stop,
        };
        let mut settings = Settings::from_config(&crate::config::Config::default());
        settings.flush_on_exit = true;
        settings.table.max_trace_bytes = max_trace_bytes;
        Self {
            gatherer: Gatherer::new(settings, dependencies),
            journal,
            batches,
            gauges,
            buffer_pool,
        }
    }

    /// Gathers the journal record with this number.
    pub(super) fn gather(&mut self, number: usize, payload: Bytes) {
        self.gatherer.gather(Record {
            lsn: number as u64 + 1,
            segment: 1,
            received_us: (number as i64 + 1) * 1000,
            kind: crate::input::forward::FORWARD_MESSAGES,
            payload,
            released: false,
        });
    }
}
