//! The union within a limit: however the parts of a long trace are spread over documents, sent again
//! and interleaved by several writers, each line ends in exactly one stored document.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::state::DocumentState;
use crate::{
    BoundedUnion, Continuation, DocumentOptions, DocumentSchema, MergeRule, Severity, Union, document_lines,
    union, union_within,
};

/// A line: its part and its position.
type LineId = ([u8; 12], u32);

fn lines_of(document: &[u8]) -> Vec<LineId> {
    let document = value(document);
    let state = DocumentState::read(document["windrow"]["state"].as_str().unwrap()).unwrap();
    let id = |part: u32| state.parts[part as usize].id.0;
    state
        .lines
        .iter()
        .map(|line| (id(line.part), line.position))
        .collect()
}

/// The levels of lines.
const LEVELS: [Severity; 4] = [Severity::Info, Severity::Error, Severity::Debug, Severity::Info];

/// Parts with `lengths[part]` records each.
fn parts(lengths: &[usize]) -> Vec<TestPart> {
    let part = |(number, length): (usize, &usize)| TestPart {
        id: [number as u8 + 1; 12],
        received: number as i64,
        tag: "app",
        records: (0..*length)
            .map(|position| {
                let text = format!("{number}.{position} ").repeat(8);
                let (level, service) = (LEVELS[(number + position) % 4], format!("s{}", number % 3));
                let json = json!({
                    "traceId": "t", "message": text, "host": "h", "n": number, "level": level.as_str(),
                    "service": service,
                });
                (number as i64 * 1000, record(&json), Vec::new())
            })
            .collect(),
    };
    lengths.iter().enumerate().map(part).collect()
}

fn document(all: &[TestPart], of: &[usize]) -> Vec<u8> {
    document_with(&FieldNames::default(), all, of)
}

fn document_with(names: &FieldNames, all: &[TestPart], of: &[usize]) -> Vec<u8> {
    let parts: Vec<_> = of.iter().map(|part| all[*part].clone()).collect();
    render_with(names, "t", &parts, SealReason::Idle, 99)
}

/// Each stored line says what its record says, and no document changes when it is united with
/// itself.
fn check_lines(id: &str, json: &[u8], names: &FieldNames, parts: &[TestPart]) -> Result<(), TestCaseError> {
    let mut levels = BTreeMap::new();
    for line in document_lines(json).unwrap() {
        let number = parts.iter().position(|part| part.id == line.part.0).unwrap();
        let level = LEVELS[(number + line.position as usize) % 4];
        prop_assert_eq!(line.level, Some(level));
        prop_assert_eq!(line.service, Some(format!("s{}", number % 3)));
        if names.document.keep_fields {
            let kept = Value::Object(line.record.unwrap());
            prop_assert_eq!(record(&kept), &*parts[number].records[line.position as usize].1);
        }
        *levels.entry(level.as_str()).or_insert(0) += 1;
    }
    prop_assert_eq!(&value(json)["windrow"]["levels"], &json!(levels));
    let again = union_within(json, json, id, 0).unwrap();
    prop_assert_eq!(again, BoundedUnion::without_continuations(Union::Unchanged));
    Ok(())
}

/// A store that compares and sets, as the outputs use it.
type Store = BTreeMap<String, Vec<u8>>;

/// How far the delivery of one document is.
enum Step {
    Create,
    Decide,
    Replace(Vec<u8>, BoundedUnion),
    Continue(Vec<Continuation>),
    Done,
}

fn put(store: &mut Store, one: &Continuation) {
    let merged = match store.get(&one.id) {
        None => one.document.clone(),
        Some(existing) => {
            let union = union_within(existing, &one.document, &one.id, 0).unwrap();
            assert_eq!(union.continuations, [], "a continuation has none");
            match union.main {
                Union::Unchanged => return,
                Union::Merged { document, .. } => document,
            }
        }
    };
    store.insert(one.id.clone(), merged);
}

