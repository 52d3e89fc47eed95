//! What gathering looks for in a record while it is walked: its shape, the trace id, the text, and whether it completes
//! its trace.
//!
//! Owns the choice between the quick look, for a record that has the shape that was guessed, and the general one; and
//! how an entry's metadata and its group's become one map. What a shape is, and its roles, is `trace::shape`'s.

#[cfg(test)]
mod tests;

use forward_protocol::entries::{Group, Key, MapPairs, Pair, Visitor, WireKey};
use forward_protocol::msgpack::{write_map_len, write_str};

use crate::config::Rule;
use windrow_trace::{
    FieldNames, FieldRole, Shape, ShapeId, ShapeRegistry, Token, as_text, read_token, write_json_value,
};

/// What one walk over a record finds.
#[derive(Clone, Copy, Default)]
pub(super) struct Found<'a> {
    /// The trace id.
    pub(super) key: Option<&'a [u8]>,
    pub(super) completes: bool,
    /// The shape of the record.
    pub(super) shape: Option<ShapeId>,
    /// Its text, when it has a shape: a piece of it.
    pub(super) text: Option<&'a [u8]>,
}

/// Looks at a record while it is walked, in the hope that it has the shape that the last one with as many fields had.
pub(super) struct Look<'s, 'a> {
    shapes: &'s ShapeRegistry,
    complete: &'s [Rule],
    /// The shape that was guessed, as long as all pairs fit.
    shape: Option<(ShapeId, &'s Shape)>,
    found: Found<'a>,
}

impl<'s, 'a> Look<'s, 'a> {
    pub(super) fn new(shapes: &'s ShapeRegistry, complete: &'s [Rule]) -> Self {
        Self {
            shapes,
            complete,
            shape: None,
            found: Found::default(),
        }
    }

    /// What was found in the record that was walked last, if it has the shape.
    #[inline]
    pub(super) fn found(&self) -> Option<Found<'a>> {
        let (id, _) = self.shape?;
        Some(Found {
            shape: Some(id),
            ..self.found
        })
    }

    /// Looks at a whole record as one of this shape.
    fn whole(
        shapes: &'s ShapeRegistry,
        complete: &'s [Rule],
        id: ShapeId,
        record: &'a [u8],
    ) -> Option<Found<'a>> {
        let mut look = Self::new(shapes, complete);
        let pairs = MapPairs::new(record);
        look.take(id, pairs.remaining());
        for (number, pair) in pairs.enumerate() {
            look.pair(number, pair);
        }
        look.found()
    }

    /// Goes on in the hope that the record, of so many pairs, has this shape.
    #[inline]
    fn take(&mut self, id: ShapeId, pairs: u32) {
        let shape = self
            .shapes
            .get(id)
            .filter(|shape| shape.fields().len() == pairs as usize);
        self.shape = shape.map(|shape| (id, shape));
    }

    /// Looks at the value of a field that may matter.
    #[inline]
    fn regard(&mut self, shape: &Shape, number: usize, value: &'a [u8]) {
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
                FieldRole::TraceId { .. } => self.found.key = Some(text),
                FieldRole::JoinedText => self.found.text = Some(text),
                FieldRole::OtherText | FieldRole::Plain => {}
            }
        }
        if slot.is_watched() && !self.found.completes {
            let is_text = matches!(slot.role(), FieldRole::JoinedText | FieldRole::OtherText);
            self.found.completes = completes(self.complete, is_text, slot.name(), value, text);
        }
    }
}

impl<'s, 'a> Visitor<'a, 's> for Look<'s, 'a> {
    #[inline]
    fn record(&mut self, pairs: u32) -> &'s [WireKey] {
        self.found = Found::default();
        self.shape = None;
        if let Some(id) = self.shapes.predict(pairs) {
            self.take(id, pairs);
        }
        self.shape.map_or(&[], |(_, shape)| shape.keys())
    }

    #[inline]
    fn value(&mut self, number: usize, value: &'a [u8]) {
        if let Some((_, shape)) = self.shape {
            self.regard(shape, number, value);
        }
    }

    /// A pair of which the key was not expected, or is in another form than usual.
    #[inline(never)]
    fn pair(&mut self, number: usize, pair: Pair<'a>) {
        let Some((_, shape)) = self.shape else { return };
        match (shape.fields().get(number), pair.key) {
            (Some(slot), Key::Text(name)) if slot.name() == name => {
                self.regard(shape, number, pair.value);
            }
            _ => self.shape = None,
        }
    }
}

