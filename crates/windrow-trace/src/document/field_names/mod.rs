//! Field names that Elasticsearch and OpenSearch accept.
//!
//! Owns the rules that depend on one name alone, and how names that become equal are told apart.
//! `paths` finds fields of which one path is an object and a value, `top_level` names the fields of
//! a document. `docs/decisions/0038-field-names.md` has the rules and why they are these.

pub(crate) mod paths;
pub(crate) mod top_level;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

/// Names of the metadata fields of Elasticsearch 8 and 9 and of OpenSearch 2 and 3, from their
/// `MetadataFieldMapper`s (also those of modules and plugins), and names of Lucene fields that they
/// write themselves. Sorted.
const METADATA: [&str; 25] = [
    "__soft_deletes",
    "_data_stream_timestamp",
    "_doc_count",
    "_feature",
    "_field_names",
    "_id",
    "_ignored",
    "_ignored_source",
    "_index",
    "_index_mode",
    "_inference_fields",
    "_nested_path",
    "_primary_term",
    "_recovery_source",
    "_recovery_source_size",
    "_routing",
    "_seq_no",
    "_size",
    "_source",
    "_tier",
    "_tombstone",
    "_ts_routing_hash",
    "_tsid",
    "_type",
    "_version",
];

/// Maximum number of segments of a name with dots: `index.mapping.depth.limit`.
const MAX_SEGMENTS: usize = 20;

/// Fields that Windrow writes into every document.
pub(crate) const OWN: [&str; 2] = ["@timestamp", "windrow"];

/// Whether a name is written as it is at every depth but the first, which is to be found out fast:
/// printable ASCII without dots and blanks.
#[inline]
pub(crate) fn is_simple(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'.')
}

/// [`is_simple`] for fields of a document.
#[inline]
pub(crate) fn is_simple_at_top(name: &[u8]) -> bool {
    is_simple(name)
        && match name[0] {
            b'_' => !is_metadata(name),
            b'@' => name != b"@timestamp",
            b'w' => name != b"windrow",
            _ => true,
        }
}

fn is_metadata(name: &[u8]) -> bool {
    METADATA
        .binary_search_by(|known| known.as_bytes().cmp(name))
        .is_ok()
}

/// A name as text: bytes that are no UTF-8 are replaced by U+FFFD. So is NUL, which keys of
/// `flattened` fields cannot hold.
pub(crate) fn text(name: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(name);
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        text
    }
}

/// Whether the store calls it blank: `Character.isWhitespace` of Java, and the rest of Unicode's.
fn is_blank(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_whitespace() || matches!(c, '\x1c'..='\x1f'))
}

/// The name at any depth but the first. A name with dots is a path, unless a segment of it is empty
/// or blank or it is deeper than a store permits: then its dots become `_`. An empty or blank name
/// gets a `_`.
pub(crate) fn nested_name(text: &str) -> Cow<'_, str> {
    let is_no_path = |text: &str| text.split('.').any(is_blank) || text.split('.').count() > MAX_SEGMENTS;
    let path = if text.contains('.') && is_no_path(text) {
        Cow::Owned(text.replace('.', "_"))
    } else {
        Cow::Borrowed(text)
    };
    if is_blank(&path) {
        Cow::Owned(format!("{path}_"))
    } else {
        path
    }
}

/// The name of a field of the document: as [`nested_name`], and what is reserved gets a `_`.
pub(crate) fn top_level_name(text: &str) -> Cow<'_, str> {
    let name = nested_name(text);
    let first = name.split('.').next().unwrap_or_default();
    if OWN.contains(&first) || is_metadata(first.as_bytes()) {
        let at = first.len();
        Cow::Owned(format!("{first}_{}", &name[at..]))
    } else {
        name
    }
}

/// The names of an object's members. Names that became equal are told apart by further `_`: those
/// that need no change keep theirs, the others follow in the order of what they were, so that the
/// order of members does not matter. Of members with the same text the last counts; the others
/// have no name.
pub(crate) fn member_names(members: &[&[u8]]) -> Vec<Option<String>> {
    let texts: Vec<Cow<'_, str>> = members.iter().map(|name| text(name)).collect();
    let last: BTreeMap<&str, usize> = texts.iter().zip(0..).map(|(text, i)| (&**text, i)).collect();
    let mut names = vec![None; members.len()];
    let mut taken = HashSet::new();
    let mut changed = Vec::new();
    for (text, &i) in &last {
        match nested_name(text) {
            Cow::Borrowed(name) => {
                taken.insert(name.to_owned());
                names[i] = Some(name.to_owned());
            }
            Cow::Owned(name) => changed.push((i, name)),
        }
    }
    for (i, name) in changed {
        names[i] = Some(take(&mut taken, name));
    }
    names
}

/// Compares names so that `a` is followed by all names that begin with `a.`.
pub(crate) fn by_path(a: &str, b: &str) -> Ordering {
    let key = |byte: u8| if byte == b'.' { 0 } else { u16::from(byte) + 1 };
    a.bytes().map(key).cmp(b.bytes().map(key))
}

/// Whether `name` is `path`, a dot and more.
pub(crate) fn is_below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether one of these names is below another one.
pub(crate) fn any_below(mut names: Vec<&str>) -> bool {
    names.sort_unstable_by(|a, b| by_path(a, b));
    names.windows(2).any(|pair| is_below(pair[1], pair[0]))
}

/// Takes a name that is free: this one, or with as many `_` as it needs.
pub(crate) fn take(taken: &mut HashSet<String>, mut name: String) -> String {
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}

/// Whether a field of this name is `flattened` in Windrow's index template: an object of labels or
/// annotations. Its keys are no paths, so `app` and `app.kubernetes.io/name` go together.
#[inline]
pub(crate) fn is_flattened(name: &[u8]) -> bool {
    let is = |suffix: &[u8]| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with(b".") || rest.ends_with(b"_"))
    };
    matches!(name.last(), Some(b's')) && (is(b"labels") || is(b"annotations"))
}
