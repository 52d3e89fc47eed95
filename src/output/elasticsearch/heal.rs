//! Healing: a refused document is written with the refused field in `windrow.unmapped`, at last
//! with everything in a text that the store does not parse.
//!
//! Which field is at fault is read from the reasons, at their beginning. A wrong guess does no
//! harm: what is moved is still in the document, and the next step moves more. Whether a document
//! is refused at all is never read from a text.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use windrow_query::{ParseLimits, parse_fields};
use windrow_trace::Unmap;

use super::backoff::contention_pause;
use super::bulk::{self, BulkDocument, BulkResponse, ItemResult};
use super::client::{Client, Verdict};
use super::format::UnmapFn;
use super::outcome::{DocumentOutcome, RequestError, RetryReason, StoreResult, without_content};
use super::upsert::Upsert;

/// Fields that are moved one by one; then all are.
const MAX_SINGLE_FIELDS: u8 = 6;

/// More fields than this that an index does not have are moved with all others.
const MAX_UNKNOWN_FIELDS: usize = 64;

/// Beginning of the reason when an index is at its limit of fields.
const FIELD_LIMIT: &str = "Limit of total fields [";

/// Bytes of one request with healed documents.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Lost answers to the same request before its documents return to the queue.
const MAX_LOST_ANSWERS: u32 = 4;

/// Fields for which a warning is logged; further ones are only counted.
const MAX_WARNED_FIELDS: usize = 1000;

/// The steps of one document.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Healing {
    single: u8,
    /// All fields were moved.
    fields: bool,
    /// Everything was moved to a text.
    everything: bool,
    /// The fields that the index does not have were moved.
    limited: bool,
}

/// Healed documents of a batch, by their position.
pub(crate) type HealedDocuments = HashMap<usize, Bytes>;

impl Healing {
    /// The document with more of its fields moved; `None` when nothing is left to move.
    pub(crate) async fn next(
        &mut self,
        client: &Client,
        index: &str,
        json: &[u8],
        item: &ItemResult,
    ) -> Option<Bytes> {
        if !client.heals || item.status == 413 {
            return None;
        }
        let (healed, names) = match self.without_unknown_fields(client, index, json, item).await {
            Some(step) => step,
            None => self.step(client.format.unmap, json, &item.causes)?,
        };
        client.warned_fields.warn(index, &names, item);
        client.prepare(index).await;
        Some(healed.into())
    }

    /// The next step: a field that the reason names, then all fields, then everything.
    fn step(&mut self, unmap: UnmapFn, json: &[u8], causes: &[String]) -> Option<(Vec<u8>, Vec<String>)> {
        let path = field_path(causes);
        // What is moved to `windrow.unmapped` can be refused there too.
        let inside = path
            .as_deref()
            .is_some_and(|path| path.starts_with("windrow.unmapped"));
        if !self.fields
            && !inside
            && self.single < MAX_SINGLE_FIELDS
            && let Some(path) = &path
        {
            self.single += 1;
            if let Some(step) = unmap(json, Unmap::Field(path)) {
                return Some(step);
            }
        }
        if !self.fields && !inside {
            self.fields = true;
            if let Some(step) = unmap(json, Unmap::Fields) {
                return Some(step);
            }
        }
        if !self.everything {
            self.everything = true;
            return unmap(json, Unmap::Everything);
        }
        None
    }

    /// At the limit of fields of an index only those move that the index does not have.
    async fn without_unknown_fields(
        &mut self,
        client: &Client,
        index: &str,
        json: &[u8],
        item: &ItemResult,
    ) -> Option<(Vec<u8>, Vec<String>)> {
        let is_limit = |cause: &String| without_position(cause).starts_with(FIELD_LIMIT);
        if self.limited || self.fields || !item.causes.iter().any(is_limit) {
            return None;
        }
        self.limited = true;
        let mapping = client.mapping(index).await?;
        let unknown = unknown_fields(json, &mapping)?;
        let mut healed = None;
        for name in unknown.iter().take(MAX_UNKNOWN_FIELDS + 1) {
            let before = healed.as_deref().unwrap_or(json);
            healed = Some((client.format.unmap)(before, Unmap::Field(name))?.0);
        }
        (unknown.len() <= MAX_UNKNOWN_FIELDS).then_some((healed?, unknown))
    }

    /// Whether anything was moved.
    pub(crate) fn has_moved(self) -> bool {
        self.single > 0 || self.fields || self.everything || self.limited
    }
}

