//! Kept fields: every record of a document can be got back as it came.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::{DocumentSchema, MergeRule, Union, document_lines, union};

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3u64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1000..1000i32).prop_map(|n| json!(f64::from(n) / 8.0)),
        "[a-c\"\\\\\né]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-b]", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

/// Records whose names and values often are equal, and some that mean something.
fn records() -> impl Strategy<Value = (Value, Value)> {
    let names = prop::sample::subsequence(
        vec![
            "trace_id",
            "message",
            "log",
            "msg",
            "event",
            "level",
            "service",
            "a",
            "b",
            "c",
            "_id",
            "@timestamp",
            "windrow",
            "log.level",
            "service.name",
            "event.outcome",
            "body",
            "",
        ],
        0..9,
    );
    let pairs = names.prop_flat_map(|names| {
        let one = |name: &str| -> BoxedStrategy<(String, Value)> {
            let value = match name {
                "trace_id" => prop_oneof![Just(json!("t")), Just(json!("other")), values()].boxed(),
                "message" | "log" | "msg" | "event" => {
                    let of_files = Just(json!("\u{1b}[1mbold\u{1b}[0m text\n"));
                    prop_oneof![4 => Just(json!("text")), 1 => of_files, 1 => values()].boxed()
                }
                "level" => prop_oneof![Just(json!("error")), Just(json!("info")), values()].boxed(),
                _ => values().boxed(),
            };
            (Just(name.to_owned()), value).boxed()
        };
        names.into_iter().map(one).collect::<Vec<_>>()
    });
    let metadata = prop::collection::btree_map("[m-n]", values(), 0..2).prop_map(|map| json!(map));
    (pairs, metadata).prop_map(|(pairs, metadata)| {
        let mut record = Map::from_iter(pairs);
        record.insert("traceId".into(), json!("t"));
        (Value::Object(record), metadata)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_record_comes_back_from_documents_joined_in_any_order(
        parts in prop::collection::vec(prop::collection::vec((0..4i64, records()), 1..4), 1..5),
        order in any::<prop::sample::Index>(),
        schema in prop::sample::select(DocumentSchema::ALL.to_vec()),
        rule in prop::sample::select(MergeRule::ALL.to_vec()),
    ) {
        let mut names = FieldNames::default();
        names.document.keep_fields = true;
        names.document.schema = schema;
        names.document.merge = vec![("a".into(), rule)];
        let mut sent = HashMap::new();
        let mut documents = Vec::new();
        for (number, records) in parts.iter().enumerate() {
            let id = [number as u8; 12];
            for (position, (time, one)) in records.iter().enumerate() {
                sent.insert((PartId(id), position as u32), (*time, one.clone()));
            }
            let records = records
                .iter()
                .map(|(time, (json, metadata))| (*time, record(json), record(metadata)))
                .collect();
            let part = TestPart { id, received: number as i64, tag: "app", records };
            documents.push(render_with(&names, "t", &[part], SealReason::Idle, 9));
        }
        let first = order.index(documents.len());
        documents.rotate_left(first);
        let document = documents
            .into_iter()
            .reduce(|a, b| match union(&a, &b).unwrap() {
                Union::Unchanged => a,
                Union::Merged { document, .. } => document,
            })
            .unwrap();
        let mut back = HashMap::new();
        for line in document_lines(&document).unwrap() {
            let one = (line.record.unwrap().into(), line.metadata.unwrap().into());
            back.insert((line.part, line.position), (line.time_ns, one));
        }
        prop_assert_eq!(back, sent);
    }
}

#[test]
fn only_what_differs_is_stored() {
    let mut names = FieldNames::default();
    names.document.keep_fields = true;
    let one = |level: &str, code: u32| json!({"traceId": "t", "message": "m", "level": level, "code": code});
    let records = [one("error", 1), one("info", 1), one("info", 2)];
    let records = records
        .iter()
        .zip(0..)
        .map(|(json, time)| (time, record(json), Vec::new()));
    let part = TestPart {
        id: [1; 12],
        received: 1,
        tag: "app",
        records: records.collect(),
    };
    let document = value(&render_with(&names, "t", &[part], SealReason::Idle, 9));
    assert_eq!(
        document["windrow"]["fields"],
        json!({
            "forms": [{"fields": ["traceId", "message", "level", "code"], "ids": [0], "text": 1}],
            "lines": [[0, 3, 1], [0, 2, "info", 3, 1], [0, 2, "info"]],
        })
    );
}
