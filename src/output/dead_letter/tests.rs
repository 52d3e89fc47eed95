//! Tests of the dead letter: every put that returned is there, across crashes and concurrent
//! replays.

use std::fs::OpenOptions;
use std::io::Write as _;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn entry(id: &str, content: EntryContent) -> Entry {
    Entry {
        time: "2026-11-21T09:20:00.5Z".parse().unwrap(),
        source: "elasticsearch".into(),
        status: Some(400),
        kind: "document_parsing_exception".into(),
        reason: "failed to parse \"x\"\nsecond line".into(),
        index: Some("requests-2026-11-21".into()),
        destination: None,
        id: Some(id.into()),
        is_trace: Some(true),
        first_ns: Some(-5),
        lines: Some(2),
        parts: vec!["p1".into(), "p2".into()],
        content,
    }
}

fn document(id: &str) -> Entry {
    entry(
        id,
        EntryContent::Document(Bytes::from_static(b"{\"a\": 1.10, \"a\":2}")),
    )
}

fn read_all(folder: &Path) -> Vec<Entry> {
    let text: Vec<u8> = files(folder, ENTRIES_EXTENSION)
        .unwrap()
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect();
    text.split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Entry::parse(line).unwrap())
        .collect()
}

#[test]
fn an_entry_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    let bare = Entry {
        status: None,
        index: None,
        destination: None,
        id: None,
        is_trace: None,
        first_ns: None,
        lines: None,
        parts: vec![],
        ..entry("raw", EntryContent::Raw(Bytes::from_static(b"\x00\xff\n")))
    };
    let entries = [document("a \"b\" \u{1}"), bare, document("c")];
    dead.put(&entries[0]).unwrap();
    dead.put_all(&entries[1..]).unwrap();
    dead.put_all(&[]).unwrap();
    assert_eq!(read_all(folder.path()), entries);
    let usage = dead.usage();
    assert_eq!((usage.entries, usage.files, usage.full), (3, 1, false));
    assert_eq!(
        usage.bytes,
        fs::metadata(folder.path().join("001.ndjson")).unwrap().len()
    );
}

#[test]
fn a_document_that_is_not_one_line_of_json_is_kept_as_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    for (n, wrong) in [&b"{\"a\":"[..], b"{\n}", b"\xff", b""].into_iter().enumerate() {
        dead.put(&entry(
            &format!("x{n}"),
            EntryContent::Document(Bytes::copy_from_slice(wrong)),
        ))
        .unwrap();
    }
    let contents: Vec<EntryContent> = read_all(folder.path())
        .into_iter()
        .map(|entry| entry.content)
        .collect();
    let raw = |bytes: &'static [u8]| EntryContent::Raw(Bytes::from_static(bytes));
    assert_eq!(contents, [raw(b"{\"a\":"), raw(b"{\n}"), raw(b"\xff"), raw(b"")]);
}

#[test]
fn files_are_rotated_by_size_and_numbered_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for life in 0..2 {
        let dead = DeadLetter::open(folder.path(), 500, LIMIT_BYTES).unwrap();
        for n in 0..6 {
            dead.put(&document(&format!("l{life}t{n}"))).unwrap();
        }
    }
    let files = files(folder.path(), ENTRIES_EXTENSION).unwrap();
    assert!(files.len() >= 4, "{files:?}");
    assert!(
        files
            .iter()
            .all(|file| fs::metadata(file).unwrap().len() < 500 + 400)
    );
    assert_eq!(read_all(folder.path()).len(), 12);
    let dead = DeadLetter::open(folder.path(), 500, LIMIT_BYTES).unwrap();
    assert_eq!(dead.usage().entries, 12);
}

#[test]
fn at_the_bound_a_put_fails_until_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, 1000).unwrap();
    let mut put = 0;
    let error = loop {
        match dead.put(&document(&format!("x{put}"))) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(
        error.to_string().contains("1000") && error.to_string().contains("windrow replay"),
        "{error}"
    );
    let usage = dead.usage();
    assert!(usage.full && usage.bytes <= 1000);
    assert_eq!(read_all(folder.path()).len(), put);
    // An operator takes the files away while it runs.
    fs::remove_file(folder.path().join("001.ndjson")).unwrap();
    dead.put(&document("y")).unwrap();
    assert!(!dead.usage().full);
    assert_eq!(read_all(folder.path()), [document("y")]);
}

