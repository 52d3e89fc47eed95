//! Record view: which fields of a record hold its trace id, text, level and service.
//!
//! Owns the paths of the configuration. A path with dots matches a field of that literal name, and
//! a field in nested maps: `trace.id` is `{"trace.id": …}` and `{"trace": {"id": …}}`. All roots of
//! all paths are in one hash map, so that a record is read in one walk over its fields.

use std::borrow::Cow;
use std::collections::HashMap;

use forward_protocol::entries::{Key, MapPairs};
use smallvec::SmallVec;

use super::facts::{RecordFacts, SlowFacts};
use super::severity::numbers::NumberScheme;
use super::text::{RecordText, has_escapes, stripped, trimmed};
use super::trace_id::{IdForm, IdReader, IdValue, MadeId};
use crate::document::msgpack::{Token, read_token, skip};
use crate::document::names::{FURTHER_TEXT_NAMES, FieldNames};

/// Ways in which one path can match: literally, or with its first dot, its second dot, ….
const MATCHES_PER_PATH: u16 = 8;

/// What a field is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The trace id.
    Id(IdForm),
    /// The text.
    Text,
    /// The level of the line.
    Level(NumberScheme),
    /// The service that wrote the line.
    Service,
}

/// How the usual values of a field are read: by its one reading, which is that of the whole value.
/// Decided once per shape, so that a record is read without looking at lists.
#[derive(Clone, Copy, Debug)]
pub struct UsualReading {
    pub(super) kind: UsualKind,
    /// For [`UsualKind::Level`]. Apart from the kind, which is then one byte to branch by.
    pub(super) scheme: NumberScheme,
    pub(super) preference: u16,
}

/// What a [`UsualReading`] gives.
#[derive(Clone, Copy, Debug)]
pub(super) enum UsualKind {
    Id,
    Level,
    Service,
    /// Nothing: there is another number of readings, or a rare one.
    Rare,
}

impl UsualReading {
    /// No usual value.
    pub(crate) const RARE: Self = Self {
        kind: UsualKind::Rare,
        scheme: NumberScheme::Level,
        preference: 0,
    };

    /// The usual reading of a field with these literal readings.
    pub(crate) fn of(readings: &[Reading]) -> Self {
        let [reading] = readings else { return Self::RARE };
        let (kind, scheme) = match reading.meaning {
            Meaning::Id(IdForm::Any) => (UsualKind::Id, NumberScheme::Level),
            Meaning::Level(scheme) => (UsualKind::Level, scheme),
            Meaning::Service => (UsualKind::Service, NumberScheme::Level),
            Meaning::Id(_) | Meaning::Text => return Self::RARE,
        };
        Self {
            kind,
            scheme,
            preference: reading.preference(),
        }
    }

    /// The same if only texts are usual.
    pub(crate) fn of_texts(self) -> Self {
        match self.kind {
            UsualKind::Id | UsualKind::Service => self,
            UsualKind::Level | UsualKind::Rare => Self::RARE,
        }
    }
}

/// One way to read a field: what it means, and where in its value that is.
#[derive(Clone, Debug)]
pub struct Reading {
    pub(crate) meaning: Meaning,
    /// Preference among the readings of one meaning; the lowest usable one counts.
    pub(crate) order: u16,
    /// The rest of the path, in the maps below the field.
    below: Option<Box<[u8]>>,
}

impl Reading {
    /// Whether the whole name of the field is the path.
    pub(crate) fn is_literal(&self) -> bool {
        self.below.is_none()
    }

    /// Whether the field itself may be the trace id. One that is read as a context alone contains it.
    pub(crate) fn is_id(&self) -> bool {
        matches!(self.meaning, Meaning::Id(form) if form != IdForm::ContextOnly) && self.is_literal()
    }

    /// Whether the field itself is a text.
    pub(crate) fn is_text(&self) -> bool {
        self.meaning == Meaning::Text && self.is_literal()
    }

    /// Number of its path in the configuration.
    pub(crate) fn rank(&self) -> usize {
        usize::from(self.order / MATCHES_PER_PATH)
    }

    /// Higher is preferred; 0 is none.
    #[inline]
    pub(crate) fn preference(&self) -> u16 {
        u16::MAX - self.order
    }

