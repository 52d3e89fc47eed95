//! Chunks that are split between several instances, against the same chunks gathered by one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::super::*;
use super::scene::Scene;
use super::{Chunk, Mode, chunks};
use crate::cluster::CHUNK_SHARES;
use crate::cluster::SplitSettings;
use crate::cluster::testing::{FreshIds, HeldTags, Seat, SplitContext, SplitRun, Splitter};
use crate::gather::IdSettings;
use crate::input::forward::FORWARD_MESSAGES;
use bytes::Bytes;
use windrow_trace::{Union, union};

/// An instance: its gatherer, and what splits for it.
struct Instance {
    scene: Scene,
    splitter: Splitter,
    held: Mutex<HeldTags>,
    fresh: FreshIds,
    _folder: tempfile::TempDir,
}

impl Instance {
    fn new(max_part_bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_config(&crate::config::Config::default());
        settings.max_part_bytes = max_part_bytes;
        let split = SplitSettings {
            ids: IdSettings::of(&settings),
            frame: settings.frame,
            max_part_bytes,
            line_timeout: Duration::from_secs(30),
        };
        Self {
            scene: Scene::with_settings(folder.path(), settings),
            splitter: Splitter::new(&split),
            held: Mutex::default(),
            fresh: FreshIds::new().unwrap(),
            _folder: folder,
        }
    }

    /// Splits a chunk among `members`, of which the first is this instance.
    fn split(&mut self, number: usize, chunk: &[u8], members: &[usize]) -> SplitRun {
        let seats: Vec<Seat> = members.iter().map(|member| Seat::of(*member as u64)).collect();
        let context = SplitContext {
            seats: &seats,
            fresh: &self.fresh,
            held: &self.held,
            received: received(number),
        };
        self.splitter.split(chunk, &context)
    }

    fn gather(&mut self, number: usize, kind: u8, payload: impl Into<Bytes>) {
        let payload = payload.into();
        if !payload.is_empty() {
            self.scene.gather_kind(number, kind, payload);
        }
    }
}

fn received(number: usize) -> i64 {
    (number as i64 + 1) * 1000
}

/// What becomes of a chunk besides the usual.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// The instance that the client sends it to.
    to: usize,
    /// That instance keeps the shares of others as well.
    is_slow: bool,
    /// It is sent again, to this instance, which reaches only some of the others.
    again: Option<(usize, u8)>,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (
        0..4usize,
        any::<bool>(),
        proptest::option::of((0..4usize, any::<u8>())),
    );
    let fate = fate.prop_map(|(to, is_slow, again)| Fate { to, is_slow, again });
    proptest::collection::vec(fate, 5)
}

/// Sends a chunk to an instance.
fn send(instances: &mut [Instance], number: usize, chunk: &Bytes, to: usize, reach: u8, is_slow: bool) {
    let others = (0..instances.len()).filter(|other| *other != to && reach & (1 << other) != 0);
    let members: Vec<usize> = std::iter::once(to).chain(others).collect();
    let split = instances[to].split(number, chunk, &members);
    if split.is_whole() {
        instances[to].gather(number, FORWARD_MESSAGES, chunk.clone());
        return;
    }
    for (seat, share) in split.others {
        if is_slow {
            instances[to].gather(number, CHUNK_SHARES, share.bytes.clone());
        }
        instances[members[seat]].gather(number, CHUNK_SHARES, share.bytes);
    }
    instances[to].gather(number, FORWARD_MESSAGES, split.whole);
    instances[to].gather(number, CHUNK_SHARES, split.kept);
}

/// The stored documents by id, without their state.
fn stored(instances: Vec<Instance>) -> BTreeMap<String, Value> {
    let mut documents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for instance in instances {
        for sealed in instance.scene.seal() {
            let id = sealed.id().to_string();
            let ours = sealed.json().to_vec();
            match documents.get(&id) {
                None => {
                    documents.insert(id, ours);
                }
                Some(known) if sealed.is_trace() => {
                    if let Union::Merged { document, .. } = union(known, &ours).unwrap() {
                        documents.insert(id, document);
                    }
                }
                Some(known) => assert_eq!(known, &ours, "equal ids mean equal records"),
            }
        }
    }
    let plain = |json: Vec<u8>| {
        let mut document: Value = serde_json::from_slice(&json).unwrap();
        if let Some(about) = document["windrow"].as_object_mut() {
            about.remove("state");
        }
        document
    };
    documents
        .into_iter()
        .map(|(id, json)| (id, plain(json)))
        .collect()
}

