//! Names of fields: examples, and that any record gives a document that a store accepts, in which
//! nothing is lost, whoever renders which part of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::store::refusal;
use super::union::canonical;
use super::*;
use crate::{Union, UntracedRecord, union};

/// A MessagePack value with names of any bytes.
#[derive(Clone, Debug)]
enum Pack {
    Nil,
    Text(&'static str),
    Small(u8),
    Array(Vec<Self>),
    Map(Vec<(Vec<u8>, Self)>),
}

impl Pack {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.push(0xc0),
            Self::Text(text) => write_text(out, text.as_bytes()),
            Self::Small(n) => out.push(n & 0x7f),
            Self::Array(all) => {
                out.push(0x90 | all.len() as u8);
                all.iter().for_each(|one| one.write(out));
            }
            Self::Map(all) => {
                out.push(0x80 | all.len() as u8);
                for (name, value) in all {
                    write_text(out, name);
                    value.write(out);
                }
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Number of values that are no lists and objects. Of equal names the last counts.
    fn values(&self) -> usize {
        match self {
            Self::Array(all) => all.iter().map(Self::values).sum(),
            Self::Map(all) => {
                let last: BTreeMap<String, &Self> =
                    all.iter().map(|(name, value)| (shown(name), value)).collect();
                last.values().map(|value| value.values()).sum()
            }
            _ => 1,
        }
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace('\0', "\u{fffd}")
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&[0xd9, text.len() as u8]);
    out.extend_from_slice(text);
}

/// Number of values in a document.
fn values(json: &Value) -> usize {
    match json {
        Value::Array(all) => all.iter().map(values).sum(),
        Value::Object(all) => all.values().map(values).sum(),
        _ => 1,
    }
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        6 => "[ab]",
        4 => Just(".".to_owned()),
        2 => Just("_".to_owned()),
        1 => prop::sample::select(vec![
            " ", "\t", "\u{2003}", "\u{a0}", "\0", "é", "_id", "_source", "_ignored_source", "_tsid", "_index_mode",
            "@timestamp", "windrow", "message", "log", "traceId", "trace_id", "labels", "annotations", "my_labels",
        ])
        .prop_map(str::to_owned),
    ];
    let broken = prop::sample::select(vec![b"\xff".to_vec(), b"\xfe".to_vec(), b"a\xff".to_vec()]);
    prop_oneof![
        12 => prop::collection::vec(pieces, 0..5).prop_map(|all| all.concat().into_bytes()),
        1 => broken,
    ]
}

fn any_value() -> impl Strategy<Value = Pack> {
    let value = prop_oneof![
        1 => Just(Pack::Nil),
        4 => Just(Pack::Text("x")),
        2 => any::<u8>().prop_map(Pack::Small),
    ];
    let list = prop::collection::vec(value.clone(), 0..3).prop_map(Pack::Array);
    let one = prop_oneof![4 => value, 1 => list];
    one.prop_recursive(3, 24, 4, |inner| {
        let map = prop::collection::vec((names(), inner), 0..5)
            .prop_map(Pack::Map)
            .boxed();
        prop_oneof![2 => map.clone(), 1 => prop::collection::vec(map, 0..4).prop_map(Pack::Array)]
    })
}

fn record_of_any_names() -> impl Strategy<Value = Pack> {
    prop::collection::vec((names(), any_value()), 0..8).prop_map(Pack::Map)
}

fn part(number: u8, records: &[Pack]) -> TestPart {
    let at = i64::from(number);
    TestPart {
        id: [number; 12],
        received: at,
        tag: "app",
        records: records.iter().map(|one| (at, one.bytes(), Vec::new())).collect(),
    }
}

fn rendered(parts: &[TestPart]) -> Vec<u8> {
    render("t", parts, SealReason::Idle, 99)
}

fn untraced(record: &Pack) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = record.bytes();
    Renderer::default().untraced(
        &mut out,
        &FieldNames::default(),
        &UntracedRecord {
            shape: None,
            time: 1,
            tag: "app",
            record: &bytes,
            metadata: b"",
            level: None,
            service: None,
        },
    );
    out
}

