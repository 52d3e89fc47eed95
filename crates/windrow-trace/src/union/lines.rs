//! The lines of a stored document, as the server received them.

use super::UnionError;
use crate::document::kept::KeptRecord;
use serde_json::{Map, Value};

use super::parsed::ParsedDocument;
use crate::part::PartId;
use crate::record::severity::Severity;
use crate::unmapped::restore_unindexed;

/// A line of a document: what one record said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentLine {
    /// Event time, Unix ns.
    pub time_ns: i64,
    /// Its level. `None` if it has none, or if Windrow 0.1.0 wrote the document.
    pub level: Option<Severity>,
    /// The service that wrote it. `None` as for the level.
    pub service: Option<String>,
    /// Its text. `None` if the record had none.
    pub text: Option<String>,
    /// The part (the records of this trace in one chunk) that brought it.
    pub part: PartId,
    /// Number of the record in its chunk.
    pub position: u32,
    /// When its part was received, Unix µs; of several receptions the latest.
    pub received_us: i64,
    /// Its record, without what JSON cannot say, if the document keeps the fields of its lines
    /// (`trace.keep_fields`).
    pub record: Option<Map<String, Value>>,
    /// The metadata of that record.
    pub metadata: Option<Map<String, Value>>,
    /// Whether it was received after the trace was first sealed.
    pub late: bool,
}

/// Takes the document of a trace apart into its lines, in the order of the document: by event time,
/// then reception.
///
/// # Errors
///
/// [`UnionError`] if it is no document of a trace (a record without a trace id has no
/// `windrow.state`), or somebody changed it.
pub fn document_lines(document: &[u8]) -> Result<Vec<DocumentLine>, UnionError> {
    let failed = |why| UnionError {
        which: "existing",
        why,
    };
    let restored = restore_unindexed(document);
    let document = ParsedDocument::parse(&restored).map_err(failed)?;
    let texts = document.line_texts().unwrap_or_default();
    let lines = document.state.lines.iter().zip(texts);
    let lines = lines.enumerate().filter_map(|(number, (line, text))| {
        let part = document.line_part(line)?;
        let kept = document.kept(number);
        Some(DocumentLine {
            time_ns: line.time,
            level: line.level,
            service: document.line_service(line).map(str::to_owned),
            text: text.map(str::to_owned),
            part: part.id,
            position: line.position,
            received_us: part.received,
            record: kept.map(|kept| record(kept, &document.key, text)),
            metadata: kept.map(|kept| kept.metadata.iter().map(pair).collect()),
            late: part.received > document.state.sealed_at,
        })
    });
    Ok(lines.collect())
}

/// The record of a line, with the trace id and the text that the document has elsewhere.
fn record(kept: &KeptRecord, id: &str, text: Option<&str>) -> Map<String, Value> {
    let fields = kept.fields.iter().enumerate().map(|(number, field)| {
        if kept.ids.contains(&number) {
            (field.0.clone(), id.into())
        } else if kept.text == Some(number) {
            (field.0.clone(), text.into())
        } else {
            pair(field)
        }
    });
    fields.collect()
}

fn pair((name, value): &(String, String)) -> (String, Value) {
    (name.clone(), serde_json::from_str(value).unwrap_or_default())
}
