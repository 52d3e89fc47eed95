//! The journal through its public face, on the real file system.

use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;

use super::super::{Committed, Journal, Options, Record};

struct Sink(std::sync::mpsc::SyncSender<Vec<Record>>);

impl Committed for Sink {
    fn committed(&mut self, records: Vec<Record>) {
        let _ = self.0.send(records);
    }
}

fn sink() -> (Box<dyn Committed>, Receiver<Vec<Record>>) {
    let (send, receive) = sync_channel(100_000);
    (Box::new(Sink(send)), receive)
}

#[test]
fn what_was_confirmed_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 4096,
        limit_bytes: 1 << 20,
        ..Options::new(dir.path())
    };
    let (sink, committed) = sink();
    let (journal, recovery) = Journal::open(options.clone(), sink).unwrap();
    assert_eq!(
        (
            recovery.segments,
            recovery.next_lsn,
            recovery.first_unreleased_lsn
        ),
        (0, 1, None)
    );
    let instance = journal.instance();
    let payload = |n: u64| Bytes::from(format!("{n}").repeat(40));
    let mut receipts = Vec::new();
    for n in 0..200 {
        receipts.push(journal.append(n as u8, payload(n)).wait().unwrap());
    }
    assert!(
        receipts
            .windows(2)
            .all(|w| w[0].lsn() < w[1].lsn() && w[0].received_us() < w[1].received_us())
    );
    for lsn in 1..=150 {
        journal.release(lsn);
    }
    let mut live = Vec::new();
    let mut reader = journal.reader(0);
    while let Some(record) = reader.next().unwrap() {
        live.push(record);
    }
    journal.close();
    let seen: Vec<Record> = committed.iter().flatten().collect();
    assert_eq!(seen.len(), 200);

    let (journal, recovery) = Journal::open(options, Box::new(())).unwrap();
    assert_eq!(journal.instance(), instance);
    assert_eq!(recovery.first_unreleased_lsn, Some(151));
    assert_eq!(recovery.next_lsn, 201);
    let mut reader = journal.reader(recovery.first_lsn);
    let mut replayed = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        replayed.push(record);
    }
    assert_eq!(replayed.last().unwrap().lsn, 200);
    for record in &replayed {
        let receipt = &receipts[record.lsn as usize - 1];
        assert_eq!(
            (record.received_us, record.segment),
            (receipt.received_us(), receipt.segment())
        );
        assert_eq!(record.payload, payload(record.lsn - 1));
        assert_eq!(record.released, record.lsn <= 150);
    }
    assert_eq!(replayed.iter().filter(|record| !record.released).count(), 50);
}