/// Takes one step of the delivery of `ours`.
fn advance(store: &mut Store, ours: &[u8], step: Step, limit: usize) -> Step {
    match step {
        Step::Create if store.contains_key("t") => Step::Decide,
        Step::Create => {
            store.insert("t".into(), ours.to_vec());
            Step::Done
        }
        Step::Decide => {
            let read = store["t"].clone();
            let union = union_within(&read, ours, "t", limit).unwrap();
            Step::Replace(read, union)
        }
        Step::Replace(read, union) => match union.main {
            Union::Unchanged => Step::Continue(union.continuations),
            // Another writer was faster.
            Union::Merged { .. } if store["t"] != read => Step::Decide,
            Union::Merged { document, .. } => {
                store.insert("t".into(), document);
                Step::Continue(union.continuations)
            }
        },
        Step::Continue(mut rest) => match rest.pop() {
            None => Step::Done,
            Some(one) => {
                put(store, &one);
                Step::Continue(rest)
            }
        },
        Step::Done => Step::Done,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_line_is_in_one_document(
        lengths in prop::collection::vec(1..6usize, 1..6),
        spread in prop::collection::vec(prop::collection::btree_set(0..6usize, 1..5), 1..6),
        turns in prop::collection::vec((0..6usize, prop::bool::weighted(0.1)), 0..60),
        limit in 200..3000usize,
        keep_fields in any::<bool>(),
        schema in prop::sample::select(DocumentSchema::ALL.to_vec()),
        rule in prop::sample::select(MergeRule::ALL.to_vec()),
    ) {
        let document = DocumentOptions { keep_fields, schema, merge: vec![("n".into(), rule)] };
        let names = FieldNames { document, ..FieldNames::default() };
        let parts = parts(&lengths);
        let mut seen = BTreeSet::new();
        let documents: Vec<_> = spread
            .iter()
            .map(|of| of.iter().copied().filter(|part| *part < parts.len()).collect::<Vec<_>>())
            .filter(|of| !of.is_empty())
            .inspect(|of| seen.extend(of.iter().copied()))
            .map(|of| document_with(&names, &parts, &of))
            .collect();
        let mut store = Store::new();
        let mut steps: Vec<_> = documents.iter().map(|_| Step::Create).collect();
        for (writer, dies) in turns {
            if let Some(step) = steps.get_mut(writer) {
                let next = if dies { Step::Create } else { std::mem::replace(step, Step::Done) };
                *step = advance(&mut store, &documents[writer], next, limit);
            }
        }
        // Each is delivered in the end, some of them again.
        for (ours, mut step) in documents.iter().zip(steps) {
            while !matches!(step, Step::Done) {
                step = advance(&mut store, ours, step, limit);
            }
        }
        let mut stored: Vec<LineId> = store.values().flat_map(|json| lines_of(json)).collect();
        stored.sort_unstable();
        let mut expected: Vec<LineId> = seen
            .iter()
            .flat_map(|part| (0..lengths[*part] as u32).map(|position| (parts[*part].id, position)))
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(stored, expected);
        let longest = documents.iter().map(Vec::len).max().unwrap_or(0);
        for (id, json) in &store {
            let about = &value(json)["windrow"];
            prop_assert!(json.len() <= longest.max(limit) + 20, "{}", json.len());
            prop_assert_eq!(about.get("continues").is_some(), id != "t");
            check_lines(id, json, &names, &parts)?;
            prop_assert_eq!(about.get("continued").is_some(), id == "t" && store.len() > 1);
        }
    }
}

#[test]
fn what_has_no_space_is_in_documents_that_name_the_first() {
    let parts = parts(&[3, 2, 1]);
    let (first, second) = (document(&parts, &[0]), document(&parts, &[0, 1, 2]));
    let union = union_within(&first, &second, "t", first.len() + 50).unwrap();
    assert_eq!(union.new_lines(), 3);
    let Union::Merged {
        document: main,
        new_lines: 0,
    } = &union.main
    else {
        panic!("it is marked")
    };
    let (before, after) = (value(&first), value(main));
    assert_eq!(after["windrow"]["continued"], true);
    for name in ["message", "traceId", "@timestamp", "n"] {
        assert_eq!(before[name], after[name]);
    }
    let ids: Vec<_> = union.continuations.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["t~AgICAgICAgICAgIC-0", "t~AwMDAwMDAwMDAwMD-0"]);
    let one = &union.continuations[0];
    let json = value(&one.document);
    assert_eq!((one.lines, one.first_ns), (2, 1000));
    assert_eq!(
        (&json["traceId"], &json["host"], &json["windrow"]["continues"]),
        (&json!("t"), &json!("h"), &json!("t"))
    );
    assert_eq!(
        (&json["windrow"]["lines"], &json["windrow"]["parts"]),
        (&json!(2), &json!(1))
    );
    // Nothing is done a second time.
    let again = union_within(main, &second, "t", usize::MAX).unwrap();
    assert_eq!(
        (again.main, again.continuations),
        (Union::Unchanged, union.continuations.clone())
    );
    let again = union_within(&one.document, &one.document, &one.id, 0).unwrap();
    assert_eq!(again, BoundedUnion::without_continuations(Union::Unchanged));
    // What is continued stays so in a union without a limit.
    let Union::Merged { document, .. } = self::union(main, &second).unwrap() else {
        panic!("it adds lines")
    };
    assert_eq!(value(&document)["windrow"]["continued"], true);
}

#[test]
fn long_fields_of_many_parts_are_not_multiplied() {
    let mut parts = parts(&[1; 100]);
    for part in &mut parts {
        let fields = json!({"traceId": "t", "message": "m", "long": "x".repeat(5000)});
        part.records[0].1 = record(&fields);
    }
    let all: Vec<usize> = (1..100).collect();
    let union = union_within(&document(&parts, &[0]), &document(&parts, &all), "t", 100).unwrap();
    let with = union
        .continuations
        .iter()
        .filter(|one| value(&one.document).get("long").is_some());
    assert_eq!((union.continuations.len(), with.count()), (99, 1));
}

#[test]
fn the_id_of_a_continuation_is_never_too_long() {
    let parts = parts(&[1, 1]);
    let (a, b) = (document(&parts, &[0]), document(&parts, &[1]));
    let id = |main: &str| union_within(&a, &b, main, 0).unwrap().continuations[0].id.clone();
    let ids = [480, 500, 512].map(|length| id(&"x".repeat(length)));
    assert!(ids[0].starts_with("xxx"));
    assert!(ids.iter().all(|id| id.len() <= 512));
    assert_ne!(ids[1], ids[2]);
}