    /// The value that it reads, within the value of its field.
    #[inline]
    pub(super) fn value<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        match &self.below {
            None => Some(value),
            Some(path) => find_below(value, path).or_else(|| find_in_list(value, path)),
        }
    }
}

/// The value at `path` in a map: under its literal name, else in nested maps. Of equal names the
/// last one counts.
pub fn find_below<'a>(map: &'a [u8], path: &[u8]) -> Option<&'a [u8]> {
    let (mut literal, mut nested) = (None, None);
    for pair in MapPairs::new(map) {
        let Key::Text(name) = pair.key else { continue };
        if name == path {
            literal = Some(pair.value);
        } else if let Some([b'.', rest @ ..]) = path.strip_prefix(name)
            && let found @ Some(_) = find_below(pair.value, rest)
        {
            nested = found;
        }
    }
    literal.or(nested)
}

/// The value at `path` in the first map of a list that has it: .NET's `Scopes`, tracing's `spans`.
#[cold]
fn find_in_list<'a>(list: &'a [u8], path: &[u8]) -> Option<&'a [u8]> {
    let (Token::Array(elements), mut at) = read_token(list, 0)? else {
        return None;
    };
    for _ in 0..elements {
        let end = skip(list, at)?;
        if let found @ Some(_) = find_below(list.get(at..end)?, path) {
            return found;
        }
        at = end;
    }
    None
}

/// A path that is looked for in a map, and what was found.
struct Wanted<'p, 'a> {
    path: &'p [u8],
    literal: Option<&'a [u8]>,
    nested: Option<&'a [u8]>,
}

impl<'p> Wanted<'p, '_> {
    fn new(path: &'p [u8]) -> Self {
        Self {
            path,
            literal: None,
            nested: None,
        }
    }
}

/// [`find_below`] for several paths in one walk.
fn find_all<'a>(map: &'a [u8], wanted: &mut [Wanted<'_, 'a>]) {
    for pair in MapPairs::new(map) {
        let Key::Text(name) = pair.key else { continue };
        let mut below: SmallVec<[(usize, Wanted<'_, 'a>); 4]> = SmallVec::new();
        for (number, one) in wanted.iter_mut().enumerate() {
            if name.first() != one.path.first() && !name.is_empty() {
                continue;
            }
            if name == one.path {
                one.literal = Some(pair.value);
            } else if let Some([b'.', rest @ ..]) = one.path.strip_prefix(name) {
                below.push((number, Wanted::new(rest)));
            }
        }
        if below.is_empty() {
            continue;
        }
        let (numbers, mut found): (SmallVec<[usize; 4]>, SmallVec<[Wanted<'_, 'a>; 4]>) =
            below.into_iter().unzip();
        find_all(pair.value, &mut found);
        for (number, found) in numbers.into_iter().zip(found) {
            if let Some(value) = found.literal.or(found.nested)
                && let Some(one) = wanted.get_mut(number)
            {
                one.nested = Some(value);
            }
        }
    }
}

/// Calls `each` with the value of each of these readings in maps below their field.
pub(super) fn for_each_below<'a>(
    readings: &[Reading],
    map: &'a [u8],
    mut each: impl FnMut(&Reading, &'a [u8]),
) {
    let paths = readings
        .iter()
        .map(|reading| reading.below.as_deref().unwrap_or_default());
    if !matches!(map.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        for reading in readings {
            if let Some(found) = find_in_list(map, reading.below.as_deref().unwrap_or_default()) {
                each(reading, found);
            }
        }
        return;
    }
    let mut wanted: SmallVec<[Wanted<'_, 'a>; 8]> = paths.map(Wanted::new).collect();
    find_all(map, &mut wanted);
    for (reading, found) in readings.iter().zip(wanted) {
        if let Some(value) = found.literal.or(found.nested) {
            each(reading, value);
        }
    }
}

/// The compiled names of the configuration.
#[derive(Debug)]
pub struct RecordView {
    names: FieldNames,
    /// By the name of the field in the record.
    readings: HashMap<Box<[u8]>, Vec<Reading>, foldhash::quality::RandomState>,
    /// Filter before the look-up in `readings`, by [`filter_slot`].
    is_read: [bool; FILTER_SLOTS],
    ids: IdReader,
    /// For each text path the number of the name under which the document has the text.
    text_names: Vec<usize>,
    /// The path of the first key, which is the name of the trace id in the document.
    key: Box<[u8]>,
}

