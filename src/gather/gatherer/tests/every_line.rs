//! No line vanishes: every text that was sent is in the text of some document, whatever its record
//! looks like: texts of any type, records without one, JSON in a text, and lines in parts.

use super::*;

/// A field of any type that contains the word.
fn value_with(word: &str) -> impl Strategy<Value = Value> + use<> {
    prop_oneof![
        3 => Just(json!(word)),
        1 => Just(json!(format!("{word}\n"))),
        1 => Just(json!(format!("\u{1b}[31m{word}\u{1b}[0m"))),
        1 => Just(json!({"inner": [word, 1]})),
        1 => Just(json!([word])),
    ]
}

/// A record of one of three traces with the words that its line must have.
fn record_with_words(number: usize) -> impl Strategy<Value = (Value, Vec<String>)> {
    const TEXTS: [&str; 8] = [
        "message",
        "log",
        "msg",
        "event",
        "MESSAGE",
        "body",
        "@message",
        "textPayload",
    ];
    const OTHERS: [&str; 5] = ["level", "status", "time", "user name", "kubernetes"];
    let text = prop::option::weighted(0.6, prop::sample::select(TEXTS.to_vec()));
    let others = prop::sample::subsequence(OTHERS.to_vec(), 1..4);
    (text, others, 0..3u8).prop_flat_map(move |(text, others, id)| {
        let names: Vec<_> = text.into_iter().chain(others).collect();
        let word = |at: usize| format!("word{number}x{at}x");
        let values: Vec<_> = (0..names.len()).map(|at| value_with(&word(at)).boxed()).collect();
        let words = if text.is_some() {
            vec![word(0)]
        } else {
            (0..names.len()).map(word).collect()
        };
        values.prop_map(move |values| {
            let mut record: Map<String, Value> =
                names.iter().map(|name| (*name).to_owned()).zip(values).collect();
            record.insert("traceId".into(), json!(format!("trace {id}")));
            (record.into(), words.clone())
        })
    })
}

/// An application's line as JSON, which is the text of a record around it.
fn json_in_text(number: usize) -> impl Strategy<Value = (Vec<Value>, Vec<String>)> {
    let name = prop::sample::select(vec!["log", "message", "msg", "event"]);
    let id = prop::option::of(0..3u8);
    (name, id, any::<bool>(), any::<bool>()).prop_map(move |(name, id, has_text, ends)| {
        let word = format!("word{number}x0x");
        let mut inner = Map::new();
        if let Some(id) = id {
            inner.insert("trace_id".into(), json!(format!("trace {id}")));
        }
        inner.insert(
            if has_text { "msg" } else { "note" }.into(),
            json!(format!("{word} \u{e9}")),
        );
        let mut text = Value::from(inner).to_string();
        if ends {
            text.push('\n');
        }
        let mut record = Map::new();
        record.insert(name.into(), text.into());
        record.insert("stream".into(), json!("stdout"));
        (vec![record.into()], vec![word])
    })
}

/// A line in parts, of which some may not come: Docker's and those of CRI, in streams of their own or
/// of which several are written at once.
fn parts_of_a_line(number: usize) -> impl Strategy<Value = (Vec<Value>, Vec<String>)> {
    let missing = prop::option::weighted(0.3, 0..4usize);
    (any::<bool>(), any::<bool>(), 2..5usize, missing, 0..3u8).prop_map(
        move |(is_docker, is_json, count, missing, id)| {
            let word = |at: usize| format!("word{number}x{at}x");
            let mut texts: Vec<String> = (0..count).map(|at| format!("{} ", word(at))).collect();
            if is_json {
                texts[0].insert_str(0, &format!("{{\"traceId\":\"trace {id}\",\"message\":\""));
                texts[count - 1].push_str("\"}");
            }
            let part = |(at, text): (usize, &String)| {
                let is_last = at + 1 == count;
                if is_docker {
                    json!({"container_id": "c", "log": text, "partial_message": "true",
                        "partial_id": number.to_string(), "partial_ordinal": (at + 1).to_string(),
                        "partial_last": is_last.to_string()})
                } else {
                    let pod = format!("pod {number}");
                    json!({"logtag": if is_last { "F" } else { "P" }, "log": text, "stream": "stderr",
                        "kubernetes": {"pod_name": pod}})
                }
            };
            let mut records: Vec<Value> = texts.iter().enumerate().map(part).collect();
            let mut words: Vec<String> = (0..count).map(word).collect();
            if let Some(missing) = missing.filter(|missing| *missing < count) {
                records.remove(missing);
                words.remove(missing);
            }
            (records, words)
        },
    )
}

/// Records that belong together, in order, and the words that must be found.
fn line(number: usize) -> impl Strategy<Value = (Vec<Value>, Vec<String>)> {
    prop_oneof![
        3 => record_with_words(number).prop_map(|(record, words)| (vec![record], words)),
        1 => json_in_text(number),
        2 => parts_of_a_line(number),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_line_that_was_sent_is_in_the_text_of_a_document(
        lines in (1..30usize).prop_flat_map(|count| (0..count).map(|n| line(n).boxed()).collect::<Vec<_>>()),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 120),
        chunks in 1..5usize,
    ) {
        // The records of all lines, of which each keeps its order, in turns.
        let words: Vec<String> = lines.iter().flat_map(|(_, words)| words.clone()).collect();
        let mut waiting: Vec<std::collections::VecDeque<Value>> =
            lines.into_iter().map(|(records, _)| records.into()).collect();
        let mut turns = turns.into_iter();
        let mut records = Vec::new();
        while !waiting.is_empty() {
            let next = turns.next().map_or(0, |turn| turn.index(waiting.len()));
            records.extend(waiting[next].pop_front());
            if waiting[next].is_empty() {
                waiting.remove(next);
            }
        }
        let entries: Vec<_> = records.iter().map(|record| meaning::entry(1, record)).collect();
        let payloads: Vec<Bytes> = entries
            .chunks(entries.len().div_ceil(chunks).max(1))
            .zip(1u8..)
            .map(|(entries, number)| meaning::chunk(number, entries))
            .collect();
        // Each chunk comes twice: the second is known.
        let twice = payloads.iter().flat_map(|chunk| [chunk.clone(), chunk.clone()]);
        let documents: Vec<_> = gathered(twice).into_values().collect();
        let texts: Vec<_> = documents
            .iter()
            .flat_map(|document| {
                ["message", "log", "msg", "event"].map(|name| document[name].as_str().unwrap_or_default())
            })
            .collect();
        // A record without a trace id keeps its fields, and has no text that is made of them.
        let singles: Vec<String> = documents
            .iter()
            .filter(|document| document["windrow"].get("lines").is_none())
            .map(Value::to_string)
            .collect();
        for word in &words {
            let is_in = |text: &str| text.contains(word.as_str());
            let is_found = texts.iter().any(|text| is_in(text)) || singles.iter().any(|single| is_in(single));
            prop_assert!(is_found, "{word} of {records:?} in {documents:?}");
        }
        let in_traces: u64 = documents.iter().filter_map(|document| document["windrow"]["lines"].as_u64()).sum();
        prop_assert!(in_traces + singles.len() as u64 <= records.len() as u64, "none is there twice");
        let traces = documents.iter().filter(|document| document["windrow"].get("lines").is_some());
        let has_colour = traces
            .flat_map(|document| ["message", "log", "msg"].map(|name| document[name].as_str().unwrap_or_default()))
            .any(|text| text.contains('\u{1b}'));
        prop_assert!(!has_colour);
    }
}
