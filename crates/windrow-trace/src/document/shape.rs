//! ShapeRegistry: what can be known of a record from the names of its fields alone, worked out once for all records that have
//! the same names in the same order. Applications log few shapes, each of them millions of times.
//!
//! Owns the registry of shapes and the role of each field in one. Whether a record has a shape is decided by comparing
//! every name, never by a hash. A record without a known shape goes the general way (`fields`), to the same document.

use std::collections::HashMap;

use forward_protocol::entries::WireKey;
use twox_hash::XxHash3_64;

use super::json::write_string;
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, document_name};
use super::windrow_object::trace_id_prefix;

/// Fields of a shape at the most.
const MAX_FIELDS: u32 = 128;
/// Bytes of all names of a shape at the most.
const MAX_NAME_BYTES: usize = 4096;
/// ShapeRegistry that are known at the most.
const MAX_SHAPES: usize = 4096;
/// Places where the hash of a shape that was seen once is remembered; a power of two.
const SEEN_HASHES: usize = 4096;
/// Guesses, by the number of fields; a power of two.
const PREDICTIONS: usize = 64;

/// The number of a shape; valid for the registry that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeId(u32);

impl ShapeId {
    /// That of nothing.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// As a number, for [`Self::from_u32`].
    pub(crate) fn to_u32(this: Option<Self>) -> u32 {
        this.map_or(u32::MAX, |id| id.0)
    }

    /// Back from [`Self::to_u32`].
    pub(crate) fn from_u32(number: u32) -> Option<Self> {
        (number != u32::MAX).then_some(Self(number))
    }
}

/// What a field is for a document. For all but [`FieldRole::Plain`] the value has to be a string, or the record is not one
/// of this shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRole {
    /// A field of the document.
    Plain,
    /// A field of the document, under a name that may hold text.
    OtherText,
    /// The trace id; must not be empty. A field of the document when it stands under another name than the document's.
    TraceId {
        /// Whether it is left out of the fields.
        canonical: bool,
    },
    /// The text that is joined; left out of the fields.
    JoinedText,
}

impl FieldRole {
    /// Whether a document has it in another place than among the fields.
    #[inline]
    pub(crate) fn is_outside_fields(self) -> bool {
        matches!(self, Self::JoinedText | Self::TraceId { canonical: true })
    }
}

/// One field of a shape.
#[derive(Debug)]
pub struct ShapeField {
    name: Box<[u8]>,
    /// `,"name":`
    json: Box<[u8]>,
    role: FieldRole,
    watched: bool,
}

impl ShapeField {
    /// Its name, as it stands in the records.
    #[inline]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What it is for a document.
    #[inline]
    pub fn role(&self) -> FieldRole {
        self.role
    }

    /// Whether its value has to be looked at besides: see [`ShapeRegistry::new`].
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// What stands before its value in a document: a comma, the name, a colon.
    #[inline]
    pub(crate) fn json_prefix(&self) -> &[u8] {
        &self.json
    }
}

/// The fields of all records of one shape.
#[derive(Debug)]
pub struct Shape {
    fields: Box<[ShapeField]>,
    /// The names as keys of the records.
    keys: Box<[WireKey]>,
    has_id: bool,
    /// How preferred the name of the joined text is.
    text_rank: Option<usize>,
    /// What stands between the time and the trace id in a document: `","name":`.
    trace_id_prefix: Box<[u8]>,
    /// What stands before the joined text in a document: `,"name":"`.
    text_prefix: Box<[u8]>,
}

impl Shape {
    /// Its fields, in order.
    #[inline]
    pub fn fields(&self) -> &[ShapeField] {
        &self.fields
    }

    /// The names of its fields as keys of the records. Those of which the value does not matter while a record is
    /// routed, since they have no role and are not watched, are passed over.
    #[inline]
    pub fn keys(&self) -> &[WireKey] {
        &self.keys
    }

    /// Whether its records have a trace id.
    #[inline]
    pub fn has_id(&self) -> bool {
        self.has_id
    }

    /// How preferred the name of its text is; `None` when it has none.
    #[inline]
    pub(crate) fn text_rank(&self) -> Option<usize> {
        self.text_rank
    }

