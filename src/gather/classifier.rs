//! Record classifier: shape, trace id, text, level, service and completion of a record, found in the
//! walk that checks it.
//!
//! Owns the fast path, for a record of the guessed shape, and the slow path for all others. What a
//! shape is, and the roles of its fields, is defined by `windrow_trace::ShapeRegistry`.

#[cfg(test)]
mod tests;

use forward_protocol::entries::{Group, Key, MapPairs, Pair, Visitor, WireKey};

use crate::config::{Condition, Predicate};
use windrow_trace::{
    EntryMetadata, FieldReading, FieldRole, MadeId, RecordFacts, RecordView, Severity, Shape, ShapeField,
    ShapeId, ShapeRegistry, TextForm, Token, as_text, read_token, write_json_value,
};

/// Numbers and values of captured fields, in the order of the record.
pub(super) type Captured<'a> = Vec<(u8, &'a [u8])>;

/// What takes the captured values of a record. A type of its own for each use: the walk is compiled
/// for each, without what it does not need.
pub(super) trait Capture<'a>: Default {
    /// Whether records are routed by these values.
    const ROUTES: bool;

    /// A field of this number has this value.
    fn capture(&mut self, number: u8, value: &'a [u8]);

    /// Forgets all.
    fn clear(&mut self);

    /// The values, if any are taken.
    fn values(&self) -> Option<&Captured<'a>>;
}

impl<'a> Capture<'a> for Captured<'a> {
    const ROUTES: bool = true;

    fn capture(&mut self, number: u8, value: &'a [u8]) {
        self.push((number, value));
    }

    fn clear(&mut self) {
        Vec::clear(self);
    }

    fn values(&self) -> Option<&Self> {
        Some(self)
    }
}

/// Takes nothing: gathering without routes, for which `USE` is 0, and the search for ids.
#[derive(Debug, Default)]
pub(super) struct NoCapture<const USE: u8>;

impl<'a, const USE: u8> Capture<'a> for NoCapture<USE> {
    const ROUTES: bool = false;

    #[inline(always)]
    fn capture(&mut self, _number: u8, _value: &'a [u8]) {}

    #[inline(always)]
    fn clear(&mut self) {}

    #[inline(always)]
    fn values(&self) -> Option<&Captured<'a>> {
        None
    }
}

/// What one walk over a record finds in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Classification<'a> {
    /// Trace id, text, level and service. The text only of a record with a shape.
    pub(super) facts: RecordFacts<'a>,
    /// The trace id is a [`MadeId`].
    pub(super) id_is_made: bool,
    /// Whether the record completes its trace.
    pub(super) completes: bool,
    pub(super) shape: Option<ShapeId>,
    pub(super) text_form: TextForm,
    /// The text is not a slice of the record, so the trace keeps the record whole.
    pub(super) is_whole: bool,
    /// Whether it is marked as a part of a line; only of a record with a shape.
    pub(super) is_fragment: bool,
}

impl Classification<'_> {
    /// The shape with which the record joins its trace.
    #[inline]
    pub(super) fn trace_shape(&self) -> Option<ShapeId> {
        if self.is_whole { None } else { self.shape }
    }
}

impl<'a> Classification<'a> {
    /// The trace id; `made` is what the classifier was given.
    #[inline]
    pub(super) fn id<'m>(&self, made: &'m MadeId) -> Option<&'m [u8]>
    where
        'a: 'm,
    {
        if self.id_is_made {
            Some(made.bytes())
        } else {
            self.facts.id
        }
    }

    /// Adds what the metadata of the entry and of its group say.
    #[cold]
    pub(super) fn read_metadata(
        &mut self,
        view: &RecordView,
        own: Option<&'a [u8]>,
        group: Option<Group<'a>>,
        made: &mut MadeId,
    ) {
        let metadata = EntryMetadata {
            own: own.unwrap_or_default(),
            group: group.map_or(&[], |group| group.metadata),
            attributes: group.map_or(&[], |group| group.attributes),
        };
        let is_id = view.read_metadata(&metadata, &mut self.facts, &mut self.id_is_made, made);
        if is_id {
            // A field with the name of the id in the document is another value: the trace keeps it.
            (self.shape, self.is_whole) = (None, true);
        }
    }
}

