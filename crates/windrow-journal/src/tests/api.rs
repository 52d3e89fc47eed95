//! Tests of the public API on a real file system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{AppendError, Blocked, CommitSink, Journal, JournalOptions, OpenError, Record, inspect};

struct Sink(std::sync::mpsc::SyncSender<Vec<Record>>);

impl CommitSink for Sink {
    fn committed(&mut self, records: Vec<Record>) {
        let _ = self.0.send(records);
    }
}

fn sink() -> (Box<dyn CommitSink>, Receiver<Vec<Record>>) {
    let (send, receive) = sync_channel(100_000);
    (Box::new(Sink(send)), receive)
}

#[test]
fn what_was_confirmed_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 4096,
        limit_bytes: 1 << 20,
        ..JournalOptions::new(dir.path())
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

pub(super) fn small(dir: &std::path::Path) -> JournalOptions {
    JournalOptions {
        segment_bytes: 16 << 10,
        limit_bytes: 256 << 10,
        ..JournalOptions::new(dir)
    }
}

/// Waits for a condition, 20 s at most.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "never happened: {what}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn many_appenders_at_once_get_one_receipt_each_and_the_sink_sees_the_order_of_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (sink, committed) = sink();
    let (journal, _) = Journal::open(JournalOptions::new(dir.path()), sink).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let receipts = runtime.block_on(async {
        let tasks: Vec<_> = (0..100_u64)
            .map(|task| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    let mut out = Vec::new();
                    for n in 0..20_u64 {
                        let payload = Bytes::from(format!("{task}/{n}"));
                        let receipt = journal.append(1, payload.clone()).await.unwrap();
                        out.push((receipt, payload));
                    }
                    out
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.unwrap());
        }
        all
    });
    // In each task's order.
    for of_task in &receipts {
        assert!(of_task.windows(2).all(|pair| pair[0].0.lsn() < pair[1].0.lsn()));
    }
    let mut receipts: Vec<_> = receipts.into_iter().flatten().collect();
    receipts.sort_by_key(|(receipt, _)| receipt.lsn());
    let mut reader = journal.reader(0);
    let read: Vec<Record> = std::iter::from_fn(|| reader.next().unwrap()).collect();
    assert_eq!(read.len(), 2000);
    for (record, (receipt, payload)) in read.iter().zip(&receipts) {
        assert_eq!(
            (record.lsn, record.received_us),
            (receipt.lsn(), receipt.received_us())
        );
        assert_eq!(record.payload, payload);
    }
    // The receipts are sent before the writer updates the number of waiting appends.
    until("no append waits", || journal.usage().waiting == 0);
    let usage = journal.usage();
    assert!(
        usage.syncs < 2000,
        "appends that wait together share a sync: {}",
        usage.syncs
    );
    assert_eq!(usage.sync_buckets.iter().sum::<u64>(), usage.syncs);
    assert_eq!((usage.records, usage.unreleased_records), (2000, 2000));
    journal.close();
    assert_eq!(committed.iter().flatten().collect::<Vec<_>>(), read);
}

#[test]
fn appends_of_one_caller_keep_the_order_of_the_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    let appends: Vec<_> = (0..50_u8).map(|n| journal.append(n, Bytes::new())).collect();
    for (n, append) in (1..).zip(appends) {
        assert_eq!(append.wait().unwrap().lsn(), n);
    }
}

#[test]
fn at_the_limit_appends_wait_and_go_on_when_segments_are_released() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    let payload = Bytes::from(vec![7; 4000]);
    let mut appends: Vec<_> = (0..100)
        .map(|_| Some(journal.append(0, payload.clone())))
        .collect();
    until("the limit is reached, each append written or waiting", || {
        let usage = journal.usage();
        usage.blocked == Some(Blocked::Limit) && usage.records + usage.waiting as u64 == 100
    });
    let usage = journal.usage();
    assert!(usage.bytes <= usage.limit_bytes && usage.past_soft_limit());
    let before = usage.records;
    let oldest = usage.oldest_segment.unwrap();
    let mut reader = journal.reader(oldest.first_unreleased_lsn);
    while let Some(record) = reader
        .next()
        .unwrap()
        .filter(|record| record.segment == oldest.number)
    {
        journal.release(record.lsn);
    }
    until("the first segment makes room", || {
        journal.usage().records > before
    });
    // Releasing each record as it is read lets all appends through.
    let releaser = {
        let journal = journal.clone();
        std::thread::spawn(move || {
            let mut reader = journal.reader(0);
            let mut count = 0;
            until("all are read", || {
                while let Some(record) = reader.next().unwrap() {
                    count = record.lsn;
                    journal.release(record.lsn);
                }
                count == 100
            });
        })
    };
    for append in &mut appends {
        drop(append.take().unwrap().wait().unwrap());
    }
    releaser.join().unwrap();
    until("the block is gone", || journal.usage().blocked.is_none());
    until("the rest is removed", || journal.usage().segments <= 1);
}

