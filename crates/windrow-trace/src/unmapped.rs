//! Unmapped fields: moves fields that a store refuses from the top of a document to
//! `windrow.unmapped`, or, as one JSON text that no store parses, to `windrow.unindexed`.
//!
//! A pure function on documents. `union` reads both back, so a moved field takes part in a merge as
//! if it had its own place.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::document::json::write_string;
use crate::document::state::DocumentState;
use crate::raw_fields::{RawFields, write_raw};

/// Fields of the `windrow` object that hold moved fields.
pub(crate) const UNMAPPED: &str = "unmapped";
pub(crate) const UNINDEXED: &str = "unindexed";
/// Key of the moved event metadata among the moved fields: no record has a field of this name.
pub(crate) const METADATA_OWNER: &str = "windrow";

/// Which fields to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap<'a> {
    /// The field that this path names: a top-level field, or the one that contains it.
    Field(&'a str),
    /// All fields of the application, and event metadata; trace id and text stay.
    Fields,
    /// Everything but the time, as one text that is not indexed.
    Everything,
}

/// Moves fields. Returns the changed document and the names of the fields that were moved, or
/// `None` if there is nothing to move or the document is not a JSON object.
pub fn unmap(document: &[u8], which: Unmap<'_>) -> Option<(Vec<u8>, Vec<String>)> {
    let restored = restore_unindexed(document);
    let fields = RawFields::parse(&restored).ok()?;
    let windrow = fields
        .get("windrow")
        .map(|raw| RawFields::parse(raw.get().as_bytes()));
    let windrow = windrow.transpose().ok()?.unwrap_or_default();
    let before = windrow
        .get(UNMAPPED)
        .map(|raw| RawFields::parse(raw.get().as_bytes()));
    let moved = before.and_then(Result::ok).unwrap_or_default();
    let already = moved.0.len();

    let metadata = windrow.get("metadata");
    let kept = match which {
        Unmap::Field(path) => {
            let found = owner(&fields, path)?;
            return if found == "windrow" {
                let inside = path.strip_prefix("windrow.metadata")?;
                (inside.is_empty() || inside.starts_with('.')).then_some(())?;
                write_moved(&fields, &windrow, moved, |_| false, Some(metadata?), false)
            } else {
                let found = found.to_owned();
                write_moved(&fields, &windrow, moved, |name| name == found, None, false)
            };
        }
        Unmap::Fields => core_names(&fields, &windrow),
        Unmap::Everything => vec!["@timestamp".to_owned()],
    };
    let text = which == Unmap::Everything;
    if !text
        && already > 0
        && metadata.is_none()
        && fields
            .0
            .iter()
            .all(|(name, _)| name == "windrow" || kept.contains(name))
    {
        return None;
    }
    write_moved(
        &fields,
        &windrow,
        moved,
        |name| !kept.contains(&name.to_owned()),
        metadata,
        text,
    )
}

