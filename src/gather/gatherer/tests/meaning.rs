//! What records mean: ids of every form, values that are no ids, texts, and times out of range.

use forward_protocol::entries::Time;

use super::*;
use crate::gather::settings::TimeWindow;

/// A chunk in Forward mode with these encoded entries.
pub(super) fn chunk(number: u8, entries: &[Vec<u8>]) -> Bytes {
    let mut out = Vec::new();
    let bytes = entries.concat();
    let stream = EntryStream {
        bytes: &bytes,
        count: entries.len() as u32,
    };
    write_packed(
        &mut out,
        b"app",
        stream,
        Some(&ChunkId::from_random([number; 16])),
    );
    out.into()
}

pub(super) fn entry(ns: i64, record: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_entry(&mut out, ns, None, &rmp_serde::to_vec(record).unwrap());
    out
}

/// The documents of these records, a nanosecond apart.
fn documents(records: &[Value]) -> Vec<Value> {
    let entries: Vec<_> = (1i64..)
        .zip(records)
        .map(|(ns, record)| entry(ns, record))
        .collect();
    gathered([chunk(1, &entries)]).into_values().collect()
}

#[test]
fn values_that_mean_no_trace_join_nothing() {
    let values = [
        json!("-"),
        json!("0"),
        json!("00000000000000000000000000000000"),
        json!("00000000-0000-0000-0000-000000000000"),
        json!("00-00000000000000000000000000000000-0000000000000000-00"),
        json!("0x0"),
        json!("NULL"),
        json!(" None\n"),
        json!("<nil>"),
        json!("%!s(<nil>)"),
        json!("traceId_IS_UNDEFINED"),
        json!("{}"),
        json!("not_set"),
        json!("NaN"),
        json!("N.A."),
        json!("Undefined"),
        json!("n/a"),
        json!(" "),
        json!(0),
        json!(null),
        json!({"high": 0}),
    ];
    // Twice each: the second time they have a known shape.
    let records: Vec<_> = values
        .iter()
        .chain(&values)
        .map(|value| json!({"traceId": value, "message": "m"}))
        .collect();
    let documents = documents(&records);
    assert_eq!(documents.len(), records.len());
    for value in &values {
        // Stores have a text under this name.
        let name = if value.is_object() { "traceId_" } else { "traceId" };
        let as_it_came = documents
            .iter()
            .filter(|document| document.get(name) == Some(value));
        assert_eq!(as_it_came.count(), 2, "{value}");
    }
    assert!(
        documents
            .iter()
            .all(|document| document["windrow"].get("lines").is_none())
    );
}

#[test]
fn ids_of_every_form_join_the_lines_of_their_trace() {
    let hex = "4bf92f3577b34da6a3ce929d0e0e4736";
    let root = "1-5759e988-bd862e3fe1be46a994272793";
    let forms = [
        (
            json!({"traceId": 1_234_567_890_123_456_789u64}),
            "1234567890123456789",
        ),
        (
            json!({"traceparent": format!("00-{hex}-00f067aa0ba902b7-01")}),
            hex,
        ),
        (
            json!({"x-amzn-trace-id": format!("Root={root};Parent=53995c3f42cd8ad8;Sampled=1")}),
            root,
        ),
        (json!({"b3": format!("{hex}-e457b5a2e4d86bd1-1")}), hex),
        (json!({"dd": {"trace_id": "77"}}), "77"),
        (json!({"trace.id": "ecs"}), "ecs"),
        (json!({"trace": {"id": "nested"}}), "nested"),
        (json!({"log_processed": {"traceId": "merged"}}), "merged"),
        (json!({"otelTraceID": "python"}), "python"),
    ];
    for (fields, id) in forms {
        let line = |text: &str| {
            let mut line = fields.clone();
            line["message"] = json!(text);
            line
        };
        let documents = documents(&[line("begin"), line("middle"), line("request completed")]);
        assert_eq!(documents.len(), 1, "{fields}");
        assert_eq!(documents[0]["traceId"], id, "{fields}");
        assert_eq!(documents[0]["message"], "begin\nmiddle\nrequest completed");
        assert_eq!(documents[0]["windrow"]["reason"], "completed");
        let (name, value) = fields.as_object().unwrap().iter().next().unwrap();
        if name != "traceId" {
            assert_eq!(
                &documents[0][name], value,
                "the name that the application used stays"
            );
        }
    }
}

#[test]
fn opentelemetry_records_join_by_the_id_in_their_metadata() {
    let (id, span) = ([0x52; 16], [0x14; 8]);
    let marker = |seconds: u32, metadata: &[u8], attributes: &Value| {
        let mut out = vec![0x92, 0x92, 0xd7, 0];
        out.extend(seconds.to_be_bytes());
        out.extend([0; 4]);
        out.extend(metadata);
        out.extend(rmp_serde::to_vec(attributes).unwrap());
        out
    };
    let record = |ns: u32, record: &Value| {
        let mut out = vec![0x92, 0x92, 0xd7, 0, 0, 0, 0, 1];
        out.extend(ns.to_be_bytes());
        out.extend(b"\x81\xa4otlp\x83\xa8trace_id\xc4\x10");
        out.extend(id);
        out.extend(b"\xa7span_id\xc4\x08");
        out.extend(span);
        out.extend(b"\xafseverity_number\x11");
        out.extend(rmp_serde::to_vec(record).unwrap());
        out
    };
    let resource = json!({"resource": {"attributes": {"service.name": "shop"}}, "scope": {"name": "root"}});
    let entries = [
        marker(u32::MAX, b"\x81\xa6schema\xa4otlp", &resource),
        record(1, &json!({"log": "begin"})),
        record(2, &json!({"log": {"message": "structured body", "n": 5}})),
        record(3, &json!({"log": "request completed"})),
        marker(u32::MAX - 1, b"\x80", &json!({})),
    ];
    let documents: Vec<_> = gathered([chunk(1, &entries)]).into_values().collect();
    assert_eq!(documents.len(), 1, "{documents:?}");
    let document = &documents[0];
    assert_eq!(document["traceId"], "52".repeat(16));
    assert_eq!(
        document["log"],
        "begin\n{\"message\":\"structured body\",\"n\":5}\nrequest completed"
    );
    assert_eq!(document["windrow"]["reason"], "completed");
    let metadata = &document["windrow"]["metadata"];
    assert_eq!(metadata["otlp"]["span_id"], "14".repeat(8));
    assert_eq!(metadata["group"]["attributes"], resource);
}