/// Creates the refused documents again, each with more of its fields moved, until they are written
/// or nothing is left to move. Those that exist already are added to `exist`.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome
/// [`RetryReason::NotAttempted`].
pub(crate) async fn create_healed<D: BulkDocument>(
    client: &Client,
    batch: &mut Upsert<'_, D>,
    refused: Vec<(usize, ItemResult)>,
    exist: &mut Vec<usize>,
) -> Result<(), RequestError> {
    let Upsert {
        documents,
        outcomes,
        healed,
        places,
        ..
    } = batch;
    let mut pending: Vec<_> = refused
        .into_iter()
        .map(|(at, item)| (at, item, Healing::default()))
        .collect();
    while !pending.is_empty() {
        let mut writes = Vec::new();
        for (at, item, mut healing) in pending {
            let index = client.index_of(&documents[at]);
            let json = healed
                .get(&at)
                .map_or_else(|| documents[at].json(), |json| &json[..]);
            match healing.next(client, &index.index, json, &item).await {
                Some(json) => {
                    healed.insert(at, json);
                    outcomes[at] = DocumentOutcome::Retry(RetryReason::NotAttempted);
                    writes.push((at, index, healing));
                }
                None => outcomes[at] = client.refusal(item),
            }
        }
        pending = Vec::new();
        let mut rest = &writes[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(at, ..)| {
                bytes += healed.get(at).map_or(0, Bytes::len);
                bytes <= MAX_BODY_BYTES
            });
            let (some, more) = rest.split_at(fits.count().max(1));
            rest = more;
            let mut body = Vec::with_capacity(bytes);
            for (at, index, _) in some {
                let json = healed.get(at).map_or(&[][..], |json| json);
                bulk::put_create(&mut body, &index.index, documents[*at].id(), json);
            }
            let items = match create(client, documents, some, body.into()).await? {
                BulkResponse::AllOk => None,
                BulkResponse::Items(items) => Some(items),
            };
            let mut items = items.map(Vec::into_iter);
            for (at, index, healing) in some {
                let item = items.as_mut().and_then(Iterator::next);
                if let Some(place) = item.as_ref().and_then(ItemResult::place) {
                    places.insert(*at, place.into());
                }
                let verdict = item.map_or(
                    Verdict::Outcome(DocumentOutcome::Stored(StoreResult::Created)),
                    |item| client.judge(&index.index, item),
                );
                match verdict {
                    Verdict::Outcome(outcome) => {
                        if let DocumentOutcome::Stored(_) = outcome {
                            client.stats.healed();
                        }
                        outcomes[*at] = outcome;
                    }
                    Verdict::Conflict if documents[*at].is_trace() => exist.push(*at),
                    Verdict::Conflict => {
                        documents[*at].mark_unchanged();
                        outcomes[*at] = DocumentOutcome::Stored(StoreResult::Unchanged);
                    }
                    Verdict::Refused(item) => pending.push((*at, item, *healing)),
                }
            }
        }
    }
    Ok(())
}

/// Sends creates. A lost answer is asked for again at once: otherwise all steps would have to be
/// taken again.
async fn create<D: BulkDocument, I>(
    client: &Client,
    documents: &[D],
    writes: &[(usize, I, Healing)],
    body: Bytes,
) -> Result<BulkResponse, RequestError> {
    for attempt in 1..=MAX_LOST_ANSWERS {
        // The name may be an alias or a data stream.
        match client.bulk_located(body.clone(), writes.len()).await {
            Err(RequestError::Broken(_)) => {
                writes.iter().for_each(|(at, ..)| documents[*at].mark_uncertain());
                tokio::time::sleep(contention_pause(attempt)).await;
            }
            answer => return answer,
        }
    }
    client.bulk_located(body, writes.len()).await
}

/// The top-level fields of a document that the mapping of an index lacks, in whole or in part.
fn unknown_fields(json: &[u8], mapping: &Value) -> Option<Vec<String>> {
    fn is_mapped(properties: &Value, name: &str, value: &Value) -> bool {
        let mut at = properties;
        let mut field = &Value::Null;
        for part in name.split('.') {
            field = &at[part];
            at = &field["properties"];
        }
        match value {
            Value::Object(inner) if field.get("type").is_none() => {
                inner.iter().all(|(name, value)| is_mapped(at, name, value))
            }
            _ => !field.is_null(),
        }
    }
    let limits = ParseLimits {
        value_bytes: 16 << 20,
        text_bytes: usize::MAX,
    };
    let document = parse_fields(json, limits)?;
    let own = |name: &str| matches!(name, "windrow" | "@timestamp");
    let fields = document.iter().filter(|(name, _)| !own(name));
    let unknown = fields.filter(|(name, value)| !is_mapped(mapping, name, value));
    Some(unknown.map(|(name, _)| name.clone()).collect())
}

