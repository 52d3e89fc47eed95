//! A compressed message that holds a thousand times more records than its size suggests.

use std::io::Write;

use bytes::Bytes;

use super::super::*;
use super::scene::Scene;
use crate::gather::settings::max_records;
use crate::output::dead_letter::{Entry, EntryContent};

#[test]
fn a_small_compressed_message_of_many_records_is_rejected_after_the_first_ones() {
    const RECORDS: u64 = 4_000_000;
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // An entry with the time 0 and an empty record.
    gzip.write_all(&b"\x92\x00\x80".repeat(RECORDS as usize)).unwrap();
    let bytes = gzip.finish().unwrap();
    let mut payload = b"\x93\xa3app\xc5".to_vec();
    payload.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
    payload.extend_from_slice(&bytes);
    payload.extend_from_slice(b"\x81\xaacompressed\xa4gzip");
    let payload = Bytes::from(payload);
    let Scene { batches, .. } = &mut scene;
    let batches = std::mem::replace(batches, mpsc::channel(1).1);
    let reader = std::thread::spawn(move || {
        let mut batches = batches;
        while batches.blocking_recv().is_some() {}
    });
    scene.gather(0, payload.clone());
    let received = scene.gatherer.metrics.input_records.get();
    drop(scene);
    reader.join().unwrap();
    let limit = max_records(bytes.len());
    // A piece of 1 MiB is gathered as a whole.
    assert!(
        received >= limit && received < limit + (1 << 20),
        "{received} of {limit}"
    );
    let dead = std::fs::read(folder.path().join("rejected/001.ndjson")).unwrap();
    let entry = Entry::parse(&dead).unwrap();
    assert_eq!((entry.kind.as_str(), entry.lines), ("compression", Some(1)));
    assert_eq!(entry.content, EntryContent::Raw(payload));
}
