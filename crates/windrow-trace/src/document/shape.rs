//! Shapes: the field names of a record in their order, with everything that follows from them
//! alone. Like the hidden classes of a JavaScript engine: applications log few shapes, each of them
//! millions of times, so this is computed once per shape.
//!
//! Owns the role of each field; the shapes are learned by `registry`. A record matches a shape only
//! if every name compares equal, never by hash. A record without a known shape is rendered by
//! `fields`, to the same document.

use forward_protocol::entries::WireKey;

use super::field_names::top_level::{Field, document_names, value_names};
use super::field_names::{any_below, is_flattened, is_simple_at_top, text};
use super::json::write_string;
use super::merge_rule::MergeRule;
use super::msgpack::{Token, after_scalar, read_token, skip};
use super::names::FieldNames;
use super::state::usual_rule;
use super::windrow_object::trace_id_prefix;
use crate::record::view::{Meaning, Reading, RecordView, UsualReading};

mod registry;

pub use self::registry::ShapeRegistry;

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

/// What a field is in the document. A record only has the shape if the values of its text fields are
/// strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRole {
    /// A field of the document.
    Plain,
    /// A field of the document under a name that may hold text, or that stores map as a value.
    OtherText,
    /// A field with the trace id under the name that it has in the document, or under any name if
    /// the document's is that of a schema. A record with an id only has the shape if this is the id.
    TraceId,
    /// The joined text, not a field of the document.
    JoinedText,
}

impl FieldRole {
    /// Whether the document has the value elsewhere than among the fields.
    #[inline]
    pub(crate) fn is_outside_fields(self) -> bool {
        matches!(self, Self::JoinedText | Self::TraceId)
    }
}

/// A field of a shape.
#[derive(Debug)]
pub struct ShapeField {
    name: Box<[u8]>,
    /// Comma, name and colon: `,"name":`.
    json_prefix: Box<[u8]>,
    is_flattened: bool,
    role: FieldRole,
    watched: bool,
    capture: u8,
    marks_fragments: bool,
    /// How its value is read apart from its role, and how values in maps below it are.
    readings: Box<[Reading]>,
    nested: Box<[Reading]>,
    /// The document has the value of the worst line, not of the newest.
    is_worst: bool,
    /// `windrow.state` must name its merge rule.
    has_unusual_rule: bool,
}

/// How the value of a field is read when it is a usual one.
#[derive(Clone, Copy, Debug)]
pub struct FieldReading {
    /// Whether a value that is a string is the joined text, and nothing else.
    pub is_text_alone: bool,
    /// How other usual values are read. Nothing else is to be done for those.
    pub usual: UsualReading,
    /// The number of the field.
    pub number: u32,
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

    /// If its value decides where records go, its number among the captured fields, from 1 on; else 0.
    /// See [`ShapeRegistry::capturing`].
    #[inline]
    pub fn capture(&self) -> u8 {
        self.capture
    }

    /// Whether its value tells that the record is a part of a line: Docker's `partial_message`, the
    /// `logtag` of CRI.
    #[inline]
    pub fn marks_fragments(&self) -> bool {
        self.marks_fragments
    }

    /// How its value is read apart from its role: as id, level, service.
    #[inline]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// How values in maps below the field are read.
    #[inline]
    pub fn nested(&self) -> &[Reading] {
        &self.nested
    }

    /// Whether it may be `flattened` in the store.
    #[inline]
    pub(crate) fn is_flattened(&self) -> bool {
        self.is_flattened
    }

    /// Whether the document has the value of the worst line. All other fields have that of the
    /// newest.
    #[inline]
    pub(crate) fn is_worst(&self) -> bool {
        self.is_worst
    }

    /// Whether the state of a document must name its merge rule.
    #[inline]
    pub(crate) fn has_unusual_rule(&self) -> bool {
        self.has_unusual_rule
    }

