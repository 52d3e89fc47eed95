//! Format of `_bulk`: NDJSON bodies, and responses, whose items are parsed only if one failed.
//!
//! Sends nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::index_pattern::{DayIndex, IndexPattern};
use crate::output::{DestinationId, Destinations, Framing};
use windrow_trace::write_escaped;

/// A document of a bulk request: new, or replayed from the dead letter.
pub(crate) trait BulkDocument: Send + Sync {
    /// `_id`: at most 512 bytes.
    fn id(&self) -> &str;
    /// Whether the document is merged with an existing one.
    fn is_trace(&self) -> bool;
    /// First event time, Unix nanoseconds.
    fn first_ns(&self) -> i64;
    /// Where it goes.
    fn destination(&self) -> DestinationId;
    /// One JSON object without a newline.
    fn json(&self) -> &[u8];
    /// The rendered text that contains the document behind its action line, and the range of both;
    /// see [`CreateFraming`].
    fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        None
    }
    /// Whether it is a copy, which is not copied.
    fn is_copy(&self) -> bool {
        false
    }
    /// A write of it may have been applied, and its response was lost. For the counters, like the
    /// next two.
    fn mark_uncertain(&self) {}
    /// All of it was stored before.
    fn mark_unchanged(&self) {}
    /// `new_lines` of its lines were added to an existing document.
    fn mark_merged(&self, _new_lines: u32) {}
}

/// A document that is in no batch.
pub(crate) struct OwnedDocument {
    pub(crate) id: String,
    pub(crate) is_trace: bool,
    pub(crate) first_ns: i64,
    pub(crate) destination: DestinationId,
    pub(crate) json: Bytes,
    pub(crate) is_copy: bool,
}

impl BulkDocument for OwnedDocument {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_trace(&self) -> bool {
        self.is_trace
    }
    fn first_ns(&self) -> i64 {
        self.first_ns
    }
    fn destination(&self) -> DestinationId {
        self.destination
    }
    fn json(&self) -> &[u8] {
        &self.json
    }
    fn is_copy(&self) -> bool {
        self.is_copy
    }
}

impl<D: BulkDocument> BulkDocument for &D {
    fn id(&self) -> &str {
        (**self).id()
    }
    fn is_trace(&self) -> bool {
        (**self).is_trace()
    }
    fn first_ns(&self) -> i64 {
        (**self).first_ns()
    }
    fn destination(&self) -> DestinationId {
        (**self).destination()
    }
    fn json(&self) -> &[u8] {
        (**self).json()
    }
    fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        (**self).framed()
    }
    fn is_copy(&self) -> bool {
        (**self).is_copy()
    }
    fn mark_uncertain(&self) {
        (**self).mark_uncertain();
    }
    fn mark_unchanged(&self) {
        (**self).mark_unchanged();
    }
    fn mark_merged(&self, new_lines: u32) {
        (**self).mark_merged(new_lines);
    }
}

/// Upper bound of an action line without the id.
const ACTION_LINE_BYTES: usize = 72;

/// Approximate bytes of a document in a bulk body.
pub(crate) fn cost<D: BulkDocument>(document: &D) -> usize {
    match document.framed() {
        Some((_, range)) => range.len(),
        None => document.json().len() + document.id().len() + ACTION_LINE_BYTES,
    }
}

/// Writes the `create` action line before each document while it is rendered, so that the rendered
/// text is a bulk body.
pub(crate) struct CreateFraming {
    days: DayIndices,
}

impl CreateFraming {
    pub(crate) fn new(destinations: &Arc<Destinations>) -> Self {
        Self {
            days: DayIndices::new(destinations),
        }
    }
}

/// The last day's index of each destination.
struct DayIndices {
    destinations: Arc<Destinations>,
    last: Vec<(i64, Arc<DayIndex>)>,
}

impl DayIndices {
    fn new(destinations: &Arc<Destinations>) -> Self {
        Self {
            destinations: Arc::clone(destinations),
            last: Vec::new(),
        }
    }