    /// What stands between the time and the trace id in a document.
    #[inline]
    pub(crate) fn trace_id_prefix(&self) -> &[u8] {
        &self.trace_id_prefix
    }

    /// What stands before the text in a document; nothing when it has none.
    #[inline]
    pub(crate) fn text_prefix(&self) -> &[u8] {
        &self.text_prefix
    }

    fn new(names: &FieldNames, watched: &[String], field_names: &[&[u8]]) -> Option<Self> {
        let best = |of: &[String]| {
            let ranked = field_names.iter().enumerate().filter_map(|(slot, field)| {
                let rank = of.iter().position(|name| name.as_bytes() == *field)?;
                Some((rank, slot))
            });
            ranked.min()
        };
        let id = best(&names.keys);
        let text = best(&names.text);
        let mut fields = Vec::with_capacity(field_names.len());
        let mut keys = Vec::with_capacity(field_names.len());
        for (number, field) in field_names.iter().enumerate() {
            let among = |of: &[String]| of.iter().any(|name| name.as_bytes() == *field);
            let role = match (id, text) {
                (Some((_, slot)), _) if slot == number => FieldRole::TraceId {
                    canonical: names.key().as_bytes() == *field,
                },
                (_, Some((_, slot))) if slot == number => FieldRole::JoinedText,
                _ if among(&names.text) => FieldRole::OtherText,
                _ => FieldRole::Plain,
            };
            // A field for both is nobody's usual configuration: the general way knows what to do.
            if among(&names.keys) && among(&names.text) {
                return None;
            }
            let mut json = vec![b','];
            write_string(&mut json, &document_name(field));
            json.push(b':');
            let watched = watched.iter().any(|name| name.as_bytes() == *field);
            fields.push(ShapeField {
                name: (*field).into(),
                json: json.into(),
                role,
                watched,
            });
            let key = WireKey::new(field);
            keys.push(if role == FieldRole::Plain && !watched {
                key.passed_over()
            } else {
                key
            });
        }
        // Two names that become one in the document, or one that stands twice: the last of them wins, which the
        // general way does.
        let mut all: Vec<&[u8]> = fields.iter().map(ShapeField::json_prefix).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let mut text_prefix = Vec::new();
        if let Some(name) = text.and_then(|(rank, _)| names.text.get(rank)) {
            text_prefix.push(b',');
            write_string(&mut text_prefix, name.as_bytes());
            text_prefix.extend_from_slice(b":\"");
        }
        Some(Self {
            fields: fields.into(),
            trace_id_prefix: trace_id_prefix(names.key()).into(),
            text_prefix: text_prefix.into(),
            keys: keys.into(),
            has_id: id.is_some(),
            text_rank: text.map(|(rank, _)| rank),
        })
    }
}

/// The known shapes.
#[derive(Debug)]
pub struct ShapeRegistry {
    names: FieldNames,
    watched: Vec<String>,
    list: Vec<Shape>,
    /// By length-prefixed names; `None` for names that make no shape.
    known: HashMap<Box<[u8]>, Option<ShapeId>, foldhash::quality::RandomState>,
    predictions: [Option<ShapeId>; PREDICTIONS],
    /// Hashes of names that were seen once: records whose names never come again are not worth learning.
    seen: Box<[u64]>,
    encoded: Vec<u8>,
}

impl ShapeRegistry {
    /// No shape is known. Fields of the names `watched` are marked as such.
    pub fn new(names: FieldNames, watched: Vec<String>) -> Self {
        Self {
            names,
            watched,
            list: Vec::new(),
            known: HashMap::default(),
            predictions: [None; PREDICTIONS],
            seen: vec![0; SEEN_HASHES].into(),
            encoded: Vec::new(),
        }
    }

