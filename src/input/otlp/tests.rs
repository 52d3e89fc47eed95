//! Property tests of the OTLP decoders: bytes of any kind, and structures with mistakes.

use proptest::prelude::*;

use super::fuzz::fuzz;

/// A protobuf field of any kind, whose content is again fields, with numbers as OTLP has them.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Vec::new()),
        (1..13u8, any::<u8>()).prop_map(|(number, value)| vec![number << 3, value & 0x7f]),
        (1..13u8, any::<[u8; 8]>()).prop_map(|(number, value)| [&[number << 3 | 1][..], &value].concat()),
        (1..13u8, any::<[u8; 4]>()).prop_map(|(number, value)| [&[number << 3 | 5][..], &value].concat()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    leaf.prop_recursive(8, 60, 4, |inner| {
        (1..13u8, prop::collection::vec(inner, 1..4), 0..30u8).prop_map(|(number, inner, damage)| {
            let inner = inner.concat();
            let mut length = inner.len();
            // Some lengths are wrong.
            if damage == 0 {
                length += 1;
            }
            let mut field = vec![number << 3 | 2];
            while length >= 0x80 {
                field.push(length as u8 | 0x80);
                length >>= 7;
            }
            field.push(length as u8);
            field.extend_from_slice(&inner);
            field
        })
    })
}

/// The path to a log record around some fields.
fn in_a_record(record: Vec<u8>) -> Vec<u8> {
    let wrap = |number: u8, inner: Vec<u8>| {
        let mut field = vec![
            number << 3 | 2,
            inner.len() as u8 | 0x80,
            (inner.len() >> 7) as u8,
        ];
        field.extend_from_slice(&inner);
        field
    };
    wrap(1, wrap(2, wrap(2, record)))
}

proptest! {
    #[test]
    fn no_bytes_are_taken_that_are_no_message(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&data);
    }

    #[test]
    fn protobuf_with_mistakes(inner in prop::collection::vec(fields(), 0..6)) {
        let inner = inner.concat();
        fuzz(&[&[0], &inner[..]].concat());
        if inner.len() < 1 << 13 {
            fuzz(&[&[0], &in_a_record(inner)[..]].concat());
        }
    }

    #[test]
    fn json_with_mistakes(
        name in "(body|attributes|traceId|timeUnixNano|severityNumber|flags)",
        value in prop_oneof![
            r#"\{"(string|int|double|bool|bytes|array|kvlist)Value":("x"|"12"|7|1\.5|true|null|\[\]|\{\}|\{"values":(7|\[\{\}\]|\[7\]|\[\{"key":"k"\}\])\})\}"#,
            r#"("x"|"12"|7|-1|1\.5|true|null|\[\]|\{\}|\[\{"key":"k","value":\{"intValue":"1"\}\}\])"#,
        ],
    ) {
        let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"{name}":{value}}}]}}]}}]}}"#);
        fuzz(&[&[1], body.as_bytes()].concat());
    }
}