/// Visitor of a record's fields: the fast path, which guesses that the record has the shape of the
/// last one with as many fields.
pub(super) struct RecordClassifier<'s, 'a, C> {
    shapes: &'s ShapeRegistry,
    complete: &'s [Condition],
    /// The guessed shape; `None` once a field does not fit.
    shape: Option<(ShapeId, &'s Shape)>,
    /// How the next values are read.
    readings: &'s [FieldReading],
    /// In the memory of the caller: returned, it would be copied for each record.
    classification: &'s mut Classification<'a>,
    /// Takes the values on which routes depend.
    captured: &'s mut C,
    /// A record has begun.
    has_begun: bool,
}

impl<'s, 'a, C: Capture<'a>> RecordClassifier<'s, 'a, C> {
    /// `captured` is empty. What is found goes to `classification`.
    #[inline(always)]
    pub(super) fn new(
        shapes: &'s ShapeRegistry,
        complete: &'s [Condition],
        captured: &'s mut C,
        classification: &'s mut Classification<'a>,
    ) -> Self {
        *classification = Classification::default();
        Self {
            shapes,
            complete,
            shape: None,
            readings: &[],
            classification,
            captured,
            has_begun: false,
        }
    }

    /// Completes the classification of the last record. False if it has not the guessed shape: then
    /// nothing is known of it.
    #[inline(always)]
    pub(super) fn finish(self) -> bool {
        let Some((id, shape)) = self.shape else {
            return false;
        };
        if !self.classification.facts.fit(shape) {
            return false;
        }
        self.classification.shape = Some(id);
        if !shape.has_text() {
            self.classification.is_whole = true;
            self.classification.text_form = TextForm::Fields;
        }
        true
    }

    /// The record has not the guessed shape.
    fn give_up(&mut self) {
        (self.shape, self.readings) = (None, &[]);
    }

    /// Guesses that the record, which has `pairs` fields, has the shape `id`.
    #[inline]
    fn expect_shape(&mut self, id: ShapeId, pairs: u32) {
        let shape = self
            .shapes
            .get(id)
            .filter(|shape| shape.fields().len() == pairs as usize);
        self.readings = shape.map_or(&[], Shape::readings);
        self.shape = shape.map(|shape| (id, shape));
    }

    /// Classifies by the value of a field.
    #[inline(always)]
    fn classify_field(&mut self, reading: &FieldReading, value: &'a [u8]) {
        let view = self.shapes.view();
        if reading.is_text_alone
            && let Some(text) = short_text_of(value)
        {
            self.classification.facts.set_text(view, text);
            self.classify_text(view, self.classification.facts.text.unwrap_or_default());
        } else if !self.classification.facts.read_usual(view, reading.usual, value) {
            self.classify_rare_value(reading.number, value);
        }
    }

    #[inline(never)]
    fn classify_rare_value(&mut self, number: u32, value: &'a [u8]) {
        if let Some((_, shape)) = self.shape
            && let Some(slot) = shape.fields().get(number as usize)
        {
            self.classify_rare_field(slot, value);
        }
    }

    /// Classifies by the value of a field that has several meanings, or an unusual value.
    #[inline(never)]
    fn classify_rare_field(&mut self, slot: &ShapeField, value: &'a [u8]) {
        match slot.role() {
            FieldRole::JoinedText => {
                let Some(text) = text_of(value) else {
                    self.give_up();
                    return;
                };
                let view = self.shapes.view();
                self.classification.facts.set_text(view, text);
                self.classify_text(view, self.classification.facts.text.unwrap_or_default());
            }
            FieldRole::OtherText if text_of(value).is_none() => self.give_up(),
            FieldRole::OtherText | FieldRole::TraceId | FieldRole::Plain => {}
        }
        let view = self.shapes.view();
        for reading in slot.readings() {
            self.classification.facts.read(view, reading, value);
        }
        if !slot.nested().is_empty() {
            self.classification.facts.read_nested(view, slot.nested(), value);
        }
        if C::ROUTES && slot.capture() > 0 {
            self.captured.capture(slot.capture(), value);
        }
        if slot.marks_fragments() {
            self.classification.is_fragment |= marks_fragment(value);
        }
        if slot.is_watched() && !self.classification.completes {
            self.classification.completes = completes(self.complete, slot.name(), value);
        }
    }