    /// The shape of this number.
    #[inline]
    pub fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.list.get(id.0 as usize)
    }

    /// The shape that the last record with so many fields had.
    #[inline]
    pub fn predict(&self, fields: u32) -> Option<ShapeId> {
        self.predictions[fields as usize % PREDICTIONS]
    }

    /// The shape of a record of which the predict was wrong; learned when its names have come before. The caller still
    /// has to look at the values.
    #[inline(never)]
    pub fn find(&mut self, record: &[u8]) -> Option<ShapeId> {
        let (Token::Map(fields), mut at) = read_token(record, 0)? else {
            return None;
        };
        if fields > MAX_FIELDS {
            return None;
        }
        self.encoded.clear();
        for _ in 0..fields {
            let (Token::Str(name), value) = read_token(record, at)? else {
                return None;
            };
            self.encoded.extend_from_slice(&(name.len() as u32).to_le_bytes());
            self.encoded.extend_from_slice(name);
            if self.encoded.len() > MAX_NAME_BYTES {
                return None;
            }
            at = skip(record, value)?;
        }
        let found = match self.known.get(&*self.encoded) {
            Some(found) => *found,
            None => self.learn(),
        };
        if found.is_some() {
            self.predictions[fields as usize % PREDICTIONS] = found;
        }
        found
    }

    fn learn(&mut self) -> Option<ShapeId> {
        if self.known.len() >= MAX_SHAPES {
            return None;
        }
        let hash = XxHash3_64::oneshot(&self.encoded) | 1;
        let place = self.seen.get_mut(hash as usize / 2 % SEEN_HASHES)?;
        if std::mem::replace(place, hash) != hash {
            return None;
        }
        let mut fields = Vec::new();
        let mut rest = self.encoded.as_slice();
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (name, more) = more.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            fields.push(name);
            rest = more;
        }
        let id = Shape::new(&self.names, &self.watched, &fields).map(|shape| {
            self.list.push(shape);
            ShapeId(self.list.len() as u32 - 1)
        });
        self.known.insert(self.encoded.as_slice().into(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::record;

    fn shapes() -> ShapeRegistry {
        ShapeRegistry::new(FieldNames::default(), vec!["message".into()])
    }

    #[test]
    fn a_shape_is_learned_when_its_names_come_again() {
        let mut shapes = shapes();
        let one = record(&json!({"traceId": "a", "message": "x", "status": 1}));
        assert_eq!(shapes.find(&one), None);
        let id = shapes.find(&one).unwrap();
        assert_eq!(shapes.predict(3), Some(id));
        let shape = shapes.get(id).unwrap();
        let roles: Vec<_> = shape.fields().iter().map(ShapeField::role).collect();
        assert_eq!(
            roles,
            [
                FieldRole::TraceId { canonical: true },
                FieldRole::JoinedText,
                FieldRole::Plain
            ]
        );
        let watched: Vec<_> = shape.fields().iter().map(ShapeField::is_watched).collect();
        assert_eq!(watched, [false, true, false]);
        assert_eq!(shape.fields()[2].json_prefix(), b",\"status\":");
        let other = record(&json!({"traceId": "a", "status": 1, "message": "x"}));
        assert_eq!(shapes.find(&other), None, "the order belongs to the shape");
        assert_ne!(shapes.find(&other), Some(id));
    }

    #[test]
    fn names_give_way_as_everywhere() {
        let mut shapes = shapes();
        let one = record(&json!({"trace_id": "a", "log": "x", "msg": "y", "_id": 1, "a\"b": 2}));
        shapes.find(&one);
        let shape = shapes.find(&one).and_then(|id| shapes.get(id)).unwrap();
        let fields: Vec<_> = shape
            .fields()
            .iter()
            .map(|slot| (slot.role(), std::str::from_utf8(slot.json_prefix()).unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                (FieldRole::TraceId { canonical: false }, r#","trace_id":"#),
                (FieldRole::JoinedText, r#","log":"#),
                (FieldRole::OtherText, r#","msg":"#),
                (FieldRole::Plain, r#","_id_":"#),
                (FieldRole::Plain, r#","a\"b":"#),
            ]
        );
    }

    #[test]
    fn what_is_irregular_has_no_shape() {
        let mut shapes = shapes();
        for one in [
            &b"\x82\xa1a\x01\xa1a\x02"[..], // a name twice
            b"\x82\xa3_id\x01\xa4_id_\x02", // two names that become one
            b"\x81\x01\x02",                // a name that is no string
            b"\x81\xc4\x01a\x02",           // binary
            b"\x91\x01",                    // no map
            b"\x82\xa1a\x01",               // cut short
        ] {
            for _ in 0..3 {
                assert_eq!(shapes.find(one), None, "{one:x?}");
            }
        }
    }
}
