//! Parsing of JSON within a bound of memory: a tree takes up to a hundred times as much as its text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Memory of an element of an array, which doubles when it grows.
const ELEMENT_BYTES: usize = 2 * size_of::<Value>();
/// Memory of a member of an object besides its name.
const MEMBER_BYTES: usize = 2 * (size_of::<(String, Value)>() + 16);
/// Memory of an object with its first members.
const OBJECT_BYTES: usize = 512;

/// How much of a document is parsed.
#[derive(Clone, Copy, Debug)]
pub struct ParseLimits {
    /// Memory of numbers, arrays and objects (bytes).
    pub value_bytes: usize,
    /// Length of all texts and names (bytes).
    pub text_bytes: usize,
}

/// Parses an object. Elements and members beyond the limits are left out, texts are cut. `windrow`
/// has limits of its own, so that what precedes it does not matter. `None` if it is no JSON object.
#[must_use]
pub fn parse_fields(json: &[u8], limits: ParseLimits) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let fields = deserializer.deserialize_map(Fields(limits)).ok()?;
    deserializer.end().ok()?;
    Some(fields)
}

/// The top level of a document.
struct Fields(ParseLimits);

/// A value within what is left of the limits.
struct Bounded<'l>(&'l mut ParseLimits);

impl ParseLimits {
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.value_bytes.checked_sub(bytes);
        self.value_bytes = left.unwrap_or(0);
        left.is_some()
    }

    /// Takes a member of an object; a name is not cut, because it would be another one.
    fn take_member(&mut self, name: &str) -> bool {
        let left = self.text_bytes.checked_sub(name.len());
        let fits = left.is_some() && self.take(MEMBER_BYTES);
        self.text_bytes = left.filter(|_| fits).unwrap_or(self.text_bytes);
        fits
    }

    /// As much of a text as is left.
    fn take_text(&mut self, text: &str) -> String {
        let mut end = text.len().min(self.text_bytes);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.text_bytes -= end;
        text.get(..end).unwrap_or_default().to_owned()
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Map<String, Value>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut rest = self.0;
        let mut fields = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let mut own = self.0;
            let limits = if name == "windrow" { &mut own } else { &mut rest };
            if limits.take_member(&name) {
                fields.insert(name, members.next_value_seed(Bounded(limits))?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(self.0.take_text(text).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while self.0.take(ELEMENT_BYTES) {
            match elements.next_element_seed(Bounded(self.0))? {
                Some(value) => array.push(value),
                None => return Ok(array.into()),
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let fits = self.0.take(OBJECT_BYTES);
        while let Some(name) = members.next_key::<String>()? {
            if fits && self.0.take_member(&name) {
                object.insert(name, members.next_value_seed(Bounded(self.0))?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const LIMITS: ParseLimits = ParseLimits {
        value_bytes: 100_000,
        text_bytes: 1000,
    };

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((".{0,5}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn within_the_limits_nothing_is_left_out(value in any_value()) {
            let json = serde_json::to_vec(&json!({"field": value})).unwrap();
            let expected: Map<String, Value> = serde_json::from_slice(&json).unwrap();
            let limits = ParseLimits { value_bytes: usize::MAX, text_bytes: usize::MAX };
            prop_assert_eq!(parse_fields(&json, limits), Some(expected));
        }

        #[test]
        fn what_is_no_object_is_refused(json in prop::collection::vec(any::<u8>(), 0..40)) {
            let parsed = serde_json::from_slice::<Map<String, Value>>(&json).ok();
            prop_assert_eq!(parse_fields(&json, LIMITS).is_some(), parsed.is_some());
        }
    }

    #[test]
    fn beyond_the_limits_elements_members_and_texts_are_left_out() {
        for unit in ["1", "[]", "{}", "{\"a\":[{}]}", "[[],[]]", "\"x\""] {
            let all = [unit; 10_000].join(",");
            let json = format!("{{\"a\":[{all}],\"b\":{{\"c\":1}},\"windrow\":{{\"lines\":7}}}}");
            let fields = parse_fields(json.as_bytes(), LIMITS).unwrap();
            let kept = fields["a"].as_array().unwrap().len();
            assert!((50..1000).contains(&kept), "{kept} of {unit}");
            assert_eq!(fields["windrow"]["lines"], 7);
            assert!(fields.get("b").is_none_or(|b| *b == json!({})), "{unit}");
        }
        let members: Vec<_> = (0..10_000).map(|n| format!("\"k{n}\":0")).collect();
        let members = members.join(",");
        let json = format!("{{\"a\":{{{members}}},{members},\"windrow\":{{\"lines\":7}}}}");
        let fields = parse_fields(json.as_bytes(), LIMITS).unwrap();
        assert!(fields["a"].as_object().unwrap().len() < 1000 && fields.len() < 1000);
        assert_eq!(fields["windrow"]["lines"], 7);
        let json = json!({"m": "ä".repeat(700), "n": 5, "o": "more"}).to_string();
        let fields = parse_fields(json.as_bytes(), LIMITS).unwrap();
        assert_eq!(fields["m"].as_str().unwrap().len(), 998);
        assert_eq!((&fields["n"], fields.get("o")), (&json!(5), None));
    }
}
