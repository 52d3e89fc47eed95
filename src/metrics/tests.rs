//! Tests of the metrics: names, labels and the refresh at scrape time.

use super::*;

#[test]
fn every_series_stands_at_zero_from_the_start() {
    let metrics = Metrics::new(&[Output::Sqlite]);
    let text = metrics.encode();
    for line in [
        "windrow_input_records_total 0",
        "windrow_input_connections 0",
        "windrow_input_connections_total 0",
        "windrow_input_messages_total{mode=\"compressed\"} 0",
        "windrow_traces_flushed_total{reason=\"idle\"} 0",
        "windrow_output_documents_total{output=\"sqlite\",result=\"created\"} 0",
        "windrow_output_errors_total{output=\"sqlite\",reason=\"throttled\"} 0",
        "windrow_output_latency_seconds_count{output=\"sqlite\"} 0",
        "windrow_output_in_flight{output=\"sqlite\"} 0",
        "windrow_journal_fsync_seconds_count 0",
        "windrow_dead_letter_documents_total{source=\"sqlite\"} 0",
        "windrow_audit_difference 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }
    assert!(text.contains(&format!(
        "windrow_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    )));
}

#[test]
fn only_configured_outputs_are_shown_and_all_can_be_counted() {
    let metrics = Metrics::new(&[Output::Elasticsearch]);
    metrics.output(Output::Elasticsearch).documents[DocumentResult::Merged].inc();
    metrics.output(Output::Sqlite).documents[DocumentResult::Merged].inc();
    metrics.output(Output::Stdout).latency_seconds.observe(1.0);
    let text = metrics.encode();
    assert!(text.contains("windrow_output_documents_total{output=\"elasticsearch\",result=\"merged\"} 1"));
    assert!(!text.contains("output=\"sqlite\""), "{text}");
    assert!(!text.contains("output=\"stdout\""), "{text}");
}

#[test]
fn a_label_counts_into_its_own_series() {
    let metrics = Metrics::new(&[]);
    for (n, (_, counter)) in (1..).zip(metrics.input_poison.iter()) {
        counter.inc_by(n);
    }
    let text = metrics.encode();
    for (n, label) in (1..).zip(Poison::ALL) {
        let line = format!("windrow_input_poison_total{{reason=\"{label}\"}} {n}");
        assert!(text.lines().any(|l| l == line), "no line {line:?}");
        assert_eq!(metrics.input_poison[*label].get(), n);
    }
    let count = Poison::ALL.len() as u64;
    assert_eq!(metrics.input_poison.sum(), count * (count + 1) / 2);
}

#[test]
fn mirrored_gauges_are_set_when_somebody_asks() {
    let metrics = Metrics::new(&[]);
    let state = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(7));
    let seen = std::sync::Arc::clone(&state);
    metrics.on_scrape(move |m| {
        m.journal_segments
            .set(seen.load(std::sync::atomic::Ordering::Relaxed));
    });
    assert!(metrics.encode().contains("windrow_journal_segments 7\n"));
    state.store(9, std::sync::atomic::Ordering::Relaxed);
    assert!(metrics.encode().contains("windrow_journal_segments 9\n"));
}

#[test]
fn names_follow_the_rules_and_are_written_once() {
    let all = [Output::Elasticsearch, Output::Sqlite, Output::Stdout];
    let text = Metrics::new(&all).encode();
    let mut families: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    assert!(families.contains(&"windrow_input_connections gauge"), "{text}");
    assert!(
        families.contains(&"windrow_input_connections_total counter"),
        "{text}"
    );
    assert!(
        families
            .iter()
            .filter(|f| f.ends_with("counter"))
            .all(|f| f.ends_with("_total counter")),
        "{text}"
    );
    let count = families.len();
    families.sort_unstable_by_key(|family| family.split(' ').next());
    families.dedup_by_key(|family| family.split(' ').next());
    assert_eq!(families.len(), count, "{text}");
    assert_eq!(
        text.lines().filter(|line| line.starts_with("# HELP ")).count(),
        count
    );
    let mut seen = std::collections::BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a series and its value");
        *seen.entry(series).or_insert(0) += 1;
    }
    assert!(seen.keys().all(|name| name.starts_with("windrow_")), "{seen:?}");
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    // A counter ends in `_total` exactly once: the registry adds it.
    assert!(!text.contains("_total_total"), "{text}");
}

#[test]
fn the_reference_page_is_current() {
    let (path, made) = (
        concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"),
        Metrics::reference_markdown(),
    );
    if std::env::var_os("WINDROW_BLESS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == made,
        "docs/metrics.md is not current; write it with WINDROW_BLESS=1 cargo test metrics"
    );
}

#[test]
fn a_mirrored_histogram_shows_what_was_counted_elsewhere() {
    let metrics = Metrics::new(&[]);
    let bounds = [1, 20].map(std::time::Duration::from_millis);
    metrics
        .journal_fsync_seconds
        .set(&bounds, &[4, 2, 1], std::time::Duration::from_millis(1500));
    let text = metrics.encode();
    for line in [
        "windrow_journal_fsync_seconds_sum 1.5",
        "windrow_journal_fsync_seconds_count 7",
        "windrow_journal_fsync_seconds_bucket{le=\"0.001\"} 4",
        "windrow_journal_fsync_seconds_bucket{le=\"0.02\"} 6",
        "windrow_journal_fsync_seconds_bucket{le=\"+Inf\"} 7",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }
}