#[test]
fn one_process_per_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    let error = Journal::open(small(dir.path()), Box::new(())).unwrap_err();
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    let text = error.to_string();
    assert!(
        text.contains(&format!("pid {}", std::process::id())) && text.contains("in use"),
        "{text}"
    );
    let report = inspect(dir.path()).unwrap();
    assert_eq!(report.in_use, Some(Some(std::process::id())));
    let append = journal.append(0, Bytes::from_static(b"last"));
    // Closing unlocks the folder, even while a clone exists.
    let clone = journal.clone();
    journal.close();
    assert_eq!(append.wait().unwrap().lsn(), 1);
    assert!(matches!(
        clone.append(0, Bytes::new()).wait(),
        Err(AppendError::Closed)
    ));
    let (journal, recovery) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    assert_eq!(recovery.next_lsn, 2);
    drop((journal, clone));
    assert!(
        Journal::open(small(dir.path()), Box::new(())).is_ok(),
        "dropping closes too"
    );
}

#[test]
fn what_can_never_be_stored_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    assert_eq!(journal.max_payload_bytes(), 128 << 10);
    let error = journal
        .append(0, Bytes::from(vec![0; (128 << 10) + 1]))
        .wait()
        .unwrap_err();
    assert!(matches!(
        error,
        AppendError::TooLarge {
            bytes: 131_073,
            max: 131_072
        }
    ));
    // The largest one gets a segment of its own.
    let largest = Bytes::from(vec![9; 128 << 10]);
    let receipt = journal.append(0, largest.clone()).wait().unwrap();
    assert_eq!(
        journal.reader(receipt.lsn()).next().unwrap().unwrap().payload,
        largest
    );
}

#[test]
fn a_sink_that_panics_stops_the_journal_and_leaves_nobody_waiting() {
    struct Panics;
    impl CommitSink for Panics {
        fn committed(&mut self, _: Vec<Record>) {
            panic!("on purpose");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(Panics)).unwrap();
    assert!(matches!(
        journal.append(0, Bytes::new()).wait(),
        Err(AppendError::Closed)
    ));
    until("it is closed", || {
        matches!(journal.append(0, Bytes::new()).wait(), Err(AppendError::Closed))
    });
    assert!(matches!(journal.usage().blocked, Some(Blocked::Failing(_))));
    assert_eq!(journal.usage().panicked_thread, Some("writer"));
    journal.close();
    // The record was durable: the next run has it.
    let (_, recovery) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    assert_eq!(recovery.next_lsn, 2);
}

#[test]
fn closing_at_the_limit_answers_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    let payload = Bytes::from(vec![7; 4000]);
    let appends: Vec<_> = (0..100).map(|_| journal.append(0, payload.clone())).collect();
    until("the limit is reached", || {
        journal.usage().blocked == Some(Blocked::Limit)
    });
    let clone = journal.clone();
    journal.close();
    let answers: Vec<_> = appends.into_iter().map(crate::Append::wait).collect();
    let durable = answers.iter().take_while(|answer| answer.is_ok()).count();
    assert!(
        answers[durable..]
            .iter()
            .all(|answer| matches!(answer, Err(AppendError::Closed)))
    );
    assert!(durable > 50 && durable < 100, "{durable}");
    // Open readers stay usable.
    let mut reader = clone.reader(0);
    assert_eq!(std::iter::from_fn(|| reader.next().unwrap()).count(), durable);
}

#[test]
fn a_folder_without_permission_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    // A file where the folder should be: an error even for root.
    let error = Journal::open(small(&file), Box::new(())).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
    let denied = OpenError::during("write", "/data/journal/LOCK");
    let error = denied(std::io::ErrorKind::PermissionDenied.into()).to_string();
    assert!(
        error.contains("/data/journal/LOCK") && error.contains("chown"),
        "{error}"
    );
}

#[test]
fn those_who_go_away_while_the_journal_is_blocked_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    let payload = Bytes::from(vec![7; 4000]);
    let appends: Vec<_> = (0..100).map(|_| journal.append(0, payload.clone())).collect();
    until("the limit is reached", || {
        journal.usage().blocked == Some(Blocked::Limit)
    });
    assert!(journal.usage().waiting > 10);
    drop(appends);
    until("they are forgotten", || journal.usage().waiting == 0);
    assert_eq!(
        Bytes::try_into_mut(payload)
            .map_err(|_| "still held")
            .map(|bytes| bytes.len()),
        Ok(4000)
    );
}

