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
fn text_is_the_first_name_that_is_a_string() {
    let document = one(&[
        (1, json!({"traceId":"abc","log":"raw","message":"said"})),
        (2, json!({"traceId":"abc","msg":"short"})),
        (3, json!({"traceId":"abc","message":7,"log":"number"})),
        (4, json!({"traceId":"abc","only":true})),
    ]);
    assert_eq!(document["message"], "said\nshort\nnumber");
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
    assert!(document.get("message").is_none());
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
