use std::collections::BTreeMap;

use forward_protocol::encode::{
    ChunkId, EntryStream, compress, write_compressed, write_forward, write_message, write_packed,
};
use forward_protocol::entries::{Compression, Entries, decompress};
use forward_protocol::frame::{Limits, Payload, messages};

use super::*;

const MODES: [Mode; 5] = [
    Mode::Packed,
    Mode::Gzip,
    Mode::GzipMembers,
    Mode::Forward,
    Mode::Message,
];

/// Lines by trace, in the order in which they were sent, and the chunk ids.
fn read(load: &Load) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    let (mut traces, mut ids) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for mut source in load.prepare().unwrap() {
        let mut sent = 0;
        while let Some(chunk) = source.next_chunk().unwrap() {
            assert_eq!(chunk.records.start, sent);
            for message in messages(&chunk.bytes, Limits::default()) {
                let message = message.unwrap();
                assert_eq!(message.tag, b"app.bench");
                let id = chunk.id.as_deref().map(|id| {
                    let mut bytes = Vec::new();
                    msgpack::write_str(&mut bytes, id);
                    bytes
                });
                assert_eq!(message.options.chunk, id.as_deref());
                let body;
                let entries = match message.payload(100) {
                    Payload::Entries(entries) => entries,
                    Payload::Compressed { compression, bytes } => {
                        body = decompress(compression, bytes, 1 << 30).unwrap();
                        Entries::new(&body.bytes, 100)
                    }
                    Payload::Opaque(_) => panic!("not a log"),
                };
                for entry in entries {
                    let value: serde_json::Value = rmp_serde::from_slice(entry.unwrap().record).unwrap();
                    let trace = value["traceId"].as_str().unwrap_or_default().to_owned();
                    traces
                        .entry(trace)
                        .or_default()
                        .push(value["message"].as_str().unwrap().to_owned());
                    sent += 1;
                }
            }
            assert_eq!(chunk.records.end, sent);
            ids.extend(chunk.id);
        }
    }
    (traces, ids)
}

fn load(mode: Mode, acks: bool) -> Load {
    Load {
        mode,
        acks,
        records: 1007,
        lines: 3,
        open: 7,
        connections: 2,
        chunk_records: 50,
        run: 5,
        ..Load::default()
    }
}

#[test]
fn every_mode_carries_each_line_of_each_trace_once_and_in_order() {
    for mode in MODES {
        for acks in [true, false] {
            let load = load(mode, acks);
            let (traces, mut ids) = read(&load);
            assert_eq!(traces.len() as u64, load.documents(), "{mode:?}");
            assert_eq!(traces.len(), 1007 / 3);
            for lines in traces.values() {
                assert_eq!(lines.len(), 3);
                assert!(lines[0].starts_with("handler step 0 "));
                assert!(lines[1].starts_with("handler step 1 "));
                assert!(lines[2].starts_with("request completed 2 "));
            }
            assert_eq!(ids.is_empty(), !acks);
            let all = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), all, "no chunk id comes twice");
            assert!(mode != Mode::Message || !acks || all as u64 == load.total());
        }
    }
}

/// The load's own encoder and Windrow's agree in every byte.
#[test]
fn messages_are_those_of_the_codec() {
    for mode in MODES.into_iter().filter(|mode| *mode != Mode::GzipMembers) {
        for acks in [true, false] {
            for mut source in load(mode, acks).prepare().unwrap() {
                while let Some(chunk) = source.next_chunk().unwrap() {
                    let id = chunk.id.as_deref().map(|id| ChunkId::from_text(id).unwrap());
                    let (id, tag) = (id.as_ref(), b"app.bench");
                    let mut encoded = Vec::new();
                    for message in messages(&chunk.bytes, Limits::default()) {
                        let message = message.unwrap();
                        let (bytes, count) = match message.payload(100) {
                            Payload::Entries(entries) => {
                                let mut bytes = Vec::new();
                                let mut count = 0;
                                for entry in entries {
                                    let entry = entry.unwrap();
                                    forward_protocol::encode::write_entry(
                                        &mut bytes,
                                        entry.time.or_received(0),
                                        None,
                                        entry.record,
                                    );
                                    if mode == Mode::Message {
                                        write_message(
                                            &mut encoded,
                                            tag,
                                            entry.time.or_received(0),
                                            entry.record,
                                            None,
                                            id,
                                        );
                                    }
                                    count += 1;
                                }
                                (bytes, count)
                            }
                            Payload::Compressed { compression, bytes } => {
                                let body = decompress(compression, bytes, 1 << 30).unwrap();
                                let count = Entries::new(&body.bytes, 100).count() as u32;
                                (body.bytes.to_vec(), count)
                            }
                            Payload::Opaque(_) => panic!("not a log"),
                        };
                        let stream = EntryStream { bytes: &bytes, count };
                        match mode {
                            Mode::Message => {}
                            Mode::Forward => write_forward(&mut encoded, tag, stream, id),
                            Mode::Packed => write_packed(&mut encoded, tag, stream, id),
                            Mode::Gzip | Mode::GzipMembers => {
                                let small = compress(Compression::Gzip, &bytes, 1).unwrap();
                                write_compressed(&mut encoded, tag, Compression::Gzip, &small, count, id);
                            }
                        }
                    }
                    assert!(encoded == chunk.bytes, "{mode:?}");
                }
            }
        }
    }
}

/// FNV-1a of everything that a load sends.
fn fingerprint(load: &Load) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for mut source in load.prepare().unwrap() {
        while let Some(chunk) = source.next_chunk().unwrap() {
            let id = chunk.id.unwrap_or_default().into_bytes();
            for byte in id.into_iter().chain(chunk.bytes) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    hash
}

/// Figures of different versions can be compared only while they were sent the same bytes.
#[test]
fn the_bytes_of_a_load_never_change() {
    let load = |mode, acks| Load {
        mode,
        acks,
        records: 50_000,
        run: 3,
        ..Load::default()
    };
    let odd = Load {
        records: 123_457,
        connections: 7,
        open: 1003,
        chunk_records: 77,
        ..Load::default()
    };
    for (load, expected) in [
        (load(Mode::Packed, true), 0xe279_6c3e_179f_8ba7),
        (load(Mode::Packed, false), 0x675e_ff40_7061_1241),
        (load(Mode::Forward, true), 0x7812_add9_055b_4c4b),
        (load(Mode::Message, false), 0x9db4_f9d5_5cd5_ae7b),
        (odd, 0xa0ab_4ada_5402_fe41),
    ] {
        let found = fingerprint(&load);
        assert_eq!(found, expected, "{found:016x} of {load:?}");
    }
}

#[test]
fn chunks_made_late_are_those_made_ahead() {
    let load = load(Mode::Packed, true);
    let all = |max_bytes: usize| {
        let mut source = load.sources().remove(1);
        source.make_ahead(max_bytes).unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = source.next_chunk().unwrap() {
            bytes.extend(chunk.bytes);
        }
        bytes
    };
    assert_eq!(all(0), all(usize::MAX));
    assert!(!all(0).is_empty());
}

#[test]
fn records_without_a_trace_are_documents_of_their_own() {
    let load = Load {
        traced: false,
        ..load(Mode::Packed, true)
    };
    let (traces, _) = read(&load);
    assert_eq!(traces.len(), 1);
    assert_eq!(traces[""].len() as u64, load.documents());
    assert!((230..280).contains(&Load::default().record_bytes()));
}
