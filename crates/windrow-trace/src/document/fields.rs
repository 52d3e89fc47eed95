//! The fields of a document while its records are laid over each other: the last value of each name, with the line
//! that it came from.
//!
//! Owns the rules of names: what is the joined text, which names are the document's own. Borrows everything from
//! the records; nothing is copied but names that must change.

use std::borrow::Cow;

use super::json;
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, as_text, document_name, renamed};

/// MergedFields at the most for which room is made before they are seen.
const MAX_RESERVED_FIELDS: usize = 64;

/// One field: its name and where its newest value lies.
pub(crate) struct MergedField<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) line: u32,
    pub(crate) map: &'a [u8],
    /// Offset of the value in `map`.
    pub(crate) value: usize,
}

/// The fields so far, in the order in which their names were first seen.
#[derive(Default)]
pub(crate) struct MergedFields<'a> {
    pub(crate) list: Vec<MergedField<'a>>,
}

impl<'a> MergedFields<'a> {
    /// Lays the pairs of a metadata map over what is there.
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

    /// Lays the fields of a record over what is there and gives its text: the rank of its name and the bytes.
    /// With `gathered` the trace id and the text are left out of the fields, since the document has them once.
    pub(crate) fn add_record(
        &mut self,
        names: &FieldNames,
        record: &'a [u8],
        line: u32,
        gathered: bool,
    ) -> Option<(usize, &'a [u8])> {
        let (Token::Map(n), mut at) = read_token(record, 0)? else {
            return None;
        };
        if self.list.is_empty() {
            // Not as many as a record claims to have that has none of them.
            self.list.reserve((n as usize).min(MAX_RESERVED_FIELDS));
        }
        let mut text: Option<(usize, &'a [u8], usize)> = None;
        let mut slot = 0;
        for _ in 0..n {
            let Some((name, value)) = json::key(record, at) else {
                break;
            };
            let Some((head, next)) = read_token(record, value) else {
                break;
            };
            let end = match head {
                Token::Array(_) | Token::Map(_) => match skip(record, value) {
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
