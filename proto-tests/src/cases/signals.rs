//! Cases 39 to 46: `fluent_signal`, metrics, traces and group markers.

use super::{batch, cases, chunk, compressed::gzip, message, opts};
use crate::case_result::{CaseResult, check};
use crate::context::CaseContext;
use crate::msgpack::{Raw, array, bin, event_time, map, s, uint, unhex};
use crate::vectors;

cases! {
    39 "signal-logs" [] "S1.5" "fluent_signal 0, or absent: logs" => signal_logs;
    40 "signal-metrics" [] "S1.5; FB-itest"
        "fluent_signal 1 with a bin payload: acked, never decoded as log entries" => signal_metrics;
    41 "signal-traces" [] "S1.5; FB-fmt" "fluent_signal 2, plain and gzip: acked, never decoded as log entries" => signal_traces;
    42 "signal-metrics-compat" [] "FB-out"
        "fluent_signal 1 as [[time, [context..]]]: accepted" => metrics_compat;
    43 "signal-unknown" [] "S1.5 undefined" "fluent_signal 3, 4, 99, \"x\": acked, connection kept" => unknown_signal;
    44 "signal-two-contexts" [] "differs from FB-in"
        "two metrics contexts in one payload: both kept" => two_contexts;
    45 "group-markers" [] "FB-dec; FB-itest"
        "group markers, plain and in gzip: not events; attributes belong to the events between" => group_markers;
    46 "group-marker-with-nsec" [] "FB-dec" "marker seconds with nsec != 0: no crash, neighbours kept" => marker_with_nsec;
}

async fn signal_logs(c: CaseContext) -> CaseResult {
    let zero = opts(&[("fluent_signal", uint(0))]);
    let bytes = [
        batch(&c, bin(&c.entry(0, "packed")), Some(zero.clone())),
        batch(&c, array(&[c.entry(1, "forward")]), Some(zero.clone())),
        message(&c, c.time(2), c.record("message"), Some(zero)),
        batch(&c, bin(&c.entry(3, "absent")), Some(opts(&[("size", uint(1))]))),
    ];
    super::send_and_expect(&c, bytes.concat(), &["packed", "forward", "message", "absent"]).await
}

/// A metrics context with one counter, as cmetrics encodes it.
fn metrics(name: &str) -> Raw {
    let options = map(&[
        (s("ns"), s("conformance")),
        (s("ss"), s("")),
        (s("name"), s(name)),
        (s("desc"), s("a test")),
    ]);
    let meta = map(&[
        (s("ver"), uint(2)),
        (s("type"), uint(0)),
        (s("opts"), options),
        (s("labels"), array(&[])),
        (s("aggregation_type"), uint(2)),
    ]);
    let value = map(&[
        (s("ts"), uint(1_700_000_000_000_000_000)),
        (s("value"), crate::msgpack::f64(1.0)),
        (s("labels"), array(&[])),
        (s("hash"), uint(0)),
    ]);
    let processing = map(&[(s("static_labels"), array(&[]))]);
    let head = map(&[
        (s("cmetrics"), map(&[])),
        (s("external"), map(&[])),
        (s("processing"), processing),
    ]);
    map(&[
        (s("meta"), head),
        (
            s("metrics"),
            array(&[map(&[(s("meta"), meta), (s("values"), array(&[value]))])]),
        ),
    ])
}

fn traces() -> Raw {
    map(&[(s("resourceSpans"), array(&[]))])
}

/// Expects that a payload of valid log entries with another signal does not become events. Ack and
/// close are both allowed.
async fn not_taken_for_logs(c: &CaseContext, signal: u64) -> CaseResult {
    let disguised = c.with_suffix("disguised");
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&disguised, 1)), ("fluent_signal", uint(signal))]);
    peer.send(&batch(c, bin(&disguised.entry(0, "disguised")), Some(option)))
        .await?;
    let _ = peer.drain(std::time::Duration::from_millis(500)).await;
    disguised.expect_nothing().await
}

async fn signal_metrics(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1)), ("fluent_signal", uint(1))]);
    peer.send(&batch(&c, bin(&metrics("one")), Some(option))).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    not_taken_for_logs(&c, 1).await
}

async fn signal_traces(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1)), ("fluent_signal", uint(2))]);
    peer.send(&batch(&c, bin(&traces()), Some(option))).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    let option = opts(&[
        ("chunk", chunk(&c, 2)),
        ("compressed", s("gzip")),
        ("fluent_signal", uint(2)),
    ]);
    peer.send(&batch(&c, bin(&gzip(&traces())?), Some(option)))
        .await?;
    peer.expect_ack(&chunk(&c, 2)).await?;
    c.expect_alive(&mut peer).await?;
    not_taken_for_logs(&c, 2).await
}

