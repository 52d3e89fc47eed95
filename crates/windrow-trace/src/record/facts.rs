//! Facts of a record: its trace id, text, level and service.
//!
//! Owns the preference among several fields of one meaning. [`RecordFacts`] are filled field by
//! field, for records of a known shape; [`RecordView::read`](super::view::RecordView::read) fills
//! them for all others.

use std::borrow::Cow;

use super::severity::Severity;
use super::text::{RecordText, TextForm};
use super::trace_id::IdValue;
use super::view::{Meaning, Reading, RecordView, UsualKind, UsualReading, for_each_below};
use crate::document::msgpack::read_token;
use crate::document::names::as_text;
use crate::document::shape::Shape;

/// What a walk over all names of a record finds.
#[derive(Clone, Copy, Debug)]
pub struct SlowFacts<'a> {
    /// Everything but the text.
    pub facts: RecordFacts<'a>,
    /// The id is a made one.
    pub id_is_made: bool,
    pub(super) text: RecordText<'a>,
}

impl<'a> SlowFacts<'a> {
    /// Where the text comes from.
    #[must_use]
    pub fn text_form(&self) -> TextForm {
        self.text.form()
    }

    /// The text, if a field holds it.
    #[must_use]
    pub fn field_text(&self, view: &RecordView) -> Option<Cow<'a, [u8]>> {
        match self.text {
            RecordText::Fields => None,
            text => text.write(view, b"", b""),
        }
    }
}

/// What a record says about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordFacts<'a> {
    /// The trace id, a slice of the record.
    pub id: Option<&'a [u8]>,
    /// The text, a slice of the record.
    pub text: Option<&'a [u8]>,
    /// The level.
    pub level: Option<Severity>,
    /// The service, a slice of the record.
    pub service: Option<&'a [u8]>,
    /// Preferences of the readings that gave them.
    id_preference: u16,
    text_preference: u16,
    level_preference: u16,
    service_preference: u16,
    /// The id is a piece of its field.
    id_is_part: bool,
    /// Something needs [`RecordView::read`].
    is_rare: bool,
}

impl<'a> RecordFacts<'a> {
    /// Reads a field that is in a map below another one, if it is there.
    pub(super) fn read_below(&mut self, view: &RecordView, reading: &Reading, value: &'a [u8]) {
        if let Some(value) = reading.value(value) {
            self.read(view, reading, value);
        }
    }

    /// Reads everything that is in maps below a field.
    #[inline]
    pub fn read_nested(&mut self, view: &RecordView, readings: &[Reading], value: &'a [u8]) {
        if matches!(value.first(), Some(0x81..=0x8f | 0x91..=0x9f | 0xdc..=0xdf)) {
            self.read_map(view, readings, value);
        }
    }

    #[inline(never)]
    fn read_map(&mut self, view: &RecordView, readings: &[Reading], map: &'a [u8]) {
        for_each_below(readings, map, |reading, value| self.read(view, reading, value));
    }

    /// Reads the value of a field as [`Self::read`] does, if it is a usual one; says whether it is.
    /// No map is usual, so there is nothing below it.
    #[inline(always)]
    pub fn read_usual(&mut self, view: &RecordView, usual: UsualReading, value: &'a [u8]) -> bool {
        let preference = usual.preference;
        match usual.kind {
            UsualKind::Id => {
                let Some(id) = view.usual_id(value) else {
                    return false;
                };
                if preference > self.id_preference {
                    (self.id, self.id_preference, self.id_is_part) = (Some(id), preference, false);
                }
            }
            UsualKind::Level => {
                let Some(level) = Severity::from_value(usual.scheme, value) else {
                    return false;
                };
                if preference > self.level_preference {
                    (self.level, self.level_preference) = (Some(level), preference);
                }
            }
            UsualKind::Service => {
                let Some(service) = usual_service(value) else {
                    return false;
                };
                if preference > self.service_preference {
                    (self.service, self.service_preference) = (Some(service), preference);
                }
            }
            UsualKind::Rare => return false,
        }
        true
    }

    /// Reads one value.
    #[inline]
    pub fn read(&mut self, view: &RecordView, reading: &Reading, value: &'a [u8]) {
        let preference = reading.preference();
        match reading.meaning {
            Meaning::Id(form) => {
                if preference > self.id_preference {
                    match view.read_id(form, value) {
                        Some(IdValue::Whole(id)) => {
                            (self.id, self.id_preference, self.id_is_part) = (Some(id), preference, false);
                        }
                        Some(IdValue::Part(id)) => {
                            (self.id, self.id_preference, self.id_is_part) = (Some(id), preference, true);
                        }
                        Some(IdValue::Made(_)) => self.is_rare = true,
                        // A list or an object gets another name in the document.
                        None if reading.is_id()
                            && matches!(value.first(), Some(0x80..=0x9f | 0xdc..=0xdf)) =>
                        {
                            self.is_rare = true;
                        }
                        None => {}
                    }
                }
            }
            Meaning::Text => {
                if preference > self.text_preference {
                    match RecordText::of_value(value) {
                        Some(RecordText::Field(text)) => {
                            (self.text, self.text_preference) = (Some(view.trimmed(text)), preference);
                        }
                        Some(_) => self.is_rare = true,
                        None => {}
                    }
                }
            }
            Meaning::Level(scheme) => {
                if preference > self.level_preference
                    && let Some(level) = Severity::from_value(scheme, value)
                {
                    (self.level, self.level_preference) = (Some(level), preference);
                }
            }
            Meaning::Service => {
                if preference > self.service_preference
                    && let Some(service) = service_of(value)
                {
                    (self.service, self.service_preference) = (Some(service), preference);
                }
            }
        }
    }

    /// Notes the text of the field that the shape chose.
    #[inline]
    pub fn set_text(&mut self, view: &RecordView, text: &'a [u8]) {
        self.text = Some(view.trimmed(text));
    }

    /// Whether the facts are those of [`RecordView::read`], for a record of this shape.
    #[inline]
    #[must_use]
    pub fn fit(&self, shape: &Shape) -> bool {
        let canonical = shape.canonical_id();
        // The document leaves out the field of its own name for the id: then it must be the id.
        let is_id =
            canonical == 0 || self.id.is_none() || (canonical == self.id_preference && !self.id_is_part);
        is_id && !self.is_rare && (self.text.is_some() || shape.text_rank().is_none())
    }
}

/// [`service_of`] of a short text that is the name as it stands.
#[inline(always)]
fn usual_service(value: &[u8]) -> Option<&[u8]> {
    match value {
        // Whole values: a string reaches to the end.
        [0xa1..=0xbf, text @ ..] => match text {
            [] | [b'/' | b' ', ..] | [.., b' '] => None,
            text => Some(text),
        },
        _ => None,
    }
}

/// The name of a service: a text that is not blank. Docker's container names begin with a slash.
#[inline]
pub(super) fn service_of(value: &[u8]) -> Option<&[u8]> {
    let text = as_text(read_token(value, 0)?.0)?;
    match text {
        [] => None,
        [b'/' | b' ', ..] | [.., b' '] => {
            let text = text.trim_ascii();
            let text = text.strip_prefix(b"/").unwrap_or(text);
            (!text.is_empty()).then_some(text)
        }
        _ => Some(text),
    }
}
