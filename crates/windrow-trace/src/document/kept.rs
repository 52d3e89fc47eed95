//! Kept records: the fields of every line, so that each record can be got back
//! (`trace.keep_fields`).
//!
//! Owns `windrow.fields`. Lines with the same names share a form, and a line has only the values
//! that differ from the document's, each behind its number: first the fields are counted, then the
//! metadata.
//!
//! ```json
//! {"forms":[{"fields":["traceId","message","level"],"ids":[0],"text":1,"metadata":["m"]}],
//!  "lines":[[0],[0,2,"debug",3,7],null]}
//! ```

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::field_names::{text, top_level_name};
use super::fields::{DocumentNames, MergedFields};
use super::json::{self, write_string, write_unsigned};
use super::msgpack::{Token, read_token, skip};
use super::names::FieldNames;
use super::schema::write_names;
use super::state::FieldLocation;
use crate::name_origin::NameOrigin;

/// Name and value as JSON.
type Pair = (String, String);

/// The record of a line. The values of its text and of trace ids are empty: the document has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptRecord {
    pub(crate) fields: Vec<Pair>,
    /// The fields with the trace id.
    pub(crate) ids: Vec<usize>,
    /// The field with the text.
    pub(crate) text: Option<usize>,
    pub(crate) metadata: Vec<Pair>,
}

/// The values of a document by location and name in the records, as JSON.
pub(crate) type DocumentValues = HashMap<(FieldLocation, String), String>;

/// What records of one form have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
struct Form {
    fields: Vec<String>,
    #[serde(default)]
    ids: Vec<usize>,
    #[serde(default)]
    text: Option<usize>,
    #[serde(default)]
    metadata: Vec<String>,
}

impl KeptRecord {
    /// A record with its metadata, both MessagePack. `text_rank`: the rank of its text's name.
    pub(crate) fn of(
        names: &FieldNames,
        id: &[u8],
        record: &[u8],
        metadata: &[u8],
        text_rank: Option<usize>,
    ) -> Self {
        let mut kept = Self {
            fields: pairs(record),
            metadata: pairs(metadata),
            ..Self::default()
        };
        let text = text_rank.and_then(|rank| names.text.get(rank));
        let mut id_json = Vec::new();
        write_string(&mut id_json, id);
        for (number, (name, value)) in kept.fields.iter_mut().enumerate() {
            let is_id = name == names.key() || names.is_key(name.as_bytes());
            if is_id && value.as_bytes() == id_json {
                kept.ids.push(number);
                value.clear();
            } else if text == Some(name) {
                kept.text = Some(number);
                value.clear();
            }
        }
        kept
    }

    fn form(&self) -> Form {
        let names = |pairs: &[Pair]| pairs.iter().map(|(name, _)| name.clone()).collect();
        Form {
            fields: names(&self.fields),
            ids: self.ids.clone(),
            text: self.text,
            metadata: names(&self.metadata),
        }
    }

    /// Number, location, name and value of each field that the document may have.
    fn values(&self) -> impl Iterator<Item = (usize, FieldLocation, &str, &str)> {
        let is_elsewhere = |number: usize| self.ids.contains(&number) || self.text == Some(number);
        let fields = self.fields.iter().map(|pair| (FieldLocation::TopLevel, pair));
        let metadata = self.metadata.iter().map(|pair| (FieldLocation::Metadata, pair));
        fields
            .chain(metadata)
            .enumerate()
            .filter(move |(number, _)| !is_elsewhere(*number))
            .map(|(number, (location, (name, value)))| (number, location, name.as_str(), value.as_str()))
    }
}

/// The pairs of a MessagePack map. Of equal names the last value counts.
fn pairs(map: &[u8]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let Some((Token::Map(count), mut at)) = read_token(map, 0) else {
        return pairs;
    };
    for _ in 0..count {
        let Some((name, value)) = json::key(map, at) else {
            break;
        };
        let Some(end) = skip(map, value) else { break };
        at = end;
        let name = String::from_utf8_lossy(&name).into_owned();
        let mut text = Vec::new();
        json::write_verbatim(&mut text, map, value);
        let text = String::from_utf8(text).unwrap_or_default();
        match known.get(&name).and_then(|at| pairs.get_mut(*at)) {
            Some(pair) => pair.1 = text,
            None => {
                known.insert(name.clone(), pairs.len());
                pairs.push((name, text));
            }
        }
    }
    pairs
}

/// The value of a document's field of this name in records.
fn value_of<'a>(values: &'a DocumentValues, location: FieldLocation, name: &str) -> Option<&'a str> {
    values
        .get(&(location, text(name.as_bytes()).into_owned()))
        .map(String::as_str)
}

