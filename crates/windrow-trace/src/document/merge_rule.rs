//! Merge rules: which value a document has of a field for which its lines have several.
//!
//! Every rule is a join: the greatest or the least under an order that is the same in every
//! document, so it does not matter in which order documents are merged. Owns the order of JSON
//! values.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// Maximum number of values of a set: the smallest are kept.
pub(crate) const MAX_SET_VALUES: usize = 100;

/// Which value of a field the document has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MergeRule {
    /// That of the newest line.
    #[default]
    Newest = 0,
    /// That of the oldest line.
    Oldest = 1,
    /// The greatest.
    Max = 2,
    /// The least.
    Min = 3,
    /// All distinct values as a sorted array, at most the 100 smallest.
    Set = 4,
    /// That of the line with the highest level; of equals the newest.
    Worst = 5,
}

impl MergeRule {
    /// All rules, in the order of their numbers in `windrow.state`.
    pub const ALL: [Self; 6] = [
        Self::Newest,
        Self::Oldest,
        Self::Max,
        Self::Min,
        Self::Set,
        Self::Worst,
    ];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Max => "max",
            Self::Min => "min",
            Self::Set => "set",
            Self::Worst => "worst",
        }
    }

    /// Whether the rule chooses by the values, and not by the lines that they come from.
    pub(crate) fn is_by_value(self) -> bool {
        matches!(self, Self::Max | Self::Min | Self::Set)
    }
}

/// The values of a field whose rule chooses by value: one, or the members of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValueSet(BTreeMap<OrderedValue, Box<str>>);

impl ValueSet {
    /// Adds a value, or each member of an array if the rule is `Set`. `json` is its JSON text.
    pub(crate) fn add(&mut self, rule: MergeRule, json: &str) {
        if rule == MergeRule::Set && json.starts_with('[') {
            if let Ok(members) = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(json) {
                for member in members {
                    self.add_one(rule, member.get());
                }
            }
            return;
        }
        self.add_one(rule, json);
    }

    fn add_one(&mut self, rule: MergeRule, json: &str) {
        let value = OrderedValue(serde_json::from_str(json).unwrap_or_default());
        // Of two texts of one value the smaller one, whichever came first.
        let text = self.0.entry(value).or_insert_with(|| json.into());
        if json < &**text {
            *text = json.into();
        }
        match rule {
            MergeRule::Max => {
                while self.0.len() > 1 {
                    self.0.pop_first();
                }
            }
            MergeRule::Min => {
                while self.0.len() > 1 {
                    self.0.pop_last();
                }
            }
            _ => {
                while self.0.len() > MAX_SET_VALUES {
                    self.0.pop_last();
                }
            }
        }
    }

    /// Appends the value of the field.
    pub(crate) fn write(&self, rule: MergeRule, out: &mut Vec<u8>) {
        if rule != MergeRule::Set {
            let text = self.0.values().next();
            out.extend_from_slice(text.map_or(b"null", |text| text.as_bytes()));
            return;
        }
        out.push(b'[');
        for (number, text) in self.0.values().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            out.extend_from_slice(text.as_bytes());
        }
        out.push(b']');
    }
}

/// A JSON value with a total order: `null`, booleans, numbers by value, strings by bytes, then
/// arrays and objects by their text.
#[derive(Clone, Debug)]
struct OrderedValue(Value);

impl Ord for OrderedValue {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| {
                if rank(a) < 4 {
                    Ordering::Equal
                } else {
                    a.to_string().cmp(&b.to_string())
                }
            }),
        }
    }
}

impl PartialOrd for OrderedValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrderedValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrderedValue {}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// Exact: as a whole number and a fraction, because `f64` cannot tell large integers apart.
fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    let parts = |number: &Number| -> (i128, f64) {
        if let Some(whole) = number.as_i128() {
            return (whole, 0.0);
        }
        let float = number.as_f64().unwrap_or_default();
        let floor = float.floor();
        let whole = floor as i128;
        // Beyond 128 bits the conversion saturates.
        let is_exact = floor.abs() < 1e38;
        (whole, if is_exact { float - floor } else { float })
    };
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rule: MergeRule, values: &[&str]) -> String {
        let mut set = ValueSet::default();
        for value in values {
            set.add(rule, value);
        }
        let mut out = Vec::new();
        set.write(rule, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_ordered_by_type_and_then_by_value() {
        let all = [
            "null",
            "false",
            "true",
            "-1e300",
            "-5",
            "1.5",
            "2",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "1e40",
            "\"10\"",
            "\"9\"",
            "\"é\"",
            "[1]",
            "{\"a\":1}",
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                let value = |text: &str| OrderedValue(serde_json::from_str(text).unwrap());
                assert_eq!(value(a).cmp(&value(b)), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(of(MergeRule::Max, &["2", "10", "9.5"]), "10");
        assert_eq!(of(MergeRule::Min, &["2", "10", "9.5"]), "2");
        assert_eq!(
            of(MergeRule::Max, &["1", "1.0"]),
            of(MergeRule::Max, &["1.0", "1"])
        );
    }

    #[test]
    fn a_set_has_each_value_once_and_the_smallest_of_many() {
        assert_eq!(
            of(MergeRule::Set, &["2", "\"b\"", "2", "[1,\"a\"]", "null"]),
            "[null,1,2,\"a\",\"b\"]"
        );
        assert_eq!(of(MergeRule::Set, &["[]"]), "[]");
        assert_eq!(of(MergeRule::Set, &["[[1]]"]), "[[1]]");
        let many: Vec<String> = (0..500).rev().map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let kept: Vec<u32> = serde_json::from_str(&of(MergeRule::Set, &many)).unwrap();
        assert_eq!(kept, (0..MAX_SET_VALUES as u32).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn the_order_of_values_does_not_matter(
            mut values in prop::collection::vec("-?[0-9]{1,3}(\\.[05])?|\"[a-c]\"|null|true", 1..9),
            rule in 2..5usize,
        ) {
            let rule = MergeRule::ALL[rule];
            values.retain(|value| serde_json::from_str::<Value>(value).is_ok());
            let forward: Vec<&str> = values.iter().map(String::as_str).collect();
            let backward: Vec<&str> = forward.iter().rev().copied().collect();
            prop_assert_eq!(of(rule, &forward), of(rule, &backward));
        }
    }
}
