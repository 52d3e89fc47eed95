//! The fields of a document while its records are laid over each other: the last value of each name, with the line
//! that it came from.
//!
//! Owns the rules of names: what is the joined text, which names are the document's own. Borrows everything from
//! the records; nothing is copied but names that must change.

use std::borrow::Cow;

use super::json::{self, Head};

/// Which fields of a record hold the trace id and the text, in order of preference.
#[derive(Clone, Debug)]
pub struct Names {
    /// Fields that may hold the trace id; the first one is its name in the document.
    pub keys: Vec<String>,
    /// Fields that may hold the text.
    pub text: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        let own = |names: [&str; 3]| names.map(str::to_owned).to_vec();
        Self {
            keys: own(["traceId", "trace_id", "trace.id"]),
            text: own(["message", "log", "msg"]),
        }
    }
}

impl Names {
    /// The name of the trace id in a document.
    pub(crate) fn key(&self) -> &str {
        self.keys
            .first()
            .map_or(super::state::DEFAULT_KEY, String::as_str)
    }

    fn text_rank(&self, name: &[u8]) -> Option<usize> {
        self.text.iter().position(|text| text.as_bytes() == name)
    }
}

/// Fields at the most for which room is made before they are seen.
const MOST_AHEAD: usize = 64;

/// One field: its name and where its newest value lies.
pub(crate) struct Field<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) line: u32,
    pub(crate) map: &'a [u8],
    /// Offset of the value in `map`.
    pub(crate) value: usize,
}

/// The fields so far, in the order in which their names were first seen.
#[derive(Default)]
pub(crate) struct Fields<'a> {
    pub(crate) list: Vec<Field<'a>>,
}

/// Names that the document or Elasticsearch keeps for itself; a record's own field of that name gets a `_` behind it.
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

impl<'a> Fields<'a> {
    /// Lays the pairs of a metadata map over what is there.
    pub(crate) fn add_map(&mut self, map: &'a [u8], line: u32) {
        let Some((Head::Map(n), mut at)) = json::head(map, 0) else {
            return;
        };
        for slot in 0..n as usize {
            let Some((name, value)) = json::key(map, at) else {
                return;
            };
            let Some(end) = json::skip(map, value) else { return };
            self.put(name, slot, line, map, value);
            at = end;
        }
    }

    /// Lays the fields of a record over what is there and gives its text: the rank of its name and the bytes.
    /// With `gathered` the trace id and the text are left out of the fields, since the document has them once.
    pub(crate) fn add_record(
        &mut self,
        names: &Names,
        record: &'a [u8],
        line: u32,
        gathered: bool,
    ) -> Option<(usize, &'a [u8])> {
        let (Head::Map(n), mut at) = json::head(record, 0)? else {
            return None;
        };
        if self.list.is_empty() {
            // Not as many as a record claims to have that has none of them.
            self.list.reserve((n as usize).min(MOST_AHEAD));
        }
        let mut text: Option<(usize, &'a [u8], usize)> = None;
        let mut slot = 0;
        for _ in 0..n {
            let Some((name, value)) = json::key(record, at) else {
                break;
            };
            let Some((head, next)) = json::head(record, value) else {
                break;
            };
            let end = match head {
                Head::Array(_) | Head::Map(_) => match json::skip(record, value) {
                    Some(end) => end,
                    None => break,
                },
                _ => next,
            };
            at = end;
            if gathered {
                if &*name == names.key().as_bytes() {
                    if as_text(head).is_none_or(<[u8]>::is_empty) {
                        self.put(renamed(&name), slot, line, record, value);
                    }
                    continue;
                }
                if let Some(rank) = names.text_rank(&name) {
                    match (as_text(head), text) {
                        (None, _) => self.put(renamed(&name), slot, line, record, value),
                        (Some(bytes), None) => text = Some((rank, bytes, value)),
                        (Some(bytes), Some((best, _, other))) if rank <= best => {
                            if rank < best {
                                let name = names
                                    .text
                                    .get(best)
                                    .map(|name| Cow::Owned(name.as_bytes().to_vec()));
                                self.put(name.unwrap_or_default(), slot, line, record, other);
                            }
                            text = Some((rank, bytes, value));
                        }
                        (Some(_), Some(_)) => self.put(name, slot, line, record, value),
                    }
                    continue;
                }
            }
            self.put(name, slot, line, record, value);
            slot += 1;
        }
        text.map(|(rank, bytes, _)| (rank, bytes))
    }

    /// `slot` is where the name stands if this record has the shape of the one before.
    #[inline]
    fn put(&mut self, name: Cow<'a, [u8]>, slot: usize, line: u32, map: &'a [u8], value: usize) {
        if let Some(field) = self.list.get_mut(slot)
            && field.name == name
        {
            (field.line, field.map, field.value) = (line, map, value);
            return;
        }
        self.put_elsewhere(name, line, map, value);
    }

    #[inline(never)]
    fn put_elsewhere(&mut self, name: Cow<'a, [u8]>, line: u32, map: &'a [u8], value: usize) {
        let name = match document_name(&name) {
            Cow::Owned(other) => Cow::Owned(other),
            Cow::Borrowed(_) => name,
        };
        if let Some(field) = self.list.iter_mut().find(|field| field.name == name) {
            (field.line, field.map, field.value) = (line, map, value);
        } else {
            self.list.push(Field {
                name,
                line,
                map,
                value,
            });
        }
    }
}

/// The name that a field of a record has in a document: valid UTF-8, and none that the document needs itself.
pub(super) fn document_name(name: &[u8]) -> Cow<'_, [u8]> {
    if is_reserved(name) {
        renamed(name)
    } else if std::str::from_utf8(name).is_err() {
        Cow::Owned(String::from_utf8_lossy(name).into_owned().into_bytes())
    } else {
        Cow::Borrowed(name)
    }
}

fn renamed(name: &[u8]) -> Cow<'static, [u8]> {
    Cow::Owned([name, b"_"].concat())
}

/// The bytes of a value that counts as a string: `str`, or `bin` that is UTF-8 (Ruby and Python clients send both).
pub fn as_text(head: Head<'_>) -> Option<&[u8]> {
    match head {
        Head::Str(text) => Some(text),
        Head::Bin(bytes) if std::str::from_utf8(bytes).is_ok() => Some(bytes),
        _ => None,
    }
}
