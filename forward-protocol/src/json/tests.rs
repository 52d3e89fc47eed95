//! JSON connections: texts of every form, in any fragmentation.

use proptest::prelude::*;

use super::*;
use crate::entries::{Entry, Time};
use crate::frame::{Framer, Limits, Mode, Outcome, Payload};
use crate::msgpack::Kind;
use crate::vectors::hex;

fn convert(text: &[u8]) -> (Vec<u8>, Converted) {
    let mut out = Vec::new();
    let converted = JsonCarrier::new(1 << 20).convert(text, &mut out);
    (out, converted)
}

fn whole(text: &str) -> Vec<u8> {
    let (out, converted) = convert(text.as_bytes());
    assert_eq!(
        converted,
        Converted {
            consumed: text.len(),
            violation: None
        },
        "{text}"
    );
    out
}

#[test]
fn messages_become_the_same_in_msgpack() {
    assert_eq!(
        whole(r#"["t.a",1700000000,{"log":"hi"}]"#),
        hex(crate::vectors::MESSAGE_INT)
    );
    let chunk = whole(r#"["t",[[1,{"a":1}],[1.5,{"b":[null,true,-1]}]],{"chunk":"x"}]"#);
    assert_eq!(
        chunk,
        hex("93a17492 920181a16101 92cb3ff8000000000000 81a16293c0c3ff 81a56368756e6ba178")
    );
    let run = Framer::new(Limits::default()).scan(&chunk);
    let message = run.frames[0].message(&chunk).unwrap();
    assert_eq!(message.mode, Mode::Forward);
    let Payload::Entries(entries) = message.payload(100) else {
        panic!()
    };
    let times: Vec<Time> = entries
        .map(|entry: Result<Entry<'_>, _>| entry.unwrap().time)
        .collect();
    assert_eq!(times, [Time::At(1_000_000_000), Time::At(1_500_000_000)]);

    let mut ack = Vec::new();
    write_json_ack(&mut ack, run.frames[0].chunk(&chunk).unwrap());
    assert_eq!(ack, br#"{"ack":"x"}"#);
    for (id, text) in [
        ("a3 610a22", r#"{"ack":"a\n\""}"#),
        ("07", r#"{"ack":7}"#),
        ("c40178", r#"{"ack":"x"}"#),
    ] {
        let mut ack = Vec::new();
        write_json_ack(&mut ack, &hex(id));
        assert_eq!(ack, text.as_bytes());
    }
}

#[test]
fn texts_may_follow_each_other_in_any_way() {
    let one = whole(r#"["t",1,{}]"#);
    for between in ["", "\n", " \r\n\t ", "\n\n\n"] {
        assert_eq!(
            whole(&format!(r#"["t",1,{{}}]{between}["t",1,{{}}]{between}"#)),
            one.repeat(2),
            "{between:?}"
        );
    }
    // Brackets and quotes inside strings mean nothing.
    assert_eq!(
        whole(r#"["t]\"[\\",1,{"}":"{"}]"#),
        hex("93a5745d225b5c 01 81a17da17b")
    );
}

#[test]
fn the_last_of_equal_keys_counts() {
    assert_eq!(
        whole(r#"["t",1,{"a":1,"b":2,"a":3}]"#),
        hex("93a1740182a16103a16202")
    );
}

#[test]
fn equal_keys_in_large_and_nested_objects_count_once() {
    // 16 and 65,536 pairs need a longer header, which the object does not need in the end.
    for (pairs, distinct) in [
        (16, 15),
        (40, 20),
        (70_000, 3),
        (70_000, 65_536),
        (70_000, 70_000),
    ] {
        let texts: Vec<String> = (0..pairs)
            .map(|n| format!(r#""k{}":[{n},{{"a":1,"a":[]}}]"#, n % distinct))
            .collect();
        let text = format!("{{{}}}", texts.join(","));
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut expected = Vec::new();
        write_tree(&mut expected, &tree);
        let mut out = Vec::new();
        let converted = JsonCarrier::new(16 << 20).convert(text.as_bytes(), &mut out);
        assert_eq!(converted.violation, None);
        assert!(out == expected, "{pairs} pairs with {distinct} keys");
    }
}

#[test]
fn a_message_that_is_longer_than_its_text_is_refused_at_the_limit() {
    let text = format!("[{}1.0]", "1.0,".repeat(2000));
    let mut out = Vec::new();
    let converted = JsonCarrier::new(10_000).convert(text.as_bytes(), &mut out);
    let violation = Some(JsonViolation::TooLarge { at: 0, limit: 10_000 });
    assert_eq!((converted.violation, out.len()), (violation, 0));
}

/// The conversion by way of a tree.
fn write_tree(out: &mut Vec<u8>, value: &serde_json::Value) {
    use crate::msgpack::*;
    use serde_json::Value;
    match value {
        Value::Null => write_nil(out),
        Value::Bool(b) => write_bool(out, *b),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => write_u64(out, n),
            (None, Some(n)) => write_i64(out, n),
            (None, None) => write_f64(out, number.as_f64().unwrap()),
        },
        Value::String(text) => write_str(out, text.as_bytes()),
        Value::Array(values) => {
            write_array_len(out, values.len() as u32);
            values.iter().for_each(|value| write_tree(out, value));
        }
        Value::Object(pairs) => {
            write_map_len(out, pairs.len() as u32);
            for (key, value) in pairs {
                write_str(out, key.as_bytes());
                write_tree(out, value);
            }
        }
    }
}

#[test]
fn what_is_no_array_becomes_a_record_or_a_stray_value() {
    let bytes = whole(r#"{"a":1} 17 "x" null [0,0]"#);
    let run = Framer::new(Limits::default()).scan(&bytes);
    let outcomes: Vec<Outcome> = run.frames.iter().map(|frame| frame.outcome).collect();
    assert_eq!(
        outcomes[..4],
        [
            Outcome::Record,
            Outcome::Stray(Kind::Int),
            Outcome::Stray(Kind::Str),
            Outcome::Heartbeat,
        ]
    );
}

#[test]
fn broken_texts_are_refused_and_name_the_place() {
    let good = r#"["t",1,{}]"#;
    for broken in [
        "[}",
        "[1,]",
        "]",
        ",",
        "nul ",
        "[\"\\x\"]",
        "/* comment */ ",
        "[1e999]",
    ] {
        let (out, converted) = convert(format!("{good}{broken}").as_bytes());
        assert_eq!(out, whole(good), "{broken}");
        assert_eq!(converted.consumed, good.len(), "{broken}");
        assert!(
            matches!(converted.violation, Some(JsonViolation::Malformed { at: 10, .. })),
            "{broken}"
        );
    }
    let deep = [&[b'['; 200][..], &[b']'; 200]].concat();
    assert!(matches!(
        convert(&deep).1.violation,
        Some(JsonViolation::Malformed { .. })
    ));
    let too_large = JsonViolation::TooLarge { at: 0, limit: 10 };
    for (text, violation) in [
        (r#"["t",1,{}]"#, None),
        (r#"["tt",1,{}]"#, Some(too_large)),
        ("[          ", Some(too_large)),
    ] {
        assert_eq!(
            JsonCarrier::new(10)
                .convert(text.as_bytes(), &mut Vec::new())
                .violation,
            violation
        );
    }
}

#[test]
fn only_brackets_begin_a_json_connection() {
    let json: Vec<u8> = (0..=255).filter(|byte| is_json(*byte)).collect();
    assert_eq!(json, b"[{");
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,40}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 200, 40, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Into::into),
            prop::collection::vec((".{0,3}", inner), 0..40)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_the_same_as_by_way_of_a_tree(value in any_value()) {
        // Not a bare number, which the next text would end.
        let text = format!("[{value}]");
        let mut expected = vec![0x91];
        write_tree(&mut expected, &serde_json::from_str(&value.to_string()).unwrap());
        prop_assert_eq!(whole(&text), expected);
    }

    #[test]
    fn any_split_gives_the_same_messages(
        picks in prop::collection::vec(0..6usize, 1..10),
        parts in prop::collection::vec(1..20usize, 0..40),
    ) {
        let all = [
            r#"["t",1,{"a":"]\\\"ü"}]"#, r#"["t",[[1,{}]],{"chunk":"\u00fc"}]"#, "\n", "17 ", "{}", r#""a\"b""#,
        ];
        let text: String = picks.iter().map(|pick| all[*pick]).collect();
        let expected = convert(text.as_bytes());
        let (mut carrier, mut out, mut from, mut arrived) = (JsonCarrier::new(1 << 20), Vec::new(), 0, 0);
        let mut parts = parts.into_iter().chain(std::iter::repeat(3));
        while arrived < text.len() {
            arrived = text.len().min(arrived + parts.next().unwrap());
            let converted = carrier.convert(&text.as_bytes()[from..arrived], &mut out);
            prop_assert_eq!(converted.violation, None);
            from += converted.consumed;
        }
        prop_assert_eq!((out, from), (expected.0, expected.1.consumed));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'['), Just(b'"'), Just(b'}')], 0..100)) {
        let (out, converted) = convert(&bytes);
        prop_assert!(converted.consumed <= bytes.len());
        // The output is well-formed.
        let mut at = 0;
        while at < out.len() {
            at = crate::msgpack::skip(&out, at, 200).unwrap();
        }
    }
}

#[test]
fn texts_may_end_with_a_zero() {
    assert_eq!(
        whole("[\"t\",1,{}]\0[\"t\",2,{}]\0\n"),
        hex("93a1740180 93a1740280")
    );
    assert_eq!(whole("1\0"), [1]);
}
