//! The union is a join: however parts are spread over documents, received repeatedly or merged in
//! any order, the result is the document that a single instance would write.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::state::DocumentState;
use crate::{Union, UnionError, document_lines, union};

/// A document in comparable form: names without order, the state decoded, with parts by id.
pub(crate) fn canonical(document: &[u8]) -> Value {
    let mut document = value(document);
    let state = DocumentState::read(document["windrow"]["state"].as_str().unwrap()).unwrap();
    let id = |part: u32| format!("{:?}", state.parts[part as usize].id);
    let mut parts: Vec<_> = state.parts.iter().map(|part| format!("{part:?}")).collect();
    parts.sort();
    let lines: Vec<_> = state
        .lines
        .iter()
        .map(|line| {
            format!(
                "{} {} {} {:?}",
                line.time,
                id(line.part),
                line.position,
                line.text
            )
        })
        .collect();
    let mut older: Vec<_> = state.older.iter().map(|older| format!("{older:?}")).collect();
    older.sort();
    document["windrow"]["state"] = json!({
        "parts": parts, "lines": lines, "older": older, "reason": state.reason.as_str(), "sealed": state.sealed_at,
        "key": state.key_name, "text": state.text_name,
    });
    document
}

fn joined(a: &[u8], b: &[u8]) -> Vec<u8> {
    match union(a, b).unwrap() {
        Union::Unchanged => a.to_vec(),
        Union::Merged { document, .. } => document,
    }
}

fn records() -> impl Strategy<Value = Vec<(i64, Vec<u8>, Vec<u8>)>> {
    let text = prop_oneof![Just(None), "[a-c\n\"é]{0,6}".prop_map(Some)];
    let text_name = prop_oneof![Just("message"), Just("log"), Just("msg")];
    let fields = prop::collection::btree_map("[f-i]", 0..1000u32, 0..4);
    let metadata = prop::collection::btree_map("[m-n]", 0..1000u32, 0..2);
    prop::collection::vec((0..4i64, text_name, text, fields, metadata), 1..5).prop_map(|records| {
        records
            .into_iter()
            .map(|(time, name, text, fields, metadata)| {
                let mut map = json!(fields);
                map["traceId"] = json!("t");
                if let Some(text) = text {
                    map[name] = json!(text);
                }
                let metadata = if metadata.is_empty() {
                    Vec::new()
                } else {
                    record(&json!(metadata))
                };
                (time * 1_000_000_000, record(&map), metadata)
            })
            .collect()
    })
}

/// What a document saw: parts with their times of reception, the reason and the time of sealing.
type Seen = (Vec<(usize, i64)>, usize, i64);

#[derive(Clone, Debug)]
struct Case {
    parts: Vec<TestPart>,
    documents: Vec<Seen>,
}

fn cases(documents: usize) -> impl Strategy<Value = Case> {
    prop::collection::vec(records(), 1..5).prop_flat_map(move |records| {
        let n = records.len();
        let tags = ["app", "web", "db", "cache"];
        let parts: Vec<TestPart> = records
            .into_iter()
            .enumerate()
            .map(|(i, records)| TestPart {
                id: [i as u8 + 1; 12],
                received: 0,
                tag: tags[i % 4],
                records,
            })
            .collect();
        let seen =
            prop::collection::btree_map(0..n, 1..6i64, 1..=n).prop_map(|map| map.into_iter().collect());
        prop::collection::vec((seen, 0..5usize, 0..9i64), documents).prop_map(move |documents| Case {
            parts: parts.clone(),
            documents,
        })
    })
}

impl Case {
    fn document(&self, number: usize) -> Vec<u8> {
        let (seen, reason, sealed_at) = &self.documents[number];
        let parts: Vec<TestPart> = seen
            .iter()
            .map(|&(part, received)| TestPart {
                received,
                ..self.parts[part].clone()
            })
            .collect();
        render("t", &parts, SealReason::ALL[*reason], *sealed_at)
    }