const FILTER_SLOTS: usize = 256;

/// A slot for names of this length, first and last byte.
#[inline]
fn filter_slot(name: &[u8]) -> usize {
    let (first, last) = match name {
        [first, .., last] => (*first, *last),
        [one] => (*one, *one),
        [] => (0, 0),
    };
    (usize::from(first) + 7 * usize::from(last) + 31 * name.len()) % FILTER_SLOTS
}

impl RecordView {
    /// Compiles `names`.
    #[must_use]
    pub fn new(names: FieldNames) -> Self {
        let text_names = names.text.iter().enumerate().map(|(rank, name)| {
            if FURTHER_TEXT_NAMES.contains(&name.as_str()) {
                0
            } else {
                rank
            }
        });
        let mut view = Self {
            text_names: text_names.collect(),
            readings: HashMap::default(),
            is_read: [false; FILTER_SLOTS],
            ids: IdReader::new(&names.ignore),
            key: names.key().as_bytes().into(),
            names,
        };
        let names = view.names.clone();
        for (rank, key) in (0..).zip(&names.keys) {
            let (path, form) = IdForm::of_key(key);
            view.add(Meaning::Id(form), rank, path);
        }
        for (rank, path) in (0..).zip(&names.text) {
            view.add(Meaning::Text, rank, path);
        }
        for (rank, path) in (0..).zip(&names.level) {
            view.add(Meaning::Level(NumberScheme::of(path)), rank, path);
        }
        for (rank, path) in (0..).zip(&names.service) {
            view.add(Meaning::Service, rank, path);
        }
        view
    }

    fn add(&mut self, meaning: Meaning, rank: u16, path: &str) {
        if rank >= u16::MAX / MATCHES_PER_PATH {
            return;
        }
        let dots = path.match_indices('.').map(|(at, _)| at);
        // The longest root first: the literal name.
        let roots = std::iter::once(path.len()).chain(dots.rev());
        for (way, end) in (0..MATCHES_PER_PATH).zip(roots) {
            let (root, below) = path.split_at(end);
            let reading = Reading {
                meaning,
                order: rank * MATCHES_PER_PATH + way,
                below: below.get(1..).map(|below| below.as_bytes().into()),
            };
            self.is_read[filter_slot(root.as_bytes())] = true;
            self.readings
                .entry(root.as_bytes().into())
                .or_default()
                .push(reading);
        }
    }

    /// The names of the configuration.
    pub fn names(&self) -> &FieldNames {
        &self.names
    }

    /// The name of the trace id in the document.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// How a field of this name is read.
    #[inline]
    pub(crate) fn readings(&self, name: &[u8]) -> &[Reading] {
        if !self.is_read[filter_slot(name)] {
            return &[];
        }
        self.readings.get(name).map_or(&[], Vec::as_slice)
    }

    /// Number of the name under which the document has a text that was read so.
    pub(crate) fn text_rank(&self, reading: &Reading) -> usize {
        if !reading.is_literal() {
            return 0;
        }
        self.text_names.get(reading.rank()).copied().unwrap_or(0)
    }

    /// Whether the document may have the text under the name of this field.
    pub(crate) fn is_text_name(&self, reading: &Reading) -> bool {
        reading.is_text() && self.text_rank(reading) == reading.rank()
    }

    /// Whether a field has the trace id, and nothing else.
    pub(crate) fn is_id(&self, name: &[u8], value: &[u8], id: &[u8]) -> bool {
        self.readings(name).iter().any(|reading| match reading.meaning {
            Meaning::Id(form) if reading.is_literal() => match self.ids.read(form, value) {
                Some(IdValue::Whole(found)) => found == id,
                Some(IdValue::Made(found)) => found.bytes() == id,
                Some(IdValue::Part(_)) | None => false,
            },
            _ => false,
        })
    }