fn with_ids(mut chunks: Vec<Chunk>) -> Vec<Bytes> {
    for chunk in &mut chunks {
        if matches!(chunk.mode, Mode::Message) {
            chunk.mode = Mode::Packed;
        }
    }
    let encoded = chunks.iter().enumerate();
    encoded.map(|(number, chunk)| chunk.encode(number)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn documents_do_not_depend_on_who_gathers_what(
        chunks in chunks(),
        fates in fates(),
        // Small ones cut chunks into sections.
        max_part_bytes in prop_oneof![Just(60usize), Just(200), Just(4 << 20)],
    ) {
        let chunks = with_ids(chunks);
        let mut one = vec![Instance::new(max_part_bytes)];
        for (number, chunk) in chunks.iter().enumerate() {
            one[0].gather(number, FORWARD_MESSAGES, chunk.clone());
        }
        let mut several: Vec<Instance> = (0..4).map(|_| Instance::new(max_part_bytes)).collect();
        for (number, (chunk, fate)) in chunks.iter().zip(&fates).enumerate() {
            send(&mut several, number, chunk, fate.to, u8::MAX, fate.is_slow);
        }
        for (number, (chunk, fate)) in chunks.iter().zip(&fates).enumerate() {
            if let Some((to, reach)) = fate.again {
                send(&mut several, number, chunk, to, reach, false);
            }
        }
        prop_assert_eq!(stored(several), stored(one));
    }
}

/// A chunk with lines of many traces, some without an id.
fn mixed() -> Bytes {
    let records = (0..60).map(|n| {
        let fields = match n % 6 {
            0 => serde_json::json!({"message": format!("alone {n}")}),
            1 => serde_json::json!({"log": format!("{{\"traceId\":\"t{}\",\"message\":\"in JSON {n}\"}}", n % 10)}),
            _ => serde_json::json!({"traceId": format!("t{}", n % 10), "message": format!("line {n}")}),
        };
        (1_700_000_000_000 + n, fields.as_object().unwrap().clone(), serde_json::Map::new())
    });
    Chunk {
        mode: Mode::Packed,
        tag: "app",
        records: records.collect(),
    }
    .encode(1)
}

#[test]
fn every_record_has_exactly_one_owner() {
    let chunk = mixed();
    for members in [2usize, 3, 10, 50] {
        let mut instance = Instance::new(4 << 20);
        let all: Vec<usize> = (0..members).collect();
        let split = instance.split(0, &chunk, &all);
        assert!(split.whole.is_empty() && split.indivisible.is_empty());
        let mut positions = Vec::new();
        let shares = split
            .others
            .values()
            .map(|share| &share.bytes)
            .chain([&split.kept]);
        for share in shares {
            for message in messages(
                share,
                Settings::from_config(&crate::config::Config::default()).frame,
            ) {
                let share = crate::cluster::Share::read(&message.unwrap()).unwrap();
                assert_eq!(share.identity.received, received(0));
                positions.extend(share.positions);
            }
        }
        positions.sort_unstable();
        assert_eq!(positions, (0..60).collect::<Vec<u32>>());
    }
}

#[test]
fn a_chunk_of_own_records_stays_as_it_came() {
    let mut instance = Instance::new(4 << 20);
    let split = instance.split(0, &mixed(), &[7]);
    assert!(split.is_whole() && split.kept.is_empty());
}

#[test]
fn what_follows_a_part_of_a_line_stays() {
    let chunk = |number: u8, fields: Value| {
        let fields = fields.as_object().unwrap().clone();
        let records = vec![(1_700_000_000_000, fields, serde_json::Map::new())];
        Chunk {
            mode: Mode::Packed,
            tag: "app",
            records,
        }
        .encode(number.into())
    };
    let mut instance = Instance::new(4 << 20);
    let members: Vec<usize> = (0..50).collect();
    let whole = serde_json::json!({"traceId": "t1", "message": "whole"});
    assert!(!instance.split(0, &chunk(0, whole), &members).is_whole());
    let part = serde_json::json!({"log": "begin", "stream": "stdout", "logtag": "P", "traceId": "t1"});
    let split = instance.split(1, &chunk(1, part), &members);
    assert_eq!(split.indivisible, [crate::metrics::Kept::PartOfLine]);
    let end = serde_json::json!({"log": "end", "stream": "stdout", "logtag": "F", "traceId": "t1"});
    assert!(instance.split(2, &chunk(2, end), &members).is_whole());
}
