//! Shapes: the field names of a record in their order, with everything that follows from them
//! alone. Like the hidden classes of a JavaScript engine: applications log few shapes, each of them
//! millions of times, so this is computed once per shape.
//!
//! Owns the registry of shapes and the role of each field. A record matches a shape only if every
//! name compares equal, never by hash. A record without a known shape is rendered by `fields`, to
//! the same document.

use std::collections::HashMap;

use forward_protocol::entries::WireKey;
use twox_hash::XxHash3_64;

use super::json::write_string;
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, document_name};
use super::windrow_object::trace_id_prefix;
use crate::record::view::{Reading, RecordView};

/// Maximum number of fields of a shape.
const MAX_FIELDS: u32 = 128;
/// Maximum bytes of all names of a shape.
const MAX_NAME_BYTES: usize = 4096;
/// Maximum number of shapes.
const MAX_SHAPES: usize = 4096;
/// Number of hashes to remember of shapes seen once, a power of two.
const SEEN_HASHES: usize = 4096;
/// Size of the prediction table, which is indexed by the number of fields; a power of two.
const PREDICTIONS: usize = 64;

/// The number of a shape in its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeId(u32);

impl ShapeId {
    /// A placeholder that is not in any registry.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// As a number for [`Self::from_u32`].
    pub(crate) fn to_u32(this: Option<Self>) -> u32 {
        this.map_or(u32::MAX, |id| id.0)
    }

    /// The inverse of [`Self::to_u32`].
    pub(crate) fn from_u32(number: u32) -> Option<Self> {
        (number != u32::MAX).then_some(Self(number))
    }
}

/// What a field is in the document. Except for [`FieldRole::Plain`], a record only has the shape if
/// the value is a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRole {
    /// A field of the document.
    Plain,
    /// A field of the document under a name that may hold text.
    OtherText,
    /// The trace id. Must not be empty. Also a field of the document if its name differs from the
    /// document's.
    TraceId {
        /// Whether its name is that of the trace id in the document.
        canonical: bool,
    },
    /// The joined text, not a field of the document.
    JoinedText,
}

impl FieldRole {
    /// Whether the document has the value elsewhere than among the fields.
    #[inline]
    pub(crate) fn is_outside_fields(self) -> bool {
        matches!(self, Self::JoinedText | Self::TraceId { canonical: true })
    }
}

/// A field of a shape.
#[derive(Debug)]
pub struct ShapeField {
    name: Box<[u8]>,
    /// Comma, name and colon: `,"name":`.
    json_prefix: Box<[u8]>,
    role: FieldRole,
    watched: bool,
    /// How its value is read apart from its role.
    readings: Box<[Reading]>,
}

impl ShapeField {
    /// The name in the records.
    #[inline]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The role in the document.
    #[inline]
    pub fn role(&self) -> FieldRole {
        self.role
    }

    /// Whether its value must be inspected: see [`ShapeRegistry::new`].
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// How its value is read apart from its role: as level, as service.
    #[inline]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// What precedes the value in the document: comma, name and colon.
    #[inline]
    pub(crate) fn json_prefix(&self) -> &[u8] {
        &self.json_prefix
    }
}

/// A shape.
#[derive(Debug)]
pub struct Shape {
    fields: Box<[ShapeField]>,
    /// The names as encoded in the records.
    keys: Box<[WireKey]>,
    has_id: bool,
    /// Rank of the name of the joined text.
    text_rank: Option<usize>,
    /// What is between the time and the trace id in the document: `","name":`.
    trace_id_prefix: Box<[u8]>,
    /// What precedes the joined text in the document: `,"name":"`.
    text_prefix: Box<[u8]>,
}

impl Shape {
    /// The fields, in order.
    #[inline]
    pub fn fields(&self) -> &[ShapeField] {
        &self.fields
    }

    /// The names as encoded in the records. Fields with a plain role that are neither watched nor
    /// read as anything are marked to be skipped: their values do not matter for routing.
    #[inline]
    pub fn keys(&self) -> &[WireKey] {
        &self.keys
    }

    /// Whether the records have a trace id.
    #[inline]
    pub fn has_id(&self) -> bool {
        self.has_id
    }

    /// Rank of the name of the text. `None` without text.
    #[inline]
    pub(crate) fn text_rank(&self) -> Option<usize> {
        self.text_rank
    }

    /// What is between the time and the trace id in the document.
    #[inline]
    pub(crate) fn trace_id_prefix(&self) -> &[u8] {
        &self.trace_id_prefix
    }

    /// What precedes the text in the document. Empty without text.
    #[inline]
    pub(crate) fn text_prefix(&self) -> &[u8] {
        &self.text_prefix
    }

    fn new(view: &RecordView, watched: &[String], field_names: &[&[u8]]) -> Option<Self> {
        let names = view.names();
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
            // A name configured for both is rare: `fields` handles it.
            if among(&names.keys) && among(&names.text) {
                return None;
            }
            let mut json_prefix = vec![b','];
            write_string(&mut json_prefix, &document_name(field));
            json_prefix.push(b':');
            let watched = watched.iter().any(|name| name.as_bytes() == *field);
            fields.push(ShapeField {
                name: (*field).into(),
                json_prefix: json_prefix.into(),
                role,
                watched,
                readings: view.readings(field).into(),
            });
            let key = WireKey::new(field);
            let is_read = role != FieldRole::Plain || watched || !view.readings(field).is_empty();
            keys.push(if !is_read { key.skipped() } else { key });
        }
        // Names that are equal in the document: the last one wins, which `fields` handles.
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

/// The registry of shapes.
#[derive(Debug)]
pub struct ShapeRegistry {
    view: RecordView,
    watched: Vec<String>,
    shapes: Vec<Shape>,
    /// By length-prefixed names. `None` for names that cannot be a shape.
    known: HashMap<Box<[u8]>, Option<ShapeId>, foldhash::quality::RandomState>,
    predictions: [Option<ShapeId>; PREDICTIONS],
    /// Hashes of shapes seen once. A shape is only learned when it repeats.
    seen: Box<[u64]>,
    encoded: Vec<u8>,
}

impl ShapeRegistry {
    /// An empty registry. Fields named in `watched` are marked as such, for rules that inspect
    /// values.
    pub fn new(names: FieldNames, watched: Vec<String>) -> Self {
        Self {
            view: RecordView::new(names),
            watched,
            shapes: Vec::new(),
            known: HashMap::default(),
            predictions: [None; PREDICTIONS],
            seen: vec![0; SEEN_HASHES].into(),
            encoded: Vec::new(),
        }
    }

    /// What the names of a record's fields mean.
    #[inline]
    pub fn view(&self) -> &RecordView {
        &self.view
    }

    /// The shape with this number.
    #[inline]
    pub fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(id.0 as usize)
    }

    /// The predicted shape of a record with this number of fields: that of the last such record.
    #[inline]
    pub fn predict(&self, fields: u32) -> Option<ShapeId> {
        self.predictions[fields as usize % PREDICTIONS]
    }

    /// The shape of a record that was not predicted. Learned when its names repeat. The caller must
    /// still check the values.
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
        let id = Shape::new(&self.view, &self.watched, &fields).map(|shape| {
            self.shapes.push(shape);
            ShapeId(self.shapes.len() as u32 - 1)
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