    /// Looks at the text that the shape chose.
    #[inline(always)]
    fn classify_text(&mut self, view: &RecordView, text: &'a [u8]) {
        if view.is_rewritten(text) {
            self.classify_rewritten(view, text);
        } else {
            self.classification.completes |= text_completes(self.complete, text);
        }
    }

    /// Looks at a text with escape sequences.
    #[cold]
    #[inline(never)]
    fn classify_rewritten(&mut self, view: &RecordView, text: &'a [u8]) {
        self.classification.is_whole = true;
        self.classification.completes |= text_completes(self.complete, &view.clean(text));
    }
}

impl<'s, 'a, C: Capture<'a>> Visitor<'a, 's> for RecordClassifier<'s, 'a, C> {
    #[inline(always)]
    fn record(&mut self, pairs: u32) -> &'s [WireKey] {
        if std::mem::replace(&mut self.has_begun, true) {
            // What preceded was no record, but the attributes of a group.
            *self.classification = Classification::default();
            self.give_up();
            self.captured.clear();
        }
        if let Some(id) = self.shapes.predict(pairs) {
            self.expect_shape(id, pairs);
        }
        self.shape.map_or(&[], |(_, shape)| shape.keys())
    }

    #[inline(always)]
    fn value(&mut self, _number: usize, value: &'a [u8]) {
        // Once a field does not fit there are none.
        if let [reading, others @ ..] = self.readings {
            self.readings = others;
            self.classify_field(reading, value);
        }
    }

    /// A field with another name than the shape has there, or with a name in an unusual encoding.
    #[inline(never)]
    fn pair(&mut self, number: usize, pair: Pair<'a>) {
        let Some((_, shape)) = self.shape else { return };
        match (shape.fields().get(number), pair.key) {
            (Some(slot), Key::Text(name)) if slot.name() == name => {
                self.classify_rare_field(slot, pair.value);
            }
            _ => self.give_up(),
        }
    }
}

/// Names of the fields that completion rules read, apart from the text.
pub(super) fn completion_fields(complete: &[Condition]) -> Vec<String> {
    let fields = complete.iter().filter_map(|rule| rule.field.as_deref());
    fields.map(str::to_owned).collect()
}

/// Classifies a record that is expected to have the shape `id`.
fn classify_as<'a>(
    shapes: &ShapeRegistry,
    complete: &[Condition],
    id: ShapeId,
    record: &'a [u8],
) -> Option<Classification<'a>> {
    let mut nothing = NoCapture::<2>;
    let mut classification = Classification::default();
    let mut classifier = RecordClassifier::new(shapes, complete, &mut nothing, &mut classification);
    let pairs = MapPairs::new(record);
    classifier.expect_shape(id, pairs.remaining());
    for (number, pair) in pairs.enumerate() {
        classifier.pair(number, pair);
    }
    classifier.finish().then_some(classification)
}

/// The slow path, for a record without the guessed shape: learns its shape, or classifies it
/// without one. An id that is no slice of the record is put into `made`.
#[inline(never)]
pub(super) fn classify_slow<'a>(
    shapes: &mut ShapeRegistry,
    complete: &[Condition],
    record: &'a [u8],
    made: &mut MadeId,
) -> Classification<'a> {
    if let Some(id) = shapes.find(record)
        && let Some(classification) = classify_as(shapes, complete, id, record)
    {
        return classification;
    }
    let view = shapes.view();
    let found = view.read(record, made);
    let tests_text = complete.iter().any(|rule| rule.field.is_none());
    let text = if tests_text { found.field_text(view) } else { None };
    let completes_by_field = |pair: Pair<'_>| match pair.key {
        Key::Text(name) => completes(complete, name, pair.value),
        Key::Other(_) => false,
    };
    Classification {
        facts: found.facts,
        id_is_made: found.id_is_made,
        completes: text.is_some_and(|text| text_completes(complete, &text))
            || MapPairs::new(record).any(completes_by_field),
        shape: None,
        text_form: found.text_form(),
        is_whole: true,
        is_fragment: false,
    }
}