/// The path of the field that the reasons name, if the beginning of one of them has a known form.
fn field_path(causes: &[String]) -> Option<String> {
    const FORMS: [&str; 12] = [
        "failed to parse field [",
        "object mapping for [",
        "Could not dynamically add mapping for field [",
        "can't merge a non object mapping [",
        "can't merge a non-nested mapping [",
        "mapper [",
        "Field [",
        "field name starting or ending with a [.] makes object resolution ambiguous: [",
        "object field starting or ending with a [.] makes object resolution ambiguous: [",
        "Flattened field [",
        "Cannot write to a field alias [",
        "Cannot update parameter [dynamic] for [",
    ];
    causes.iter().find_map(|cause| {
        let text = without_position(cause);
        if let Some(rest) = text.strip_prefix("Document contains at least one immense term in field=\"") {
            return rest.split('"').next().map(str::to_owned);
        }
        if let Some(rest) = text.strip_prefix("mapping set to strict, dynamic introduction of [") {
            let (name, rest) = rest.split_once("] within [")?;
            let within = rest.split(']').next()?;
            return Some(if within == "_doc" {
                name.to_owned()
            } else {
                format!("{within}.{name}")
            });
        }
        let rest = FORMS.iter().find_map(|form| text.strip_prefix(form))?;
        rest.split(']').next().map(str::to_owned)
    })
}

/// A reason without what the store puts in front of that of a field: `[1:93] failed to parse: `.
fn without_position(reason: &str) -> &str {
    let position = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let rest = match reason.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((inside, rest)) if position(inside) => rest,
        _ => reason,
    };
    rest.strip_prefix("failed to parse: ").unwrap_or(rest)
}

/// Fields for which a warning was logged.
#[derive(Debug, Default)]
pub(crate) struct WarnedFields(Mutex<HashSet<(Box<str>, Box<str>)>>);

impl WarnedFields {
    /// Warns once for each index and field.
    fn warn(&self, index: &str, names: &[String], item: &ItemResult) {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let key = (index.into(), name.as_str().into());
            if warned.len() < MAX_WARNED_FIELDS && warned.insert(key) {
                tracing::warn!(
                    index, field = name.as_str(), status = item.status, kind = %item.kind, reason = %without_content(&item.reason),
                    "the index refuses a field; documents are stored with it in windrow.unmapped (said once per field)"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn at_the_limit_of_fields_known_ones_stay() {
        let mapping = json!({"level": {"type": "keyword"}, "k8s": {"properties": {"pod": {"type": "keyword"}}},
            "labels": {"type": "flattened"}});
        let document = json!({"@timestamp": "t", "windrow": {}, "level": "INFO", "k8s.pod": "a", "labels": {"x": 1},
            "k8s": {"pod": "a", "node": "b"}, "new": 1});
        let mut unknown = unknown_fields(document.to_string().as_bytes(), &mapping).unwrap();
        unknown.sort();
        assert_eq!(unknown, ["k8s", "new"]);
    }

    #[test]
    fn the_field_is_read_at_the_beginning_of_a_reason() {
        for (reason, path) in [
            (
                "[1:93] failed to parse field [code] of type [long] in document with id 'n2'. Preview of field's value: 'x'",
                Some("code"),
            ),
            ("failed to parse field [a.b] of type [long]", Some("a.b")),
            (
                "[1:57] object mapping for [user] tried to parse field [user] as object, but found a concrete value",
                Some("user"),
            ),
            (
                "mapper [peer] cannot be changed from type [text] to [ObjectMapper]",
                Some("peer"),
            ),
            (
                "[1:9] mapping set to strict, dynamic introduction of [status] within [_doc] is not allowed",
                Some("status"),
            ),
            (
                "[1:9] mapping set to strict, dynamic introduction of [b] within [a] is not allowed",
                Some("a.b"),
            ),
            (
                "Document contains at least one immense term in field=\"long_kw\" (whose UTF8 encoding is longer",
                Some("long_kw"),
            ),
            (
                "[1:25] failed to parse: field name starting or ending with a [.] makes object resolution ambiguous: [x.]",
                Some("x."),
            ),
            ("Limit of total fields [1000] has been exceeded", None),
            ("something: failed to parse field [code] of type [long]", None),
            ("[a:b] failed to parse field [code]", None),
            ("", None),
        ] {
            assert_eq!(field_path(&[reason.to_owned()]).as_deref(), path, "{reason}");
        }
        let causes = [
            "failed to parse".to_owned(),
            "mapper [x] cannot be changed".to_owned(),
        ];
        assert_eq!(field_path(&causes).as_deref(), Some("x"));
    }
}
