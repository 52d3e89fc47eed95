//! Records with a known shape give the same document as records without.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::union::canonical;
use super::*;
use crate::{AddOutcome, IncomingRecord, Limits, Scratch, ShapeId, ShapeRegistry, Source, SourceId, Table};

/// A record of a test.
#[derive(Clone, Debug)]
struct One {
    time: i64,
    part: u8,
    /// It completes its trace, which is then packed.
    completes: bool,
    record: Vec<u8>,
}

/// Records with few distinct shapes, with times that collide or go back, and with texts that need
/// escapes or are not UTF-8.
fn records() -> impl Strategy<Value = Vec<One>> {
    let names = prop_oneof![
        8 => Just(vec!["traceId", "message", "a", "b"]),
        2 => Just(vec!["traceId", "log", "message", "a"]),
        1 => Just(vec!["a", "traceId"]),
        1 => Just(vec!["traceId", "_id", "b"]),
        1 => Just(vec!["trace_id", "b", "message"]),
    ];
    let text = prop_oneof![4 => "[a-z]{0,9}", 1 => "[\"\\\\\n\u{1}\u{7f}é\u{fffd}~]{0,6}"];
    let step = prop_oneof![6 => 1..3i64, 2 => Just(0), 1 => -4..0i64];
    let names = || names.clone();
    let one = (
        step,
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.2),
        text,
        prop::collection::vec(0..100u32, 4),
    );
    let all = prop_oneof![
        1 => prop::collection::vec((one.clone(), names()), 1..24),
        // All of one shape.
        1 => (prop::collection::vec(one, 1..24), names())
            .prop_map(|(all, names)| all.into_iter().map(|one| (one, names.clone())).collect()),
    ];
    let unit = prop_oneof![
        Just(1i64),
        Just(1_000),
        Just(1_000_000),
        Just(1_000_000_000),
        Just(999)
    ];
    (all, unit, any::<bool>()).prop_map(|(records, unit, broken)| {
        let (mut time, mut part) = (1_000_000_000 * unit.min(2), 0);
        let records = records
            .into_iter()
            .map(|((step, next, completes, text, values), names)| {
                time += step * unit;
                part += u8::from(next);
                let fields = names.into_iter().zip(values).map(|(name, value)| {
                    let value = match name {
                        "traceId" | "trace_id" => json!("t"),
                        "message" | "log" => json!(format!("{text} {value}")),
                        "a" => json!([value, {"x": null}]),
                        _ => json!(f64::from(value) / 3.0),
                    };
                    (name.to_owned(), value)
                });
                let mut record = record(&Value::Object(fields.collect()));
                if broken && let Some(at) = record.windows(2).position(|pair| pair == "é".as_bytes()) {
                    record[at] = 0xff;
                }
                One {
                    time,
                    part,
                    completes,
                    record,
                }
            });
        records.collect()
    })
}

/// The text as routing finds it: that of the most preferred name.
fn text_of(record: &[u8]) -> Option<&[u8]> {
    ["message", "log"].into_iter().find_map(|name| {
        let name = [&[0xa0 | name.len() as u8], name.as_bytes()].concat();
        let at = record.windows(name.len()).position(|window| window == name)? + name.len();
        let length = usize::from(record[at] & 0x1f);
        record.get(at + 1..at + 1 + length)
    })
}

/// The document of these records, with the shapes that `shape` gives them.
fn document(
    records: &[One],
    max_trace_bytes: usize,
    mut shape: impl FnMut(&[u8]) -> Option<ShapeId>,
    shapes: &ShapeRegistry,
) -> Vec<u8> {
    let mut table = Table::new(Limits {
        linger: 1000,
        idle_timeout: 1000,
        max_age: 1000,
        max_traces: 10,
        max_bytes: 1 << 20,
        max_trace_bytes,
    });
    let mut source: Option<(u8, SourceId)> = None;
    let mut kept = 0;
    for (position, one) in records.iter().enumerate() {
        let (_, source) = match source {
            Some((part, _)) if part == one.part => source.unwrap(),
            _ => *source.insert((
                one.part,
                table.begin_source(Source {
                    part: PartId([one.part; 12]),
                    // Not always later than the part before.
                    received: i64::from(one.part % 3),
                    tag: tag("app"),
                    hold: (),
                }),
            )),
        };
        let shape = shape(&one.record);
        let incoming = IncomingRecord {
            id: table.trace_id(b"t"),
            time: one.time,
            source,
            position: position as u32,
            record: &one.record,
            metadata: b"",
            completes: one.completes,
            shape,
            text: shape.and_then(|_| text_of(&one.record)),
            level: None,
            service: None,
        };
        kept += u64::from(table.add(1, &incoming) == AddOutcome::Added);
        if one.completes {
            table.move_completed();
        }
    }
    assert_eq!((table.len(), table.lines()), (1, kept));
    let mut sealed = table.seal(b"t").unwrap();
    // Whether it completed is not compared.
    sealed.reason = SealReason::Idle;
    let mut scratch = Scratch::default();
    let (content, duplicates) = sealed.content(99, &mut scratch);
    assert_eq!(duplicates, 0);
    let mut out = Vec::new();
    Renderer::default().trace(&mut out, &FieldNames::default(), shapes, content, |_, _| ());
    sealed.release(1, |()| ());
    assert_eq!((table.len(), table.bytes()), (0, 0));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_shape_changes_nothing_in_the_document(records in records(), small in prop::option::weighted(0.3, 150..1500usize)) {
        let mut shapes = ShapeRegistry::new(FieldNames::default(), Vec::new());
        for one in records.iter().chain(&records) {
            shapes.find(&one.record);
        }
        let ids: Vec<_> = records.iter().map(|one| shapes.find(&one.record)).collect();
        prop_assert!(ids.iter().all(Option::is_some));
        let id = |record: &[u8]| {
            let at = records.iter().position(|other| other.record == record);
            ids[at.unwrap()]
        };
        // With a small limit records are left out, whatever their part.
        let most = small.unwrap_or(1 << 20);
        let with = document(&records, most, id, &shapes);
        let without = document(&records, most, |_| None, &shapes);
        prop_assert_eq!(canonical(&with), canonical(&without));
    }
}