    /// The document that a single instance would have written.
    fn whole(&self) -> Vec<u8> {
        let mut latest = std::collections::BTreeMap::new();
        for (part, received) in self.documents.iter().flat_map(|(seen, _, _)| seen) {
            let at = latest.entry(*part).or_insert(*received);
            *at = (*at).max(*received);
        }
        let parts: Vec<TestPart> = latest
            .into_iter()
            .map(|(part, received)| TestPart {
                received,
                ..self.parts[part].clone()
            })
            .collect();
        let reason = self
            .documents
            .iter()
            .map(|(_, reason, _)| SealReason::ALL[*reason])
            .max()
            .unwrap();
        let sealed_at = self
            .documents
            .iter()
            .map(|(_, _, sealed_at)| *sealed_at)
            .min()
            .unwrap();
        render("t", &parts, reason, sealed_at)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_what_one_gatherer_of_all_would_write(case in cases(3)) {
        let documents: Vec<_> = (0..3).map(|i| case.document(i)).collect();
        let all = joined(&joined(&documents[0], &documents[1]), &documents[2]);
        prop_assert_eq!(canonical(&all), canonical(&case.whole()));
    }

    #[test]
    fn is_commutative_associative_and_idempotent(case in cases(3)) {
        let [a, b, c] = [0, 1, 2].map(|i| case.document(i));
        let ab = joined(&a, &b);
        prop_assert_eq!(canonical(&ab), canonical(&joined(&b, &a)));
        prop_assert_eq!(canonical(&joined(&ab, &c)), canonical(&joined(&a, &joined(&b, &c))));
        prop_assert_eq!(union(&ab, &a).unwrap(), Union::Unchanged);
        prop_assert_eq!(union(&ab, &b).unwrap(), Union::Unchanged);
        prop_assert_eq!(union(&ab, &ab).unwrap(), Union::Unchanged);
    }

    #[test]
    fn a_changed_document_is_an_error_or_a_document_but_never_a_panic(case in cases(2), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut a = case.document(0);
        let at = at.index(a.len());
        a[at] = byte;
        if let Ok(Union::Merged { document, .. }) = union(&a, &case.document(1)) {
            value(&document);
        }
    }
}

#[test]
fn late_lines_are_counted() {
    let part = |id: u8, received, time| TestPart {
        id: [id; 12],
        received,
        tag: "app",
        records: vec![(
            time,
            record(&json!({"traceId":"t","message":format!("line {id}")})),
            Vec::new(),
        )],
    };
    let first = render("t", &[part(1, 10, 1)], SealReason::Completed, 20);
    let late = render("t", &[part(2, 30, 2)], SealReason::Idle, 60);
    let document = value(&joined(&first, &late));
    assert_eq!(document["message"], "line 1\nline 2");
    assert_eq!(document["windrow"]["late"], 1);
    assert_eq!(document["windrow"]["reason"], "completed");
    assert_eq!(document["windrow"]["parts"], 2);
}

#[test]
fn a_cut_part_is_made_whole_by_one_who_kept_it() {
    let lines: Vec<_> = (0..3)
        .map(|i| {
            (
                i64::from(i),
                record(&json!({"traceId":"t","message":format!("line {i}")})),
                Vec::new(),
            )
        })
        .collect();
    let whole = TestPart {
        id: [1; 12],
        received: 10,
        tag: "app",
        records: lines,
    };
    let full = render("t", std::slice::from_ref(&whole), SealReason::Idle, 20);
    let info = PartInfo {
        id: PartId([1; 12]),
        received: 10,
        total: 3,
    };
    let line = Line {
        time: 0,
        part: 0,
        position: 0,
        shape: None,
        record: Span::new(0, whole.records[0].1.len()),
        metadata: Span::default(),
        text: None,
    };
    let cut = TraceContent {
        id: b"t",
        parts: &[info],
        tags: vec!["app"].into(),
        reason: SealReason::Idle,
        sealed_at: 20,
        records: SealedRecords::Lines {
            buffer: &whole.records[0].1,
            lines: &mut [line],
        },
    };
    let mut out = Vec::new();
    let shapes = ShapeRegistry::new(FieldNames::default(), Vec::new());
    Renderer::default().trace(&mut out, &FieldNames::default(), &shapes, cut, |_, _| ());
    assert_eq!(value(&out)["windrow"]["truncated"], 2);
    let document = value(&joined(&out, &full));
    assert_eq!(document["message"], "line 0\nline 1\nline 2");
    assert!(document["windrow"].get("truncated").is_none());
}

#[test]
fn what_windrow_did_not_write_is_left_alone() {
    let ours = render(
        "t",
        &[TestPart {
            id: [1; 12],
            received: 1,
            tag: "a",
            records: vec![(1, record(&json!({"traceId":"t"})), vec![])],
        }],
        SealReason::Idle,
        2,
    );
    let which = |existing: &[u8]| union(existing, &ours).unwrap_err().which;
    assert_eq!(which(b"{\"traceId\":\"t\"}"), "existing");
    assert_eq!(which(b"[]"), "existing");
    assert_eq!(
        which(b"{\"traceId\":\"t\",\"windrow\":{\"state\":\"AQ\"}}"),
        "existing"
    );
    let other = String::from_utf8(ours.clone()).unwrap().replace("\"t\"", "\"u\"");
    let UnionError { why, .. } = union(other.as_bytes(), &ours).unwrap_err();
    assert!(why.contains("\"u\""), "{why}");
}

#[test]
fn a_document_is_taken_apart_into_its_lines() {
    let part = |id: u8, received, texts: &[(i64, Option<&str>)]| TestPart {
        id: [id; 12],
        received,
        tag: "app",
        records: texts
            .iter()
            .map(|(time, text)| {
                let mut map = json!({"traceId": "t"});
                if let Some(text) = text {
                    map["log"] = json!(text);
                }
                (*time, record(&map), Vec::new())
            })
            .collect(),
    };
    let first = part(1, 10, &[(1, Some("a\nb")), (3, None), (3, Some(""))]);
    let late = part(2, 30, &[(2, Some("\"é"))]);
    let document = joined(
        &render("t", &[first], SealReason::Idle, 20),
        &render("t", &[late], SealReason::Idle, 40),
    );
    let lines = document_lines(&document).unwrap();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line.time_ns,
                line.text.as_deref(),
                line.part.0[0],
                line.position,
                line.received_us,
                line.late,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, Some("a\nb"), 1, 0, 10, false),
            (2, Some("\"é"), 2, 0, 30, true),
            (3, None, 1, 1, 10, false),
            (3, Some(""), 1, 2, 10, false),
        ]
    );
    assert!(document_lines(b"{\"message\":\"m\",\"windrow\":{\"tags\":[\"app\"]}}").is_err());
}
