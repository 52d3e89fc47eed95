//! Field names: which fields of a record hold the trace id and the text, and which names are
//! reserved in documents.

use std::borrow::Cow;

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

    pub(crate) fn text_rank(&self, name: &[u8]) -> Option<usize> {
        self.text.iter().position(|text| text.as_bytes() == name)
    }
}

/// Names that the document or Elasticsearch reserves. A record's field of such a name gets a `_`
/// appended.
fn is_reserved(name: &[u8]) -> bool {
    const METADATA: [&[u8]; 15] = [
        b"_id",
        b"_index",
        b"_source",
        b"_type",
        b"_routing",
        b"_field_names",
        b"_ignored",
        b"_seq_no",
        b"_version",
        b"_primary_term",
        b"_doc_count",
        b"_nested_path",
        b"_tier",
        b"_size",
        b"_feature",
    ];
    match name.first() {
        None => true,
        Some(b'@') => name == b"@timestamp",
        Some(b'w') => name == b"windrow",
        Some(b'_') => METADATA.contains(&name),
        Some(_) => false,
    }
}

/// The name of a record's field in the document: valid UTF-8 and not reserved.
pub(crate) fn document_name(name: &[u8]) -> Cow<'_, [u8]> {
    if is_reserved(name) {
        renamed(name)
    } else if std::str::from_utf8(name).is_err() {
        Cow::Owned(String::from_utf8_lossy(name).into_owned().into_bytes())
    } else {
        Cow::Borrowed(name)
    }
}

pub(crate) fn renamed(name: &[u8]) -> Cow<'static, [u8]> {
    Cow::Owned([name, b"_"].concat())
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