/// Runs on a tmpfs, or on the small file system (8 to 64 MiB) that `WINDROW_SMALL_DISK` names.
#[test]
fn a_really_full_disk_blocks_and_goes_on_by_itself() {
    let mounted;
    let disk = match std::env::var_os("WINDROW_SMALL_DISK") {
        Some(folder) => std::path::PathBuf::from(folder),
        None => {
            mounted = windrow_testkit::need!(windrow_testkit::disk::SmallDisk::mount(16 << 20));
            mounted.outside()
        }
    };
    let dir = tempfile::tempdir_in(&disk).unwrap();
    let options = JournalOptions {
        segment_bytes: 2 << 20,
        ..JournalOptions::new(dir.path())
    };
    let (journal, _) = Journal::open(options.clone(), Box::new(())).unwrap();
    let payload = Bytes::from(vec![7; 100_000]);
    let appends: Vec<_> = (0..2000).map(|_| journal.append(0, payload.clone())).collect();
    until("the disk is full", || {
        journal.usage().blocked == Some(Blocked::NoSpace)
    });
    // Another program takes the remaining space.
    let other = disk.join("other");
    let mut size = 1 << 20;
    while size > 1000 {
        let mut all = std::fs::read(&other).unwrap_or_default();
        all.resize(all.len() + size, 1);
        if std::fs::write(&other, &all).is_err() {
            all.truncate(all.len() - size);
            let _ = std::fs::write(&other, &all);
            size /= 2;
        }
    }
    let stuck = journal.usage();
    println!(
        "{} records, {} bytes on the full disk",
        stuck.records, stuck.bytes
    );
    // Releasing makes room, although the disk is completely full.
    let mut reader = journal.reader(0);
    let mut read = 0;
    until("all goes through", || {
        while let Some(record) = reader.next().unwrap() {
            assert_eq!(record.payload, payload);
            journal.release(record.lsn);
            read += 1;
        }
        read == 2000
    });
    for append in appends {
        drop(append.wait().unwrap());
    }
    until("it is not blocked", || journal.usage().blocked.is_none());
    assert_eq!(
        (journal.usage().disk_errors, journal.usage().lost_records),
        (0, 0)
    );
    journal.close();
    std::fs::remove_file(&other).unwrap();
    let (_, recovery) = Journal::open(options, Box::new(())).unwrap();
    assert_eq!((recovery.unreleased_records, recovery.next_lsn), (0, 2001));
}

#[test]
fn a_reader_sees_a_record_exactly_from_when_the_sink_has_it() {
    struct Newest(Arc<AtomicU64>);
    impl CommitSink for Newest {
        fn committed(&mut self, records: Vec<Record>) {
            std::thread::yield_now();
            self.0.store(records.last().unwrap().lsn, Ordering::SeqCst);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let newest = Arc::new(AtomicU64::new(0));
    let (journal, _) = Journal::open(
        JournalOptions::new(dir.path()),
        Box::new(Newest(Arc::clone(&newest))),
    )
    .unwrap();
    let writer = {
        let journal = journal.clone();
        std::thread::spawn(move || {
            for _ in 0..500 {
                drop(journal.append(0, Bytes::new()).wait().unwrap());
            }
        })
    };
    let mut reader = journal.reader(1);
    let mut read = 0;
    until("all are read", || {
        let told = newest.load(Ordering::SeqCst);
        match reader.next().unwrap() {
            Some(record) => {
                read = record.lsn;
                assert!(
                    read <= newest.load(Ordering::SeqCst),
                    "seen before the sink had it"
                );
            }
            None => assert!(read >= told, "{told} was not seen after the sink had it"),
        }
        read == 500
    });
    writer.join().unwrap();
}

#[test]
fn received_times_come_from_the_clock_of_the_options() {
    let dir = tempfile::tempdir().unwrap();
    let options = |clock| JournalOptions {
        clock,
        ..small(dir.path())
    };
    let (journal, _) = Journal::open(options(|| 5_000_000), Box::new(())).unwrap();
    let receipt = journal.append(0, Bytes::new()).wait().unwrap();
    assert_eq!(receipt.received_us(), 5_000_000);
    journal.close();
    // The next clock can be advanced to the end of this one.
    let (journal, recovery) = Journal::open(options(|| 1), Box::new(())).unwrap();
    assert_eq!(recovery.last_received_us, 5_000_000);
    journal.close();
}
