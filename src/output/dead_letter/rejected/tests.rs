//! Tests of the store of rejected input: it takes every entry, keeps the newest, and stays within
//! its limit.

use super::*;
use crate::output::dead_letter::EntryContent;

const LIMIT_BYTES: u64 = 64 << 10;

fn entry(number: u32, content: usize) -> Entry {
    Entry {
        time: "2026-11-21T09:20:00.5Z".parse().unwrap(),
        source: "intake".into(),
        status: None,
        kind: "signal".into(),
        reason: "metrics".into(),
        index: None,
        destination: None,
        id: Some(number.to_string()),
        is_trace: None,
        first_ns: None,
        lines: Some(1),
        parts: Vec::new(),
        content: EntryContent::Raw(vec![b'x'; content].into()),
    }
}

fn numbers(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for path in files(folder, ENTRIES_EXTENSION).unwrap() {
        for line in fs::read(path).unwrap().split(|&byte| byte == b'\n') {
            if !line.is_empty() {
                found.push(Entry::parse(line).unwrap().id.unwrap().parse().unwrap());
            }
        }
    }
    found
}

fn size(folder: &Path) -> u64 {
    let paths = files(folder, ENTRIES_EXTENSION).unwrap();
    paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn at_the_limit_the_oldest_are_overwritten_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RejectedStore::open(folder.path(), LIMIT_BYTES).unwrap();
    let (mut put, mut overwritten, mut bytes) = (0, 0, 0);
    // Groups of many sizes, several times the limit in all.
    for group in 0..60 {
        let entries: Vec<_> = (put..put + group).map(|number| entry(number, 100)).collect();
        put += group;
        store.put_all(&entries).unwrap();
        assert!(size(folder.path()) <= LIMIT_BYTES);
        assert_eq!(size(folder.path()), store.bytes());
        let taken = store.take_overwritten();
        overwritten += taken.entries;
        bytes += taken.bytes;
    }
    let kept = numbers(folder.path());
    let expected: Vec<_> = (u32::try_from(overwritten).unwrap()..put).collect();
    assert_eq!(kept, expected);
    assert!(overwritten > u64::from(put) / 2, "{overwritten} of {put}");
    assert!(
        store.bytes() > LIMIT_BYTES / 2,
        "one file at a time: {}",
        store.bytes()
    );
    assert!(bytes > 2 * LIMIT_BYTES);
}

#[test]
fn the_longest_entry_leaves_the_newest_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RejectedStore::open(folder.path(), LIMIT_BYTES).unwrap();
    for number in 0..500 {
        store.put_all(&[entry(number, 100)]).unwrap();
    }
    store.put_all(&[entry(500, store.max_content_bytes())]).unwrap();
    let kept = numbers(folder.path());
    assert!(kept.len() > 50 && kept.ends_with(&[498, 499, 500]), "{kept:?}");
    assert!(size(folder.path()) <= LIMIT_BYTES);
}

#[test]
fn a_restart_continues_the_last_file_within_a_lower_limit() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        let mut store = RejectedStore::open(folder.path(), LIMIT_BYTES).unwrap();
        store.put_all(&[entry(number, 100)]).unwrap();
    }
    assert_eq!(files(folder.path(), ENTRIES_EXTENSION).unwrap().len(), 1);
    assert_eq!(numbers(folder.path()), (0..20).collect::<Vec<_>>());
    assert_eq!(count_rejected(folder.path()).unwrap(), 20);
    let mut store = RejectedStore::open(folder.path(), 1000).unwrap();
    assert_eq!(store.take_overwritten().entries, 20);
    store.put_all(&[entry(20, 100)]).unwrap();
    assert_eq!(numbers(folder.path()), [20]);
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RejectedStore::open(folder.path(), LIMIT_BYTES).unwrap();
    store.put_all(&[entry(0, 100)]).unwrap();
    let path = folder.path().join("001.ndjson");
    let mut torn = File::options().append(true).open(&path).unwrap();
    torn.write_all(b"{\"time\":").unwrap();
    let mut store = RejectedStore::open(folder.path(), LIMIT_BYTES).unwrap();
    store.put_all(&[entry(1, 100)]).unwrap();
    assert_eq!(numbers(folder.path()), [0, 1]);
}

#[test]
fn files_and_the_folder_may_be_removed_meanwhile() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("rejected");
    let mut store = RejectedStore::open(&folder, LIMIT_BYTES).unwrap();
    store.put_all(&[entry(0, 100)]).unwrap();
    fs::remove_file(folder.join("001.ndjson")).unwrap();
    store.put_all(&[entry(1, 100)]).unwrap();
    assert_eq!(numbers(&folder), [1]);
    fs::remove_dir_all(&folder).unwrap();
    store.put_all(&[entry(2, 100)]).unwrap();
    assert_eq!(numbers(&folder), [2]);
    assert_eq!(size(&folder), store.bytes());
    assert_eq!(store.take_overwritten(), Overwritten::default());
}

#[test]
fn a_folder_that_cannot_be_written_is_said_until_it_can() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("rejected");
    let mut store = RejectedStore::open(&folder, LIMIT_BYTES).unwrap();
    store.put_all(&[entry(0, 100)]).unwrap();
    let watchdog = store.watchdog();
    assert_eq!(watchdog.wait_reason(), None);
    fs::remove_dir_all(&folder).unwrap();
    File::create(&folder).unwrap();
    store.put_all(&[entry(1, 100)]).unwrap_err();
    assert!(watchdog.wait_reason().is_some());
    fs::remove_file(&folder).unwrap();
    store.put_all(&[entry(1, 100)]).unwrap();
    assert_eq!(watchdog.wait_reason(), None);
    assert_eq!(numbers(&folder), [1]);
}
