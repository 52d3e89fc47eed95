//! Tests of pages and the pages that they become.

use super::*;

fn labels() -> Vec<Label> {
    vec![
        Label {
            name: "service_name",
            value: "order".to_owned(),
        },
        Label {
            name: "environment",
            value: "demo".to_owned(),
        },
    ]
}

fn one(line: &str) -> String {
    relabel(line, &labels(), &["up"]).unwrap().text
}

#[test]
fn every_form_of_sample_gets_the_labels() {
    for (line, expected) in [
        (
            "requests 3",
            r#"requests{service_name="order",environment="demo"} 3"#,
        ),
        (
            "requests{} 3",
            r#"requests{service_name="order",environment="demo"} 3"#,
        ),
        (
            r#"requests{path="/a,b}c",m="GET"} 1.5e3 1700000000000"#,
            r#"requests{service_name="order",environment="demo",path="/a,b}c",m="GET"} 1.5e3 1700000000000"#,
        ),
        (
            r#"requests { path = "a\"b\\" , } +Inf"#,
            r#"requests{service_name="order",environment="demo",path = "a\"b\\"} +Inf"#,
        ),
        (
            "ns:rule NaN",
            r#"ns:rule{service_name="order",environment="demo"} NaN"#,
        ),
        (
            r#"h_bucket{le="+Inf"} 5 # {trace_id="abc"} 0.67 1700000000.1"#,
            r#"h_bucket{service_name="order",environment="demo",le="+Inf"} 5 # {trace_id="abc"} 0.67 1700000000.1"#,
        ),
        ("c\t7", r#"c{service_name="order",environment="demo"} 7"#),
    ] {
        assert_eq!(one(line), format!("{expected}\n"), "{line}");
    }
}

#[test]
fn a_label_of_the_same_name_is_kept_under_another() {
    assert_eq!(
        one(r#"x{environment="theirs",service_name="also, \"theirs\"",z="environment"} 1"#),
        "x{service_name=\"order\",environment=\"demo\",exported_environment=\"theirs\",\
         exported_service_name=\"also, \\\"theirs\\\"\",z=\"environment\"} 1\n"
    );
}

#[test]
fn a_family_of_the_same_name_is_kept_under_another() {
    assert_eq!(
        one("# HELP up Theirs.\n# TYPE up gauge\nup 1\nupper 2\n"),
        "# HELP exported_up Theirs.\n# TYPE exported_up gauge\n\
         exported_up{service_name=\"order\",environment=\"demo\"} 1\n\
         upper{service_name=\"order\",environment=\"demo\"} 2\n"
    );
}

#[test]
fn a_histogram_keeps_its_help_type_unit_and_order() {
    let page = "# HELP d_seconds Time, in { seconds }.\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n\
                d_seconds_bucket{le=\"0.1\"} 1\nd_seconds_bucket{le=\"+Inf\"} 2\nd_seconds_sum 0.7\nd_seconds_count 2\n\
                # EOF\n";
    let out = relabel(page, &labels(), &[]).unwrap();
    assert_eq!(out.samples, 4);
    assert_eq!(
        out.text,
        "# HELP d_seconds Time, in { seconds }.\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n\
         d_seconds_bucket{service_name=\"order\",environment=\"demo\",le=\"0.1\"} 1\n\
         d_seconds_bucket{service_name=\"order\",environment=\"demo\",le=\"+Inf\"} 2\n\
         d_seconds_sum{service_name=\"order\",environment=\"demo\"} 0.7\n\
         d_seconds_count{service_name=\"order\",environment=\"demo\"} 2\n"
    );
}

#[test]
fn the_values_of_added_labels_are_escaped() {
    let odd = [Label {
        name: "service_name",
        value: "a\"b\\c\nd".to_owned(),
    }];
    assert_eq!(
        relabel("x 1", &odd, &[]).unwrap().text,
        "x{service_name=\"a\\\"b\\\\c\\nd\"} 1\n"
    );
}

#[test]
fn what_is_no_sample_is_refused_with_its_line() {
    for line in [
        "requests",
        "requests{} ",
        "requests many",
        "1abc 3",
        "a-b 3",
        r#"x{a="b" 3"#,
        r#"x{a="b"c="d"} 3"#,
        "x{a=b} 3",
        r#"x{a="b} 3"#,
        r#"x{a:b="c"} 3"#,
        "<html>",
    ] {
        let error = relabel(&format!("ok 1\n{line}\n"), &labels(), &[]).unwrap_err();
        assert!(error.to_string().starts_with("line 2 "), "{line}: {error}");
    }
}

#[test]
fn a_page_of_our_own_metrics_passes_through() {
    let mut registry = prometheus_client::registry::Registry::default();
    let histogram = prometheus_client::metrics::histogram::Histogram::new([0.1, 1.0]);
    histogram.observe(0.5);
    registry.register("latency_seconds", "Time", histogram);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    let out = relabel(&page, &labels(), &[]).unwrap();
    assert_eq!(out.samples, 5);
    assert!(
        out.text
            .contains(r#"latency_seconds_bucket{service_name="order",environment="demo",le="1.0"} 1"#)
    );
    assert!(!out.text.contains("EOF"));
}