fn joined(a: &[u8], b: &[u8]) -> Vec<u8> {
    match union(a, b).unwrap() {
        Union::Unchanged => a.to_vec(),
        Union::Merged { document, .. } => document,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_record_is_accepted_and_complete(record in record_of_any_names()) {
        let document = untraced(&record);
        prop_assert_eq!(refusal(&document), None, "{}", String::from_utf8_lossy(&document));
        // Time and tag are the document's own.
        prop_assert_eq!(values(&value(&document)), record.values() + 2, "{}", String::from_utf8_lossy(&document));
        let document = rendered(&[part(1, &[record])]);
        prop_assert_eq!(refusal(&document), None, "{}", String::from_utf8_lossy(&document));
    }

    #[test]
    fn any_trace_is_accepted_and_the_same_whoever_renders_it(
        a in prop::collection::vec(record_of_any_names(), 1..3),
        b in prop::collection::vec(record_of_any_names(), 1..3),
        c in prop::collection::vec(record_of_any_names(), 1..3),
    ) {
        let parts = [part(1, &a), part(2, &b), part(3, &c)];
        let whole = rendered(&parts);
        prop_assert_eq!(refusal(&whole), None, "{}", String::from_utf8_lossy(&whole));
        let [a, b, c] = parts.each_ref().map(|part| rendered(std::slice::from_ref(part)));
        let (ab, bc) = (joined(&a, &b), joined(&b, &c));
        prop_assert_eq!(canonical(&ab), canonical(&joined(&b, &a)));
        prop_assert_eq!(canonical(&joined(&ab, &c)), canonical(&whole));
        prop_assert_eq!(canonical(&joined(&c, &ab)), canonical(&whole));
        prop_assert_eq!(canonical(&joined(&a, &bc)), canonical(&whole));
        prop_assert_eq!(union(&ab, &a).unwrap(), Union::Unchanged);
        prop_assert_eq!(union(&whole, &bc).unwrap(), Union::Unchanged);
    }
}

/// The fields of a record without a trace, apart from Windrow's own.
fn fields(record: &Value) -> Value {
    let mut document = value(&untraced_json(record));
    let fields = document.as_object_mut().unwrap();
    fields.remove("@timestamp");
    fields.remove("windrow");
    document
}

fn untraced_json(json: &Value) -> Vec<u8> {
    let bytes = record(json);
    let mut out = Vec::new();
    let untraced = UntracedRecord {
        shape: None,
        time: 1,
        tag: "app",
        record: &bytes,
        metadata: b"",
        level: None,
        service: None,
    };
    Renderer::default().untraced(&mut out, &FieldNames::default(), &untraced);
    out
}

#[test]
fn names_that_are_no_paths() {
    for (name, expected) in [
        ("", "_"),
        (" ", " _"),
        ("\u{2003}\t", "\u{2003}\t_"),
        (".", "_"),
        ("..", "__"),
        (".a", "_a"),
        ("a.", "a_"),
        ("a..b", "a__b"),
        ("a. .b", "a_ _b"),
        ("../../etc/passwd", "__/__/etc/passwd"),
        ("a\0b", "a\u{fffd}b"),
        ("a.b", "a.b"),
        ("a/b", "a/b"),
        (" a", " a"),
    ] {
        let nested = json!([{"deep": {name: 1}}]);
        let expected_nested = json!([{"deep": {expected: 1}}]);
        assert_eq!(
            fields(&json!({name: 1, "n": nested})),
            json!({expected: 1, "n": expected_nested}),
            "{name:?}"
        );
    }
    let long = ["a"; 21].join(".");
    assert_eq!(
        fields(&json!({&long: 1})),
        json!({long.replace('.', "_"): 1}),
        "deeper than a store permits"
    );
}

#[test]
fn metadata_names_are_reserved_at_the_top_only() {
    for name in [
        "_id",
        "_source",
        "_ignored_source",
        "_data_stream_timestamp",
        "_tsid",
        "windrow",
        "@timestamp",
    ] {
        let renamed = format!("{name}_");
        let (dotted, renamed_dotted) = (format!("{name}.x"), format!("{name}_.x"));
        assert_eq!(fields(&json!({name: 1})), json!({&renamed: 1}));
        assert_eq!(fields(&json!({&dotted: 1})), json!({renamed_dotted: 1}));
        assert_eq!(fields(&json!({"n": {name: 1}})), json!({"n": {name: 1}}));
    }
    assert_eq!(
        fields(&json!({"_mine": 1, ".id": 2})),
        json!({"_mine": 1, "_id_": 2})
    );
}

#[test]
fn a_renaming_never_meets_a_name_that_is_there() {
    let expected = json!({"_id_": "other", "_id__": "mongo"});
    assert_eq!(fields(&json!({"_id": "mongo", "_id_": "other"})), expected);
    let turned = b"\x82\xa4_id_\xa5other\xa3_id\xa5mongo".to_vec();
    let mut out = Vec::new();
    let record = UntracedRecord {
        shape: None,
        time: 1,
        tag: "app",
        record: &turned,
        metadata: b"",
        level: None,
        service: None,
    };
    Renderer::default().untraced(&mut out, &FieldNames::default(), &record);
    assert_eq!(
        (&value(&out)["_id_"], &value(&out)["_id__"]),
        (&json!("other"), &json!("mongo"))
    );

    assert_eq!(
        fields(&json!({"n": {"": 1, ".": 2, "_": 3, "__": 4}})),
        json!({"n": {"_": 3, "__": 4, "___": 1, "____": 2}})
    );
    let trace = Pack::Map(vec![
        (b"message".to_vec(), Pack::Map(vec![])),
        (b"message_".to_vec(), Pack::Text("kept?")),
        (b"log".to_vec(), Pack::Text("text")),
    ]);
    let document = value(&rendered(&[part(1, &[trace])]));
    assert_eq!(
        (&document["log"], &document["message_"], &document["message__"]),
        (&json!("text"), &json!("kept?"), &json!({}))
    );
}

#[test]
fn names_that_become_equal_are_one_of_which_the_last_counts() {
    let pairs = vec![
        (b"\xff".to_vec(), Pack::Small(1)),
        (b"\xfe".to_vec(), Pack::Small(2)),
    ];
    let nested = Pack::Map(vec![(b"m".to_vec(), Pack::Map(pairs.clone()))]);
    assert_eq!(value(&untraced(&nested))["m"], json!({"\u{fffd}": 2}));
    assert_eq!(value(&untraced(&Pack::Map(pairs)))["\u{fffd}"], 2);
}

#[test]
fn what_is_an_object_and_a_value_is_told_apart() {
    for (record, expected) in [
        (
            json!({"peer": "x", "peer.host": "y"}),
            json!({"peer_": "x", "peer.host": "y"}),
        ),
        (
            json!({"a": 1, "a.b": 2, "a.b.c": 3, "a_": 4}),
            json!({"a__": 1, "a.b_": 2, "a.b.c": 3, "a_": 4}),
        ),
        (json!({"a": {"b": 1}, "a.b": 2}), json!({"a": {"b": 1}, "a.b": 2})),
        (
            json!({"a": {"b": {}}, "a.b": 2}),
            json!({"a_": {"b": {}}, "a.b": 2}),
        ),
        (json!({"a": null, "a.b": []}), json!({"a": null, "a.b": []})),
        (
            json!({"n": {"a": 1, "a.b": 2}, "m": [{"a": 1}, {"a": {"b": 2}}]}),
            json!({"n": {"a_": 1, "a.b": 2}, "m": [{"a_": 1}, {"a": {"b": 2}}]}),
        ),
        (
            json!({"message": "x", "message.code": 1, "log": "y", "log.level": "z"}),
            json!({"message": "x", "message_.code": 1, "log": "y", "log_.level": "z"}),
        ),
        (
            json!({"message": {"text": "x"}, "traceId": {"high": 1}, "msg": [1, "a"]}),
            json!({"message_": {"text": "x"}, "traceId_": {"high": 1}, "msg": [1, "a"]}),
        ),
        (
            json!({"message": 7, "traceId": 12345}),
            json!({"message": 7, "traceId": 12345}),
        ),
        (json!({"traceId": "-"}), json!({"traceId": "-"})),
    ] {
        assert_eq!(fields(&record), expected, "{record}");
    }
}

#[test]
fn labels_are_left_as_they_are() {
    let labels = json!({"app": "web", "app.kubernetes.io/name": "web"});
    for record in [
        json!({"kubernetes": {"labels": labels, "annotations": labels}}),
        json!({"labels": labels, "kubernetes.labels": labels, "n": [{"namespace_labels": labels}, {}]}),
    ] {
        assert_eq!(fields(&record), record);
    }
}
