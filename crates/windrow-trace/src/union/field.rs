//! A field of the union of two documents: its value, and the line that it comes from.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::merged::LineOrder;
use crate::document::json::one_line;
use crate::document::kept::is_displaced;
use crate::document::merge_rule::{MergeRule, ValueSet};
use crate::document::state::FieldLocation;

/// A field of the union.
#[derive(Clone)]
pub(super) struct JoinedField<'a> {
    pub(super) location: FieldLocation,
    /// Its name in the records, and what this becomes where no other field is in its way.
    pub(super) original: &'a str,
    pub(super) natural: Cow<'a, str>,
    pub(super) rule: MergeRule,
    /// The line of the value.
    pub(super) line: LineOrder,
    pub(super) raw: &'a RawValue,
    /// It is in `windrow.unmapped`.
    pub(super) unmapped: bool,
    /// The values, if the rule chooses by value.
    pub(super) values: ValueSet,
}

impl JoinedField<'_> {
    /// Its name in the records and its value, if it has that name in the document.
    pub(super) fn located_value(&self) -> Option<((FieldLocation, String), String)> {
        let mut value = Vec::new();
        self.write_value(&mut value);
        let value = String::from_utf8(value).unwrap_or_default();
        let is_displaced = is_displaced((self.original, &self.natural));
        (!is_displaced).then(|| ((self.location, self.original.to_owned()), value))
    }

    /// Its value in the document.
    pub(super) fn as_raw(&self) -> Box<RawValue> {
        let mut value = Vec::new();
        self.write_value(&mut value);
        let value = String::from_utf8(value).ok().map(RawValue::from_string);
        value.and_then(Result::ok).unwrap_or_else(|| self.raw.to_owned())
    }

    pub(super) fn write_value(&self, out: &mut Vec<u8>) {
        if self.rule.is_by_value() {
            self.values.write(self.rule, out);
        } else {
            out.extend(one_line(self.raw));
        }
    }
}
