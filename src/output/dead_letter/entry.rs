//! Entry of the dead letter, and its JSON line.

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD as BASE64};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// A document or message that could not be accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was rejected.
    pub time: Timestamp,
    /// Who rejected it: `elasticsearch`, `sqlite` or `intake`.
    pub source: String,
    /// HTTP status, where there is one.
    pub status: Option<u16>,
    /// Short name of the reason, for instance Elasticsearch's `error.type`.
    pub kind: String,
    /// The reason in words.
    pub reason: String,
    /// The index for which it was meant.
    pub index: Option<String>,
    /// The destination of the document, if it is not the default: its index name with strftime
    /// fields.
    pub destination: Option<String>,
    /// The document's id.
    pub id: Option<String>,
    /// Whether it is the document of a trace.
    pub is_trace: Option<bool>,
    /// First event time, Unix nanoseconds.
    pub first_ns: Option<i64>,
    /// Log lines in it.
    pub lines: Option<u32>,
    /// Ids of the parts in it.
    pub parts: Vec<String>,
    /// The rejected content.
    pub content: EntryContent,
}

/// The rejected content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryContent {
    /// A JSON object, verbatim.
    Document(Bytes),
    /// Any bytes.
    Raw(Bytes),
}

impl Entry {
    /// Appends the entry's line, with its newline.
    pub(in crate::output) fn write_line(&self, out: &mut Vec<u8>) {
        // Anything but one line of JSON would make the file unreadable: it is stored as bytes.
        let document = match &self.content {
            EntryContent::Document(json) if !json.contains(&b'\n') => std::str::from_utf8(json)
                .ok()
                .and_then(|text| serde_json::from_str::<&RawValue>(text).ok()),
            _ => None,
        };
        let raw = match (&self.content, document) {
            (_, Some(_)) => None,
            (EntryContent::Document(bytes) | EntryContent::Raw(bytes), None) => Some(Base64Bytes(bytes)),
        };
        let line = EntryLine {
            time: self.time,
            source: &self.source,
            status: self.status,
            kind: &self.kind,
            reason: &self.reason,
            index: self.index.as_deref(),
            destination: self.destination.as_deref(),
            id: self.id.as_deref(),
            trace: self.is_trace,
            first_ns: self.first_ns,
            lines: self.lines,
            parts: &self.parts,
            document,
            raw,
        };
        // Strings, numbers and valid raw JSON only, into memory: it cannot fail.
        let start = out.len();
        match serde_json::to_writer(&mut *out, &line) {
            Ok(()) => out.push(b'\n'),
            Err(_) => out.truncate(start),
        }
    }

    /// Parses a line.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let read: ParsedLine<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let content = match (read.document, read.raw) {
            (Some(document), _) => EntryContent::Document(Bytes::copy_from_slice(document.get().as_bytes())),
            (None, Some(raw)) => EntryContent::Raw(BASE64.decode(raw).map_err(|e| e.to_string())?.into()),
            (None, None) => return Err("neither \"document\" nor \"raw\"".into()),
        };
        Ok(Self {
            time: read.time,
            source: read.source,
            status: read.status,
            kind: read.kind,
            reason: read.reason,
            index: read.index,
            destination: read.destination,
            id: read.id,
            is_trace: read.trace,
            first_ns: read.first_ns,
            lines: read.lines,
            parts: read.parts,
            content,
        })
    }
}

#[derive(Serialize)]
struct EntryLine<'a> {
    time: Timestamp,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "type")]
    kind: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<bool>,
    #[serde(rename = "firstNs", skip_serializing_if = "Option::is_none")]
    first_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    parts: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<Base64Bytes<'a>>,
}

/// Bytes that are serialized as base64 without a copy, which may be as large as a message.
struct Base64Bytes<'a>(&'a [u8]);

impl Serialize for Base64Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::<GeneralPurpose>::new(self.0, &BASE64))
    }
}

#[derive(Deserialize)]
struct ParsedLine<'a> {
    time: Timestamp,
    source: String,
    status: Option<u16>,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    index: Option<String>,
    destination: Option<String>,
    id: Option<String>,
    trace: Option<bool>,
    #[serde(rename = "firstNs")]
    first_ns: Option<i64>,
    lines: Option<u32>,
    #[serde(default)]
    parts: Vec<String>,
    #[serde(borrow)]
    document: Option<&'a RawValue>,
    raw: Option<String>,
}