async fn metrics_compat(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let entry = array(&[c.time(0), array(&[metrics("one"), metrics("two")])]);
    let option = opts(&[("chunk", chunk(&c, 1)), ("fluent_signal", uint(1))]);
    peer.send(&batch(&c, array(&[entry]), Some(option))).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await
}

async fn unknown_signal(c: CaseContext) -> CaseResult {
    for (n, signal) in (0..).zip([uint(3), uint(4), uint(99), s("x")]) {
        let mut peer = c.connect().await?;
        let option = opts(&[("chunk", chunk(&c, n)), ("fluent_signal", signal)]);
        peer.send(&batch(&c, bin(&c.entry(n, "unknown signal")), Some(option)))
            .await?;
        peer.expect_ack(&chunk(&c, n)).await?;
        c.expect_alive(&mut peer).await?;
    }
    Ok(())
}

async fn two_contexts(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1)), ("fluent_signal", uint(1))]);
    peer.send(&batch(
        &c,
        bin(&[metrics("one"), metrics("two")].concat()),
        Some(option),
    ))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.note("only the ack is checked: sinks do not show metrics");
    c.expect_alive(&mut peer).await
}

/// A group marker: seconds all ones (start) or one less (end), nsec 0.
pub(super) fn marker(start: bool, attributes: Raw) -> Raw {
    let metadata = if start {
        map(&[
            (s("schema"), s("otlp")),
            (s("resource_id"), uint(0)),
            (s("scope_id"), uint(0)),
        ])
    } else {
        map(&[])
    };
    array(&[
        array(&[
            event_time(if start { u32::MAX } else { u32::MAX - 1 }, 0),
            metadata,
        ]),
        attributes,
    ])
}

async fn group_markers(c: CaseContext) -> CaseResult {
    let (plain, packed) = (c.with_suffix("plain"), c.with_suffix("gzip"));
    let attributes = |c: &CaseContext| {
        let attributes = map(&[(s("service.name"), s(&format!("service-of-{}", c.token)))]);
        // The token is not a traceId here, so that a marker taken for an event has no trace.
        map(&[
            (s("resource"), map(&[(s("attributes"), attributes)])),
            (s("traceId"), s(&c.token)),
        ])
    };
    let event = |c: &CaseContext, n| array(&[array(&[c.time(n), map(&[])]), c.record(&format!("event {n}"))]);
    let group = |c: &CaseContext| {
        vec![
            marker(true, attributes(c)),
            event(c, 0),
            event(c, 1),
            marker(false, map(&[])),
        ]
    };
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::GROUPED)).await?;
    let option =
        |n, more: &[(&str, Raw)]| opts(&[&[("chunk", chunk(&c, n)), ("size", uint(4))], more].concat());
    peer.send(&batch(
        &c,
        array(&group(&plain)),
        Some(option(1, &[("fluent_signal", uint(0))])),
    ))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    let payload = bin(&gzip(&group(&packed).concat())?);
    peer.send(&batch(&c, payload, Some(option(2, &[("compressed", s("gzip"))]))))
        .await?;
    peer.expect_ack(&chunk(&c, 2)).await?;
    c.expect_alive(&mut peer).await?;
    for sub in [plain, packed] {
        sub.expect_texts(&["event 0", "event 1"]).await?;
        sub.expect_count(2).await?;
        if sub.target.sink.shows_metadata() {
            let docs = sub.target.sink.read(&sub.token).await.unwrap_or_default();
            let shown = docs
                .iter()
                .any(|d| d.whole.to_string().contains(&format!("service-of-{}", sub.token)));
            check(
                shown,
                "attributes of the group kept with its events",
                format!("{docs:?}"),
            )?;
        } else {
            c.note("group attributes not checked: the sink does not show them");
        }
    }
    Ok(())
}

async fn marker_with_nsec(c: CaseContext) -> CaseResult {
    let odd = c.with_suffix("odd");
    let entry = |sec, nsec| array(&[array(&[event_time(sec, nsec), map(&[])]), odd.record("odd")]);
    let entries = [
        c.entry(0, "before"),
        entry(u32::MAX, 1),
        entry(u32::MAX - 1, 1),
        c.entry(1, "after"),
    ];
    let mut peer = c.connect().await?;
    peer.send(&batch(
        &c,
        array(&entries),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    ))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["before", "after"]).await
}
