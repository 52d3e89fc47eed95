//! Record classifier: shape, trace id, text, level, service and completion of a record, found in the
//! walk that checks it.
//!
//! Owns the fast path, for a record of the guessed shape, and the slow path for all others. What a
//! shape is, and the roles of its fields, is defined by `windrow_trace::ShapeRegistry`.

#[cfg(test)]
mod tests;

use forward_protocol::entries::{Key, MapPairs, Pair, Visitor, WireKey};

use crate::config::Rule;
use windrow_trace::{
    FieldNames, FieldRole, LineContext, Shape, ShapeId, ShapeRegistry, Token, as_text, read_token,
    write_json_value,
};

/// What one walk over a record finds in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Classification<'a> {
    pub(super) trace_id: Option<&'a [u8]>,
    /// Whether the record completes its trace.
    pub(super) completes: bool,
    pub(super) shape: Option<ShapeId>,
    /// The text, a slice of the record; only of a record with a shape.
    pub(super) text: Option<&'a [u8]>,
    /// Level and service.
    pub(super) context: LineContext<'a>,
}

/// Visitor of a record's fields: the fast path, which guesses that the record has the shape of the
/// last one with as many fields.
pub(super) struct RecordClassifier<'s, 'a> {
    shapes: &'s ShapeRegistry,
    complete: &'s [Rule],
    /// The guessed shape; `None` once a field does not fit.
    shape: Option<(ShapeId, &'s Shape)>,
    classification: Classification<'a>,
}

impl<'s, 'a> RecordClassifier<'s, 'a> {
    pub(super) fn new(shapes: &'s ShapeRegistry, complete: &'s [Rule]) -> Self {
        Self {
            shapes,
            complete,
            shape: None,
            classification: Classification::default(),
        }
    }

    /// The classification of the last record, if it has the guessed shape.
    #[inline]
    pub(super) fn classification(&self) -> Option<Classification<'a>> {
        let (id, _) = self.shape?;
        Some(Classification {
            shape: Some(id),
            ..self.classification
        })
    }

    /// Classifies a record that is expected to have the shape `id`.
    fn classify_as(
        shapes: &'s ShapeRegistry,
        complete: &'s [Rule],
        id: ShapeId,
        record: &'a [u8],
    ) -> Option<Classification<'a>> {
        let mut classifier = Self::new(shapes, complete);
        let pairs = MapPairs::new(record);
        classifier.expect_shape(id, pairs.remaining());
        for (number, pair) in pairs.enumerate() {
            classifier.pair(number, pair);
        }
        classifier.classification()
    }

    /// Guesses that the record, which has `pairs` fields, has the shape `id`.
    #[inline]
    fn expect_shape(&mut self, id: ShapeId, pairs: u32) {
        let shape = self
            .shapes
            .get(id)
            .filter(|shape| shape.fields().len() == pairs as usize);
        self.shape = shape.map(|shape| (id, shape));
    }

    /// Classifies by the value of the field `number` of the shape.
    #[inline]
    fn classify_field(&mut self, shape: &Shape, number: usize, value: &'a [u8]) {
        let Some(slot) = shape.fields().get(number) else {
            return;
        };
        let text = text_of(value);
        if slot.role() != FieldRole::Plain {
            let Some(text) = text else {
                self.shape = None;
                return;
            };
            match slot.role() {
                FieldRole::TraceId { .. } if text.is_empty() => self.shape = None,
                FieldRole::TraceId { .. } => self.classification.trace_id = Some(text),
                FieldRole::JoinedText => self.classification.text = Some(text),
                FieldRole::OtherText | FieldRole::Plain => {}
            }
        }
        for reading in slot.readings() {
            self.classification.context.read(reading, value);
        }
        if slot.is_watched() && !self.classification.completes {
            let is_text = matches!(slot.role(), FieldRole::JoinedText | FieldRole::OtherText);
            self.classification.completes = completes(self.complete, is_text, slot.name(), value, text);
        }
    }
}

impl<'s, 'a> Visitor<'a, 's> for RecordClassifier<'s, 'a> {
    #[inline]
    fn record(&mut self, pairs: u32) -> &'s [WireKey] {
        self.classification = Classification::default();
        self.shape = None;
        if let Some(id) = self.shapes.predict(pairs) {
            self.expect_shape(id, pairs);
        }
        self.shape.map_or(&[], |(_, shape)| shape.keys())
    }

    #[inline]
    fn value(&mut self, number: usize, value: &'a [u8]) {
        if let Some((_, shape)) = self.shape {
            self.classify_field(shape, number, value);
        }
    }

    /// A field with another name than the shape has there, or with a name in an unusual encoding.
    #[inline(never)]
    fn pair(&mut self, number: usize, pair: Pair<'a>) {
        let Some((_, shape)) = self.shape else { return };
        match (shape.fields().get(number), pair.key) {
            (Some(slot), Key::Text(name)) if slot.name() == name => {
                self.classify_field(shape, number, pair.value);
            }
            _ => self.shape = None,
        }
    }
}

