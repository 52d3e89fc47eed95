//! Reference documentation of the metrics, generated from a scrape. A test compares it with the
//! checked-in page.

use std::collections::{BTreeMap, BTreeSet};

use super::Metrics;

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from src/metrics.rs and checked by a test; regenerate with
WINDROW_BLESS=1 cargo test metrics. -->

`GET /metrics` on the admin port, or `/api/v1/metrics/prometheus`, in the Prometheus text format.
Every series exists from the start, at zero; labels have the listed values and no others. When
idle, `windrow_input_records_total` = `windrow_records_delivered_total` +
`windrow_records_duplicate_total` + `windrow_records_joined_total` +
`windrow_records_dropped_total` + `windrow_records_dead_letter_total` + `windrow_records_open`;
`windrow_audit_difference` is the difference.

| metric | type | labels | meaning |
|---|---|---|---|
";

/// One row per family, in the order of the text; labels from the series, without `le` of
/// histograms.
pub(super) fn markdown(metrics: &Metrics) -> String {
    let text = metrics.encode();
    let mut page = String::from(INTRODUCTION);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind = lines
            .next()
            .and_then(|line| line.rsplit_once(' '))
            .map_or("", |(_, kind)| kind);
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        while let Some(series) = lines.next_if(|line| !line.starts_with('#')) {
            let inside = series
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'))
                .map_or("", |(inside, _)| inside);
            for (label, value) in inside.split(',').filter_map(|pair| pair.split_once('=')) {
                labels.entry(label).or_default().insert(value.trim_matches('"'));
            }
        }
        labels.remove("le");
        labels.remove("version");
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, values)| {
                format!(
                    "{label}: {}",
                    values.iter().copied().collect::<Vec<_>>().join(", ")
                )
            })
            .collect();
        page.extend([
            "| `",
            name,
            "` | ",
            kind,
            " | ",
            labels.join("; ").as_str(),
            " | ",
            help,
            " |\n",
        ]);
    }
    page
}