/// The names of fields that completion depends on.
pub(super) fn watched(names: &FieldNames, complete: &[Rule]) -> Vec<String> {
    let concerned = |rule: &Rule| match &rule.field {
        Some(field) => vec![field.to_string()],
        None => names.text.clone(),
    };
    complete.iter().flat_map(concerned).collect()
}

/// Looks at a record whose shape was not guessed: learns it, or looks without one.
#[inline(never)]
pub(super) fn look_again<'a>(
    shapes: &mut ShapeRegistry,
    names: &FieldNames,
    complete: &[Rule],
    record: &'a [u8],
) -> Found<'a> {
    if let Some(id) = shapes.find(record)
        && let Some(found) = Look::whole(shapes, complete, id, record)
    {
        return found;
    }
    let mut found = Found::default();
    let mut best = usize::MAX;
    for pair in MapPairs::new(record) {
        let Key::Text(name) = pair.key else { continue };
        if let Some(rank) = names.keys.iter().position(|key| key.as_bytes() == name)
            && rank < best
            && let Some((value, _)) = read_token(pair.value, 0)
            && let Some(id) = as_text(value).filter(|id| !id.is_empty())
        {
            found.key = Some(id);
            best = rank;
        }
        let is_text = names.text.iter().any(|text| text.as_bytes() == name);
        found.completes =
            found.completes || completes(complete, is_text, name, pair.value, text_of(pair.value));
    }
    found
}

/// What one record is on its way to its trace: the record, its trace id, whether it completes its trace, its shape, and
/// its text.
#[doc(hidden)]
pub type Routed<'r> = dyn FnMut(&[u8], Option<&[u8]>, bool, Option<ShapeId>, Option<&[u8]>) + 'r;

/// Walks entries and looks at each, as gathering does, for the benches.
#[doc(hidden)]
pub fn route(
    shapes: &mut ShapeRegistry,
    names: &FieldNames,
    complete: &[Rule],
    entries: &[u8],
    routed: &mut Routed<'_>,
) {
    let mut entries = forward_protocol::entries::Entries::new(entries, 100);
    loop {
        let mut look = Look::new(shapes, complete);
        let Some(next) = entries.next_with(&mut look) else {
            break;
        };
        let found = look.found();
        let Ok(entry) = next else { continue };
        let found = found.unwrap_or_else(|| look_again(shapes, names, complete, entry.record));
        routed(entry.record, found.key, found.completes, found.shape, found.text);
    }
}

/// The text of a string.
#[inline]
fn text_of(value: &[u8]) -> Option<&[u8]> {
    // A string that is whole, as the walk gives it, ends with its bytes.
    match *value.first()? {
        0xa0..=0xbf => value.get(1..),
        0xd9 => value.get(2..),
        _ => match read_token(value, 0)? {
            (Token::Str(text), _) => Some(text),
            _ => None,
        },
    }
}

/// Whether one of the rules that concern this field passes. `is_text`: its name is one that may hold the text. `text`:
/// what the value says, if it is a string.
#[inline(always)]
fn completes(complete: &[Rule], is_text: bool, name: &[u8], value: &[u8], text: Option<&[u8]>) -> bool {
    // Mostly there is one rule, which concerns the text.
    for rule in complete {
        let concerned = match &rule.field {
            Some(field) => field.as_bytes() == name,
            None => is_text,
        };
        let completes = concerned
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

/// The same for a value that may be no string.
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

/// The metadata of an entry, with those of its group under `group`.
#[inline]
pub(super) fn metadata<'a>(
    own: Option<&'a [u8]>,
    group: Option<Group<'a>>,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    match (own, group) {
        (own, None) => own.unwrap_or_default(),
        (own, Some(group)) => with_group(own.unwrap_or_default(), group, scratch),
    }
}

#[inline(never)]
fn with_group<'a>(own: &[u8], group: Group<'_>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    let pairs = match read_token(own, 0) {
        Some((Token::Map(n), next)) => Some((n, next)),
        _ => None,
    };
    write_map_len(scratch, pairs.map_or(0, |(n, _)| n) + 1);
    if let Some((_, next)) = pairs {
        scratch.extend_from_slice(&own[next..]);
    }
    write_str(scratch, b"group");
    let put = |out: &mut Vec<u8>, map: &[u8]| match map {
        [] => write_map_len(out, 0),
        map => out.extend_from_slice(map),
    };
    write_map_len(scratch, 2);
    write_str(scratch, b"metadata");
    put(scratch, group.metadata);
    write_str(scratch, b"attributes");
    put(scratch, group.attributes);
    scratch
}