/// Appends `,"fields":{…}`. `values`: those of the document.
pub(crate) fn write_kept<'a>(
    out: &mut Vec<u8>,
    lines: impl Iterator<Item = Option<&'a KeptRecord>>,
    values: &DocumentValues,
) {
    let mut forms: Vec<Form> = Vec::new();
    let mut numbers: HashMap<Form, usize> = HashMap::new();
    let mut written = Vec::new();
    for (at, line) in lines.enumerate() {
        if at > 0 {
            written.push(b',');
        }
        let Some(record) = line else {
            written.extend_from_slice(b"null");
            continue;
        };
        let form = record.form();
        let number = *numbers.entry(form.clone()).or_insert(forms.len());
        if number == forms.len() {
            forms.push(form);
        }
        written.push(b'[');
        write_unsigned(&mut written, number as u64);
        for (number, location, name, value) in record.values() {
            if value_of(values, location, name) != Some(value) {
                written.push(b',');
                write_unsigned(&mut written, number as u64);
                written.push(b',');
                written.extend_from_slice(value.as_bytes());
            }
        }
        written.push(b']');
    }
    out.extend_from_slice(b",\"fields\":{\"forms\":[");
    for (at, form) in forms.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"fields\":" } else { b"{\"fields\":" });
        write_names(out, &form.fields);
        out.extend_from_slice(b",\"ids\":[");
        for (at, id) in form.ids.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_unsigned(out, *id as u64);
        }
        out.push(b']');
        if let Some(text) = form.text {
            out.extend_from_slice(b",\"text\":");
            write_unsigned(out, text as u64);
        }
        if !form.metadata.is_empty() {
            out.extend_from_slice(b",\"metadata\":");
            write_names(out, &form.metadata);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"lines\":[");
    out.extend_from_slice(&written);
    out.extend_from_slice(b"]}");
}

/// Reads `windrow.fields`.
pub(crate) fn read_kept(raw: &RawValue, values: &DocumentValues) -> Result<Vec<Option<KeptRecord>>, String> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        forms: Vec<Form>,
        #[serde(borrow)]
        lines: Vec<Option<Vec<&'a RawValue>>>,
    }
    let wire: Wire<'_> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let number = |raw: &RawValue| raw.get().parse::<usize>().map_err(|error| error.to_string());
    let record = |line: Vec<&RawValue>| -> Result<KeptRecord, String> {
        let (form, own) = line.split_first().ok_or("a line is empty")?;
        let form = wire.forms.get(number(form)?).ok_or("a form is missing")?;
        let mut differing: HashMap<usize, String> = HashMap::new();
        for pair in own.chunks_exact(2) {
            let value: Vec<u8> = json::one_line(pair[1]).collect();
            differing.insert(number(pair[0])?, String::from_utf8(value).unwrap_or_default());
        }
        let mut value = |number: usize, location, name: &String| {
            let elsewhere = location == FieldLocation::TopLevel
                && (form.ids.contains(&number) || form.text == Some(number));
            let value = match differing.remove(&number) {
                Some(own) => Some(own),
                None if elsewhere => Some(String::new()),
                // A field that somebody removed from the document is lost.
                None => value_of(values, location, name).map(str::to_owned),
            };
            (name.clone(), value.unwrap_or_else(|| "null".into()))
        };
        let fields = form.fields.iter().enumerate();
        let fields: Vec<Pair> = fields
            .map(|(number, name)| value(number, FieldLocation::TopLevel, name))
            .collect();
        let metadata = form.metadata.iter().zip(fields.len()..);
        let metadata = metadata
            .map(|(name, number)| value(number, FieldLocation::Metadata, name))
            .collect();
        Ok(KeptRecord {
            fields,
            ids: form.ids.clone(),
            text: form.text,
            metadata,
        })
    };
    let lines = wire.lines.into_iter().map(|line| line.map(record).transpose());
    lines.collect()
}

/// The values that a document has of its fields.
pub(crate) fn document_values(
    of: [(FieldLocation, &MergedFields<'_>, &DocumentNames<'_>); 2],
) -> DocumentValues {
    let mut values = DocumentValues::new();
    for (location, fields, names) in of {
        for (number, field) in fields.list.iter().enumerate() {
            if !field.is_displaced() {
                let mut value = Vec::new();
                field.write_value(names.get(number, field), &mut value);
                let name = text(&field.name).into_owned();
                values.insert((location, name), String::from_utf8(value).unwrap_or_default());
            }
        }
    }
    values
}

/// Whether a field of a document has a name that the document needs for something else.
pub(crate) fn is_displaced((original, natural): NameOrigin<'_>) -> bool {
    *top_level_name(original) != *natural
}
