//! Traces and records beyond `max_trace_bytes`, and records beyond what a document may be.

use windrow_trace::{Union, union, union_within};

use super::*;

#[test]
fn records_that_are_too_long_are_rejected_with_their_message_and_the_others_are_kept() {
    for mode in [Mode::Forward, Mode::Packed, Mode::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let record = |id: &str, text: usize| {
            let fields = json!({"traceId": id, "message": "x".repeat(text)});
            (BASE_MS, fields.as_object().unwrap().clone(), Map::new())
        };
        let chunk = Chunk {
            mode,
            tag: "app",
            // The first is walked as an entry; the second, when compressed, is skipped piece by
            // piece.
            records: vec![
                record("before", 5),
                record("long", 70_000),
                record("between", 5),
                record("", 3 << 20),
                record("after", 5),
            ],
        };
        let payload = chunk.encode(0);
        let documents = gathered_at_most(folder.path(), 60_000, [payload.clone()]);
        let ids: Vec<_> = documents.keys().map(String::as_str).collect();
        assert_eq!(ids, ["after", "before", "between"]);
        let dead = std::fs::read(folder.path().join("rejected/001.ndjson")).unwrap();
        let entry = crate::output::dead_letter::Entry::parse(&dead).unwrap();
        assert_eq!((entry.kind.as_str(), entry.lines), ("trace_bytes", Some(2)));
        assert_eq!(
            entry.content,
            crate::output::dead_letter::EntryContent::Raw(payload)
        );
    }
}

/// As `gathered_in`; records of more than `limit` bytes are too long.
fn gathered_at_most(folder: &Path, limit: usize, payloads: [Bytes; 1]) -> BTreeMap<String, Value> {
    let mut scene = Scene::new(folder, limit);
    scene.gatherer.settings.max_record_bytes = limit;
    let documents = sealed(scene, payloads);
    let with_id = |sealed: SealedDocument| {
        let json = serde_json::from_slice(sealed.json()).unwrap();
        (sealed.id().to_string(), json)
    };
    documents.into_iter().map(with_id).collect()
}

/// A chunk of lines of about 100 bytes, of three traces.
fn chunk(number: usize, lines: usize, mode: Mode) -> Bytes {
    let record = |line: usize| {
        let text = format!("{number}.{line}. {}", "x".repeat(80));
        let fields = json!({"traceId": format!("t{}", line % 3), "message": text});
        (
            BASE_MS + number as i64,
            fields.as_object().unwrap().clone(),
            Map::new(),
        )
    };
    let records = (0..lines).map(record).collect();
    let tag = "app";
    Chunk { mode, tag, records }.encode(number)
}

/// Stores documents as an output does.
fn store(stored: &mut BTreeMap<String, Vec<u8>>, documents: Vec<SealedDocument>, limit: usize) {
    for document in documents {
        let id = document.id().to_owned();
        let Some(existing) = stored.get(&id) else {
            stored.insert(id, document.json().to_vec());
            continue;
        };
        let union_of_both = union_within(existing, document.json(), &id, limit).unwrap();
        if let Union::Merged { document, .. } = union_of_both.main {
            stored.insert(id, document);
        }
        for one in union_of_both.continuations {
            let existing = stored.entry(one.id).or_insert_with(|| one.document.clone());
            if let Union::Merged { document, .. } = union(existing, &one.document).unwrap() {
                *existing = document;
            }
        }
    }
}

/// What is gathered again after a crash is grouped differently, and cut at the same records.
#[test]
fn each_line_of_a_long_trace_is_stored_once_however_often_it_is_gathered() {
    const LIMIT: usize = 20_000;
    for mode in [Mode::Message, Mode::Forward, Mode::Packed, Mode::Gzip] {
        let lengths = [400, 20, 3, 1000, 60, 60, 60];
        let payloads: Vec<Bytes> = if let Mode::Message = mode {
            // One journal record of many messages without a chunk id, with two tags.
            let mut all = Vec::new();
            for line in 0..1000 {
                let record = json!({"traceId": "t0", "message": format!("0.{line}. {}", "x".repeat(80))});
                let record = rmp_serde::to_vec(&record).unwrap();
                let tag = [b"app", b"web"][line / 300 % 2];
                write_message(&mut all, tag, BASE_MS * 1_000_000, &record, None, None);
            }
            vec![all.into()]
        } else {
            let chunks = lengths.iter().enumerate();
            chunks
                .map(|(number, lines)| chunk(number, *lines, mode))
                .collect()
        };
        let lines = if payloads.len() == 1 {
            1000
        } else {
            lengths.iter().sum()
        };
        let mut stored = BTreeMap::new();
        // One journal: parts without a chunk id are named after it.
        let folder = tempfile::tempdir().unwrap();
        for round in 0..4 {
            let order: Vec<Bytes> = match round {
                0 => payloads.iter().take(4).cloned().collect(),
                1 => payloads.iter().skip(3).cloned().collect(),
                2 => payloads.iter().rev().cloned().collect(),
                _ => payloads.clone(),
            };
            let documents = sealed(Scene::new(folder.path(), LIMIT), order);
            assert_eq!(
                std::fs::read_dir(folder.path().join("rejected")).unwrap().count(),
                0
            );
            for document in &documents {
                assert!(document.json().len() < LIMIT + 2000, "{}", document.json().len());
            }
            store(&mut stored, documents, LIMIT);
        }
        let mut texts: Vec<String> = Vec::new();
        for json in stored.values() {
            let json: Value = serde_json::from_slice(json).unwrap();
            texts.extend(json["message"].as_str().unwrap().lines().map(str::to_owned));
        }
        texts.sort_unstable();
        assert_eq!(texts.len(), lines, "{mode:?}");
        texts.dedup();
        assert_eq!(texts.len(), lines, "{mode:?}: once each");
    }
}

#[test]
fn a_record_whose_json_is_too_long_for_any_store_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path(), 16 << 20);
    let text =
        |byte: u8, length: usize| [&[0xdb][..], &(length as u32).to_be_bytes(), &vec![byte; length]].concat();
    let settings = &scene.gatherer.settings;
    assert!(settings.is_too_long(&text(1, 18 << 20), b""));
    assert!(settings.is_too_long(&text(0xff, 40 << 20), b""));
    assert!(!settings.is_too_long(&text(b'x', 60 << 20), b""));
    assert!(
        settings.is_too_long(&text(b'x', 65 << 20), b""),
        "an eighth of memory_limit"
    );
    assert!(!settings.is_too_long(&[&[0xdd, 1, 0x40, 0, 0][..], &vec![1; 19 << 20]].concat(), b""));
    assert!(settings.is_too_long(&[&[0xdd, 1, 0x40, 0, 0][..], &vec![0xc2; 20 << 20]].concat(), b""));
}