/// The top-level field that a path of the store names: the longest of which the path is the name
/// or begins with the name and a dot.
fn owner<'f>(fields: &'f RawFields<'_>, path: &str) -> Option<&'f str> {
    let covers = |name: &str| {
        !name.is_empty()
            && (path == name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    };
    let names = fields.0.iter().map(|(name, _)| name.as_str());
    let own = names
        .clone()
        .filter(|name| covers(name))
        .max_by_key(|name| name.len());
    // A store that refuses `a` because of a field `a.b` names only the beginning.
    own.or_else(|| {
        let mut below =
            names.filter(|name| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
        below.next()
    })
}

/// Time, trace id and text: what a document keeps at the top as long as possible.
fn core_names(fields: &RawFields<'_>, windrow: &RawFields<'_>) -> Vec<String> {
    let mut names = vec!["@timestamp".to_owned()];
    let state = windrow
        .get("state")
        .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    match state.and_then(|state| DocumentState::read(&state).ok()) {
        Some(state) => {
            names.push(state.key_name);
            names.extend(state.text_name);
        }
        None => {
            let text = ["message", "log", "msg"]
                .into_iter()
                .find(|name| fields.get(name).is_some());
            names.extend(text.map(str::to_owned));
            names.push(crate::document::state::DEFAULT_KEY.to_owned());
        }
    }
    names
}

type Moved = Option<(Vec<u8>, Vec<String>)>;

/// Writes the document with the fields that `moves` selects in `windrow`.
fn write_moved(
    fields: &RawFields<'_>,
    windrow: &RawFields<'_>,
    mut moved: RawFields<'_>,
    moves: impl Fn(&str) -> bool,
    metadata: Option<&RawValue>,
    as_text: bool,
) -> Moved {
    let mut names = Vec::new();
    let mut out = b"{".to_vec();
    for (name, raw) in &fields.0 {
        if name == "windrow" {
            continue;
        }
        if moves(name) {
            names.push(name.clone());
            moved.0.retain(|(known, _)| known != name);
        } else {
            write_field(&mut out, name, raw);
        }
    }
    if metadata.is_some() {
        names.push("windrow.metadata".to_owned());
    }
    if names.is_empty() && !as_text {
        return None;
    }
    let mut inner = b"{".to_vec();
    for (name, raw) in &moved.0 {
        if name != METADATA_OWNER || metadata.is_none() {
            write_field(&mut inner, name, raw);
        }
    }
    for (name, raw) in fields
        .0
        .iter()
        .filter(|(name, _)| name != "windrow" && moves(name))
    {
        write_field(&mut inner, name, raw);
    }
    if let Some(metadata) = metadata {
        begin_pair(&mut inner, METADATA_OWNER);
        inner.extend_from_slice(b"{\"metadata\":{");
        let new = RawFields::parse(metadata.get().as_bytes()).ok()?;
        let old = moved_metadata(&moved).unwrap_or_default();
        for (name, raw) in old
            .0
            .iter()
            .filter(|(name, _)| new.get(name).is_none())
            .chain(&new.0)
        {
            write_field(&mut inner, name, raw);
        }
        inner.extend_from_slice(b"}}");
    }
    inner.push(b'}');

    begin_pair(&mut out, "windrow");
    out.push(b'{');
    let (place, other) = if as_text {
        (UNINDEXED, UNMAPPED)
    } else {
        (UNMAPPED, UNINDEXED)
    };
    for (name, raw) in &windrow.0 {
        let gone = name == place || name == other || (name == "metadata" && metadata.is_some());
        // `state` is the last field by convention.
        if !gone && name != "state" {
            write_field(&mut out, name, raw);
        }
    }
    begin_pair(&mut out, place);
    if as_text {
        write_string(&mut out, &inner);
    } else {
        out.extend_from_slice(&inner);
    }
    if let Some(state) = windrow.get("state") {
        write_field(&mut out, "state", state);
    }
    out.extend_from_slice(b"}}");
    Some((out, names))
}

/// The event metadata among the moved fields.
pub(crate) fn moved_metadata<'a>(moved: &RawFields<'a>) -> Option<RawFields<'a>> {
    let owner = RawFields::parse(moved.get(METADATA_OWNER)?.get().as_bytes()).ok()?;
    RawFields::parse(owner.get("metadata")?.get().as_bytes()).ok()
}

/// Puts the text of `windrow.unindexed` back as `windrow.unmapped`, if the document has one.
pub(crate) fn restore_unindexed(document: &[u8]) -> Cow<'_, [u8]> {
    restore(document).map_or(Cow::Borrowed(document), Cow::Owned)
}

