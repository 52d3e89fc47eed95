//! Gathering against a plain reading of the same records, which decodes them with serde and merges
//! one by one: without shapes, without stripping, and with no code shared with the fast path.

mod amplification;
mod every_line;
mod fairness;
mod inputs;
mod long_traces;
mod meaning;
mod model;
mod nested;
mod partial;
mod routes;
mod scene;
mod shares;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use forward_protocol::encode::{
    ChunkId, EntryStream, write_entry, write_forward, write_message, write_packed,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::gather::record_queue::RecordQueue;
use crate::output::SealedDocument;

use self::model::{LEVELS, plainly};
use self::scene::Scene;

const BASE_MS: i64 = 1_700_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Mode {
    Forward,
    Packed,
    Gzip,
    Message,
}

/// One journal record.
#[derive(Clone, Debug)]
struct Chunk {
    mode: Mode,
    tag: &'static str,
    records: Vec<Event>,
}

/// Milliseconds, fields, metadata.
type Event = (i64, Map<String, Value>, Map<String, Value>);

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Eighths, since serde_json does not read every float back exactly.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[a-c \"\\\\\n\u{1}é😀]{0,9}".prop_map(Value::from),
        "[a-z]{40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn value_of(name: &str) -> BoxedStrategy<Value> {
    match name {
        "traceId" | "trace_id" => prop_oneof![
            6 => prop_oneof![Just("one"), Just("two"), Just("a trace id that is longer than forty bytes, \"quoted\"")]
                .prop_map(Value::from),
            1 => Just(json!("")),
            1 => Just(json!("N/A")),
            1 => Just(json!(5)),
            1 => Just(json!(0)),
            1 => values(),
        ]
        .boxed(),
        "message" | "log" | "msg" | "event" => prop_oneof![
            6 => "[a-c \"\n😀]{0,12}".prop_map(Value::from),
            1 => Just(json!("request completed")),
            1 => values(),
        ]
        .boxed(),
        "level" => prop::sample::select(LEVELS.to_vec())
            .prop_map(Value::from)
            .boxed(),
        _ => values().boxed(),
    }
}

/// Chunks whose records have one of a few lists of field names, as those of applications do.
fn chunks() -> impl Strategy<Value = Vec<Chunk>> {
    let names = prop::sample::subsequence(
        vec![
            "traceId",
            "trace_id",
            "message",
            "log",
            "msg",
            "event",
            "level",
            "status",
            "_id",
            "@timestamp",
            "windrow",
            "a name of more than sixteen bytes",
        ],
        1..8,
    );
    prop::collection::vec(names.prop_shuffle(), 1..4).prop_flat_map(|shapes| {
        let record = (0..shapes.len()).prop_flat_map(move |shape| {
            let fields: Vec<_> = shapes[shape]
                .iter()
                .map(|name| (Just((*name).to_owned()), value_of(name)))
                .collect();
            let metadata = prop_oneof![
                5 => Just(Map::new()),
                1 => values().prop_map(|value| Map::from_iter([("m".to_owned(), value)])),
            ];
            (0..8i64, fields, metadata).prop_map(|(ms, fields, metadata)| {
                let fields = fields.into_iter().collect();
                (BASE_MS + ms * 250, fields, metadata)
            })
        });
        let mode = prop_oneof![
            Just(Mode::Forward),
            Just(Mode::Packed),
            Just(Mode::Gzip),
            Just(Mode::Message)
        ];
        let tag = prop_oneof![Just("app.one"), Just("app.two")];
        let chunk = (mode, tag, prop::collection::vec(record, 1..12));
        prop::collection::vec(
            chunk.prop_map(|(mode, tag, records)| Chunk { mode, tag, records }),
            1..5,
        )
    })
}

impl Chunk {
    fn encode(&self, number: usize) -> Bytes {
        let map = |map: &Map<String, Value>| rmp_serde::to_vec(map).unwrap();
        let (mut out, mut entries) = (Vec::new(), Vec::new());
        for (ms, fields, metadata) in &self.records {
            let (ns, metadata) = (ms * 1_000_000, Some(map(metadata)));
            if matches!(self.mode, Mode::Message) {
                write_message(
                    &mut out,
                    self.tag.as_bytes(),
                    ns,
                    &map(fields),
                    metadata.as_deref(),
                    None,
                );
            } else {
                write_entry(&mut entries, ns, metadata.as_deref(), &map(fields));
            }
        }
        let id = ChunkId::from_random([number as u8; 16]);
        let count = self.records.len() as u32;
        let stream = EntryStream {
            bytes: &entries,
            count,
        };
        match self.mode {
            Mode::Message => {}
            Mode::Forward => write_forward(&mut out, self.tag.as_bytes(), stream, Some(&id)),
            Mode::Packed => write_packed(&mut out, self.tag.as_bytes(), stream, Some(&id)),
            Mode::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(&entries).unwrap();
                let bytes = gzip.finish().unwrap();
                let stream = EntryStream { bytes: &bytes, count };
                write_packed(&mut out, self.tag.as_bytes(), stream, Some(&id));
            }
        }
        out.into()
    }
}

/// The documents that gathering writes, by their ids, without their state.
fn gathered(payloads: impl IntoIterator<Item = Bytes>) -> BTreeMap<String, Value> {
    let folder = tempfile::tempdir().unwrap();
    let documents = gathered_in(folder.path(), 16 << 20, payloads);
    assert_eq!(
        std::fs::read_dir(folder.path().join("rejected")).unwrap().count(),
        0,
        "nothing is rejected"
    );
    documents
}