/// Names of the fields that completion rules read.
pub(super) fn completion_fields(names: &FieldNames, complete: &[Rule]) -> Vec<String> {
    let fields = |rule: &Rule| match &rule.field {
        Some(field) => vec![field.to_string()],
        None => names.text.clone(),
    };
    complete.iter().flat_map(fields).collect()
}

/// The slow path, for a record without the guessed shape: learns its shape, or classifies it
/// without one.
#[inline(never)]
pub(super) fn classify_slow<'a>(
    shapes: &mut ShapeRegistry,
    names: &FieldNames,
    complete: &[Rule],
    record: &'a [u8],
) -> Classification<'a> {
    if let Some(id) = shapes.find(record)
        && let Some(classification) = RecordClassifier::classify_as(shapes, complete, id, record)
    {
        return classification;
    }
    let mut classification = Classification {
        context: shapes.view().read(record),
        ..Classification::default()
    };
    let mut best = usize::MAX;
    for pair in MapPairs::new(record) {
        let Key::Text(name) = pair.key else { continue };
        if let Some(rank) = names.keys.iter().position(|key| key.as_bytes() == name)
            && rank < best
            && let Some((value, _)) = read_token(pair.value, 0)
            && let Some(id) = as_text(value).filter(|id| !id.is_empty())
        {
            classification.trace_id = Some(id);
            best = rank;
        }
        let is_text = names.text.iter().any(|text| text.as_bytes() == name);
        classification.completes =
            classification.completes || completes(complete, is_text, name, pair.value, text_of(pair.value));
    }
    classification
}

/// Takes a record, its trace id, whether it completes its trace, its shape and its text.
#[doc(hidden)]
pub type OnRecord<'r> = dyn FnMut(&[u8], Option<&[u8]>, bool, Option<ShapeId>, Option<&[u8]>) + 'r;

/// Walks entries and classifies each record as gathering does; for benches.
#[doc(hidden)]
pub fn classify_entries(
    shapes: &mut ShapeRegistry,
    names: &FieldNames,
    complete: &[Rule],
    entries: &[u8],
    on_record: &mut OnRecord<'_>,
) {
    let mut entries = forward_protocol::entries::Entries::new(entries, 100);
    loop {
        let mut classifier = RecordClassifier::new(shapes, complete);
        let Some(next) = entries.next_with(&mut classifier) else {
            break;
        };
        let classification = classifier.classification();
        let Ok(entry) = next else { continue };
        let classification =
            classification.unwrap_or_else(|| classify_slow(shapes, names, complete, entry.record));
        on_record(
            entry.record,
            classification.trace_id,
            classification.completes,
            classification.shape,
            classification.text,
        );
    }
}

/// The text of a MessagePack string; `None` of any other value.
#[inline]
fn text_of(value: &[u8]) -> Option<&[u8]> {
    // The walk gives whole values, so a string reaches to the end of the slice.
    match *value.first()? {
        0xa0..=0xbf => value.get(1..),
        0xd9 => value.get(2..),
        _ => match read_token(value, 0)? {
            (Token::Str(text), _) => Some(text),
            _ => None,
        },
    }
}

/// Whether a completion rule on this field passes. `is_text`: the field is one of the configured
/// text fields. `text`: the value, if it is a string.
#[inline(always)]
fn completes(complete: &[Rule], is_text: bool, name: &[u8], value: &[u8], text: Option<&[u8]>) -> bool {
    // Usually there is one rule, on the text fields.
    for rule in complete {
        let applies = match &rule.field {
            Some(field) => field.as_bytes() == name,
            None => is_text,
        };
        let completes = applies
            && match text {
                Some(text) => rule.test.passes(text),
                None => passes(rule, value),
            };
        if completes {
            return true;
        }
    }
    false
}

/// Whether `rule` passes for a value of any type.
#[inline(never)]
fn passes(rule: &Rule, value: &[u8]) -> bool {
    let Some((head, _)) = read_token(value, 0) else {
        return false;
    };
    match as_text(head) {
        Some(text) => rule.test.passes(text),
        None => {
            let mut text = Vec::new();
            write_json_value(&mut text, value, 0);
            rule.test.passes(&text)
        }
    }
}
