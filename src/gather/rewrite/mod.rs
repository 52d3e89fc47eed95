//! Records that mean another record: what Windrow gathers in place of a record as it came.
//!
//! * `json_text`: a record whose text is a JSON object becomes that object;
//! * `fragment`, `partial`: the parts of a line become one record;
//! * `root_names`: which fields are looked at.
//!
//! Runs before a record joins its trace, for the few records that [`is_candidate`] lets through.
//! Does not decide what the fields of the resulting record mean.

mod fragment;
mod json_text;
mod partial;
mod root_names;

pub(super) use self::json_text::JsonText;
pub(super) use self::partial::{Fragment, Offer, PartialLimits, PartialLines, joined_record};
pub(super) use self::root_names::RootNames;

use self::fragment::{DOCKER_LINE_BYTES, Mark, mark};
use super::classifier::Classification;

/// Whether a classified record may mean another one. Must cost next to nothing: every record is
/// asked.
#[inline(always)]
pub(super) fn is_candidate(classification: &Classification<'_>) -> bool {
    match classification.facts.text {
        Some(text) => may_be_json(text) || text.len() == DOCKER_LINE_BYTES || classification.is_fragment,
        // Records without a known shape have no text here, and cost more anyway.
        None => classification.shape.is_none(),
    }
}

/// Whether a candidate is a part of a line that other records go on with.
#[cold]
pub(super) fn is_fragment(names: &RootNames, record: &[u8]) -> bool {
    matches!(mark(names, record), Mark::Numbered { .. } | Mark::Open(_))
}

/// Whether a text may be a JSON object: it begins with a brace, perhaps after white space.
#[inline(always)]
fn may_be_json(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'{' | b' ' | b'\t' | b'\r' | b'\n'))
}
