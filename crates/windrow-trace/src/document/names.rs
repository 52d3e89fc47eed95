//! Configured field names: which fields of a record hold the trace id and the text.

use super::field_names::top_level::MAPPED;
use super::msgpack::Token;

/// The fields that may hold the trace id and the text, in order of preference.
#[derive(Clone, Debug)]
pub struct FieldNames {
    /// Fields that may hold the trace id. The first is its name in the document.
    pub keys: Vec<String>,
    /// Fields that may hold the text.
    pub text: Vec<String>,
}

impl Default for FieldNames {
    fn default() -> Self {
        let own = |names: [&str; 3]| names.map(str::to_owned).to_vec();
        Self {
            keys: own(["traceId", "trace_id", "trace.id"]),
            text: own(["message", "log", "msg"]),
        }
    }
}

impl FieldNames {
    /// The name of the trace id in the document.
    pub(crate) fn key(&self) -> &str {
        self.keys
            .first()
            .map_or(super::state::DEFAULT_KEY, String::as_str)
    }

    /// Whether stores map fields of this name as values: a list or an object there is displaced.
    pub(crate) fn is_value_name(&self, name: &[u8]) -> bool {
        name == self.key().as_bytes() || MAPPED.iter().any(|other| other.as_bytes() == name)
    }

    pub(crate) fn text_rank(&self, name: &[u8]) -> Option<usize> {
        self.text.iter().position(|text| text.as_bytes() == name)
    }
}

/// The bytes of a value that counts as a string: `str`, or `bin` that is UTF-8 (Ruby and Python
/// clients send both).
pub fn as_text(token: Token<'_>) -> Option<&[u8]> {
    match token {
        Token::Str(text) => Some(text),
        Token::Bin(bytes) if std::str::from_utf8(bytes).is_ok() => Some(bytes),
        _ => None,
    }
}
