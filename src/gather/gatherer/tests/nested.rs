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
