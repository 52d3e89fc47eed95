//! Tests of every serde type, against `rmp-serde` and against the value itself.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;

fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.serialize(RecordSerializer::new(&mut out)).unwrap();
    out
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    T::deserialize(&mut rmp_serde::Deserializer::new(bytes).with_human_readable()).unwrap()
}

fn as_json<T: Serialize + ?Sized>(value: &T) -> Value {
    decode(&encode(value))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Choice {
    Unit,
    Newtype(i64),
    Tuple(u8, String),
    Struct { a: Option<bool>, b: Vec<char> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(u16);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    booleans: (bool, bool),
    signed: (i8, i16, i32, i64, i128),
    unsigned: (u8, u16, u32, u64, u128),
    floats: (f32, f64),
    letter: char,
    text: String,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    bytes: Bytes,
    optional: Option<Option<String>>,
    nothing: (),
    newtype: Newtype,
    choices: Vec<Choice>,
    by_text: BTreeMap<String, i32>,
    /// MessagePack has the keys as text, of which `rmp-serde` makes no numbers again.
    #[serde(skip_deserializing)]
    by_number: BTreeMap<u64, bool>,
    by_letter: BTreeMap<char, i8>,
    #[serde(flatten)]
    flattened: Flattened,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flattened {
    flat: Vec<Vec<u32>>,
}

/// Serialised as bytes, which `Vec<u8>` is not.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(Choice::Unit),
        any::<i64>().prop_map(Choice::Newtype),
        any::<(u8, String)>().prop_map(|(a, b)| Choice::Tuple(a, b)),
        any::<(Option<bool>, Vec<char>)>().prop_map(|(a, b)| Choice::Struct { a, b }),
    ]
}

prop_compose! {
    fn everything()(
        booleans: (bool, bool),
        signed: (i8, i16, i32, i64, i64),
        unsigned: (u8, u16, u32, u64, u64),
        floats in (proptest::num::f32::NORMAL, proptest::num::f64::NORMAL),
        letter: char,
        text: String,
        bytes: Vec<u8>,
        optional: Option<String>,
        newtype: u16,
        choices in proptest::collection::vec(choice(), 0..20),
        by_text: BTreeMap<String, i32>,
        by_number: BTreeMap<u64, bool>,
        by_letter: BTreeMap<char, i8>,
        flat: Vec<Vec<u32>>,
    ) -> Everything {
        let (a, b, c, d, e) = signed;
        let (f, g, h, i, j) = unsigned;
        Everything {
            booleans,
            signed: (a, b, c, d, i128::from(e)),
            unsigned: (f, g, h, i, u128::from(j)),
            floats,
            letter,
            text,
            bytes: Bytes(bytes),
            optional: optional.map(Some),
            nothing: (),
            newtype: Newtype(newtype),
            choices,
            by_text,
            by_number,
            by_letter,
            flattened: Flattened { flat },
        }
    }
}

proptest! {
    #[test]
    fn what_rmp_serde_writes_is_written_in_the_same_bytes(
        texts: BTreeMap<String, (Option<i64>, bool, Vec<u64>)>,
        choices in proptest::collection::vec(choice(), 0..20),
        floats: (f32, f64),
        bytes: Vec<u8>,
    ) {
        let value = (texts, choices, floats, Bytes(bytes));
        let mut theirs = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut theirs)
            .with_struct_map()
            .with_human_readable();
        value.serialize(&mut serializer).unwrap();
        prop_assert_eq!(encode(&value), theirs);
    }

    #[test]
    fn every_type_is_read_back_as_it_was(mut value in everything()) {
        value.by_number.clear();
        prop_assert_eq!(&decode::<Everything>(&encode(&value)), &value);
    }

    #[test]
    fn a_record_is_what_serde_json_makes_of_it(mut value in everything()) {
        // JSON has no bytes; the server writes them as base64.
        value.bytes = Bytes(Vec::new());
        let ours = as_json(&value);
        // The JSON value holds floats of 64 bits.
        let mut theirs = serde_json::to_value(&value).unwrap();
        theirs["floats"][0] = json!(f64::from(value.floats.0));
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn integers_of_128_bits_are_integers_or_text(signed: i128, unsigned: u128, small: u64) {
        prop_assert_eq!(as_json(&u128::from(small)), json!(small));
        prop_assert_eq!(as_json(&i128::from(small)), json!(small));
        prop_assert_eq!(as_json(&-i128::from(small >> 1)), json!(-((small >> 1) as i64)));
        let text = |fits: bool, text: String| {
            if fits { serde_json::from_str(&text).unwrap() } else { Value::String(text) }
        };
        let fits = i64::try_from(signed).is_ok() || u64::try_from(signed).is_ok();
        prop_assert_eq!(as_json(&signed), text(fits, signed.to_string()));
        let fits = u64::try_from(unsigned).is_ok();
        prop_assert_eq!(as_json(&unsigned), text(fits, unsigned.to_string()));
    }
}

#[test]
fn a_duration_in_milliseconds_is_a_number() {
    #[derive(Serialize)]
    struct Request {
        elapsed: u128,
    }
    let elapsed = std::time::Duration::from_millis(42).as_millis();
    assert_eq!(as_json(&Request { elapsed }), json!({ "elapsed": 42 }));
}

#[test]
fn edges_of_every_type() {
    assert_eq!(
        as_json(&i128::MIN),
        json!("-170141183460469231731687303715884105728")
    );
    assert_eq!(
        as_json(&u128::MAX),
        json!("340282366920938463463374607431768211455")
    );
    assert_eq!(as_json(&i128::from(i64::MIN)), json!(i64::MIN));
    assert_eq!(as_json(&u128::from(u64::MAX)), json!(u64::MAX));
    assert_eq!(as_json(&'ß'), json!("ß"));
    assert_eq!(as_json(&Unit), json!(null));
    assert_eq!(as_json(&()), json!(null));
    assert_eq!(as_json(&Some(None::<u8>)), json!(null));
    // A JSON value has no NaN; the server writes null.
    assert!(decode::<f32>(&encode(&f32::NAN)).is_nan());
    assert_eq!(decode::<f64>(&encode(&f64::NEG_INFINITY)), f64::NEG_INFINITY);
    assert_eq!(
        decode::<Bytes>(&encode(&Bytes(vec![0, 255]))),
        Bytes(vec![0, 255])
    );
}

#[test]
fn types_with_a_form_for_people_have_it() {
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(as_json(&address), json!("10.0.0.1"));
}

#[test]
fn keys_become_text_where_json_does_so() {
    assert_eq!(as_json(&HashMap::from([(1, 2)])), json!({ "1": 2 }));
    assert_eq!(as_json(&HashMap::from([(-1i128, 2)])), json!({ "-1": 2 }));
    assert_eq!(as_json(&HashMap::from([(true, 2)])), json!({ "true": 2 }));
    assert_eq!(as_json(&HashMap::from([('c', 2)])), json!({ "c": 2 }));
    assert_eq!(
        as_json(&HashMap::from([(Some(Newtype5(5)), 2)])),
        json!({ "5": 2 })
    );
    let mut out = Vec::new();
    let refused = BTreeMap::from([((1, 2), 3)]).serialize(RecordSerializer::new(&mut out));
    assert_eq!(refused.unwrap_err().0, Rejected::KeyNotText);
}

#[derive(PartialEq, Eq, Hash, Serialize)]
struct Newtype5(u8);

#[test]
fn a_wrong_length_is_refused_and_an_unknown_one_is_counted() {
    struct Sequence(Option<usize>);
    impl Serialize for Sequence {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut items = serializer.serialize_seq(self.0)?;
            items.serialize_element(&1)?;
            items.serialize_element(&2)?;
            items.end()
        }
    }
    assert_eq!(as_json(&Sequence(None)), json!([1, 2]));
    assert_eq!(as_json(&Sequence(Some(2))), json!([1, 2]));
    let mut out = Vec::new();
    let refused = Sequence(Some(3)).serialize(RecordSerializer::new(&mut out));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the record cannot be serialised: a container of 3 elements has 2"
    );
}
