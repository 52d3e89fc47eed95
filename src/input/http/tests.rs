//! Tests of the conversion of bodies, without sockets.

use forward_protocol::entries::{Entries, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::answer::Problem;
use super::fuzz::fuzz;
use super::media::Format;
use super::message::MessageBuilder;
use super::records::{self, RecordOptions};
use crate::buffer_pool::BufferPool;

const OPTIONS: RecordOptions<'_> = RecordOptions {
    time_key: None,
    time: None,
    depth: 100,
};

/// The entries of a body: times and records.
fn convert(format: Format, body: &[u8], options: &RecordOptions<'_>) -> Result<Vec<(Time, Value)>, Problem> {
    let mut message = MessageBuilder::new(b"", 0, &BufferPool::default());
    let begin = message.out.len();
    records::append(format, body, options, &mut message, 1 << 20)?;
    let entries = Entries::new(&message.out[begin..], 100);
    Ok(entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.time, rmp_serde::from_slice(entry.record).unwrap())
        })
        .collect())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // The last digit of seventeen is not exact.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 10, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..80)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn record() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-z]{0,3}", value(), 0..80)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn no_bytes_are_taken_that_are_no_message(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&data);
    }

    #[test]
    fn no_text_is_taken_that_is_no_message(first in 0..16u8, text in r#"[\[\]{}:,"a-t0-9. \n\\=&%+]{0,60}"#) {
        fuzz(&[&[first], text.as_bytes()].concat());
    }

    #[test]
    fn records_are_the_same_in_every_format(all in prop::collection::vec(record(), 0..5)) {
        let lines: String = all.iter().map(|record| format!("{record}\n")).collect();
        let array = Value::from(all.clone());
        let packed = rmp_serde::to_vec(&array).unwrap();
        let text = array.to_string();
        let form: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let expected: Vec<Value> = all;
        for (format, body) in [
            (Format::Json, text.as_bytes()),
            (Format::Json, lines.as_bytes()),
            (Format::Lines, lines.as_bytes()),
            (Format::MessagePack, packed.as_slice()),
            (Format::Form, format!("json={form}").as_bytes()),
        ] {
            // Text without a record is none.
            if body.is_empty() {
                continue;
            }
            let found = convert(format, body, &OPTIONS).unwrap();
            let records: Vec<Value> = found.into_iter().map(|(_, record)| record).collect();
            prop_assert_eq!(&records, &expected, "{:?}", format);
        }
    }

    #[test]
    fn a_time_is_moved_out_of_the_record(before in record(), after in 0..80usize, ns in 1_000_000_000i64..4_000_000_000_000_000_000) {
        let ns = ns / 1000 * 1000;
        let mut fields: Vec<(String, Value)> = before.as_object().unwrap().clone().into_iter().collect();
        let time = jiff::Timestamp::from_nanosecond(ns.into()).unwrap();
        fields.insert(after.min(fields.len()), ("time_key".into(), json!(time.to_string())));
        let with: serde_json::Map<_, _> = fields.into_iter().collect();
        let options = RecordOptions { time_key: Some("time_key"), ..OPTIONS };
        let found = convert(Format::Json, Value::Object(with).to_string().as_bytes(), &options).unwrap();
        prop_assert_eq!(found, [(Time::At(ns), before)]);
    }
}

#[test]
fn of_equal_keys_the_last_counts_however_many_there_are() {
    for count in [2, 20, 70, 200] {
        let keys: String = (0..count).map(|n| format!("\"key{n}\":{n},")).collect();
        let found = convert(
            Format::Json,
            format!("{{{keys}\"key1\":\"last\"}}").as_bytes(),
            &OPTIONS,
        )
        .unwrap();
        let record = found[0].1.as_object().unwrap();
        assert_eq!(
            (record.len(), &record["key1"]),
            (count, &json!("last")),
            "{count}"
        );
        assert_eq!(record.keys().nth(1).unwrap(), "key1");
    }
}

#[test]
fn a_record_is_no_longer_than_the_limit() {
    let numbers = format!("{{\"a\":[{}1]}}", "1.5,".repeat(50));
    let form = format!("a={}", "x".repeat(200));
    for (format, body) in [(Format::Json, numbers), (Format::Form, form)] {
        let mut message = MessageBuilder::new(b"", 0, &BufferPool::default());
        let limit = message.out.len() + 100;
        let refused = records::append(format, body.as_bytes(), &OPTIONS, &mut message, limit);
        assert!(
            matches!(refused, Err(Problem::TooLarge { .. })),
            "{format:?}: {refused:?}"
        );
    }
}
