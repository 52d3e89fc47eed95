//! Test of `inspect` on a real file system.

use bytes::Bytes;

use super::api::small;
use crate::format::segment_name;
use crate::{Journal, inspect, inspect_with};

#[test]
fn inspect_of_a_real_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    for _ in 0..30 {
        drop(journal.append(0, Bytes::from(vec![1; 1000])).wait().unwrap());
    }
    journal.release_many(&[1, 2, 3, 17]);
    journal.close();
    let report = inspect(dir.path()).unwrap();
    assert_eq!(
        (report.records(), report.unreleased(), report.is_damaged()),
        (30, 26, false),
        "{report}"
    );
    assert_eq!(report.in_use, None);
    let mut seen = Vec::new();
    let again = inspect_with(dir.path(), &mut |kind, payload| seen.push((kind, payload.len()))).unwrap();
    assert_eq!(again.records(), 30);
    assert_eq!(seen, vec![(0, 1000); 26], "the released ones are left out");
    let text = report.to_string();
    assert!(
        text.contains("30 records (26 not released)") && text.contains("1..=15"),
        "{text}"
    );
}

#[test]
fn missing_and_misnamed_segments_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(small(dir.path()), Box::new(())).unwrap();
    for _ in 0..50 {
        drop(journal.append(0, Bytes::from(vec![1; 1000])).wait().unwrap());
    }
    journal.close();
    let path = |number| dir.path().join(segment_name(number));
    std::fs::rename(path(2), path(9)).unwrap();
    let report = inspect(dir.path()).unwrap();
    assert_eq!((report.records(), report.is_damaged()), (50, false), "{report}");
    assert!(report.to_string().contains("holds segment 2"), "{report}");
    std::fs::remove_file(path(9)).unwrap();
    let report = inspect(dir.path()).unwrap();
    assert_eq!((report.missing.clone(), report.is_damaged()), (vec![2], true));
    assert!(report.to_string().contains("2  MISSING"), "{report}");
}
