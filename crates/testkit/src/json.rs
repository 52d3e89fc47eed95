//! Conversion between JSON and MessagePack values.

use rmpv::Value;

/// A JSON value as MessagePack.
pub fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(bool) => Value::from(*bool),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => Value::Array(items.iter().map(from_json).collect()),
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(name, field)| (name.as_str().into(), from_json(field)))
                .collect(),
        ),
    }
}

/// A MessagePack value as JSON, of the kinds that JSON has.
///
/// # Panics
/// When it holds another kind: bytes, an extension, a number that is none, a key that is no text.
pub fn to_json(value: &Value) -> serde_json::Value {
    let text = |text: &Value| text.as_str().expect("UTF-8 text").to_owned();
    match value {
        Value::Nil => serde_json::Value::Null,
        Value::Boolean(bool) => (*bool).into(),
        Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, number) => number.expect("an integer of 64 bits").into(),
        },
        Value::F32(_) | Value::F64(_) => value.as_f64().expect("a float").into(),
        Value::String(_) => text(value).into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(fields) => fields
            .iter()
            .map(|(name, field)| (text(name), to_json(field)))
            .collect(),
        Value::Binary(_) | Value::Ext(..) => panic!("JSON has no {value}"),
    }
}
