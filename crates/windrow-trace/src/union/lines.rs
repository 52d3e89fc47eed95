//! The lines of a stored document, as the server received them.

use super::UnionError;
use super::parsed::ParsedDocument;
use crate::part::PartId;
use crate::record::severity::Severity;

/// A line of a document: what one record said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentLine {
    /// Event time, Unix ns.
    pub time_ns: i64,
    /// Its level. `None` if it has none, or if the document was written by a Windrow that did not
    /// keep it.
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
    let document = ParsedDocument::parse(document).map_err(failed)?;
    let texts = document.line_texts().unwrap_or_default();
    let lines = document.state.lines.iter().zip(texts);
    let lines = lines.filter_map(|(line, text)| {
        let part = document.line_part(line)?;
        Some(DocumentLine {
            time_ns: line.time,
            level: None,
            service: None,
            text: text.map(str::to_owned),
            part: part.id,
            position: line.position,
            received_us: part.received,
            late: part.received > document.state.sealed_at,
        })
    });
    Ok(lines.collect())
}
