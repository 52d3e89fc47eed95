//! Mirrored histogram: exports counts that another component keeps.
//!
//! The journal does not depend on metrics and counts its syncs itself; each scrape copies the
//! counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A histogram with the counts that were set last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MirroredHistogram {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Upper bound in seconds, and the count between it and the previous one.
    buckets: Vec<(f64, u64)>,
    sum: Duration,
}

impl MirroredHistogram {
    /// Sets the counts: `counts` has one more element than `bounds`, for values beyond the last
    /// bound.
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
