//! Documents: the complete example, and the rules of names and order.

use serde_json::json;

use super::*;
use crate::UntracedRecord;

const S: i64 = 1_000_000_000;

fn one(records: &[(i64, Value)]) -> Value {
    let records = records
        .iter()
        .map(|(time, json)| (*time, record(json), Vec::new()))
        .collect();
    let part = TestPart {
        id: [7; 12],
        received: 10,
        tag: "app",
        records,
    };
    value(&render("abc", &[part], SealReason::Completed, 99))
}

#[test]
fn the_example_document() {
    let mut document = one(&[
        (
            1_700_000_000 * S,
            json!({"traceId": "abc", "message": "handler finished"}),
        ),
        (
            1_700_000_000 * S + 52_000_000,
            json!({"traceId": "abc", "message": "request completed", "method": "GET", "path": "/hello", "status": 200, "latencyMs": 52}),
        ),
    ]);
    let mut windrow = document.as_object_mut().unwrap().remove("windrow").unwrap();
    let timestamp = document.as_object_mut().unwrap().remove("@timestamp").unwrap();
    assert_eq!(
        document,
        json!({"traceId":"abc","message":"handler finished\nrequest completed","method":"GET","path":"/hello","status":200,"latencyMs":52})
    );
    assert_eq!(timestamp, "2023-11-14T22:13:20.000Z");
    assert!(windrow.as_object_mut().unwrap().remove("state").is_some());
    assert_eq!(
        windrow,
        json!({"reason":"completed","lines":2,"last":"2023-11-14T22:13:20.052Z","durationMs":52,"tags":["app"],"parts":1,"late":0})
    );
}

#[test]
fn lines_stand_in_order_of_event_time_then_of_reception() {
    let part = |id: u8, received, times: &[(i64, &str)]| TestPart {
        id: [id; 12],
        received,
        tag: "app",
        records: times
            .iter()
            .map(|(time, text)| {
                (
                    *time,
                    record(&json!({"traceId":"t","log":text,"last":text})),
                    Vec::new(),
                )
            })
            .collect(),
    };
    let parts = [
        part(1, 20, &[(5, "e"), (1, "b")]),
        part(2, 10, &[(1, "a"), (4, "d"), (3, "c")]),
    ];
    let document = value(&render("t", &parts, SealReason::Idle, 99));
    assert_eq!(document["log"], "a\nb\nc\nd\ne");
    assert_eq!(document["last"], "e");
    assert_eq!(document["@timestamp"], "1970-01-01T00:00:00.000000001Z");
}

#[test]
fn text_is_the_first_name_that_is_a_string_else_another_value_else_all_fields() {
    let document = one(&[
        (1, json!({"traceId":"abc","log":"raw","message":"said"})),
        (2, json!({"traceId":"abc","msg":"short"})),
        (3, json!({"traceId":"abc","message":7,"log":"number"})),
        (4, json!({"traceId":"abc","only":true})),
    ]);
    assert_eq!(document["message"], "said\nshort\nnumber\nonly=true");
    assert_eq!(document["log"], "raw", "a text that was not chosen stays a field");
    assert_eq!(
        document["message_"], 7,
        "a message that is no string does not replace the joined one"
    );
    assert_eq!(document["windrow"]["lines"], 4);
}

#[test]
fn own_names_give_way() {
    let document = one(&[(
        1,
        json!({"traceId":"abc","trace_id":"abc","@timestamp":"x","windrow":1,"_id":"q","":2,"_mine":3}),
    )]);
    assert_eq!(document["@timestamp_"], "x");
    assert_eq!(document["windrow_"], 1);
    assert_eq!(document["_id_"], "q");
    assert_eq!(document["_"], 2);
    assert_eq!(document["_mine"], 3);
    assert_eq!(
        document["trace_id"], "abc",
        "the name that the application used can still be searched"
    );
    let text: Vec<_> = document["message"].as_str().unwrap().split(' ').collect();
    for word in ["@timestamp=x", "windrow=1", "_id=q", "\"\"=2", "_mine=3"] {
        assert!(text.contains(&word), "{word}: {text:?}");
    }
    assert_eq!(text.len(), 5, "without the ids");
    let document = one(&[(1, json!({"traceId":5,"trace_id":"abc"}))]);
    assert_eq!(
        (&document["traceId"], &document["traceId_"]),
        (&json!("abc"), &json!(5))
    );
}

#[test]
fn of_equal_keys_in_a_record_the_last_wins() {
    let bytes = b"\x84\xa7traceId\xa3abc\xa1a\x01\xa1b\x02\xa1a\x03".to_vec();
    let part = TestPart {
        id: [1; 12],
        received: 1,
        tag: "app",
        records: vec![(1, bytes, Vec::new())],
    };
    let text = render("abc", &[part], SealReason::Idle, 9);
    assert_eq!(value(&text)["a"], 3);
    assert_eq!(String::from_utf8(text).unwrap().matches("\"a\":").count(), 1);
}

