//! Figures of a measurement: names, units, medians over several runs, and ratios.

use std::collections::BTreeMap;

/// A measured figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    /// Records a second, from the first document to the last.
    Records,
    /// Documents a second.
    Documents,
    /// Megabytes received a second.
    Megabytes,
    /// CPU time per record, µs.
    Cpu,
    /// CPU time per record, relative to the baseline server's.
    OfBaseline,
    /// CPU time per record, relative to that of the case it is compared with.
    OfBase,
    /// Median time to the acknowledgement, ms.
    AckMedian,
    /// Time below which 99 % of the acknowledgements came, ms.
    AckHigh,
    /// Peak memory, MiB.
    Peak,
    /// Records a second, relative to the live rate of `packed`.
    OfLive,
    /// Records a second, relative to the case it is compared with.
    RateOfBase,
    /// The same for the median time to the acknowledgement.
    AckMedianOfBase,
    /// The same for its 99th percentile.
    AckHighOfBase,
    /// Searches answered a second.
    Searches,
    /// Median time of a search, ms.
    SearchMedian,
    /// Time below which 99 % of the searches were answered, ms.
    SearchHigh,
    /// Megabytes of the live tail a second, over all pages.
    Tail,
    /// From the start of the process until it is ready, s.
    Start,
    /// Size of the load, MiB.
    Sent,
    /// Memory when idle, MiB.
    IdleMemory,
    /// CPU time a second when idle, ms.
    IdleCpu,
}

impl Figure {
    /// The name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Records => "records_per_s",
            Self::Documents => "documents_per_s",
            Self::Megabytes => "megabytes_per_s",
            Self::Cpu => "cpu_us_per_record",
            Self::OfBaseline => "cpu_of_floor",
            Self::OfBase => "cpu_of_base",
            Self::AckMedian => "ack_p50_ms",
            Self::AckHigh => "ack_p99_ms",
            Self::Peak => "peak_mib",
            Self::OfLive => "rate_of_packed",
            Self::RateOfBase => "records_of_base",
            Self::AckMedianOfBase => "ack_p50_of_base",
            Self::AckHighOfBase => "ack_p99_of_base",
            Self::Searches => "searches_per_s",
            Self::SearchMedian => "search_p50_ms",
            Self::SearchHigh => "search_p99_ms",
            Self::Tail => "tail_megabytes_per_s",
            Self::Start => "start_s",
            Self::Sent => "sent_mib",
            Self::IdleMemory => "idle_mib",
            Self::IdleCpu => "idle_cpu_ms_per_s",
        }
    }
}

/// Figures of one run of one case.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// The numbers.
    pub(super) of: BTreeMap<Figure, f64>,
    /// CPU time per record by thread, µs.
    pub(super) threads: BTreeMap<String, f64>,
}

impl Figures {
    /// Sets a figure, if its value is finite.
    pub(super) fn set(&mut self, figure: Figure, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.of.insert(figure, value);
        }
    }

    /// A number.
    pub(super) fn get(&self, figure: Figure) -> Option<f64> {
        self.of.get(&figure).copied()
    }

    /// This number against that of another case.
    pub(super) fn ratio(&self, figure: Figure, other: Option<&Self>) -> Option<f64> {
        Some(self.get(figure)? / other?.get(figure)?)
    }

    /// The median of each number over several runs.
    pub(super) fn median(runs: &[Self]) -> Self {
        fn medians<'a, K: Copy + Ord + 'a>(all: impl Iterator<Item = (K, f64)>) -> BTreeMap<K, f64> {
            let mut values = BTreeMap::<K, Vec<f64>>::new();
            for (key, value) in all {
                values.entry(key).or_default().push(value);
            }
            values
                .into_iter()
                .filter_map(|(key, mut values)| Some((key, middle(&mut values)?)))
                .collect()
        }
        Self {
            of: medians(
                runs.iter()
                    .flat_map(|run| run.of.iter().map(|(key, value)| (*key, *value))),
            ),
            threads: medians(
                runs.iter()
                    .flat_map(|run| run.threads.iter().map(|(key, value)| (key.as_str(), *value))),
            )
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        }
    }
}

fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let high = *values.get(values.len() / 2)?;
    let low = *values.get(values.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_taken_of_each_number_by_itself() {
        let run = |cpu: f64, peak: Option<f64>| {
            let mut figures = Figures::default();
            figures.set(Figure::Cpu, Some(cpu));
            figures.set(Figure::Peak, peak);
            figures.set(Figure::Records, Some(1.0 / 0.0));
            figures.threads.insert("gather".into(), cpu / 2.0);
            figures
        };
        let runs = [run(3.0, Some(10.0)), run(1.0, None), run(2.0, Some(20.0))];
        let median = Figures::median(&runs);
        assert_eq!(median.get(Figure::Cpu), Some(2.0));
        assert_eq!(median.get(Figure::Peak), Some(15.0));
        assert_eq!(median.get(Figure::Records), None, "infinite");
        assert_eq!(median.threads["gather"], 1.0);
        assert_eq!(runs[0].ratio(Figure::Cpu, Some(&runs[1])), Some(3.0));
        assert_eq!(runs[0].ratio(Figure::Cpu, None), None);
    }
}