/// Takes a record, its trace id, whether it completes its trace, its shape and its text.
#[doc(hidden)]
pub type OnRecord<'r> = dyn FnMut(&[u8], Option<&[u8]>, bool, Option<ShapeId>, Option<&[u8]>) + 'r;

/// Walks entries and classifies each record as gathering does; for benches.
#[doc(hidden)]
pub fn classify_entries(
    shapes: &mut ShapeRegistry,
    complete: &[Condition],
    entries: &[u8],
    on_record: &mut OnRecord<'_>,
) {
    let mut entries = forward_protocol::entries::Entries::new(entries, 100);
    let mut nothing = NoCapture::<3>;
    let mut classification = Classification::default();
    loop {
        let mut classifier = RecordClassifier::new(shapes, complete, &mut nothing, &mut classification);
        let Some(next) = entries.next_with(&mut classifier) else {
            break;
        };
        let has_shape = classifier.finish();
        let Ok(entry) = next else { continue };
        let mut made = MadeId::default();
        if !has_shape {
            classification = classify_slow(shapes, complete, entry.record, &mut made);
        }
        let shape = classification.trace_shape();
        on_record(
            entry.record,
            if classification.id_is_made {
                Some(made.bytes())
            } else {
                classification.facts.id
            },
            classification.completes,
            shape,
            classification.facts.text.filter(|_| shape.is_some()),
        );
    }
}

/// The text of a MessagePack string; `None` of any other value.
#[inline]
fn text_of(value: &[u8]) -> Option<&[u8]> {
    short_text_of(value).or_else(|| match read_token(value, 0)? {
        (Token::Str(text), _) => Some(text),
        _ => None,
    })
}

/// The text of a MessagePack string of up to 255 bytes; `None` of any other value.
#[inline(always)]
fn short_text_of(value: &[u8]) -> Option<&[u8]> {
    // The walk gives whole values, so a string reaches to the end of the slice.
    match value {
        [0xa0..=0xbf, text @ ..] | [0xd9, _, text @ ..] => Some(text),
        _ => None,
    }
}

/// Whether the value of a field that marks parts of lines marks one: `P`, `P:…`, `true`.
fn marks_fragment(value: &[u8]) -> bool {
    value == [0xc3] || matches!(text_of(value), Some([b'P', ..] | [b't' | b'T', ..]))
}

/// Whether a completion rule on the text passes.
// A call, so that what it needs does not take the registers of the walk over a record.
#[inline(never)]
fn text_completes(complete: &[Condition], text: &[u8]) -> bool {
    // Usually there is one rule, on the text.
    for rule in complete {
        if rule.field.is_none() && rule.test.passes(text) {
            return true;
        }
    }
    false
}

/// Whether a completion rule on this field passes.
#[inline(never)]
fn completes(complete: &[Condition], name: &[u8], value: &[u8]) -> bool {
    let mut on_field = complete.iter().filter(|rule| {
        let field = rule.field.as_deref();
        field.is_some_and(|field| field.as_bytes() == name)
    });
    on_field.any(|rule| match text_of(value) {
        _ if matches!(rule.test, Predicate::AtLeast(_)) => is_at_least(rule, value),
        Some(text) => rule.test.passes(text),
        None => passes(rule, value),
    })
}

/// Whether a level is bad enough.
#[cold]
fn is_at_least(rule: &Condition, value: &[u8]) -> bool {
    let level = Severity::of_field(rule.field.as_deref().unwrap_or_default(), value);
    matches!((&rule.test, level), (Predicate::AtLeast(least), Some(level)) if level >= *least)
}

/// Whether `rule` passes for a value of any type.
#[inline(never)]
fn passes(rule: &Condition, value: &[u8]) -> bool {
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
