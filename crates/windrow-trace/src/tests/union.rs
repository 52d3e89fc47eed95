//! The union is a join: however parts are spread over documents, received repeatedly or merged in
//! any order, the result is the document that a single instance would write.

use proptest::prelude::*;
use serde_json::{Value, json};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::document::state::DocumentState;
use crate::{DocumentOptions, DocumentSchema, MergeRule, Union, UnionError, Unmap, union, unmap};

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
                "{} {} {} {:?} {:?} {:?}",
                line.time,
                id(line.part),
                line.position,
                line.text,
                line.level,
                line.service
            )
        })
        .collect();
    let mut fields: Vec<_> = state.fields.iter().map(|field| format!("{field:?}")).collect();
    fields.sort();
    let mut renamed: Vec<_> = state.renamed.iter().map(|field| format!("{field:?}")).collect();
    renamed.sort();
    document["windrow"]["state"] = json!({
        "renamed": renamed,
        "parts": parts, "lines": lines, "fields": fields, "reason": state.reason.as_str(), "sealed": state.sealed_at,
        "key": state.key_name, "text": state.text_name, "schema": state.schema.as_str(),
    });
    document
}

pub(crate) fn joined(a: &[u8], b: &[u8]) -> Vec<u8> {
    match union(a, b).unwrap() {
        Union::Unchanged => a.to_vec(),
        Union::Merged { document, .. } => document,
    }
}

