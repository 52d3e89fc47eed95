//! Records of a known shape give the same document as records without: whatever is stripped was not needed.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Added, Incoming, Limits, Scratch, ShapeId, Shapes, Span, Table};
use super::union::canonical;
use super::*;

/// Records with few different names, so that shapes repeat, and with times that collide and go back.
fn records() -> impl Strategy<Value = Vec<(i64, u8, Vec<u8>)>> {
    let names = prop_oneof![
        4 => Just(vec!["traceId", "message", "a", "b"]),
        2 => Just(vec!["traceId", "log", "message", "a"]),
        1 => Just(vec!["a", "traceId"]),
        1 => Just(vec!["traceId", "_id", "b"]),
    ];
    let one = (0..6i64, 0..3u8, names, prop::collection::vec(0..100u32, 4));
    prop::collection::vec(one, 1..24).prop_map(|records| {
        let records = records.into_iter().map(|(time, part, names, values)| {
            let fields = names.into_iter().zip(values).map(|(name, value)| {
                let value = match name {
                    "traceId" => json!("t"),
                    "message" | "log" => json!(format!("text {value}")),
                    _ => json!([value]),
                };
                (name.to_owned(), value)
            });
            (time, part, record(&Value::Object(fields.collect())))
        });
        records.collect()
    })
}

/// The text as the gathering stage finds it: the best name that holds text.
fn text_of(record: &[u8]) -> Option<Span> {
    ["message", "log"].into_iter().find_map(|name| {
        let name = [&[0xa0 | name.len() as u8], name.as_bytes()].concat();
        let at = record.windows(name.len()).position(|window| window == name)? + name.len();
        let length = usize::from(record[at] & 0x1f);
        Some(Span::new(at + 1, length))
    })
}

/// The document of these records; `shapes` decides which of them have one.
fn document(
    records: &[(i64, u8, Vec<u8>)],
    mut shape: impl FnMut(&[u8]) -> Option<ShapeId>,
    shapes: &Shapes,
) -> Vec<u8> {
    let mut table = Table::new(Limits {
        linger: 1,
        idle_timeout: 1,
        max_age: 1,
        max_traces: 10,
        max_bytes: 1 << 20,
        max_trace_bytes: 1 << 20,
    });
    let tag = tag("app");
    // Parts come one after the other, each with its own records.
    let mut sorted: Vec<_> = records.iter().collect();
    sorted.sort_by_key(|(_, part, _)| *part);
    for (position, (time, part, record)) in sorted.into_iter().enumerate() {
        let shape = shape(record);
        let incoming = Incoming {
            key: b"t",
            time: *time,
            part: PartId([*part; 12]),
            received: i64::from(*part),
            position: position as u32,
            record,
            metadata: b"",
            tag: &tag,
            completes: false,
            shape,
            text: shape.and_then(|_| text_of(record)),
        };
        assert_eq!(table.add(1, &incoming, || ()), Added::Kept);
    }
    let mut closed = table.close_any(Reason::Idle).unwrap();
    let mut scratch = Scratch::default();
    let (mut gathered, twice) = closed.gathered(99, &mut scratch);
    assert_eq!(twice, 0);
    let mut out = Vec::new();
    Renderer::default().trace(&mut out, &Names::default(), shapes, &mut gathered, |_, _| ());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_shape_changes_nothing_in_the_document(records in records()) {
        let mut shapes = Shapes::new(Names::default(), Vec::new());
        for (_, _, record) in records.iter().chain(&records) {
            shapes.find(record);
        }
        let ids: Vec<_> = records.iter().map(|(_, _, record)| shapes.find(record)).collect();
        prop_assert!(ids.iter().all(Option::is_some));
        let id = |record: &[u8]| {
            let at = records.iter().position(|(_, _, other)| other == record);
            ids[at.unwrap()]
        };
        let with = document(&records, id, &shapes);
        let without = document(&records, |_| None, &shapes);
        prop_assert_eq!(canonical(&with), canonical(&without));
    }
}
