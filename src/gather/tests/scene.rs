//! A gatherer by itself, with a journal, a dead letter and an output that only collects.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::*;
use crate::output::Batch;
use crate::output::dead_letter::DeadLetter;
use windrow_journal::Options;

/// A gatherer, with what is beside it.
pub(super) struct Scene {
    pub(super) gatherer: Gatherer,
    pub(super) journal: Journal,
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) spares: Arc<Spares>,
}

impl Scene {
    /// With the journal and the dead letter in a folder, and so many bytes for a trace.
    pub(super) fn new(folder: &Path, max_trace_bytes: usize) -> Self {
        let (journal, _) = Journal::open(Options::new(folder.join("journal")), Box::new(())).unwrap();
        let dead_letter = Arc::new(DeadLetter::open(folder.join("dead-letter"), 8 << 20, 8 << 20).unwrap());
        let (account, metrics) = (Arc::<LineCounters>::default(), Arc::new(Metrics::new(&[])));
        let (sender, batches) = mpsc::channel(1000);
        let (gauges, spares) = (Arc::<Gauges>::default(), Arc::<Spares>::default());
        let stop: Arc<AtomicBool> = Arc::default();
        let wiring = Wiring {
            journal: journal.clone(),
            outputs: vec![sender],
            output_bytes: Arc::default(),
            framing: None,
            account: Arc::clone(&account),
            metrics: Arc::clone(&metrics),
            aside: Aside::new(dead_letter, metrics, account, Arc::clone(&stop)),
            gauges: Arc::clone(&gauges),
            brake: Arc::new(Brake::new(1)),
            spares: Arc::clone(&spares),
            stop,
        };
        let mut settings = Settings::from_config(&crate::config::Config::default());
        settings.flush_on_exit = true;
        settings.table.max_trace_bytes = max_trace_bytes;
        Self {
            gatherer: Gatherer::new(settings, wiring),
            journal,
            batches,
            gauges,
            spares,
        }
    }

    /// Gathers a journal record, the `number`-th.
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
