//! A long message does not hold up short ones that wait behind it.

use super::*;
use crate::gather::record_queue::QueueProducer;
use windrow_journal::CommitSink as _;

fn record(number: u64, payload: Bytes) -> Record {
    Record {
        lsn: number,
        segment: 1,
        received_us: number as i64 * 1000,
        kind: crate::input::forward::FORWARD_MESSAGES,
        payload,
        released: false,
    }
}

/// Records in a long message.
const LONG: usize = 90_000;

/// A long message of records without a trace id.
fn long_message(number: u8, gzip: bool) -> Bytes {
    let entries = rmp_serde::to_vec(&(0, json!({"text": "x".repeat(200)})))
        .unwrap()
        .repeat(LONG);
    let id = ChunkId::from_random([number; 16]);
    let mut out = Vec::new();
    let packed;
    let bytes = if gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&entries).unwrap();
        packed = encoder.finish().unwrap();
        &packed
    } else {
        &entries
    };
    let count = LONG as u32;
    write_packed(&mut out, b"evil", EntryStream { bytes, count }, Some(&id));
    out.into()
}

#[test]
fn short_records_are_gathered_between_the_sections_of_a_long_one() {
    for gzip in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let Scene {
            gatherer,
            journal,
            mut batches,
            ..
        } = Scene::new(folder.path(), 16 << 20);
        let queue = RecordQueue::new(usize::MAX, Arc::new(AdmissionControl::new(1)));
        let fields = json!({"message": "bystander"});
        let short = |number: usize| {
            let chunk = Chunk {
                mode: Mode::Packed,
                tag: "app",
                records: vec![(BASE_MS, fields.as_object().unwrap().clone(), Map::new())],
            };
            chunk.encode(number)
        };
        QueueProducer(Arc::clone(&queue)).committed(vec![
            record(1, long_message(1, gzip)),
            record(2, long_message(2, gzip)),
            record(3, short(1)),
            record(4, short(2)),
        ]);
        let consumer = QueueConsumer::new(Arc::clone(&queue), journal);
        let gathering = std::thread::spawn(move || gatherer.run(consumer));
        let mut names = Vec::new();
        while names.len() < 2 * LONG + 2 {
            let batch = batches.blocking_recv().unwrap();
            for document in batch.documents() {
                let json: Value = serde_json::from_slice(document.json()).unwrap();
                names.push(json["windrow"]["tags"][0].as_str().unwrap().to_owned());
            }
        }
        queue.close();
        drop(batches);
        gathering.join().unwrap();
        let at = |n: usize| {
            names
                .iter()
                .enumerate()
                .filter(|(_, tag)| *tag == "app")
                .nth(n)
                .unwrap()
                .0
        };
        assert!(at(1) < LONG / 2, "{} {}", at(0), at(1));
        assert_eq!(names.iter().filter(|tag| *tag == "app").count(), 2);
        assert_eq!(
            names.iter().filter(|tag| *tag == "evil").count(),
            2 * LONG,
            "with their own tag"
        );
    }
}
