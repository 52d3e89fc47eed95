//! A histogram that is counted elsewhere and shown here.
//!
//! The journal knows nothing of metrics and counts its syncs itself; at scrape time its counts are copied.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The counts as they were last set; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MirroredHistogram {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Upper bound in seconds, and how many fell between it and the one before.
    buckets: Vec<(f64, u64)>,
    sum: Duration,
}

impl MirroredHistogram {
    /// Shows these counts from now on: `counts` has one more than `bounds`, for what is beyond the last.
    pub fn set(&self, bounds: &[Duration], counts: &[u64], sum: Duration) {
        let bounds = bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets = bounds.zip(counts.iter().copied()).collect();
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts { buckets, sum };
    }
}

impl EncodeMetric for MirroredHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let total = counts.buckets.iter().map(|(_, count)| count).sum();
        // The library writes the bound `f64::INFINITY` as `+Inf`, which every histogram must have.
        let none = [(f64::INFINITY, 0)];
        let buckets = if counts.buckets.is_empty() {
            &none[..]
        } else {
            &counts.buckets
        };
        encoder.encode_histogram::<NoLabelSet>(counts.sum.as_secs_f64(), total, buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
