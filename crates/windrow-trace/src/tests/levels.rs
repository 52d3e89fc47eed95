//! Levels and services: what a document says of the lines of its trace.

use serde_json::json;

use super::*;
use crate::{DocumentSchema, MergeRule, Severity, UntracedRecord, document_lines};

const MS: i64 = 1_000_000;

/// The document of these records, one each second, alternately of two parts.
fn document(names: &FieldNames, records: &[Value]) -> Vec<u8> {
    let part = |number: usize| TestPart {
        id: [number as u8 + 1; 12],
        received: number as i64,
        tag: "app",
        records: records
            .iter()
            .zip(0..)
            .filter(|(_, at)| at % 2 == number)
            .map(|(json, at)| (at as i64 * 1000 * MS, record(json), Vec::new()))
            .collect(),
    };
    let parts: Vec<TestPart> = (0..records.len().min(2)).map(part).collect();
    render_with(names, "t", &parts, SealReason::Completed, 99)
}

fn an_order() -> [Value; 4] {
    [
        json!({"traceId": "t", "message": "order received", "level": "info", "service_name": "order"}),
        json!({"traceId": "t", "message": "card declined", "level": "ERROR", "service_name": "payment", "code": 402}),
        json!({"traceId": "t", "message": "3 left", "level": "debug", "service_name": "stock"}),
        json!({"traceId": "t", "message": "request completed", "level": "info", "service_name": "order", "code": 200}),
    ]
}

#[test]
fn an_error_in_the_middle_is_what_a_document_shows() {
    let bytes = document(&FieldNames::default(), &an_order());
    let document = value(&bytes);
    assert_eq!(document["level"], "ERROR");
    assert_eq!(document["service_name"], "order");
    assert_eq!(document["code"], 200);
    let windrow = &document["windrow"];
    assert_eq!(windrow["level"], "error");
    assert_eq!(windrow["levels"], json!({"debug": 1, "info": 2, "error": 1}));
    assert_eq!(windrow["services"], json!(["order", "payment", "stock"]));
    let lines: Vec<_> = document_lines(&bytes)
        .unwrap()
        .into_iter()
        .map(|line| (line.level.unwrap(), line.service.unwrap()))
        .collect();
    let expected = [
        (Severity::Info, "order".to_owned()),
        (Severity::Error, "payment".to_owned()),
        (Severity::Debug, "stock".to_owned()),
        (Severity::Info, "order".to_owned()),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn each_rule_chooses_its_value() {
    let mut names = FieldNames::default();
    let rules = MergeRule::ALL.map(|rule| (rule.as_str().to_owned(), rule));
    names.document.merge = rules.to_vec();
    let one = |level: &str, n: u32| json!({"traceId": "t", "level": level, "newest": n, "oldest": n, "max": n, "min": n, "set": n, "worst": n});
    let records = [one("info", 2), one("error", 1), one("error", 3), one("info", 2)];
    let document = value(&document(&names, &records));
    assert_eq!(
        ["newest", "oldest", "max", "min", "set", "worst"].map(|name| document[name].clone()),
        [json!(2), json!(2), json!(3), json!(1), json!([1, 2, 3]), json!(3)]
    );
}

#[test]
fn ecs_and_opentelemetry_have_their_names() {
    let mut names = FieldNames::default();
    names.document.schema = DocumentSchema::Ecs;
    let mut ecs = value(&document(&names, &an_order()));
    ecs.as_object_mut().unwrap().remove("windrow");
    assert_eq!(
        ecs,
        json!({
            "@timestamp": "1970-01-01T00:00:00.000Z", "trace.id": "t",
            "message": "order received\ncard declined\n3 left\nrequest completed",
            "log.level": "error", "service.name": ["order", "payment", "stock"],
            "event.duration": 3_000_000_000u64, "event.outcome": "failure", "ecs.version": "8.17.0",
            "level": "ERROR", "service_name": "order", "code": 200,
        })
    );
    names.document.schema = DocumentSchema::Otel;
    let mut otel = value(&document(&names, &an_order()[..1]));
    otel.as_object_mut().unwrap().remove("windrow");
    assert_eq!(
        otel,
        json!({
            "@timestamp": "1970-01-01T00:00:00.000Z", "trace_id": "t", "body": "order received",
            "severity_text": "INFO", "severity_number": 9, "service.name": "order",
            "level": "info", "service_name": "order",
        })
    );
}

/// What a schema writes itself a record cannot contradict, and what does not fit beside it has
/// another name.
#[test]
fn own_fields_give_way_to_those_of_a_schema() {
    let mut names = FieldNames::default();
    names.document.schema = DocumentSchema::Ecs;
    let own = json!({
        "trace.id": "t", "message": "m", "log.level": "WARN", "service.name": "shop", "ecs.version": "1.6.0",
        "event.outcome": "mine", "event": {"action": "buy"}, "log": "raw", "service": "x",
    });
    let mut document = value(&document(&names, &[own]));
    document.as_object_mut().unwrap().remove("windrow");
    assert_eq!(
        document,
        json!({
            "@timestamp": "1970-01-01T00:00:00.000Z", "trace.id": "t", "message": "m",
            "log.level": "warn", "service.name": "shop", "event.duration": 0, "event.outcome": "success",
            "ecs.version": "8.17.0", "event.outcome_": "mine", "event": {"action": "buy"}, "log_": "raw",
            "service_": "x",
        })
    );
}

#[test]
fn a_record_without_a_trace_id_has_them_too() {
    let bytes = record(&json!({"log": "m", "level": "warn", "service": "shop"}));
    let untraced = UntracedRecord {
        shape: None,
        time: 0,
        tag: "app",
        record: &bytes,
        metadata: b"",
        level: Some(Severity::Warn),
        service: Some(b"shop"),
    };
    let render = |schema| {
        let mut names = FieldNames::default();
        names.document.schema = schema;
        let mut out = Vec::new();
        Renderer::default().untraced(&mut out, &RecordView::new(names), &untraced);
        value(&out)
    };
    let windrow = json!({"tags": ["app"], "level": "warn", "services": ["shop"]});
    assert_eq!(
        render(DocumentSchema::Plain),
        json!({
            "@timestamp": "1970-01-01T00:00:00.000Z", "log": "m", "level": "warn", "service": "shop",
            "windrow": windrow,
        })
    );
    assert_eq!(
        render(DocumentSchema::Ecs),
        json!({
            "@timestamp": "1970-01-01T00:00:00.000Z", "message": "m", "log.level": "warn",
            "service.name": "shop", "event.outcome": "success", "ecs.version": "8.17.0", "level": "warn",
            "service_": "shop", "windrow": windrow,
        })
    );
}

/// An open trace must not need more cache lines than before it knew levels.
#[test]
fn a_slot_has_four_cache_lines() {
    assert_eq!(crate::open::slab::SLOT_BYTES, 256);
}
