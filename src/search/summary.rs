//! Summary of a document, for lists, and its lines.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use windrow_query::{Document, Query};
use windrow_trace::document_lines;

/// Characters of the text of a summary.
const MAX_TEXT_CHARS: usize = 400;
/// Services and tags of a summary.
const MAX_VALUES: usize = 20;

/// What a list shows of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// The trace id; `None` for a record without one.
    pub id: Option<String>,
    /// The `_id` of the document.
    pub key: String,
    /// The index that it is in; `None` in the embedded store.
    pub index: Option<String>,
    /// Time of the first record, RFC 3339.
    pub time: String,
    /// Time of the last record.
    pub end: String,
    /// Time between them.
    pub duration_ms: f64,
    /// The worst level.
    pub level: Option<String>,
    /// Lines per level.
    pub levels: Map<String, Value>,
    /// Its services.
    pub services: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Number of lines.
    pub lines: u64,
    /// The first line that the query searches for, or the first line.
    pub text: String,
    /// What to mark in it: start and length in UTF-16 units.
    pub highlights: Vec<[usize; 2]>,
    /// Why the trace was sealed.
    pub reason: Option<String>,
    /// Lines that came after it was sealed.
    pub late: u64,
    /// Lines beyond the limit of a trace.
    pub truncated: u64,
}

impl TraceSummary {
    /// The summary of a document.
    #[must_use]
    pub fn of(document: &Document<'_>, index: Option<String>, query: &Query) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let count = |name| document.number(name).map_or(0, |number| number as u64);
        let time = text(document.fields().get("@timestamp")).unwrap_or_default();
        let (line, highlights) = shown_line(document, query);
        Self {
            id: document.trace_id().map(str::to_owned),
            key: document.id().to_owned(),
            index,
            end: text(document.windrow("last")).unwrap_or_else(|| time.clone()),
            time,
            duration_ms: document.number("durationMs").unwrap_or(0.0),
            level: document.level().map(|level| level.as_str().to_owned()),
            levels: document
                .windrow("levels")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            services: document.services().take(MAX_VALUES).map(str::to_owned).collect(),
            tags: document.tags().take(MAX_VALUES).map(str::to_owned).collect(),
            lines: count("lines"),
            text: line,
            highlights,
            reason: text(document.windrow("reason")),
            late: count("late"),
            truncated: count("truncated"),
        }
    }
}

impl TraceSummary {
    /// Bytes of its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let names = self.services.iter().chain(&self.tags);
        let names: usize = names.map(String::len).sum();
        self.id.as_ref().map_or(0, String::len) + self.key.len() + self.text.len() + names
    }
}

/// The first line with something to mark, or else the first line that is not empty.
fn shown_line(document: &Document<'_>, query: &Query) -> (String, Vec<[usize; 2]>) {
    let mut first = None;
    for line in document.texts().flat_map(str::lines) {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        first = first.or(Some(line));
        let shown = cut(line);
        let highlights = query.highlights(shown);
        if !highlights.is_empty() {
            let highlights = highlights.iter().map(|mark| [mark.start, mark.length]).collect();
            return (shown.to_owned(), highlights);
        }
    }
    (first.map(cut).unwrap_or_default().to_owned(), Vec::new())
}

fn cut(line: &str) -> &str {
    let end = line
        .char_indices()
        .nth(MAX_TEXT_CHARS)
        .map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or_default()
}

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceLine {
    /// Time of its record, RFC 3339.
    pub time: String,
    /// Time after the first line.
    pub offset_ms: f64,
    /// Its level.
    pub level: Option<&'static str>,
    /// Its service.
    pub service: Option<String>,
    /// Its text.
    pub text: Option<String>,
    /// The id of the part that it came with.
    pub part: String,
    /// It came after the trace was sealed.
    pub late: bool,
    /// It is the last one before lines that are missing because the trace was too long.
    pub truncated: bool,
}

/// The lines of a stored document, in time order; none if it has no state, such as a document of
/// another program.
#[must_use]
pub fn lines_of(json: &[u8], truncated: bool) -> Vec<TraceLine> {
    let Ok(lines) = document_lines(json) else {
        return Vec::new();
    };
    let first = lines.first().map_or(0, |line| line.time_ns);
    let count = lines.len();
    lines
        .into_iter()
        .enumerate()
        .map(|(n, line)| TraceLine {
            time: rfc3339(line.time_ns),
            offset_ms: line.time_ns.saturating_sub(first) as f64 / 1e6,
            level: line.level.map(windrow_trace::Severity::as_str),
            service: line.service,
            text: line.text,
            part: line.part.to_string(),
            late: line.late,
            truncated: truncated && n + 1 == count,
        })
        .collect()
}

/// A time with at least milliseconds.
#[must_use]
pub fn rfc3339(time_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(time_ns.into()).unwrap_or_default();
    match time_ns.rem_euclid(1_000_000) {
        0 => format!("{time:.3}"),
        _ => format!("{time:.9}"),
    }
}