#[test]
fn only_the_text_and_named_fields_complete_a_trace() {
    let reason = |record: Value| documents(&[record])[0]["windrow"]["reason"].clone();
    for (record, expected) in [
        (
            json!({"traceId": "a", "message": "request completed"}),
            "completed",
        ),
        (
            json!({"traceId": "a", "message": "request \u{1b}[1mcompleted\u{1b}[0m\n"}),
            "completed",
        ),
        (
            json!({"traceId": "a", "message": {"text": "request completed"}}),
            "completed",
        ),
        (json!({"traceId": "a", "event": "request completed"}), "completed"),
        (
            json!({"traceId": "a", "message": "hello", "log": "request completed"}),
            "shutdown",
        ),
        (
            json!({"traceId": "a", "message": "", "log": "request completed"}),
            "shutdown",
        ),
        (
            json!({"traceId": "a", "message": 42, "log": "request completed"}),
            "completed",
        ),
        (json!({"traceId": "a", "note": "request completed"}), "shutdown"),
    ] {
        assert_eq!(reason(record.clone()), expected, "{record}");
    }
}

#[test]
fn a_time_outside_of_the_window_gives_way_to_that_of_reception() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    scene.gatherer.settings.time_window = Some(TimeWindow {
        back_ns: 100,
        ahead_ns: 50,
    });
    let metrics = Arc::clone(&scene.gatherer.metrics);
    // Times in the first second of 1970 count as none.
    let received = 5_000_000_000_000;
    let line = |ns: i64, id: &str| entry(ns, &json!({"traceId": id, "message": ns.to_string()}));
    let entries = [
        line(received - 101, "old"),
        line(received - 100, "kept"),
        line(received, "kept"),
        line(received + 50, "kept"),
        line(received + 51, "new"),
        entry(1_000_000_000, &json!({"message": "alone"})),
    ];
    scene.gather(4_999_999, chunk(1, &entries));
    let documents = finish(scene);
    let of = |id: &str| {
        documents
            .iter()
            .find(|document| document["traceId"] == id)
            .unwrap()
    };
    let at_reception = "1970-01-01T01:23:20.000Z";
    assert_eq!(of("old")["@timestamp"], at_reception);
    assert_eq!(
        of("old")["windrow"]["metadata"]["originalTime"],
        "1970-01-01T01:23:19.999999899Z"
    );
    assert_eq!(of("new")["@timestamp"], at_reception);
    assert_eq!(of("kept")["windrow"]["lines"], 3);
    assert!(of("kept")["windrow"].get("metadata").is_none());
    assert_eq!(of("kept")["@timestamp"], "1970-01-01T01:23:19.999999900Z");
    let alone = documents
        .iter()
        .find(|document| document["message"] == "alone")
        .unwrap();
    assert_eq!(alone["@timestamp"], at_reception);
    assert_eq!(
        alone["windrow"]["metadata"]["originalTime"],
        "1970-01-01T00:00:01.000Z"
    );
    assert_eq!(metrics.input_time_outside.get(), 3);
}

#[test]
fn what_is_no_time_is_counted_and_the_record_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    let metrics = Arc::clone(&scene.gatherer.metrics);
    let times: [&[u8]; 8] = [
        b"\xa42026",
        b"\xc3",
        b"\xd7\x08\0\0\0\x01\0\0\0\x01",
        b"\xd6\0\0\0\0\x01",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xc4\x01x",
        b"\x80",
        b"\xd4\xff\0",
    ];
    let entries: Vec<_> = (0..)
        .zip(times)
        .map(|(number, time)| {
            let record =
                rmp_serde::to_vec(&json!({"traceId": format!("t{number}"), "message": "m"})).unwrap();
            [b"\x92", time, &record].concat()
        })
        .collect();
    scene.gather(0, chunk(1, &entries));
    let documents = finish(scene);
    assert_eq!(documents.len(), times.len());
    assert!(
        documents
            .iter()
            .all(|document| document["@timestamp"] == "1970-01-01T00:00:00.001Z")
    );
    assert_eq!(metrics.input_time_invalid.get(), times.len() as u64);
    assert_eq!(Time::Invalid.or_received(7), 7);
}

/// Writes everything, and returns the documents in order.
fn finish(scene: Scene) -> Vec<Value> {
    let sealed = scene.seal().into_iter();
    sealed
        .map(|sealed| serde_json::from_slice(sealed.json()).unwrap())
        .collect()
}
