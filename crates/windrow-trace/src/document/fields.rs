//! The merged fields of a document: for each name the value of the newest line that has it, and
//! that line's number.
//!
//! Owns which fields are the trace id and the text. Borrows values from the records; copies only
//! names that must change.

use std::borrow::Cow;

use super::json;
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, as_text, document_name, renamed};

/// Maximum number of fields to allocate for before they are seen.
const MAX_RESERVED_FIELDS: usize = 64;

/// A field: its name and the location of its newest value.
pub(crate) struct MergedField<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) line: u32,
    pub(crate) map: &'a [u8],
    /// Offset of the value in `map`.
    pub(crate) value: usize,
}

/// The merged fields, in the order in which their names were first seen.
#[derive(Default)]
pub(crate) struct MergedFields<'a> {
    pub(crate) list: Vec<MergedField<'a>>,
}

impl<'a> MergedFields<'a> {
    /// Merges the pairs of a metadata map.
    pub(crate) fn add_map(&mut self, map: &'a [u8], line: u32) {
        let Some((Token::Map(n), mut at)) = read_token(map, 0) else {
            return;
        };
        for slot in 0..n as usize {
            let Some((name, value)) = json::key(map, at) else {
                return;
            };
            let Some(end) = skip(map, value) else { return };
            self.put(name, slot, line, map, value);
            at = end;
        }
    }

    /// Merges the fields of a record. Returns its text: the rank of the name, and the bytes. With
    /// `is_trace` the trace id and the text are not merged, because the document has them
    /// elsewhere.
    pub(crate) fn add_record(
        &mut self,
        names: &FieldNames,
        record: &'a [u8],
        line: u32,
        is_trace: bool,
    ) -> Option<(usize, &'a [u8])> {
        let (Token::Map(n), mut at) = read_token(record, 0)? else {
            return None;
        };
        if self.list.is_empty() {
            // A record may claim more fields than it has.
            self.list.reserve((n as usize).min(MAX_RESERVED_FIELDS));
        }
        let mut text: Option<(usize, &'a [u8], usize)> = None;
        let mut slot = 0;
        for _ in 0..n {
            let Some((name, value)) = json::key(record, at) else {
                break;
            };
            let Some((token, next)) = read_token(record, value) else {
                break;
            };
            let end = match token {
                Token::Array(_) | Token::Map(_) => match skip(record, value) {
                    Some(end) => end,
                    None => break,
                },
                _ => next,
            };
            at = end;
            if is_trace {
                if &*name == names.key().as_bytes() {
                    if as_text(token).is_none_or(<[u8]>::is_empty) {
                        self.put(renamed(&name), slot, line, record, value);
                    }
                    continue;
                }
                if let Some(rank) = names.text_rank(&name) {
                    match (as_text(token), text) {
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

    /// `slot` is the index of the name if the record has the same fields as the one before.
    #[inline]
    fn put(&mut self, name: Cow<'a, [u8]>, slot: usize, line: u32, map: &'a [u8], value: usize) {
        if let Some(field) = self.list.get_mut(slot)
            && field.name == name
        {
            (field.line, field.map, field.value) = (line, map, value);
            return;
        }
        self.put_slow(name, line, map, value);
    }

    #[inline(never)]
    fn put_slow(&mut self, name: Cow<'a, [u8]>, line: u32, map: &'a [u8], value: usize) {
        let name = match document_name(&name) {
            Cow::Owned(other) => Cow::Owned(other),
            Cow::Borrowed(_) => name,
        };
        if let Some(field) = self.list.iter_mut().find(|field| field.name == name) {
            (field.line, field.map, field.value) = (line, map, value);
        } else {
            self.list.push(MergedField {
                name,
                line,
                map,
                value,
            });
        }
    }
}
