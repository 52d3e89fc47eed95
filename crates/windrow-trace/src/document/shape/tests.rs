//! Tests of shapes.

use serde_json::json;

use super::*;
use crate::tests::record;

fn shapes() -> ShapeRegistry {
    ShapeRegistry::new(FieldNames::default(), vec!["message".into()])
}

#[test]
fn a_shape_is_learned_when_its_names_come_again() {
    let mut shapes = shapes();
    let one = record(&json!({"traceId": "a", "message": "x", "status": 1}));
    assert_eq!(shapes.find(&one), None);
    let id = shapes.find(&one).unwrap();
    assert_eq!(shapes.predict(3), Some(id));
    let shape = shapes.get(id).unwrap();
    let roles: Vec<_> = shape.fields().iter().map(ShapeField::role).collect();
    assert_eq!(
        roles,
        [FieldRole::TraceId, FieldRole::JoinedText, FieldRole::Plain]
    );
    let watched: Vec<_> = shape.fields().iter().map(ShapeField::is_watched).collect();
    assert_eq!(watched, [false, true, false]);
    assert_eq!(shape.fields()[2].json_prefix(), b",\"status\":");
    let other = record(&json!({"traceId": "a", "status": 1, "message": "x"}));
    assert_eq!(shapes.find(&other), None, "the order belongs to the shape");
    assert_ne!(shapes.find(&other), Some(id));
}

#[test]
fn names_give_way_as_everywhere() {
    let mut shapes = shapes();
    let one = record(&json!({"trace_id": "a", "log": "x", "msg": "y", "_id": 1, "a\"b": 2}));
    shapes.find(&one);
    let shape = shapes.find(&one).and_then(|id| shapes.get(id)).unwrap();
    let fields: Vec<_> = shape
        .fields()
        .iter()
        .map(|slot| (slot.role(), std::str::from_utf8(slot.json_prefix()).unwrap()))
        .collect();
    assert_eq!(
        fields,
        [
            (FieldRole::OtherText, r#","trace_id":"#),
            (FieldRole::JoinedText, r#","log":"#),
            (FieldRole::OtherText, r#","msg":"#),
            (FieldRole::Plain, r#","_id_":"#),
            (FieldRole::Plain, r#","a\"b":"#),
        ]
    );
}

#[test]
fn what_is_irregular_has_no_shape() {
    let mut shapes = shapes();
    for one in [
        &b"\x82\xa1a\x01\xa1a\x02"[..],  // a name twice
        b"\x82\xa1\xff\x01\xa1\xfe\x02", // two names that become one
        b"\x82\xa1a\x01\xa3a.b\x02",     // names that depend on values
        b"\x81\x01\x02",                 // a name that is no string
        b"\x81\xc4\x01a\x02",            // binary
        b"\x91\x01",                     // no map
        b"\x82\xa1a\x01",                // cut short
    ] {
        for _ in 0..3 {
            assert_eq!(shapes.find(one), None, "{one:x?}");
        }
    }
}