#[test]
fn a_document_is_there_once_however_often_the_server_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let open = || DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    let of = |parts: &[&str]| Entry {
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        ..document("a")
    };
    for _ in 0..3 {
        let dead = open();
        dead.put(&of(&["p1", "p2"])).unwrap();
        // Gathered apart after the restart.
        dead.put_all(&[of(&["p2"]), of(&["p1"]), document("b")]).unwrap();
        assert_eq!(dead.usage().entries, 2);
    }
    // With a part that is new it is another document.
    open().put(&of(&["p2", "p3"])).unwrap();
    assert_eq!(read_all(folder.path()).len(), 3);
    // What a replay has claimed may leave the dead letter: it is added again.
    let dead = open();
    fs::rename(folder.path().join("001.ndjson"), folder.path().join("001.replay")).unwrap();
    dead.put(&document("b")).unwrap();
    assert_eq!(read_all(folder.path()), [of(&["p2", "p3"]), document("b")]);
    // The same document with other content and no parts is another one.
    let plain = |text: &'static [u8]| Entry {
        parts: Vec::new(),
        ..entry("plain", EntryContent::Document(Bytes::from_static(text)))
    };
    dead.put_all(&[plain(b"{\"x\":1}"), plain(b"{\"x\":2}")]).unwrap();
    dead.put(&plain(b"{\"x\":1}")).unwrap();
    assert_eq!(read_all(folder.path()).len(), 4);
}

#[test]
fn a_claimed_file_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    dead.put(&document("a")).unwrap();
    fs::rename(folder.path().join("001.ndjson"), folder.path().join("001.replay")).unwrap();
    dead.put(&document("b")).unwrap();
    assert_eq!(read_all(folder.path()), [document("b")]);
    assert!(folder.path().join("002.ndjson").try_exists().unwrap());
    assert_eq!(dead.usage().entries, 2, "taken, but not gone");
}

#[test]
fn a_file_that_another_one_has_replaced_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
    dead.put(&document("a")).unwrap();
    let path = folder.path().join("001.ndjson");
    fs::copy(&path, folder.path().join("copy")).unwrap();
    fs::rename(folder.path().join("copy"), &path).unwrap();
    dead.put(&document("b")).unwrap();
    assert_eq!(read_all(folder.path()), [document("a"), document("b")]);
}

#[test]
fn two_processes_share_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let handles: Vec<_> = (0..4)
        .map(|w| {
            let dead = DeadLetter::open(folder.path(), 2000, LIMIT_BYTES).unwrap();
            std::thread::spawn(move || {
                for n in 0..25 {
                    dead.put(&document(&format!("w{w}n{n}"))).unwrap();
                }
            })
        })
        .collect();
    for handle in handles {
        handle.join().unwrap();
    }
    let mut ids: Vec<_> = read_all(folder.path())
        .into_iter()
        .map(|entry| entry.id.unwrap())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A crash in the middle of a put leaves a prefix of its line; what was put before stays, what
    /// comes after is whole.
    #[test]
    fn a_torn_last_line_is_cut_off(cut in 0_usize..2000, before in 0_usize..4) {
        let folder = tempfile::tempdir().unwrap();
        {
            let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
            dead.put(&document("first")).unwrap();
            for n in 0..before {
                dead.put(&document(&format!("t{n}"))).unwrap();
            }
        }
        let mut line = Vec::new();
        document("torn").write_line(&mut line);
        let whole = line.len() - 1;
        let mut file = OpenOptions::new().append(true).open(folder.path().join("001.ndjson")).unwrap();
        file.write_all(&line[..cut.min(whole)]).unwrap();
        let dead = DeadLetter::open(folder.path(), FILE_BYTES, LIMIT_BYTES).unwrap();
        prop_assert_eq!(dead.usage().entries as usize, before + 1);
        dead.put(&document("after")).unwrap();
        let ids: Vec<_> = read_all(folder.path()).into_iter().map(|entry| entry.id.unwrap()).collect();
        prop_assert_eq!(ids.len(), before + 2);
        prop_assert_eq!(ids.last().map(String::as_str), Some("after"));
    }

    #[test]
    fn any_content_survives(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
        for content in [EntryContent::Raw(bytes.into()), EntryContent::Document(
            serde_json::json!({"text": text}).to_string().into())] {
            let mut line = Vec::new();
            let entry = Entry { reason: text.clone(), ..entry(&text, content) };
            entry.write_line(&mut line);
            prop_assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
            prop_assert_eq!(Entry::parse(&line[..line.len() - 1]).unwrap(), entry);
        }
    }
}