#[test]
fn no_line_of_structured_texts_vanishes() {
    let line =
        |number: i64| json!({"traceId": "abc", "log": {"level": "info", "msg": format!("line {number}")}});
    let document = one(&[(1, line(0)), (2, line(1)), (3, line(2))]);
    assert_eq!(
        document["log"],
        [0, 1, 2]
            .map(|n| format!(r#"{{"level":"info","msg":"line {n}"}}"#))
            .join("\n")
    );
    assert_eq!(
        document["log_"],
        json!({"level": "info", "msg": "line 2"}),
        "the newest stays searchable"
    );

    let document = one(&[
        (1, json!({"traceId": "abc", "event": "request.start", "user": 1})),
        (2, json!({"traceId": "abc", "event": "request.end"})),
        (
            3,
            json!({"traceId": "abc", "event": {"kind": "metric"}, "body": "an ECS event"}),
        ),
        (
            4,
            json!({"traceId": "abc", "fields": {"message": "of tracing", "n": 1}}),
        ),
    ]);
    assert_eq!(
        document["message"],
        "request.start\nrequest.end\nan ECS event\nof tracing"
    );
    assert_eq!(
        document["event"],
        json!({"kind": "metric"}),
        "no text, so it stays what it is"
    );
    assert_eq!(document["fields"], json!({"message": "of tracing", "n": 1}));
    assert!(document.get("body").is_none());
}

#[test]
fn terminators_and_colours_are_no_part_of_a_line() {
    let line = |text: &str| json!({"traceId": "abc", "log": text});
    let document = one(&[
        (1, line("line 0\n")),
        (2, line("line 1\r\n")),
        (3, line("\u{1b}[31mred\n\u{1b}[0m")),
        (4, line("")),
    ]);
    assert_eq!(document["log"], "line 0\nline 1\nred\n");
}

#[test]
fn of_equal_names_the_last_text_and_the_last_id_count() {
    let of = |record: &[u8]| {
        let part = TestPart {
            id: [1; 12],
            received: 1,
            tag: "app",
            records: vec![(1, record.to_vec(), Vec::new())],
        };
        let document = render("b", &[part], SealReason::Idle, 9);
        assert_eq!(
            String::from_utf8_lossy(&document).matches("\"message\":").count(),
            1
        );
        value(&document)
    };
    let document = of(b"\x84\xa7traceId\xa1a\xa7message\xa1x\xa7traceId\xa1b\xa7message\xa1y");
    assert_eq!(
        (&document["traceId"], &document["message"]),
        (&json!("b"), &json!("y"))
    );
    assert!(document.get("traceId_").is_none() && document.get("message_").is_none());
    let document = of(b"\x83\xa7traceId\xa1b\xa7message\xa1x\xa7message\x81\xa1a\x01");
    assert_eq!(
        (&document["message"], &document["message_"]),
        (&json!(r#"{"a":1}"#), &json!({"a": 1}))
    );
}

#[test]
fn the_field_of_the_id_stays_if_it_says_more() {
    let document = one(&[(1, json!({"traceId": "00-abc-def-01", "message": "m"}))]);
    assert_eq!(
        (&document["traceId"], &document["traceId_"]),
        (&json!("abc"), &json!("00-abc-def-01"))
    );
    let document = one(&[(1, json!({"traceId": "-", "trace_id": "abc", "message": "m"}))]);
    assert_eq!(
        (&document["traceId_"], &document["trace_id"]),
        (&json!("-"), &json!("abc"))
    );
}

#[test]
fn metadata_is_kept_apart() {
    let records = vec![
        (
            1,
            record(&json!({"traceId":"abc"})),
            record(&json!({"a":1,"b":1})),
        ),
        (2, record(&json!({"traceId":"abc"})), record(&json!({"b":2}))),
    ];
    let part = TestPart {
        id: [1; 12],
        received: 1,
        tag: "app",
        records,
    };
    let document = value(&render("abc", &[part], SealReason::Idle, 9));
    assert_eq!(document["windrow"]["metadata"], json!({"a":1,"b":2}));
    assert!(document.get("a").is_none());
}

#[test]
fn a_record_without_a_trace_is_a_document_of_its_own() {
    let mut out = Vec::new();
    let bytes = record(&json!({"message":"m","log":"l","n":[1,{"x":null}],"@timestamp":"own"}));
    let extent = Renderer::default().untraced(
        &mut out,
        &FieldNames::default(),
        &UntracedRecord {
            shape: None,
            time: 1_500_000_000 * S,
            tag: "app.x",
            record: &bytes,
            metadata: b"",
            level: None,
            service: None,
        },
    );
    assert_eq!((extent.first, extent.lines), (1_500_000_000 * S, 1));
    assert_eq!(
        value(&out),
        json!({"@timestamp":"2017-07-14T02:40:00.000Z","message":"m","log":"l","n":[1,{"x":null}],"@timestamp_":"own","windrow":{"tags":["app.x"]}})
    );
}
