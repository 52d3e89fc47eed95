//! Lines in parts: over one chunk and several, in any order, and through restarts.

use super::*;

/// A line of an application, longer than a part.
fn line(id: &str) -> String {
    json!({"traceId": id, "message": format!("request completed {id} {}", "x".repeat(50)), "n": 1.50})
        .to_string()
}

/// The parts of a line as Docker's log drivers send them.
fn docker(id: &str, line: &str) -> Vec<Value> {
    let parts: Vec<&str> = cut(line, 40);
    let of = parts.len();
    let part = |(number, text): (usize, &&str)| {
        json!({"container_id": "c1", "source": "stdout", "log": text, "partial_message": "true", "partial_id": id,
            "partial_ordinal": (number + 1).to_string(), "partial_last": (number + 1 == of).to_string()})
    };
    parts.iter().enumerate().map(part).collect()
}

/// The parts of a line as a container runtime writes them.
fn cri(pod: &str, line: &str) -> Vec<Value> {
    let parts: Vec<&str> = cut(line, 40);
    let of = parts.len();
    let part = |(number, text): (usize, &&str)| {
        let logtag = if number + 1 == of { "F" } else { "P" };
        json!({"stream": "stdout", "logtag": logtag, "log": text, "time": number, "kubernetes": {"pod_name": pod}})
    };
    parts.iter().enumerate().map(part).collect()
}

fn cut(text: &str, bytes: usize) -> Vec<&str> {
    let cuts: Vec<usize> = (0..text.len()).step_by(bytes).collect();
    let piece = |at: &usize| text.get(*at..(at + bytes).min(text.len())).unwrap();
    cuts.iter().map(piece).collect()
}

/// A chunk with these records, a millisecond apart.
fn chunk(number: usize, records: &[Value]) -> Bytes {
    let chunk = Chunk {
        mode: Mode::Forward,
        tag: "app",
        records: (BASE_MS..)
            .zip(records)
            .map(|(ms, fields)| (ms, fields.as_object().unwrap().clone(), Map::new()))
            .collect(),
    };
    chunk.encode(number)
}

/// The documents of journal records; `true`: the record was released before.
fn run(records: &[(Bytes, bool)]) -> BTreeMap<String, Value> {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    for (number, (payload, released)) in records.iter().enumerate() {
        scene.gather_record(number, payload.clone(), *released);
    }
    let (account, metrics) = (
        Arc::clone(&scene.gatherer.account),
        Arc::clone(&scene.gatherer.metrics),
    );
    let documents = scene.finish();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(
        metrics.input_records.get(),
        count(&account.in_flight) + count(&account.duplicate) + count(&account.joined) + count(&account.dead),
        "each record is accounted for"
    );
    documents
}

fn new(payloads: impl IntoIterator<Item = Bytes>) -> Vec<(Bytes, bool)> {
    payloads.into_iter().map(|payload| (payload, false)).collect()
}

#[test]
fn parts_in_one_chunk_are_one_line_and_its_json_is_read() {
    for parts in [docker("p", &line("a")), cri("pod", &line("a"))] {
        let documents = run(&new([chunk(1, &parts)]));
        assert_eq!(documents.len(), 1, "{documents:#?}");
        let document = &documents["a"];
        assert_eq!(
            document["message"],
            format!("request completed a {}", "x".repeat(50))
        );
        assert_eq!(document["windrow"]["lines"], 1);
        assert_eq!(
            document["@timestamp"], "2023-11-14T22:13:20.000Z",
            "when the line began"
        );
        assert_eq!(document.get("partial_id"), None);
    }
}

#[test]
fn parts_in_several_chunks_are_one_line_in_any_order() {
    let parts = docker("p", &line("a"));
    assert_eq!(parts.len(), 3);
    let chunks: Vec<Bytes> = (0..3).map(|n| chunk(n, &parts[n..=n])).collect();
    let expected = run(&new(chunks.clone()));
    assert_eq!(expected["a"]["windrow"]["lines"], 1);
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut documents = run(&new(order.map(|n| chunks[n].clone())));
        assert_eq!(documents.len(), 1, "{order:?}");
        assert_eq!(documents["a"]["message"], expected["a"]["message"], "{order:?}");
        documents.clear();
    }
    // Parts without ordinals come in order.
    let parts = cri("pod", &line("a"));
    let documents = run(&new((0..3).map(|n| chunk(n, &parts[n..=n]))));
    assert_eq!(documents["a"]["message"], expected["a"]["message"]);
}

#[test]
fn lines_of_several_streams_do_not_mix() {
    let (one, two) = (cri("one", &line("a")), cri("two", &line("b")));
    let (three, four) = (docker("p", &line("c")), docker("q", &line("d")));
    let mixed: Vec<Value> = (0..3)
        .flat_map(|n| [one[n].clone(), two[n].clone(), three[n].clone(), four[n].clone()])
        .collect();
    for at in 0..=mixed.len() {
        let (first, second) = mixed.split_at(at);
        let documents = run(&new([chunk(1, first), chunk(2, second)]));
        let found: Vec<_> = documents.keys().map(String::as_str).collect();
        assert_eq!(found, ["a", "b", "c", "d"], "cut at {at}");
        for (id, document) in &documents {
            let text = document["message"].as_str().unwrap();
            assert!(text.starts_with(&format!("request completed {id} ")), "{text}");
        }
    }
}