    #[inline]
    fn get(&mut self, destination: DestinationId, day: i64) -> &DayIndex {
        let place = usize::from(destination.0);
        if self.last.get(place).is_none_or(|(known, _)| *known != day) {
            self.look_up(destination, day);
        }
        &self.last[place].1
    }

    #[cold]
    fn look_up(&mut self, destination: DestinationId, day: i64) {
        let index = self.destinations.indices(destination).day(day);
        let place = usize::from(destination.0);
        if self.last.len() <= place {
            // No time is in that day.
            self.last.resize(place + 1, (i64::MIN, Arc::clone(&index)));
        }
        self.last[place] = (day, index);
    }
}

impl Framing for CreateFraming {
    fn write_prefix(&mut self, out: &mut Vec<u8>, id: &str, first_ns: i64, destination: DestinationId) {
        let day = self.days.get(destination, IndexPattern::day_of(first_ns));
        out.extend_from_slice(&day.create_head);
        write_escaped(out, id.as_bytes());
        out.extend_from_slice(b"\"}}\n");
    }
}

/// The part of a rendered text that contains exactly `documents` with their action lines, if there
/// is one.
pub(crate) fn contiguous_text<'a, D: BulkDocument + 'a>(
    mut documents: impl Iterator<Item = &'a D>,
) -> Option<Bytes> {
    let (text, Range { start, mut end }) = documents.next()?.framed()?;
    for document in documents {
        let (other, place) = document.framed()?;
        if other.as_ptr() != text.as_ptr() || place.start != end {
            return None;
        }
        end = place.end;
    }
    (start < end && end <= text.len()).then(|| text.slice(start..end))
}

/// Builds in `body`, which is empty, the bulk body that creates `documents`, each in the index of
/// its day.
pub(crate) fn create_body<'a, D: BulkDocument + 'a>(
    destinations: &Arc<Destinations>,
    documents: impl Iterator<Item = &'a D> + Clone,
    mut body: Vec<u8>,
) -> Bytes {
    body.reserve(documents.clone().map(cost).sum());
    let mut days = DayIndices::new(destinations);
    for document in documents {
        let day = days.get(document.destination(), IndexPattern::day_of(document.first_ns()));
        body.extend_from_slice(&day.create_head);
        write_escaped(&mut body, document.id().as_bytes());
        body.extend_from_slice(b"\"}}\n");
        body.extend_from_slice(document.json());
        body.push(b'\n');
    }
    body.into()
}

/// Version of a document, for compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// `_seq_no`
    pub(crate) seq_no: u64,
    /// `_primary_term`
    pub(crate) primary_term: u64,
}

/// Appends an action that creates a document.
pub(crate) fn put_create(body: &mut Vec<u8>, index: &str, id: &str, json: &[u8]) {
    put_action(body, "create", index, id, None);
    body.extend_from_slice(json);
    body.push(b'\n');
}

/// Appends an action that replaces the document if it still has this version.
pub(crate) fn put_replace(body: &mut Vec<u8>, index: &str, id: &str, version: Version, json: &[u8]) {
    put_action(body, "index", index, id, Some(version));
    body.extend_from_slice(json);
    body.push(b'\n');
}

/// Appends an action that deletes the document if it still has this version.
pub(crate) fn put_delete(body: &mut Vec<u8>, index: &str, id: &str, version: Version) {
    put_action(body, "delete", index, id, Some(version));
}

fn put_action(body: &mut Vec<u8>, action: &str, index: &str, id: &str, version: Option<Version>) {
    body.extend_from_slice(b"{\"");
    body.extend_from_slice(action.as_bytes());
    body.extend_from_slice(b"\":{\"_index\":\"");
    body.extend_from_slice(index.as_bytes());
    body.extend_from_slice(b"\",\"_id\":\"");
    write_escaped(body, id.as_bytes());
    body.push(b'"');
    if let Some(Version { seq_no, primary_term }) = version {
        let mut number = itoa::Buffer::new();
        body.extend_from_slice(b",\"if_seq_no\":");
        body.extend_from_slice(number.format(seq_no).as_bytes());
        body.extend_from_slice(b",\"if_primary_term\":");
        body.extend_from_slice(number.format(primary_term).as_bytes());
    }
    body.extend_from_slice(b"}}\n");
}

