//! Records with a known shape give the same document as records without.

use proptest::prelude::*;
use serde_json::{Value, json};

use forward_protocol::entries::MapPairs;

use super::union::canonical;
use super::*;
use crate::{
    AddOutcome, DocumentSchema, FieldRole, IncomingRecord, Limits, MadeId, RecordFacts, Scratch, ShapeId,
    ShapeRegistry, Source, SourceId, Table, as_text, read_token,
};

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
        6 => Just(vec!["traceId", "message", "a", "b"]),
        6 => Just(vec!["traceId", "level", "message", "service", "a", "severity"]),
        2 => Just(vec!["levelno", "service", "traceId", "log"]),
        2 => Just(vec!["traceId", "log", "message", "a"]),
        1 => Just(vec!["a", "traceId"]),
        1 => Just(vec!["traceId", "_id", "b"]),
        1 => Just(vec!["_id", "traceId", "_id_", "a..b"]),
        1 => Just(vec!["traceId", "a__b", "a..b", "b.c"]),
        1 => Just(vec!["trace_id", "b", "message"]),
        2 => Just(vec!["traceId", "event", "level", "log"]),
        2 => Just(vec!["fields", "traceId", "b"]),
        1 => Just(vec!["a", "MESSAGE", "traceId"]),
        1 => Just(vec!["traceId", "body", "event"]),
    ];
    let text = prop_oneof![
        4 => "[a-z]{0,9}",
        1 => "[\"\\\\\n\u{1}\u{7f}é\u{fffd}~]{0,6}",
        1 => Just("\u{1b}[1mbold\u{1b}[0m".to_owned()),
    ];
    let end = prop_oneof![6 => Just(""), 2 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\n\u{1b}[0m"), 1 => Just("\n\n")];
    let text = (text, end).prop_map(|(text, end)| (text, end.to_owned()));
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
            .map(|((step, next, completes, (text, end), values), names)| {
                time += step * unit;
                part += u8::from(next);
                let fields = names.into_iter().zip(values).map(|(name, value)| {
                    let value = match name {
                        "traceId" | "trace_id" => json!("t"),
                        "message" | "log" | "MESSAGE" => json!(format!("{text} {value}{end}")),
                        // Mostly a text, sometimes an object or a number.
                        "event" if value % 4 == 0 => json!({"text": text, "n": value}),
                        "body" if value % 2 == 0 => json!(value),
                        "event" | "body" => json!(format!("{text} {value}{end}")),
                        "fields" if value % 4 == 0 => json!({"n": value}),
                        "fields" => json!({"n": value, "message": format!("{text} {value}{end}")}),
                        "a" => json!([value, {"x": null}]),
                        "level" | "severity" => {
                            json!(["debug", "info", "INFO", "error", "?"][value as usize % 5])
                        }
                        "levelno" => json!(value),
                        // More services than one byte can tell apart.
                        "service" if value > 50 => json!(format!("s{}", value % 20)),
                        "service" => json!(["a", "b", "b", ""][value as usize % 4]),
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

/// Shape and text as gathering finds them: only of a record whose text is a slice of it.
fn shape_and_text<'a>(shapes: &ShapeRegistry, id: ShapeId, record: &'a [u8]) -> Option<(ShapeId, &'a [u8])> {
    let shape = shapes.get(id)?;
    let view = shapes.view();
    let mut facts = RecordFacts::default();
    for (slot, pair) in shape.fields().iter().zip(MapPairs::new(record)) {
        let text = as_text(read_token(pair.value, 0)?.0);
        match slot.role() {
            FieldRole::JoinedText => facts.set_text(view, text?),
            FieldRole::OtherText => _ = text?,
            FieldRole::TraceId | FieldRole::Plain => {}
        }
        for reading in slot.readings() {
            facts.read(view, reading, pair.value);
        }
        facts.read_nested(view, slot.nested(), pair.value);
    }
    let text = facts
        .text
        .filter(|text| shape.has_text() && !view.is_rewritten(text))?;
    facts.fit(shape).then_some((id, text))
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
        let shape = shape(&one.record).and_then(|id| shape_and_text(shapes, id, &one.record));
        let facts = shapes.view().read(&one.record, &mut MadeId::default()).facts;
        let incoming = IncomingRecord {
            id: table.trace_id(b"t"),
            time: one.time,
            source,
            position: position as u32,
            record: &one.record,
            metadata: b"",
            completes: one.completes,
            shape: shape.map(|(id, _)| id),
            text: shape.map(|(_, text)| text),
            level: facts.level,
            service: facts.service,
        };
        kept += u64::from(table.add(1, &incoming, shapes) == AddOutcome::Added);
        if one.completes {
            table.move_completed();
        }
    }
    assert_eq!((table.len(), table.lines()), (1, kept));
    let mut sealed = table.seal(table.trace_id(b"t")).unwrap();
    // Whether it completed is not compared.
    sealed.reason = SealReason::Idle;
    let mut scratch = Scratch::default();
    let (content, duplicates) = sealed.content(99, &mut scratch);
    assert_eq!(duplicates, 0);
    let mut out = Vec::new();
    Renderer::default().trace(&mut out, shapes.view().names(), shapes, content, |_, _| ());
    sealed.release(1, |()| ());
    assert_eq!((table.len(), table.bytes()), (0, 0));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_shape_changes_nothing_in_the_document(
        records in records(),
        small in prop::option::weighted(0.3, 150..1500usize),
        schema in prop_oneof![3 => Just(DocumentSchema::Plain), 1 => Just(DocumentSchema::Ecs), 1 => Just(DocumentSchema::Otel)],
    ) {
        let mut names = FieldNames::default();
        names.document.schema = schema;
        let mut shapes = ShapeRegistry::new(names, Vec::new());
        for one in records.iter().chain(&records) {
            shapes.find(&one.record);
        }
        let ids: Vec<_> = records.iter().map(|one| shapes.find(&one.record)).collect();
        prop_assert!(schema != DocumentSchema::Plain || ids.iter().all(Option::is_some));
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