/// As [`gathered`], with the journal and the rejected input in `folder`.
fn gathered_in(
    folder: &Path,
    max_trace_bytes: usize,
    payloads: impl IntoIterator<Item = Bytes>,
) -> BTreeMap<String, Value> {
    let mut scene = Scene::new(folder, max_trace_bytes);
    for (number, payload) in payloads.into_iter().enumerate() {
        scene.gather(number, payload);
    }
    scene.finish()
}

/// The documents that gathering writes, in order.
fn sealed(mut scene: Scene, payloads: impl IntoIterator<Item = Bytes>) -> Vec<SealedDocument> {
    for (number, payload) in payloads.into_iter().enumerate() {
        scene.gather(number, payload);
    }
    scene.seal()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_fast_path_writes_what_a_plain_reading_gives(chunks in chunks()) {
        let payloads = chunks.iter().enumerate().map(|(number, chunk)| chunk.encode(number));
        prop_assert_eq!(gathered(payloads), plainly(&chunks));
    }
}

#[test]
fn it_is_the_same_while_more_traces_are_open_than_the_cache_holds() {
    let chunk = |mode, records: Vec<Value>| Chunk {
        mode,
        tag: "app",
        records: (BASE_MS..)
            .zip(records)
            .map(|(ms, fields)| (ms, fields.as_object().unwrap().clone(), Map::new()))
            .collect(),
    };
    let first = |n| json!({"traceId": format!("t{n}"), "message": format!("begins {n}"), "n": n});
    // Known and new traces in any order, some twice in one group, records without an id, and other
    // shapes.
    let next = |n: u64| match n % 10 {
        0 => json!({"message": format!("alone {n}")}),
        1 => json!({"traceId": "t77", "message": format!("again {n}"), "n": n}),
        2 => json!({"n": n, "msg": "another shape", "trace_id": format!("t{}", n * 7919 % 30_000)}),
        _ => json!({"traceId": format!("t{}", n * 7919 % 30_000), "message": format!("more {n}"), "n": n}),
    };
    let chunks = [
        chunk(Mode::Packed, (0..20_000).map(first).collect()),
        chunk(Mode::Packed, (0..1003).map(next).collect()),
        chunk(Mode::Forward, (1003..2000).map(next).collect()),
        chunk(Mode::Gzip, (2000..3000).map(next).collect()),
        chunk(Mode::Message, (3000..3040).map(next).collect()),
    ];
    let payloads = chunks.iter().enumerate();
    let payloads = payloads.map(|(number, chunk)| chunk.encode(number));
    assert_eq!(gathered(payloads), plainly(&chunks));
}

/// Loggers that want an ack for each record send many in one write, often within one tick of their
/// clock.
#[test]
fn lines_of_one_time_that_come_in_one_read_keep_their_order() {
    let mut payload = Vec::new();
    for number in 0..20u8 {
        let record = rmp_serde::to_vec(&json!({"traceId": "one", "message": number.to_string()})).unwrap();
        let id = ChunkId::from_random([number; 16]);
        write_message(
            &mut payload,
            b"app",
            BASE_MS * 1_000_000,
            &record,
            None,
            Some(&id),
        );
    }
    let documents = gathered([payload.into()]);
    let lines: Vec<_> = (0..20).map(|number: u8| number.to_string()).collect();
    assert_eq!(documents["one"]["message"], lines.join("\n"));
}

/// Without chunk ids they are one part, but keep the tags of their messages.
#[test]
fn messages_of_one_read_without_chunk_ids_keep_their_tags() {
    let mut payload = Vec::new();
    for (number, tag) in ["a", "b", "b", "a"].into_iter().enumerate() {
        let record = rmp_serde::to_vec(&json!({"traceId": "one", "message": number.to_string()})).unwrap();
        write_message(
            &mut payload,
            tag.as_bytes(),
            BASE_MS * 1_000_000,
            &record,
            None,
            None,
        );
    }
    let documents = gathered([payload.into()]);
    let document = &documents["one"];
    assert_eq!(document["message"], "0\n1\n2\n3");
    let about = &document["windrow"];
    assert_eq!((&about["tags"], &about["lines"]), (&json!(["a", "b"]), &json!(4)));
    assert_eq!((&about["parts"], about.get("truncated")), (&json!(1), None));
}

#[test]
fn the_buffer_of_a_gathered_record_is_pooled_until_the_server_is_idle() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    let fields = json!({"message": "x".repeat(70_000)});
    let payload = |number| {
        let chunk = Chunk {
            mode: Mode::Packed,
            tag: "app",
            records: vec![(BASE_MS, fields.as_object().unwrap().clone(), Map::new())],
        };
        chunk.encode(number)
    };
    let first = payload(0);
    let place = first.as_ptr();
    scene.gather(0, first);
    let buffer = scene.buffer_pool.take(70_000).unwrap();
    assert_eq!(buffer.as_ptr(), place);
    scene.gather(1, payload(1));
    let Scene {
        gatherer,
        journal,
        gauges,
        buffer_pool,
        ..
    } = scene;
    let queue = RecordQueue::new(1, Arc::new(AdmissionControl::new(1)));
    let consumer = QueueConsumer::new(Arc::clone(&queue), journal);
    std::thread::scope(|scope| {
        scope.spawn(|| gatherer.run(consumer));
        let began = Instant::now();
        while !gauges.idle.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        queue.close();
    });
    assert!(buffer_pool.take(0).is_none());
}