/// `filter_path` of most bulk requests: the least that gives each item's result. `status` keeps
/// items aligned with documents.
pub(crate) const RESPONSE_FILTER: &str =
    "errors,took,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";
/// The same with the index in which each document is.
pub(crate) const LOCATED_RESPONSE_FILTER: &str = "errors,took,items.*._index,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";

/// A bulk response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BulkResponse {
    /// Every item was written.
    AllOk,
    /// One result for each item, in order.
    Items(Vec<ItemResult>),
}

/// Result of one item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ItemResult {
    /// HTTP status of the item.
    pub(crate) status: u16,
    /// `error.type`, or empty.
    pub(crate) kind: String,
    /// `error.reason` and those of its causes, or empty.
    pub(crate) reason: String,
    /// The same one by one, the outermost first.
    pub(crate) causes: Vec<String>,
    /// The index in which the document is, if it was asked for.
    pub(crate) index: Option<Box<str>>,
}

/// Parses the response to a bulk request of `expected` items.
///
/// `located`: the indices of all items are wanted.
///
/// # Errors
/// The response is malformed; the results of its items are unknown.
pub(crate) fn parse(response: &[u8], expected: usize, located: bool) -> Result<BulkResponse, String> {
    let start = &response[..response.len().min(64)];
    if !located && response.ends_with(b"}") && start.windows(15).any(|w| w == b"\"errors\":false,") {
        return Ok(BulkResponse::AllOk);
    }
    let wire: BulkWire = serde_json::from_slice(response)
        .map_err(|e| format!("unreadable bulk response of {} bytes: {e}", response.len()))?;
    if wire.items.len() != expected {
        return Err(format!(
            "bulk response has {} items, {expected} were sent",
            wire.items.len()
        ));
    }
    let items = wire.items.into_iter().map(|action| {
        let BulkWireItem { status, index, error } = action.item;
        let BulkWireError {
            kind,
            reason,
            caused_by,
        } = error.unwrap_or_default();
        let mut causes = vec![reason];
        let mut next = caused_by;
        while let Some(cause) = next {
            // Nested errors often repeat the text of the inner one.
            if !causes.iter().any(|known| known.contains(&cause.reason)) {
                causes.push(cause.reason);
            }
            next = cause.caused_by;
        }
        ItemResult {
            status,
            kind,
            reason: causes.join(": "),
            causes,
            index,
        }
    });
    Ok(BulkResponse::Items(items.collect()))
}

#[derive(Deserialize)]
struct BulkWire {
    items: Vec<BulkWireAction>,
}

#[derive(Deserialize)]
struct BulkWireAction {
    #[serde(alias = "create", alias = "index", alias = "update", alias = "delete")]
    item: BulkWireItem,
}

#[derive(Deserialize)]
struct BulkWireItem {
    status: u16,
    #[serde(rename = "_index")]
    index: Option<Box<str>>,
    error: Option<BulkWireError>,
}