    /// Its merge rule.
    pub(crate) fn rule(&self) -> MergeRule {
        if self.is_worst {
            MergeRule::Worst
        } else {
            MergeRule::Newest
        }
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
    readings: Box<[FieldReading]>,
    /// Preference of the field with the role [`FieldRole::TraceId`]; 0 without one.
    canonical_id: u16,
    /// Whether any field has an unusual merge rule.
    has_unusual_rules: bool,
    /// Rank of the name of the joined text.
    text_rank: Option<usize>,
    /// What is between the time and the trace id in the document: `","name":`.
    trace_id_prefix: Box<[u8]>,
    /// What precedes the joined text in the document: `,"name":"`.
    text_prefix: Box<[u8]>,
    /// The fields that have another name in the document.
    renamed: Box<[(String, Field<'static>)]>,
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

    /// How the values of the keys that are not skipped are read, in order.
    #[inline]
    pub fn readings(&self) -> &[FieldReading] {
        &self.readings
    }

    /// Preference of the field whose name is that of the trace id in the document; 0 without one.
    #[inline]
    pub(crate) fn canonical_id(&self) -> u16 {
        self.canonical_id
    }

    /// Rank of the document's name of the text. `None` without text.
    #[inline]
    pub(crate) fn text_rank(&self) -> Option<usize> {
        self.text_rank
    }

    /// What is between the time and the trace id in the document.
    #[inline]
    pub(crate) fn trace_id_prefix(&self) -> &[u8] {
        &self.trace_id_prefix
    }

    /// Whether its records have a text field. If not, their text is made of all fields.
    #[inline]
    pub fn has_text(&self) -> bool {
        self.text_rank.is_some()
    }

    /// What precedes the text in the document. Empty without text.
    #[inline]
    pub(crate) fn text_prefix(&self) -> &[u8] {
        &self.text_prefix
    }

    /// The name of a field in the document.
    pub(crate) fn document_name<'n>(&'n self, field: &'n ShapeField) -> &'n [u8] {
        let mut renamed = self.renamed.iter();
        let found = renamed.find(|(_, known)| known.original.as_bytes() == field.name());
        match found {
            Some((name, _)) => name.as_bytes(),
            None => field.name(),
        }
    }

    /// The fields that have another name in the document, with that name.
    #[inline]
    pub(crate) fn renamed(&self) -> &[(String, Field<'static>)] {
        &self.renamed
    }

    /// Whether the state of a document must name the merge rule of any field.
    #[inline]
    pub(crate) fn has_unusual_rules(&self) -> bool {
        self.has_unusual_rules
    }

    /// The fields of a record whose value in the document is that of the worst line, as a map; empty
    /// without any.
    pub(crate) fn worst_fields(&self, record: &[u8]) -> Vec<u8> {
        let mut pairs = Vec::new();
        let mut count = 0u16;
        let Some((Token::Map(_), mut at)) = read_token(record, 0) else {
            return pairs;
        };
        for field in &self.fields {
            let end = after_scalar(record, at).and_then(|value| skip(record, value));
            let Some(pair) = end.and_then(|end| record.get(at..end)) else {
                break;
            };
            at += pair.len();
            if field.is_worst {
                count += 1;
                pairs.extend_from_slice(pair);
            }
        }
        if count > 0 {
            let [high, low] = count.to_be_bytes();
            pairs.splice(0..0, [0xde, high, low]);
        }
        pairs
    }

    /// `None` if what becomes of the fields does not follow from their names alone.
    fn new(view: &RecordView, inspected: &Inspected, field_names: &[&[u8]]) -> Option<Self> {
        let names = view.names();
        if names.document.keep_fields {
            return None;
        }
        let schema = names.document.schema;
        let texts = field_names.iter().zip(0..).flat_map(|(field, slot)| {
            let readings = view.readings(field).iter();
            readings
                .filter(|reading| reading.meaning == Meaning::Text)
                .map(move |reading| (reading.order, slot, reading))
        });
        let text = texts.min_by_key(|(order, ..)| *order);
        let text_rank = text.map(|(.., reading)| view.text_rank(reading));
        let in_document = names_in_document(names, text_rank, field_names)?;
        let is_own_id = |field: &[u8]| {
            let is_id = view.readings(field).iter().any(Reading::is_id);
            is_id && (field == view.key() || schema.key().is_some())
        };
        // Which of several fields repeat the id depends on their values.
        if field_names.iter().filter(|field| is_own_id(field)).count() > 1 {
            return None;
        }
        let mut canonical_id = 0;
        let mut fields = Vec::with_capacity(field_names.len());
        let mut keys = Vec::with_capacity(field_names.len());
        let mut quick = Vec::new();
        for (number, field) in field_names.iter().enumerate() {
            let readings = view.readings(field);
            // Nested texts count only if no field is a text itself.
            let reads = |reading: &&Reading| match (reading.meaning, text) {
                (Meaning::Text, Some((.., best))) => !best.is_literal() && !reading.is_literal(),
                _ => true,
            };
            let role = match text {
                Some((_, slot, best)) if slot == number && best.is_literal() => FieldRole::JoinedText,
                // Rare: a nested text is preferred to a field.
                Some((.., best)) if !best.is_literal() && readings.iter().any(Reading::is_text) => {
                    return None;
                }
                _ if is_own_id(field) => FieldRole::TraceId,
                _ if readings.iter().any(|reading| view.is_text_name(reading))
                    || names.is_value_name(field) =>
                {
                    FieldRole::OtherText
                }
                _ => FieldRole::Plain,
            };
            // A name configured for both is rare: `fields` handles it.
            if readings.iter().any(Reading::is_id) && readings.iter().any(Reading::is_text) {
                return None;
            }
            if role == FieldRole::TraceId {
                let id = readings.iter().find(|reading| reading.is_id());
                canonical_id = id.map_or(0, Reading::preference);
            }
            let (readings, nested): (Vec<Reading>, Vec<Reading>) = readings
                .iter()
                .filter(reads)
                .cloned()
                .partition(Reading::is_literal);
            let is_outside = role.is_outside_fields();
            let rule = if is_outside {
                MergeRule::Newest
            } else {
                names.merge_rule(field)
            };
            let is_regular = match rule {
                MergeRule::Newest => true,
                MergeRule::Worst => role == FieldRole::Plain,
                _ => false,
            };
            if !is_regular || (!is_outside && names.document.schema.is_irregular(field)) {
                return None;
            }
            let mut json_prefix = vec![b','];
            let name = in_document
                .get(number)
                .map_or(*field, |(name, _)| name.as_bytes());
            write_string(&mut json_prefix, name);
            json_prefix.push(b':');
            let number = |names: &[String]| names.iter().position(|name| name.as_bytes() == *field);
            let watched = number(&inspected.watched).is_some();
            let capture = number(&inspected.captured).map_or(0, |number| number as u8 + 1);
            let marks_fragments = matches!(*field, b"logtag" | b"partial_message");
            let is_read = role != FieldRole::Plain
                || watched
                || capture > 0
                || marks_fragments
                || !readings.is_empty()
                || !nested.is_empty();
            let is_simple = !watched && capture == 0 && !marks_fragments;
            let is_text_alone = role == FieldRole::JoinedText && is_simple && readings.is_empty();
            let usual = match role {
                FieldRole::Plain | FieldRole::TraceId if is_simple => UsualReading::of(&readings),
                // Its value must be a text.
                FieldRole::OtherText if is_simple => UsualReading::of(&readings).of_texts(),
                _ => UsualReading::RARE,
            };
            fields.push(ShapeField {
                name: (*field).into(),
                json_prefix: json_prefix.into(),
                is_flattened: is_flattened(name),
                role,
                watched,
                capture,
                marks_fragments,
                readings: readings.into(),
                nested: nested.into(),
                is_worst: rule == MergeRule::Worst,
                has_unusual_rule: !is_outside && rule != usual_rule(name),
            });
            let key = WireKey::new(field);
            keys.push(if is_read { key } else { key.skipped() });
            quick.extend(is_read.then_some(FieldReading {
                is_text_alone,
                usual,
                number: fields.len() as u32 - 1,
            }));
        }
        // Names that are equal in the document: the last one wins, which `fields` handles.
        let mut all: Vec<&[u8]> = fields.iter().map(ShapeField::json_prefix).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let mut text_prefix = Vec::new();
        if let Some(name) = text_rank.and_then(|rank| names.text_name(rank)) {
            text_prefix.push(b',');
            write_string(&mut text_prefix, name.as_bytes());
            text_prefix.extend_from_slice(b":\"");
        }
        Some(Self {
            has_unusual_rules: fields.iter().any(ShapeField::has_unusual_rule),
            fields: fields.into(),
            trace_id_prefix: trace_id_prefix(names.key()).into(),
            text_prefix: text_prefix.into(),
            renamed: in_document
                .into_iter()
                .filter(|(name, field)| *field.original != **name)
                .collect(),
            keys: keys.into(),
            readings: quick.into(),
            canonical_id,
            text_rank,
        })
    }
}

/// The names of fields in the document; empty if all are those of the records. `None` if they
/// depend on values, or two become one.
fn names_in_document(
    names: &FieldNames,
    text_rank: Option<usize>,
    fields: &[&[u8]],
) -> Option<Vec<(String, Field<'static>)>> {
    let has_derived = !names.document.schema.derived_names().is_empty();
    if !has_derived && fields.iter().all(|name| is_simple_at_top(name)) {
        return Some(Vec::new());
    }
    let all: Vec<Field<'static>> = fields
        .iter()
        .map(|name| Field::new(text(name).into_owned().into(), false))
        .collect();
    let mut distinct: Vec<&str> = all.iter().map(|field| &*field.original).collect();
    distinct.sort_unstable();
    if distinct.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let own = value_names(names.own(text_rank.and_then(|rank| names.text_name(rank))));
    let natural = all.iter().map(|field| &*field.natural);
    if any_below(natural.chain(own.iter().copied()).collect()) {
        return None;
    }
    let found = document_names(&all, &own, |_| Default::default());
    Some(found.into_iter().zip(all).collect())
}

/// Fields whose values are inspected for other things than documents.
#[derive(Debug, Default)]
struct Inspected {
    watched: Vec<String>,
    captured: Vec<String>,
}

#[cfg(test)]
mod tests;
