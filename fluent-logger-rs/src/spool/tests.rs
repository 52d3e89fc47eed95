//! Tests of recovery from torn and damaged spool files.

use std::fs;

use forward_protocol::encode::ChunkId;

use super::*;

fn chunk(id: &str) -> Chunk {
    let id = ChunkId::from_text(id).unwrap();
    Chunk::recovered(id, "app.é", 3, b"the message".to_vec())
}

fn bytes(id: &str) -> Vec<u8> {
    let chunk = chunk(id);
    [file::header(&chunk), chunk.message].concat()
}

/// Ids of the chunks found, and the errors of the others.
fn open(path: &Path) -> (Vec<String>, Vec<String>) {
    let mut folder = Folder::lock(path, Fsync::Never).unwrap();
    let mut errors = Vec::new();
    let found = folder.read(&mut errors).unwrap();
    (
        found.iter().map(|chunk| chunk.id.to_string()).collect(),
        errors.iter().map(ToString::to_string).collect(),
    )
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read() {
    let read = file::read(&bytes("my-id")).unwrap();
    assert_eq!(
        (read.id.to_string(), &*read.tag, read.events, &*read.message),
        ("my-id".to_owned(), "app.é", 3, &b"the message"[..])
    );
}

#[test]
fn the_format_is_stable() {
    let expected =
        b"FLSPOOL1\x86\xda\x2d\xb3\x1c\0\0\0\0\0\0\0\x03\0\0\0\x02c1\x06\0\0\0app.\xc3\xa9the message";
    let written = bytes("c1");
    assert_eq!(written[..8], expected[..8]);
    assert_eq!(written[12..], expected[12..]);
    assert_eq!(written[8..12], crc32fast::hash(&expected[12..]).to_le_bytes());
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let whole = bytes("c1");
    for end in 0..whole.len() {
        let reason = file::read(&whole[..end]).unwrap_err();
        assert!(reason.starts_with("torn: "), "{end}: {reason}");
    }
    assert!(file::read(&[&whole[..], b"x"].concat()).is_err());
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(file::read(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_right_checksum_over_nonsense_is_no_panic() {
    for body in [
        &b""[..],
        b"\x01\0\0\0",
        b"\x01\0\0\0\x00",
        b"\x01\0\0\0\x02c",
        b"\x01\0\0\0\x01c\xff\xff\xff\xff",
    ] {
        let checked = [&(body.len() as u64).to_le_bytes()[..], body].concat();
        let file = [
            b"FLSPOOL1",
            &crc32fast::hash(&checked).to_le_bytes()[..],
            &checked,
        ]
        .concat();
        assert!(file::read(&file).unwrap_err().contains("makes no sense"));
    }
}

#[test]
fn a_chunk_cut_off_anywhere_is_set_aside_and_the_others_are_found() {
    let whole = bytes("two");
    for end in 0..whole.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("00000000000000000001.chunk"), bytes("one")).unwrap();
        fs::write(path.join("00000000000000000002.chunk"), &whole[..end]).unwrap();
        fs::write(path.join("00000000000000000010.chunk"), bytes("three")).unwrap();
        let (found, errors) = open(path);
        assert_eq!(found, ["one", "three"]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("00000000000000000002.damaged: torn: "),
            "{errors:?}"
        );
        assert_eq!(
            fs::read(path.join("00000000000000000002.damaged")).unwrap(),
            whole[..end]
        );
        assert_eq!(open(path).1, [""; 0], "said once");
    }
}

#[test]
fn what_a_crash_left_unfinished_is_taken_if_whole_and_else_removed() {
    let whole = bytes("two");
    for end in 0..=whole.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("00000000000000000007.new"), &whole[..end]).unwrap();
        fs::write(path.join("notes.txt"), "not ours").unwrap();
        let (found, errors) = open(path);
        assert_eq!(errors, [""; 0]);
        if end == whole.len() {
            assert_eq!(found, ["two"]);
            assert_eq!(names(path), ["00000000000000000007.chunk", "notes.txt"]);
        } else {
            assert_eq!(found, [""; 0]);
            assert_eq!(names(path), ["notes.txt"]);
        }
    }
}

#[test]
fn numbers_go_on_behind_whatever_is_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("00000000000000000041.damaged"), "x").unwrap();
    let mut opened = Folder::lock(folder.path(), Fsync::Always).unwrap();
    assert_eq!(opened.read(&mut Vec::new()).unwrap().len(), 0);
    let mut chunk = chunk("c1");
    opened.write(&mut chunk).unwrap();
    assert_eq!(chunk.file, Some(42));
    assert_eq!(
        names(folder.path()),
        ["00000000000000000041.damaged", "00000000000000000042.chunk"]
    );
    opened.remove(42).unwrap();
    assert_eq!(names(folder.path()), ["00000000000000000041.damaged"]);
    assert!(matches!(opened.remove(42), Err(SpoolError::Remove { .. })));
}
