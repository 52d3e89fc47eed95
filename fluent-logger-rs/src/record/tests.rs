//! Tests of the encoding and of local refusals.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::json;

use super::*;

const LIMIT: usize = 1 << 20;

fn encode<T: Serialize + ?Sized>(
    time: SystemTime,
    sub_second: bool,
    record: &T,
) -> Result<Vec<u8>, Rejected> {
    let format = EntryFormat {
        sub_second,
        limit: LIMIT,
        static_fields: StaticFields::default(),
    };
    with_entry(time, &format, record, |entry| Ok(entry.to_vec()))
}

fn at(seconds: u64, nanos: u32) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds, nanos)
}

fn time_of(time: SystemTime, sub_second: bool) -> Vec<u8> {
    let mut out = Vec::new();
    write_time(&mut out, time, sub_second);
    out
}

#[test]
fn the_vector_of_the_fact_sheet() {
    let entry = encode(at(1_700_000_000, 123_456_789), true, &json!({ "log": "hi" })).unwrap();
    assert_eq!(
        entry,
        b"\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x81\xa3log\xa2hi"
    );
    let entry = encode(at(1_700_000_000, 123_456_789), false, &json!({ "log": "hi" })).unwrap();
    assert_eq!(entry, b"\x92\xce\x65\x53\xf1\x00\x81\xa3log\xa2hi");
}

#[test]
fn times_never_wrap() {
    // 2040, beyond 31 bits.
    assert_eq!(
        time_of(at(2_208_988_800, 999_999_999), true),
        b"\xd7\x00\x83\xaa\x7e\x80\x3b\x9a\xc9\xff"
    );
    assert_eq!(
        time_of(at(0xffff_fffd, 0), true),
        b"\xd7\x00\xff\xff\xff\xfd\x00\x00\x00\x00"
    );
    // The two seconds that Fluent Bit takes for group markers, and what has more than 32 bits.
    assert_eq!(time_of(at(0xffff_fffe, 0), true), b"\xce\xff\xff\xff\xfe");
    assert_eq!(time_of(at(0xffff_ffff, 5), true), b"\xce\xff\xff\xff\xff");
    assert_eq!(
        time_of(at(0x1_0000_0000, 5), true),
        b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00"
    );
    // Before 1970.
    assert_eq!(time_of(UNIX_EPOCH - Duration::from_secs(1), true), b"\xff");
    assert_eq!(time_of(UNIX_EPOCH - Duration::from_millis(1500), true), b"\xfe");
}

#[test]
fn structs_are_maps_and_bytes_are_binary() {
    #[derive(Serialize)]
    struct Order<'a> {
        id: u64,
        note: Option<&'a str>,
        nested: Vec<(u8, bool)>,
        kind: Kind,
    }
    #[derive(Serialize)]
    enum Kind {
        Plain,
        With { value: i32 },
    }
    let order = Order {
        id: u64::MAX,
        note: None,
        nested: vec![(1, true)],
        kind: Kind::With { value: -1 },
    };
    let entry = encode(at(1, 0), false, &order).unwrap();
    let value: serde_json::Value = rmp_serde::from_slice(&entry[2..]).unwrap();
    assert_eq!(
        value,
        json!({ "id": u64::MAX, "note": null, "nested": [[1, true]], "kind": { "With": { "value": -1 } } })
    );
    let plain = Order {
        kind: Kind::Plain,
        ..order
    };
    let entry = encode(at(1, 0), false, &plain).unwrap();
    let value: serde_json::Value = rmp_serde::from_slice(&entry[2..]).unwrap();
    assert_eq!(value["kind"], "Plain");
}

#[test]
fn flattened_structs_have_no_length_beforehand_and_still_work() {
    #[derive(Serialize)]
    struct Outer {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let outer = Outer {
        a: 1,
        rest: [("b".to_owned(), 2), ("c".to_owned(), 3)].into(),
    };
    let entry = encode(at(1, 0), false, &outer).unwrap();
    let value: serde_json::Value = rmp_serde::from_slice(&entry[2..]).unwrap();
    assert_eq!(value, json!({ "a": 1, "b": 2, "c": 3 }));
}

#[test]
fn what_is_no_record_is_refused() {
    let now = SystemTime::now();
    assert_eq!(encode(now, true, "text"), Err(Rejected::NotAMap));
    assert_eq!(encode(now, true, &[1, 2]), Err(Rejected::NotAMap));
    assert_eq!(encode(now, true, &()), Err(Rejected::NotAMap));
    assert_eq!(
        encode(now, true, &HashMap::from([((1, 2), 3)])),
        Err(Rejected::KeyNotText)
    );
    assert_eq!(
        encode(now, true, &json!({ "a": [1, { "b": 2 }, "c"], "d": {} })).err(),
        None
    );
    let inner = HashMap::from([("inner", HashMap::from([([1], 2)]))]);
    assert_eq!(encode(now, true, &inner), Err(Rejected::KeyNotText));
}

#[test]
fn depth_is_limited() {
    let nested = |depth: usize| (1..depth).fold(json!({}), |value, _| json!({ "n": value }));
    assert!(encode(SystemTime::now(), true, &nested(MAX_DEPTH)).is_ok());
    let refused = encode(SystemTime::now(), true, &nested(MAX_DEPTH + 1));
    assert_eq!(refused, Err(Rejected::TooDeep { limit: MAX_DEPTH }));
}

#[test]
fn size_is_limited_and_a_failure_leaves_no_trace() {
    let big = json!({ "log": "x".repeat(LIMIT) });
    assert!(matches!(
        encode(SystemTime::now(), true, &big),
        Err(Rejected::TooLarge { limit: LIMIT, .. })
    ));
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    assert_eq!(
        encode(SystemTime::now(), true, &Fails),
        Err(Rejected::Unserializable {
            reason: "no".to_owned()
        })
    );
    assert!(encode(SystemTime::now(), true, &json!({})).is_ok());
}

#[test]
fn a_record_may_log_while_it_is_serialised() {
    struct Nested;
    impl Serialize for Nested {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            encode(at(1, 0), false, &json!({ "inner": 1 })).unwrap();
            json!({ "outer": 1 }).serialize(serializer)
        }
    }
    let entry = encode(at(1, 0), false, &Nested).unwrap();
    assert_eq!(entry, b"\x92\x01\x81\xa5outer\x01");
}

#[test]
fn encoded_records_are_exactly_one_map() {
    assert_eq!(check(b"\x81\xa1a\x01"), Ok(()));
    assert_eq!(check(b"\x80"), Ok(()));
    assert_eq!(check(b"\x81\xa1a\xa2\xff\xfe"), Ok(()), "text that is not UTF-8");
    assert!(matches!(
        check(b"\x81\xa1a\x01\x02"),
        Err(Rejected::Unserializable { .. })
    ));
    assert!(matches!(
        check(b"\x82\xa1a\x01"),
        Err(Rejected::Unserializable { .. })
    ));
    assert!(matches!(
        check(b"\x81\xa1a\xa5bc"),
        Err(Rejected::Unserializable { .. })
    ));
    assert!(matches!(
        check(b"\x81\xa1a\xc1"),
        Err(Rejected::Unserializable { .. })
    ));
    assert_eq!(check(b""), Err(Rejected::NotAMap));
}