    /// The id in a value of a field or of metadata.
    #[inline]
    pub(super) fn read_id<'a>(&self, form: IdForm, value: &'a [u8]) -> Option<IdValue<'a>> {
        self.ids.read(form, value)
    }

    /// The id in a value if it is the whole text and looks like no other form.
    #[inline(always)]
    pub(super) fn usual_id<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        self.ids.read_usual(value)
    }

    /// Calls `each` with the number of each key that `record` has, and whether its value is a
    /// usable id.
    pub fn keys_in(&self, record: &[u8], mut each: impl FnMut(usize, bool)) {
        for (reading, _, value) in self.found(record) {
            if let Meaning::Id(form) = reading.meaning
                && let Some(value) = reading.value(value)
            {
                each(reading.rank(), self.ids.read(form, value).is_some());
            }
        }
    }

    /// A text without what does not belong to it: the line terminator at its end and, if so
    /// configured, ANSI escape sequences.
    #[inline]
    pub fn clean<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let text = self.trimmed(text);
        if self.names.strip_ansi {
            stripped(text)
        } else {
            Cow::Borrowed(text)
        }
    }

    #[inline]
    pub(super) fn trimmed<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        trimmed(text, self.names.strip_ansi)
    }

    /// Whether [`Self::clean`] removes more from a text than its end.
    #[inline]
    pub fn is_rewritten(&self, text: &[u8]) -> bool {
        self.names.strip_ansi && has_escapes(text)
    }

    /// The fields of a record that are read, in order of preference. Of equal names the last one
    /// counts.
    fn found<'v, 'a>(&'v self, record: &'a [u8]) -> Found<'v, 'a> {
        let mut found = Found::new();
        for pair in MapPairs::new(record) {
            let Key::Text(name) = pair.key else { continue };
            for reading in self.readings(name) {
                match found.iter_mut().find(|(known, ..)| std::ptr::eq(*known, reading)) {
                    Some(known) => known.2 = pair.value,
                    None => found.push((reading, name, pair.value)),
                }
            }
        }
        found.sort_unstable_by_key(|(reading, ..)| reading.order);
        found
    }

    /// Everything about a record, field by field. An id that is no slice of the record is put into
    /// `made`.
    pub fn read<'a>(&self, record: &'a [u8], made: &mut MadeId) -> SlowFacts<'a> {
        let found = self.found(record);
        let mut facts = RecordFacts::default();
        let mut id_is_made = false;
        for &(reading, _, value) in &found {
            match reading.meaning {
                Meaning::Id(form) => {
                    if facts.id.is_some() || id_is_made {
                        continue;
                    }
                    match reading.value(value).and_then(|value| self.ids.read(form, value)) {
                        Some(IdValue::Whole(id) | IdValue::Part(id)) => facts.id = Some(id),
                        Some(IdValue::Made(id)) => {
                            *made = id;
                            id_is_made = true;
                        }
                        None => {}
                    }
                }
                Meaning::Text => {}
                Meaning::Level(_) | Meaning::Service => facts.read_below(self, reading, value),
            }
        }
        let (_, text, _) = choose_text(self, &found);
        SlowFacts {
            facts,
            id_is_made,
            text,
        }
    }

    /// The text of a record, the rank of its name in the document, and the field that holds it.
    pub(crate) fn text<'a>(&self, record: &'a [u8]) -> (usize, RecordText<'a>, Option<&'a [u8]>) {
        choose_text(self, &self.found(record))
    }
}

/// Readings with the name and the value of their field.
type Found<'v, 'a> = SmallVec<[(&'v Reading, &'a [u8], &'a [u8]); 8]>;

/// The first text, else the first other value but nil, else all fields.
fn choose_text<'a>(view: &RecordView, found: &Found<'_, 'a>) -> (usize, RecordText<'a>, Option<&'a [u8]>) {
    let mut best = (0, RecordText::Fields, None);
    for &(reading, name, value) in found {
        if reading.meaning != Meaning::Text {
            continue;
        }
        let text = reading.value(value).and_then(RecordText::of_value);
        let name = reading.is_literal().then_some(name);
        match (text, best.1) {
            (Some(text @ RecordText::Field(_)), _) => return (view.text_rank(reading), text, name),
            (Some(text), RecordText::Fields) => best = (view.text_rank(reading), text, name),
            _ => {}
        }
    }
    best
}

#[cfg(test)]
mod tests;