fn records() -> impl Strategy<Value = Vec<(i64, Vec<u8>, Vec<u8>)>> {
    let text = prop_oneof![Just(None), "[a-c\n\"é]{0,6}".prop_map(Some)];
    let text_name = prop_oneof![Just("message"), Just("log"), Just("msg")];
    let fields = prop::collection::btree_map("[f-k]", 0..1000u32, 0..6);
    let level = prop_oneof![
        1 => Just(None),
        4 => prop::sample::select(vec!["debug", "info", "INFO", "error", "?"]).prop_map(Some),
    ];
    let service = prop::option::of("[a-c]");
    let metadata = prop::collection::btree_map("[m-n]", 0..1000u32, 0..2);
    let more = (level, service);
    prop::collection::vec((0..4i64, text_name, text, fields, metadata, more), 1..5).prop_map(|records| {
        records
            .into_iter()
            .map(|(time, name, text, fields, metadata, (level, service))| {
                let mut map = json!(fields);
                if let Some(level) = level {
                    map["level"] = json!(level);
                }
                if let Some(service) = service {
                    map["service"] = json!(service);
                }
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
    names: FieldNames,
    parts: Vec<TestPart>,
    documents: Vec<Seen>,
}

/// Names with every merge rule, for fields `f` to `k`.
fn rules() -> FieldNames {
    let merge = ["f", "g", "h", "i", "j", "k"].map(str::to_owned);
    let mut names = FieldNames::default();
    names.document.merge = merge.into_iter().zip(MergeRule::ALL).collect();
    names
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
        let names = prop_oneof![Just(FieldNames::default()), Just(rules())];
        let schema = prop::sample::select(DocumentSchema::ALL.to_vec());
        let names = (names, schema).prop_map(|(mut names, schema)| {
            names.document.schema = schema;
            names
        });
        let documents = prop::collection::vec((seen, 0..5usize, 0..9i64), documents);
        (names, documents).prop_map(move |(names, documents)| Case {
            names,
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
        render_with(&self.names, "t", &parts, SealReason::ALL[*reason], *sealed_at)
    }

    /// The same as Windrow 0.1.0 wrote it.
    fn former_document(&self, number: usize) -> Vec<u8> {
        let names = FieldNames {
            level: Vec::new(),
            service: Vec::new(),
            document: DocumentOptions::default(),
            ..self.names.clone()
        };
        let now = Self {
            names,
            ..self.clone()
        };
        as_version_1(&now.document(number))
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
        render_with(&self.names, "t", &parts, reason, sealed_at)
    }
}

/// Replaces the state of a document by one of version 1.
fn as_version_1(document: &[u8]) -> Vec<u8> {
    fn put(out: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    let zigzag = |number: i64| ((number << 1) ^ (number >> 63)) as u64;
    let mut document = value(document);
    let state = DocumentState::read(document["windrow"]["state"].as_str().unwrap()).unwrap();
    let name = |out: &mut Vec<u8>, name: &str| {
        put(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    };
    let is_usual = state.text_name.as_deref() == Some("message");
    let has_text = state.text_name.is_some();
    let mut out = vec![1, u8::from(has_text) * 4 + u8::from(has_text && !is_usual) * 2];
    if let Some(text) = state.text_name.as_deref().filter(|_| !is_usual) {
        name(&mut out, text);
    }
    out.push(state.reason as u8);
    put(&mut out, zigzag(state.sealed_at));
    put(&mut out, state.parts.len() as u64);
    let mut before = 0;
    for part in &state.parts {
        out.extend_from_slice(&part.id.0);
        put(&mut out, zigzag(part.received - before));
        put(&mut out, u64::from(part.total));
        before = part.received;
    }
    put(&mut out, state.lines.len() as u64);
    out.push(3);
    let (mut time, mut next) = (0, vec![0; state.parts.len()]);
    for line in &state.lines {
        put(&mut out, zigzag(line.time - time));
        put(&mut out, u64::from(line.part));
        let part = line.part as usize;
        put(&mut out, zigzag(i64::from(line.position) - next[part]));
        next[part] = i64::from(line.position) + 1;
        put(&mut out, line.text.map_or(0, |length| u64::from(length) + 1));
        time = line.time;
    }
    let last = state.lines.len() as u32 - 1;
    let older: Vec<_> = state.fields.iter().filter(|field| field.line != last).collect();
    put(&mut out, older.len() as u64);
    for field in older {
        out.push(field.location as u8);
        name(&mut out, &field.name);
        put(&mut out, u64::from(field.line));
    }
    document["windrow"]["state"] = json!(URL_SAFE_NO_PAD.encode(out));
    serde_json::to_vec(&document).unwrap()
}

/// A document after a store refused something in it; 0 for nothing.
fn healed(document: Vec<u8>, step: usize) -> Vec<u8> {
    let which = match step {
        0 => return document,
        1 => Unmap::Fields,
        2 => Unmap::Everything,
        3 => Unmap::Field("message"),
        4 => Unmap::Field("windrow.metadata.m"),
        _ => Unmap::Field("g"),
    };
    unmap(&document, which).map_or(document, |(healed, _)| healed)
}

/// A document with its moved fields back in their places.
fn lifted(document: &[u8]) -> Vec<u8> {
    let mut document = value(document);
    let unmapped = document["windrow"].as_object_mut().unwrap().remove("unmapped");
    for (name, moved) in unmapped.iter().filter_map(Value::as_object).flatten() {
        if name == "windrow" {
            for (name, moved) in moved["metadata"].as_object().unwrap() {
                document["windrow"]["metadata"][name] = moved.clone();
            }
        } else {
            document[name] = moved.clone();
        }
    }
    document.to_string().into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn of_healed_documents_holds_the_same(case in cases(3), steps in prop::array::uniform3(0..6usize)) {
        let whole = [0, 1, 2].map(|i| case.document(i));
        let [a, b, c] = [0, 1, 2].map(|i| healed(case.document(i), steps[i]));
        let all = joined(&healed(joined(&a, &b), steps[2]), &c);
        let expected = joined(&joined(&whole[0], &whole[1]), &whole[2]);
        if let Union::Merged { document, .. } = union(&a, &all).unwrap() {
            prop_assert_eq!(canonical(&lifted(&document)), canonical(&expected));
        }
        prop_assert_eq!(union(&all, &a).unwrap(), Union::Unchanged);
    }

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
    fn documents_of_the_former_form_are_joined_in_any_order(case in cases(3), former in 1..8u8) {
        let [a, b, c] = [0, 1, 2].map(|i| if former & 1 << i == 0 {
            case.document(i)
        } else {
            case.former_document(i)
        });
        let ab = joined(&a, &b);
        prop_assert_eq!(canonical(&joined(&ab, &a)), canonical(&ab));
        prop_assert_eq!(canonical(&joined(&b, &ab)), canonical(&joined(&a, &b)));
        if case.names.document.merge.is_empty() {
            prop_assert_eq!(canonical(&ab), canonical(&joined(&b, &a)));
            prop_assert_eq!(canonical(&joined(&ab, &c)), canonical(&joined(&a, &joined(&b, &c))));
        }
        let lines = |document: &[u8]| value(document)["windrow"]["lines"].clone();
        prop_assert_eq!(lines(&joined(&ab, &c)), lines(&case.whole()));
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
        level: None,
        service: Span::default(),
        is_partial: false,
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
