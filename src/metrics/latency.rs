//! Latency histogram that can be read: for metrics, and for quantiles of the last seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets, in µs; a last bucket has everything beyond them.
const BOUNDS_US: [u64; 15] = [
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// A histogram of durations. Cheap to clone; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct LatencyHistogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// The counts of a [`LatencyHistogram`] at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyCounts([u64; BUCKETS]);

impl LatencyHistogram {
    /// Counts a duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn counts(&self) -> LatencyCounts {
        LatencyCounts(std::array::from_fn(|at| {
            self.0.buckets[at].load(Ordering::Relaxed)
        }))
    }
}

impl LatencyCounts {
    /// The quantile `q`, 0 to 1, of what was counted after `before`, in ms; interpolated within its
    /// bucket. `None` when nothing was.
    pub fn quantile_since(&self, before: &Self, q: f64) -> Option<f64> {
        let counts: [u64; BUCKETS] = std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at]));
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = q * total as f64;
        let mut below = 0.0;
        for (at, count) in counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let low = at.checked_sub(1).map_or(0, |before| BOUNDS_US[before]) as f64;
                let high = BOUNDS_US.get(at).map_or(low, |bound| *bound as f64);
                let part = ((wanted - below) / count).clamp(0.0, 1.0);
                return Some((low + (high - low) * part) / 1000.0);
            }
            below += count;
        }
        None
    }
}

impl EncodeMetric for LatencyHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let LatencyCounts(counts) = self.counts();
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6);
        // The library writes the bound `f64::MAX` or infinity as `+Inf`.
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let sum = self.0.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_came_since() {
        let histogram = LatencyHistogram::default();
        let start = histogram.counts();
        assert_eq!(start.quantile_since(&start, 0.5), None);
        for ms in [1, 1, 1, 1, 1, 1, 1, 1, 1, 100] {
            histogram.observe(Duration::from_millis(ms));
        }
        let later = histogram.counts();
        let median = later.quantile_since(&start, 0.5).unwrap();
        assert!((0.5..=1.0).contains(&median), "{median}");
        let highest = later.quantile_since(&start, 0.99).unwrap();
        assert!((50.0..=100.0).contains(&highest), "{highest}");
        assert_eq!(later.quantile_since(&later, 0.5), None);
        histogram.observe(Duration::from_secs(100));
        assert_eq!(histogram.counts().quantile_since(&later, 0.5), Some(10_000.0));
    }
}