#[test]
fn the_oldest_marks_end_with_a_record_without_one() {
    let part = |text: &str, partial: bool| {
        let mut record = json!({"container_id": "c", "log": text});
        if partial {
            record["partial_message"] = json!("true");
        }
        record
    };
    let records = [
        part("{\"traceId\":", true),
        part("\"a\",", true),
        part("\"msg\":\"hi\"}", false),
    ];
    let documents = run(&new([chunk(1, &records)]));
    assert_eq!(documents["a"]["msg"], "hi");
    let documents = run(&new([chunk(1, &records[2..])]));
    assert_eq!(documents["single 0"]["log"], "\"msg\":\"hi\"}");
}

#[test]
fn parts_of_dockers_files_are_found_by_their_length() {
    let text = json!({"traceId": "a", "msg": "x".repeat(40_000)}).to_string() + "\n";
    let records: Vec<Value> = cut(&text, 16 << 10)
        .iter()
        .map(|part| json!({"log": part, "stream": "stdout", "time": "t"}))
        .collect();
    let documents = run(&new([chunk(1, &records[..1]), chunk(2, &records[1..])]));
    assert_eq!(documents.len(), 1);
    assert_eq!(documents["a"]["msg"].as_str().unwrap().len(), 40_000);
}

#[test]
fn a_part_that_stays_alone_is_written_as_it_is() {
    for parts in [docker("p", &line("a")), cri("pod", &line("a"))] {
        let documents = run(&new([chunk(1, &parts[..2])]));
        assert_eq!(documents.len(), 2, "{documents:#?}");
        let found: Vec<_> = documents.values().map(|document| &document["log"]).collect();
        assert_eq!(found, [&parts[0]["log"], &parts[1]["log"]]);
    }
    let documents = run(&new([chunk(1, &docker("p", &line("a"))[1..])]));
    assert_eq!(documents.len(), 2);
    assert_eq!(documents["single 0"]["partial_ordinal"], "2");
}

#[test]
fn repeated_parts_change_nothing() {
    let parts = docker("p", &line("a"));
    let expected = run(&new([chunk(1, &parts)]));
    // In the window of known chunks, and as other chunks.
    let (one, two, three) = (
        chunk(1, &parts[..1]),
        chunk(2, &parts[1..2]),
        chunk(3, &parts[2..]),
    );
    let again = chunk(4, &parts[..2]);
    let documents = run(&new([one.clone(), one, two, again, three]));
    assert_eq!(documents.len(), 1, "{documents:#?}");
    assert_eq!(documents["a"]["message"], expected["a"]["message"]);
}

#[test]
fn a_line_that_was_stored_is_not_written_again_in_parts() {
    for parts in [docker("p", &line("a")), cri("pod", &line("a"))] {
        let chunks: Vec<Bytes> = (0..3).map(|n| chunk(n, &parts[n..=n])).collect();
        let all = run(&new(chunks.clone()));
        for released in 0..8 {
            let released = |n: usize| released & (1 << n) != 0;
            let records: Vec<_> = (0..3).map(|n| (chunks[n].clone(), released(n))).collect();
            let documents = run(&records);
            let expected = if released(2) { BTreeMap::new() } else { all.clone() };
            assert_eq!(
                documents,
                expected,
                "{:?}",
                [released(0), released(1), released(2)]
            );
        }
    }
}

#[test]
fn the_journal_records_of_a_line_are_released_together() {
    let parts = docker("p", &line("a"));
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    let released = Arc::<std::sync::Mutex<Vec<u64>>>::default();
    let to = Arc::clone(&released);
    scene.gatherer.release = Arc::new(move |lsn| to.lock().unwrap().push(lsn));
    let done = || released.lock().unwrap().clone();
    let open = json!({"traceId": "other", "message": "open"});
    scene.gather(0, chunk(0, &[json!({"message": "alone"})]));
    scene.gather(1, chunk(1, &parts[..1]));
    scene.gather(2, chunk(2, &parts[1..2]));
    scene.gather(3, chunk(3, &[open, parts[2].clone()]));
    scene.gatherer.seal_due(i64::MAX / 2);
    assert_eq!(done(), [0; 0], "nothing is confirmed");
    let Scene {
        mut gatherer,
        mut batches,
        ..
    } = scene;
    gatherer.send_batch();
    while let Ok(batch) = batches.try_recv() {
        batch.confirm(crate::output::OutputId(0));
    }
    let mut all = done();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4]);
}

#[test]
fn memory_is_bounded_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path(), 16 << 20);
    let parts: Vec<Value> = (0..5000)
        .map(|n| {
            json!({"log": "x".repeat(8000), "partial_message": "true", "partial_id": n.to_string(),
                "partial_ordinal": "1", "partial_last": "false"})
        })
        .collect();
    for (number, parts) in parts.chunks(100).enumerate() {
        scene.gather(number, chunk(number, parts));
        assert!(scene.gatherer.partial.bytes() <= 16 << 20);
    }
    let waiting = scene.gatherer.partial.waiting();
    assert!((1..5000).contains(&waiting), "{waiting}");
    assert_eq!(scene.finish().len(), 5000);
}
