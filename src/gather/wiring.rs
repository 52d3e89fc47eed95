//! What gathering is given when it begins, and the numbers that others read while it runs. Owns no behaviour.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use tokio::sync::mpsc;

use super::aside::Aside;
use crate::brake::Brake;
use crate::metrics::Metrics;
use crate::output::{Batch, Framing, LineCounters};
use crate::spares::Spares;
use windrow_journal::Journal;

/// Numbers that others read while gathering runs.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) open_traces: AtomicUsize,
    pub(crate) open_bytes: AtomicUsize,
    pub(crate) open_lines: AtomicU64,
    /// Nothing was left to be gathered when this was last set.
    pub(crate) idle: AtomicBool,
}

/// What gathering is connected to.
pub(crate) struct Wiring {
    pub(crate) journal: Journal,
    pub(crate) outputs: Vec<mpsc::Sender<Batch>>,
    pub(crate) output_bytes: Arc<AtomicUsize>,
    pub(crate) framing: Option<Box<dyn Framing>>,
    pub(crate) account: Arc<LineCounters>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) aside: Aside,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) brake: Arc<Brake>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) stop: Arc<AtomicBool>,
}
