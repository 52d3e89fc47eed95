//! Tests of the reserve for short appends at the limit.

use std::path::Path;

use bytes::Bytes;

use super::api::{small, until};
use crate::{Blocked, Journal, JournalOptions};

/// A journal of 4 MiB, an eighth of which is the reserve: two segments.
fn journal(dir: &Path) -> Journal {
    let options = JournalOptions {
        segment_bytes: 256 << 10,
        limit_bytes: 4 << 20,
        ..small(dir)
    };
    Journal::open(options, Box::new(())).unwrap().0
}

#[test]
fn short_appends_go_on_at_the_limit_of_long_ones() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let long = Bytes::from(vec![7; 100_000]);
    let long: Vec<_> = (0..100).map(|_| journal.append(0, long.clone())).collect();
    until("the limit is reached", || {
        journal.usage().blocked == Some(Blocked::Limit)
    });
    let written = journal.usage().records;
    assert!(journal.usage().bytes <= (4 << 20) - (512 << 10));
    // Each is durable although long ones wait before it.
    for number in 1..=10 {
        drop(journal.append(0, Bytes::from(vec![1; 1000])).wait().unwrap());
        assert_eq!(journal.usage().records, written + number);
    }
    let short: Vec<_> = (0..20)
        .map(|_| journal.append(0, Bytes::from(vec![1; 60_000])))
        .collect();
    until("the reserve has its end too", || {
        journal.usage().waiting > 100 - written as usize && journal.usage().records > written + 12
    });
    assert!(journal.usage().bytes <= 4 << 20);
    // All get in when what is written is released, short ones first.
    let mut reader = journal.reader(0);
    until("all are written", || {
        while let Some(record) = reader.next().unwrap() {
            journal.release(record.lsn);
        }
        journal.usage().waiting == 0
    });
    for append in long.into_iter().chain(short) {
        drop(append.wait().unwrap());
    }
}

/// Neither the source that came first nor one with many appends gets all of the reserve.
#[test]
fn a_source_leaves_as_much_of_the_reserve_as_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let short = Bytes::from(vec![7; 10_000]);
    let appends = |source, count| -> Vec<_> {
        (0..count)
            .map(|_| journal.append_from(source, 0, short.clone()))
            .collect()
    };
    let blocked = |records: u64| {
        until("the source waits", || {
            let usage = journal.usage();
            usage.blocked == Some(Blocked::Limit) && usage.records > records
        });
        journal.usage()
    };
    let first = appends(1, 1000);
    let (limit, reserve) = (4 << 20, 512 << 10);
    let usage = blocked(0);
    let free = limit - usage.bytes;
    assert!(free.abs_diff(reserve / 2) < 30_000, "{free} of {reserve}");
    let second = appends(2, 1000);
    let usage = blocked(usage.records);
    let free = limit - usage.bytes;
    assert!(free.abs_diff(reserve / 4) < 30_000, "{free} of {reserve}");
    for source in 3..9 {
        drop(journal.append_from(source, 0, short.clone()).wait().unwrap());
    }
    assert!(journal.usage().blocked.is_some() && journal.usage().bytes < limit);
    // All get in when what is written is released.
    let mut reader = journal.reader(0);
    until("all are written", || {
        while let Some(record) = reader.next().unwrap() {
            journal.release(record.lsn);
        }
        journal.usage().waiting == 0
    });
    for append in first.into_iter().chain(second) {
        drop(append.wait().unwrap());
    }
}