#[derive(Deserialize, Default)]
struct BulkWireError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: String,
    caused_by: Option<Box<Self>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Doc(&'static str, i64, Bytes);
    impl BulkDocument for Doc {
        fn id(&self) -> &str {
            self.0
        }
        fn is_trace(&self) -> bool {
            true
        }
        fn first_ns(&self) -> i64 {
            self.1
        }
        fn destination(&self) -> DestinationId {
            DestinationId::DEFAULT
        }
        fn json(&self) -> &[u8] {
            &self.2
        }
    }

    #[test]
    fn a_body_names_each_document_and_ends_in_a_newline() {
        let destinations = Arc::new(Destinations::single("r-%Y-%m-%d", false).unwrap());
        let day = 86_400_000_000_000;
        let documents = [
            Doc("a", 0, Bytes::from_static(b"{\"x\":1}")),
            Doc("b\"\\\n\u{1}é", day - 1, Bytes::from_static(b"{}")),
            Doc("c", day, Bytes::from_static(b"{}")),
        ];
        let body = create_body(&destinations, documents.iter(), Vec::new());
        let expected = concat!(
            "{\"create\":{\"_index\":\"r-1970-01-01\",\"_id\":\"a\"}}\n{\"x\":1}\n",
            "{\"create\":{\"_index\":\"r-1970-01-01\",\"_id\":\"b\\\"\\\\\\n\\u0001é\"}}\n{}\n",
            "{\"create\":{\"_index\":\"r-1970-01-02\",\"_id\":\"c\"}}\n{}\n",
        );
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        let line: serde_json::Value = serde_json::from_str(expected.lines().nth(2).unwrap()).unwrap();
        assert_eq!(line["create"]["_id"], "b\"\\\n\u{1}é");
    }

    #[test]
    fn an_id_is_escaped_wherever_it_needs_it() {
        for length in 0..40 {
            let plain = "x".repeat(length);
            for piece in ["", "\"", "\\", "\n", "\u{1f}", " ", "\u{7f}", "é"] {
                for at in 0..=length {
                    let mut id = plain.clone();
                    id.insert_str(at, piece);
                    let mut body = b"\"".to_vec();
                    write_escaped(&mut body, id.as_bytes());
                    body.push(b'"');
                    assert_eq!(serde_json::from_slice::<String>(&body).unwrap(), id);
                }
            }
        }
    }

    #[test]
    fn compare_and_set_actions() {
        let mut body = Vec::new();
        let version = Version {
            seq_no: 7,
            primary_term: 2,
        };
        put_create(&mut body, "i", "1", b"{}");
        put_replace(&mut body, "i", "2", version, b"{\"a\":1}");
        put_delete(&mut body, "i", "3", version);
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            "{\"create\":{\"_index\":\"i\",\"_id\":\"1\"}}\n{}\n\
             {\"index\":{\"_index\":\"i\",\"_id\":\"2\",\"if_seq_no\":7,\"if_primary_term\":2}}\n{\"a\":1}\n\
             {\"delete\":{\"_index\":\"i\",\"_id\":\"3\",\"if_seq_no\":7,\"if_primary_term\":2}}\n"
        );
    }

    #[test]
    fn answers() {
        let ok = br#"{"errors":false,"took":3,"items":[{"create":{"status":201}}]}"#;
        assert_eq!(parse(ok, 1, false), Ok(BulkResponse::AllOk));
        let took_first = br#"{"took":3,"errors":false,"items":[{"create":{"status":201}}]}"#;
        assert_eq!(parse(took_first, 1, false), Ok(BulkResponse::AllOk));
        let mixed = br#"{"errors":true,"took":3,"items":[{"create":{"status":201}},{"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"\"errors\":false,"}}}]}"#;
        let Ok(BulkResponse::Items(items)) = parse(mixed, 2, false) else {
            panic!("items")
        };
        assert_eq!((items[0].status, items[1].status), (201, 400));
        assert_eq!(items[1].kind, "document_parsing_exception");
        assert_eq!(items[1].reason, "\"errors\":false,");
        let located = br#"{"errors":false,"took":3,"items":[{"create":{"_index":"a-1","status":201}}]}"#;
        let Ok(BulkResponse::Items(items)) = parse(located, 1, true) else {
            panic!("items")
        };
        assert_eq!(items[0].index.as_deref(), Some("a-1"));
        let causes =
            br#"{"errors":true,"items":[{"create":{"status":400,"error":{"type":"mapper_parsing_exception",
            "reason":"failed to parse","caused_by":{"type":"x","reason":"object field [a.]",
            "caused_by":{"type":"y","reason":"failed to parse"}}}}}]}"#;
        let Ok(BulkResponse::Items(items)) = parse(causes, 1, false) else {
            panic!("items")
        };
        assert_eq!(items[0].reason, "failed to parse: object field [a.]");
        assert_eq!(items[0].causes, ["failed to parse", "object field [a.]"]);
        for (bad, expected) in [
            (&mixed[..], 3),
            (&mixed[..40], 2),
            (&ok[..40], 1),
            (b"<html>", 1),
            (b"", 1),
        ] {
            assert!(
                parse(bad, expected, false).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
