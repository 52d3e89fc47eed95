//! Registrar: creates and registers a metric in one step, so that none is forgotten.
//!
//! Owns the creation of metrics with labels and the choice of exported outputs; `metrics` lists the
//! metrics.

use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Counter, Gauge, Histogram, Label, Output, OutputMetrics, PerLabel};

type Labels = Vec<(&'static str, &'static str)>;

/// Seconds: from a local database to a cluster under load.
const LATENCY_BUCKETS: [f64; 12] = [
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 30.0, 60.0,
];

/// Creates metrics in a registry.
pub(super) struct Registrar {
    pub(super) registry: Registry,
}

impl Registrar {
    pub(super) fn register<M: prometheus_client::registry::Metric + Clone>(
        &mut self,
        name: &str,
        help: &str,
        metric: M,
    ) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    pub(super) fn per_label<L: Label>(&mut self, name: &str, help: &str) -> PerLabel<L, Counter> {
        let family = self.register(name, help, Family::<Labels, Counter>::default());
        PerLabel::of(&family, |label: L| vec![(L::NAME, label.as_str())])
    }

    pub(super) fn build_info(&mut self) {
        let family = self.register(
            "build_info",
            "1, with the version of the program",
            Family::<Labels, Gauge>::default(),
        );
        family
            .get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
    }

    pub(super) fn outputs(&mut self, shown: &[Output]) -> [OutputMetrics; Output::ALL.len()] {
        let documents = self.family("output_documents", "Documents by result");
        let proc_records = self.family("output_proc_records", "Lines in confirmed documents");
        let retries = self.family("output_retries", "Requests sent again");
        let retried_records = self.family("output_retried_records", "Lines in repeated requests");
        let errors = self.family(
            "output_errors",
            "Failed requests or items; failures that are retried count too",
        );
        let bytes = self.family(
            "output_bytes",
            "Bytes given to the output, before compression and as sent",
        );
        let latency = self.register(
            "output_latency_seconds",
            "Latency of a request, or of a transaction",
            Family::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(|| {
                Histogram::new(LATENCY_BUCKETS)
            }),
        );
        let in_flight = self.register(
            "output_in_flight",
            "Requests in flight",
            Family::<Labels, Gauge>::default(),
        );
        // Metrics that are not exported belong to families outside the registry.
        let hidden = Family::<Labels, Counter>::default();
        [Output::Elasticsearch, Output::Sqlite, Output::Stdout].map(|output| {
            let shown = shown.contains(&output);
            let pick = |family: &Family<Labels, Counter>| if shown { family.clone() } else { hidden.clone() };
            let of =
                |family: &Family<Labels, Counter>| pick(family).get_or_create_owned(&output_label(output));
            OutputMetrics {
                documents: PerLabel::of(&pick(&documents), with_output(output)),
                proc_records: of(&proc_records),
                retries: of(&retries),
                retried_records: of(&retried_records),
                errors: PerLabel::of(&pick(&errors), with_output(output)),
                bytes: PerLabel::of(&pick(&bytes), with_output(output)),
                latency_seconds: if shown {
                    latency.get_or_create_owned(&output_label(output))
                } else {
                    Histogram::new(LATENCY_BUCKETS)
                },
                in_flight: if shown {
                    in_flight.get_or_create_owned(&output_label(output))
                } else {
                    Gauge::default()
                },
            }
        })
    }

    fn family(&mut self, name: &str, help: &str) -> Family<Labels, Counter> {
        self.register(name, help, Family::default())
    }
}

impl<L: Label> PerLabel<L, Counter> {
    fn of(family: &Family<Labels, Counter>, labels: impl Fn(L) -> Labels) -> Self {
        let each = L::ALL
            .iter()
            .map(|label| family.get_or_create_owned(&labels(*label)))
            .collect();
        Self {
            each,
            label: std::marker::PhantomData,
        }
    }
}

fn output_label(output: Output) -> Labels {
    vec![(Output::NAME, output.as_str())]
}

fn with_output<L: Label>(output: Output) -> impl Fn(L) -> Labels {
    move |label| vec![(Output::NAME, output.as_str()), (L::NAME, label.as_str())]
}
