//! Messages in the place of entries.

use super::*;

/// `[tag, [entries]]` around entries that are messages themselves.
fn nest(tag: &str, messages: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    let stream = EntryStream {
        bytes: &messages.concat(),
        count: messages.len() as u32,
    };
    write_forward(
        &mut out,
        tag.as_bytes(),
        stream,
        Some(&ChunkId::from_random([9; 16])),
    );
    out
}

/// A message without a chunk id.
fn message(tag: &str, records: &[Value]) -> Bytes {
    let mut entries = Vec::new();
    for record in records {
        write_entry(
            &mut entries,
            BASE_MS * 1_000_000,
            None,
            &rmp_serde::to_vec(record).unwrap(),
        );
    }
    let count = records.len() as u32;
    let stream = EntryStream {
        bytes: &entries,
        count,
    };
    let mut out = Vec::new();
    write_forward(&mut out, tag.as_bytes(), stream, None);
    out.into()
}

#[test]
fn batches_nested_in_a_batch_are_gathered() {
    let record = |id: &str, text: &str| json!({"traceId": id, "message": text});
    let first = message("winlog", &[record("a", "one"), record("b", "two")]);
    let second = message("other", &[record("a", "three"), json!({"message": "alone"})]);
    let twice = Bytes::from(nest("winlog", std::slice::from_ref(&second)));
    // In the place of the options, too.
    let mut behind = first.to_vec();
    behind[0] = 0x93;
    behind.extend_from_slice(&second);
    for (chunk, extra) in [
        (nest("outer", &[first.clone(), second.clone()]), false),
        (nest("outer", &[first, twice]), true),
        (nest("outer", &[behind.into()]), true),
    ] {
        let chunk = Bytes::from(chunk);
        // Sent twice; the second is known.
        let documents = gathered([chunk.clone(), chunk]);
        assert_eq!(documents.len(), 3, "{extra}: {documents:#?}");
        assert_eq!(documents["a"]["message"], "one\nthree");
        assert_eq!(documents["a"]["windrow"]["tags"], json!(["other", "winlog"]));
        assert_eq!(documents["b"]["message"], "two");
    }
}

/// Clients that leave out the time of entries, also in a list that is a message by itself.
#[test]
fn records_in_the_place_of_entries_are_gathered() {
    let line = |text: &str| rmp_serde::to_vec(&json!({"traceId": "a", "message": text})).unwrap();
    let bare = [line("one"), line("two")].concat();
    let in_order = |tag: &str, bytes: &[u8], count: u32| {
        let stream = EntryStream { bytes, count };
        let id = ChunkId::from_random([7; 16]);
        let (mut forward, mut packed) = (Vec::new(), Vec::new());
        write_forward(&mut forward, tag.as_bytes(), stream, Some(&id));
        write_packed(&mut packed, tag.as_bytes(), stream, Some(&id));
        [Bytes::from(forward), Bytes::from(packed)]
    };
    for chunk in in_order("app", &bare, 2) {
        // Sent twice; the second is known.
        let documents = gathered([chunk.clone(), chunk]);
        assert_eq!(documents.len(), 1, "{documents:#?}");
        assert_eq!(documents["a"]["message"], "one\ntwo");
        assert_eq!(documents["a"]["windrow"]["tags"], json!(["app"]));
        assert_eq!(
            documents["a"]["@timestamp"], "1970-01-01T00:00:00.001Z",
            "when it was received"
        );
    }
    // Among entries that have a time, and beside what is no record.
    let mut mixed = line("bare");
    write_entry(&mut mixed, BASE_MS * 1_000_000, None, &line("timed"));
    mixed.push(7);
    for chunk in in_order("app", &mixed, 3) {
        let folder = tempfile::tempdir().unwrap();
        let documents = gathered_in(folder.path(), 16 << 20, [chunk]);
        assert_eq!(documents["a"]["windrow"]["lines"], 2, "{documents:#?}");
    }
}

#[test]
fn what_is_nested_too_deep_or_is_no_message_is_rejected() {
    let mut chunk = message("app", &[json!({"traceId": "a", "message": "deep"})]);
    for _ in 0..20 {
        chunk = nest("app", &[chunk]).into();
    }
    let no_message = Bytes::from_static(b"\x92\xa3app\x05");
    for bad in [chunk, nest("app", &[no_message]).into()] {
        let folder = tempfile::tempdir().unwrap();
        let documents = gathered_in(folder.path(), 16 << 20, [bad]);
        assert_eq!(documents.len(), 0);
        assert_eq!(
            std::fs::read_dir(folder.path().join("rejected")).unwrap().count(),
            1
        );
    }
}
