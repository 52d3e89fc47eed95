//! The fast path of the classifier against the slow one: both find the same, whatever the bytes.

use forward_protocol::entries::Entries;
use forward_protocol::msgpack::{write_f64, write_i64, write_map_len, write_nil, write_str, write_u64};
use proptest::prelude::*;

use windrow_trace::{FieldNames, Phrase};

use super::*;
use crate::config::Predicate;

fn rules() -> Vec<Condition> {
    let rule = |field: Option<&str>, test| Condition {
        field: field.map(Into::into),
        test,
    };
    vec![
        rule(
            None,
            Predicate::Contains(Box::new(Phrase::new("request completed"))),
        ),
        rule(Some("status"), Predicate::Equals("504".into())),
        rule(Some("note"), Predicate::Equals("end".into())),
    ]
}

/// The classification of a record that is read field by field, without a shape.
fn plainly<'a>(names: &FieldNames, record: &'a [u8], made: &mut MadeId) -> Classification<'a> {
    classify_slow(
        &mut ShapeRegistry::new(names.clone(), Vec::new()),
        &rules(),
        record,
        made,
    )
}

/// The trace id, however the record has it.
fn id<'a>(found: &Classification<'a>, made: &'a MadeId) -> Option<&'a [u8]> {
    if found.id_is_made {
        Some(made.bytes())
    } else {
        found.facts.id
    }
}

/// The text of the preferred name that has one.
fn text<'a>(names: &FieldNames, record: &'a [u8]) -> Option<&'a [u8]> {
    let text_under = |name: &String| {
        MapPairs::new(record)
            .filter(|pair| pair.key == Key::Text(name.as_bytes()))
            .find_map(|pair| as_text(read_token(pair.value, 0)?.0))
    };
    let text = names.text.iter().find_map(text_under)?;
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    Some(text)
}

/// Walks `bytes` with the known shapes and compares each record with a plain reading; gives how
/// many had a shape.
fn check(shapes: &mut ShapeRegistry, bytes: &[u8]) -> Result<usize, TestCaseError> {
    let (names, rules) = (FieldNames::default(), rules());
    let mut plain = Entries::new(bytes, 8);
    let mut entries = plain.clone();
    let mut shaped = 0;
    loop {
        let mut nothing = NoCapture::<0>;
        let mut found = Classification::default();
        let mut classifier = RecordClassifier::new(shapes, &rules, &mut nothing, &mut found);
        let next = entries.next_with(&mut classifier);
        let has_shape = classifier.finish();
        prop_assert_eq!(&next, &plain.next(), "both walks find the same entries");
        let Some(next) = next else { return Ok(shaped) };
        let Ok(entry) = next else { continue };
        let (mut made, mut plainly_made) = (MadeId::default(), MadeId::default());
        if !has_shape {
            found = classify_slow(shapes, &rules, entry.record, &mut made);
        }
        let expected = plainly(&names, entry.record, &mut plainly_made);
        prop_assert_eq!(id(&found, &made), id(&expected, &plainly_made));
        prop_assert_eq!(found.completes, expected.completes);
        prop_assert_eq!(found.text_form, expected.text_form);
        prop_assert_eq!(found.facts.level, expected.facts.level);
        prop_assert_eq!(found.facts.service, expected.facts.service);
        if let Some(shape) = found.shape.and_then(|id| shapes.get(id)) {
            shaped += 1;
            let keys: Vec<_> = MapPairs::new(entry.record).map(|pair| pair.key).collect();
            let known: Vec<_> = shape.fields().iter().map(|slot| Key::Text(slot.name())).collect();
            prop_assert_eq!(keys, known, "a record has the names of its shape");
            prop_assert_eq!(found.facts.text, text(&names, entry.record));
            let (record, end) = (entry.record.as_ptr(), entry.record.as_ptr_range().end);
            let within =
                |text: &[u8]| (record..=end).contains(&text.as_ptr()) && text.as_ptr_range().end <= end;
            prop_assert!(found.facts.text.is_none_or(within));
        }
    }
}

/// One name of each length class that the comparison of names distinguishes.
const NAMES: [&str; 19] = [
    "traceId",
    "message",
    "a",
    "status",
    "level",
    "note",
    "exactly_15bytes",
    "exactly_16_bytes",
    "a_name_of_twenty_bytes_and_more",
    "one_of_more_than_the_thirty_one_bytes_of_a_fixstr",
    "log",
    "trace_id",
    "severity",
    "service",
    "service.name",
    "kubernetes",
    "trace",
    "spans",
    "Scopes",
];

