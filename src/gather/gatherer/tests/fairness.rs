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

/// The entries of a long message, records without a trace id.
fn long_entries(gzip: bool) -> Vec<u8> {
    let entries = rmp_serde::to_vec(&(0, json!({"text": "x".repeat(200)})))
        .unwrap()
        .repeat(LONG);
    if !gzip {
        return entries;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&entries).unwrap();
    encoder.finish().unwrap()
}

/// The long message with this number.
fn long_message(number: usize, bytes: &[u8]) -> Bytes {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let id = ChunkId::from_random(id);
    let mut out = Vec::new();
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
        let entries = long_entries(gzip);
        QueueProducer(Arc::clone(&queue)).committed(vec![
            record(1, long_message(1, &entries)),
            record(2, long_message(2, &entries)),
            record(3, short_message(1, "app")),
            record(4, short_message(2, "app")),
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

/// A short message of this tag, with a record without a trace id.
fn short_message(number: usize, tag: &'static str) -> Bytes {
    let fields = json!({"message": "bystander"});
    let chunk = Chunk {
        mode: Mode::Packed,
        tag,
        records: vec![(BASE_MS, fields.as_object().unwrap().clone(), Map::new())],
    };
    chunk.encode(number)
}

/// The tags of the first documents up to and with the last one of `tag`, of which there are `count`.
fn tags_until(batches: &mut mpsc::Receiver<Batch>, tag: &str, count: usize) -> Vec<String> {
    let mut tags = Vec::new();
    while tags.iter().filter(|known| *known == tag).count() < count {
        let batch = batches.blocking_recv().expect("the documents of a tag");
        for document in batch.documents() {
            let json: Value = serde_json::from_slice(document.json()).unwrap();
            tags.push(json["windrow"]["tags"][0].as_str().unwrap().to_owned());
        }
    }
    tags
}

/// As many long messages as an attacker sends in a minute, and short ones behind them: in memory,
/// or only in the journal.
#[test]
fn short_records_wait_neither_for_many_long_ones_nor_for_the_journal() {
    const MANY: usize = 300;
    let entries = long_entries(true);
    for budget_bytes in [usize::MAX, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let queue = RecordQueue::new(budget_bytes, Arc::new(AdmissionControl::new(1)));
        let settings = Settings::from_config(&crate::config::Config::default());
        let sink = Box::new(QueueProducer(Arc::clone(&queue)));
        let Scene {
            gatherer,
            journal,
            mut batches,
            ..
        } = Scene::with_sink(folder.path(), settings, sink);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let kind = crate::input::forward::FORWARD_MESSAGES;
        let append = |payload| drop(runtime.block_on(journal.append(kind, payload)).unwrap());
        for number in 0..MANY {
            append(long_message(number, &entries));
        }
        (0..3).for_each(|number| append(short_message(MANY + number, "app")));
        // Behind long ones of its own tag.
        append(short_message(MANY + 3, "evil"));
        let consumer = QueueConsumer::new(Arc::clone(&queue), journal.clone());
        let gathering = std::thread::spawn(move || gatherer.run(consumer));
        let tags = tags_until(&mut batches, "app", 3);
        queue.close();
        drop(batches);
        gathering.join().unwrap();
        assert!(tags.len() < 2 * LONG, "{} documents before them", tags.len());
        let spilled = queue.backlog().on_disk;
        assert_eq!(spilled, budget_bytes != usize::MAX);
    }
}