fn restore(document: &[u8]) -> Option<Vec<u8>> {
    // Most documents have none: they are not parsed for it.
    std::str::from_utf8(document)
        .ok()?
        .contains("\"unindexed\"")
        .then_some(())?;
    let fields = RawFields::parse(document).ok()?;
    let windrow = RawFields::parse(fields.get("windrow")?.get().as_bytes()).ok()?;
    let text: String = serde_json::from_str(windrow.get(UNINDEXED)?.get()).ok()?;
    let mut out = b"{".to_vec();
    for (name, raw) in fields.0.iter().filter(|(name, _)| name != "windrow") {
        write_field(&mut out, name, raw);
    }
    begin_pair(&mut out, "windrow");
    out.push(b'{');
    for (name, raw) in windrow
        .0
        .iter()
        .filter(|(name, _)| name != UNINDEXED && name != UNMAPPED)
    {
        write_field(&mut out, name, raw);
    }
    begin_pair(&mut out, UNMAPPED);
    out.extend(text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
    out.extend_from_slice(b"}}");
    Some(out)
}

fn write_field(out: &mut Vec<u8>, name: &str, raw: &RawValue) {
    begin_pair(out, name);
    write_raw(out, raw);
}

/// Appends the name of a pair, with a comma unless the object begins with it.
pub(crate) fn begin_pair(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_string(out, name.as_bytes());
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn moved(document: &Value, which: Unmap<'_>) -> (Value, Vec<String>) {
        let (bytes, names) = unmap(document.to_string().as_bytes(), which).unwrap();
        (serde_json::from_slice(&bytes).unwrap(), names)
    }

    #[test]
    fn a_field_is_found_by_the_path_that_the_store_names() {
        let document = json!({"@timestamp": "t", "code": "x", "user.name": 1, "user": {"name": 2}, "windrow": {"lines": 1}});
        for (path, name) in [
            ("code", "code"),
            ("code.a.b", "code"),
            ("user.name", "user.name"),
            ("user.name.first", "user.name"),
            ("user.other", "user"),
        ] {
            let (now, names) = moved(&document, Unmap::Field(path));
            assert_eq!(names, [name], "{path}");
            assert_eq!(
                now["windrow"]["unmapped"],
                json!({name: document[name]}),
                "{path}"
            );
            assert!(now.get(name).is_none());
            assert_eq!(now["windrow"]["lines"], 1);
        }
        for path in ["other", "cod", "", "windrow", "windrow.lines", "windrow.metadata"] {
            assert!(
                unmap(document.to_string().as_bytes(), Unmap::Field(path)).is_none(),
                "{path}"
            );
        }
        let dotted = json!({"peer.host": 1, "windrow": {}});
        assert_eq!(moved(&dotted, Unmap::Field("peer")).1, ["peer.host"]);
    }

    #[test]
    fn fields_are_moved_step_by_step_and_at_last_all() {
        let document = json!({"@timestamp": "t", "traceId": "a", "message": "m", "x": 1, "y": [1, {"z": "\n\""}],
            "windrow": {"lines": 1, "metadata": {"k": 1}}});
        let (one, _) = moved(&document, Unmap::Field("x"));
        let (two, _) = moved(&one, Unmap::Field("windrow.metadata.k"));
        assert_eq!(
            two["windrow"]["unmapped"],
            json!({"x": 1, "windrow": {"metadata": {"k": 1}}})
        );
        assert!(two["windrow"].get("metadata").is_none());
        let (all, _) = moved(&two, Unmap::Fields);
        assert_eq!(all["message"], "m");
        assert_eq!(
            all["windrow"]["unmapped"],
            json!({"x": 1, "y": [1, {"z": "\n\""}], "windrow": {"metadata": {"k": 1}}})
        );
        assert!(unmap(all.to_string().as_bytes(), Unmap::Fields).is_none());
        let (text, _) = moved(&all, Unmap::Everything);
        assert_eq!(text["windrow"]["unmapped"], Value::Null);
        let inside: Value = serde_json::from_str(text["windrow"]["unindexed"].as_str().unwrap()).unwrap();
        assert_eq!(
            inside,
            json!({"traceId": "a", "message": "m", "x": 1, "y": [1, {"z": "\n\""}], "windrow": {"metadata": {"k": 1}}})
        );
        assert_eq!(text.as_object().unwrap().len(), 2, "{text}");
        // Again from the text, which is put back first.
        let (again, _) = moved(&text, Unmap::Everything);
        assert_eq!(again, text);
    }
}