fn values() -> impl Strategy<Value = Vec<u8>> {
    let encoded = |write: fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        Just(out)
    };
    let text = prop_oneof![
        Just(String::new()),
        Just("request completed".into()),
        Just("end".into()),
        Just("504".into()),
        Just("warn".into()),
        "[a-f]{1,40}",
        "[a-f]{300}",
        "[a-z ]{0,40}request completed[a-z]{0,40}",
    ];
    prop_oneof![
        6 => text.prop_map(|text: String| {
            let mut out = Vec::new();
            write_str(&mut out, text.as_bytes());
            out
        }),
        1 => encoded(|out| write_u64(out, 504)),
        1 => any::<i64>().prop_map(|n| {
            let mut out = Vec::new();
            write_i64(&mut out, n);
            out
        }),
        1 => encoded(|out| write_f64(out, 1.5)),
        1 => encoded(|out| write_f64(out, 504.0)),
        1 => encoded(|out| out.extend(b"\x91\xa3abc")),
        1 => encoded(|out| out.extend(b"\x93\xa1x\x80\x82\xa8trace_id\xa3abc\xa7TraceId\xa3def")),
        1 => encoded(|out| out.extend(b"projects/p/traces/abc")).prop_map(|text| {
            let mut out = Vec::new();
            write_str(&mut out, &text);
            out
        }),
        1 => encoded(write_nil),
        1 => encoded(|out| out.extend(b"\x81\xa1a\x92\x01\x80")),
        1 => encoded(|out| out.extend([0x91; 9])).prop_map(|mut deep| {
            deep.push(0);
            deep
        }),
        1 => encoded(|out| out.extend(b"\xc4\x11request completed")),
        1 => encoded(|out| out.extend(b"\xd6\x05abcd")),
        1 => encoded(|out| out.extend(b"\x81\xa4name\xa4shop")),
        1 => encoded(|out| {
            out.extend(b"\x83\xa6labels\x82\xa3app\xa1a\xb6app.kubernetes.io/name\xa4shop");
            out.extend(b"\xaecontainer_name\xa3web\xa6labels\x81\xa3app\xa1b");
        }),
        1 => encoded(|out| out.extend(b"\x81\xaecontainer_name\xa3web")),
        1 => encoded(|out| write_u64(out, 50)),
    ]
}

/// Two shapes, and records of them.
fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let names = prop::sample::subsequence(NAMES.to_vec(), 1..NAMES.len()).prop_shuffle();
    let lists = [names.clone(), names];
    lists.prop_flat_map(|lists| {
        let record = prop::sample::select(lists.to_vec()).prop_flat_map(|names| {
            let values = prop::collection::vec(values(), names.len());
            values.prop_map(move |values| {
                let mut record = Vec::new();
                write_map_len(&mut record, names.len() as u32);
                for (name, value) in names.iter().zip(values) {
                    write_str(&mut record, name.as_bytes());
                    record.extend(value);
                }
                record
            })
        });
        prop::collection::vec(record, 3..12)
    })
}

fn entries(records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        out.extend(b"\x92\x01");
        out.extend(record);
    }
    out
}

#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<prop::sample::Index>;
    let byte = || prop_oneof![any::<u8>(), 0x80..0x84u8, 0x90..0x94u8, 0xc0..0xe0u8];
    let change = prop_oneof![
        6 => (at(), byte()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
    ];
    prop::collection::vec(change, 1..4)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Change::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_fast_path_finds_what_a_plain_reading_finds(records in records(), changes in changes()) {
        let names = FieldNames::default();
        let mut shapes = ShapeRegistry::new(names, completion_fields(&rules()));
        let good = entries(&records);
        check(&mut shapes, &good)?;
        // Now the shapes are known, and bytes change under them.
        check(&mut shapes, &changed(good, &changes))?;
    }

    #[test]
    fn random_bytes_are_walked_alike(
        records in records(),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80..0x84u8, 0x90..0x94u8, 0xa0..0xb0u8], 0..100),
    ) {
        let names = FieldNames::default();
        let mut shapes = ShapeRegistry::new(names, completion_fields(&rules()));
        check(&mut shapes, &entries(&records))?;
        check(&mut shapes, &bytes)?;
        check(&mut shapes, &entries(&[records[0].clone(), bytes]))?;
    }
}

#[test]
fn records_of_a_known_shape_are_recognised() {
    let names = FieldNames::default();
    let mut shapes = ShapeRegistry::new(names, completion_fields(&rules()));
    let record = b"\x83\xa7traceId\xa3abc\xa7message\xb1request completed\xa6status\xcc\xc8".to_vec();
    let bytes = entries(&vec![record; 5]);
    assert_eq!(check(&mut shapes, &bytes).unwrap(), 4, "all but the first");
    assert_eq!(check(&mut shapes, &bytes).unwrap(), 5);
    let mut completed = Vec::new();
    classify_entries(&mut shapes, &rules(), &bytes, &mut |_, _, completes, _, _| {
        completed.push(completes);
    });
    assert_eq!(completed, [true; 5]);
}
