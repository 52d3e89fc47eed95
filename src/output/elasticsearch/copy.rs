//! Copies: documents that satisfy a condition are written a second time, into an index of their own.
//!
//! A condition concerns the whole trace, such as its worst level, so it is tested on the document
//! with which the main write ended: the created one, or the union that was written or found. Each
//! writer tests the document that it left, so a copy is as complete as the document, whichever
//! instance saw the line that matters. Copies are written like all documents: create, then union,
//! then join over days. A copy that is written again is unchanged.
//!
//! A document counts as stored once its copies are: until then it is retried, and its journal records
//! are kept.

use std::pin::Pin;

use bytes::Bytes;
use serde_json::Value;

use super::bulk::{self, BulkDocument, OwnedDocument};
use super::client::Client;
use super::outcome::{DocumentOutcome, Rejection, RequestError, RetryReason};
use super::settle::Unsettled;
use super::upsert::Upsert;
use crate::config::{Condition, ENVIRONMENT_NAMES, NAMESPACE_NAMES, Predicate, When};
use crate::output::DestinationId;
use crate::runtime::block_in_place;
use windrow_query::{ParseLimits, parse_fields};
use windrow_trace::Severity;

/// What conditions see of a document: all of its texts, and so much of other values.
const CONDITION_LIMITS: ParseLimits = ParseLimits {
    value_bytes: 16 << 20,
    text_bytes: usize::MAX,
};
/// Bytes of one request; a longer copy is sent alone.
const MAX_REQUEST_BYTES: usize = 8 << 20;

/// A copy that is configured.
#[derive(Debug, Clone)]
pub(crate) struct CopyRule {
    pub(crate) when: When,
    pub(crate) destination: DestinationId,
}

/// Writes the copies of the stored documents of a batch. A document whose copy is not stored has the
/// outcome of that copy.
///
/// # Errors
/// A request failed as a whole; documents that were not reached have the outcome
/// [`RetryReason::NotAttempted`].
// Boxed: a copy is merged and healed as any document, though it is not copied.
pub(super) fn write_copies<'b, D: BulkDocument>(
    client: &'b Client,
    batch: &'b mut Upsert<'_, D>,
) -> Pin<Box<dyn Future<Output = Result<(), RequestError>> + Send + 'b>> {
    let (origins, copies) = block_in_place(|| copies(client, batch));
    Box::pin(async move {
        let mut done = 0;
        while let Some(rest) = copies.get(done..).filter(|rest| !rest.is_empty()) {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|copy| {
                bytes += bulk::cost(*copy);
                bytes <= MAX_REQUEST_BYTES
            });
            let (some, _) = rest.split_at(fits.count().max(1));
            let origins = origins.iter().skip(done);
            match create(client, some).await {
                Ok((outcomes, unsettled)) => {
                    for one in unsettled {
                        let origin = origins.clone().nth(one.at).copied();
                        batch.note_unsettled_of(origin.unwrap_or_default(), vec![one]);
                    }
                    for (at, outcome) in origins.zip(outcomes) {
                        if !matches!(outcome, DocumentOutcome::Stored(_)) {
                            batch.documents[*at].mark_uncertain();
                            batch.outcomes[*at] = outcome;
                        }
                    }
                }
                Err(error) => {
                    for at in origins {
                        batch.documents[*at].mark_uncertain();
                        batch.outcomes[*at] = DocumentOutcome::Retry(RetryReason::NotAttempted);
                    }
                    return Err(error);
                }
            }
            done += some.len();
        }
        Ok(())
    })
}

/// The copies of the stored documents, and for each the number of its document.
fn copies<D: BulkDocument>(client: &Client, batch: &Upsert<'_, D>) -> (Vec<usize>, Vec<OwnedDocument>) {
    let (mut origins, mut copies) = (Vec::new(), Vec::new());
    for (at, document) in batch.documents.iter().enumerate() {
        if !matches!(batch.outcomes[at], DocumentOutcome::Stored(_)) {
            continue;
        }
        let json = batch.left(at);
        let Some(value) = parse_fields(json, CONDITION_LIMITS).map(Value::Object) else {
            continue;
        };
        for rule in client.copies.iter().filter(|rule| holds(&rule.when, &value)) {
            origins.push(at);
            copies.push(OwnedDocument {
                id: document.id().to_owned(),
                is_trace: document.is_trace(),
                // That of the whole trace, which may have begun before the part in hand.
                first_ns: first_ns(&value).unwrap_or_else(|| document.first_ns()),
                destination: rule.destination,
                json: Bytes::copy_from_slice(json),
                is_copy: true,
            });
        }
    }
    (origins, copies)
}

fn first_ns(document: &Value) -> Option<i64> {
    let time: jiff::Timestamp = document.get("@timestamp")?.as_str()?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Creates copies in one request, heals refused ones, and merges those that exist.
async fn create(
    client: &Client,
    copies: &[OwnedDocument],
) -> Result<(Vec<DocumentOutcome>, Vec<Unsettled>), RequestError> {
    let body = bulk::create_body(&client.destinations, copies.iter(), Vec::new());
    let response = match client.bulk_located(body, copies.len()).await {
        Ok(response) => response,
        Err(RequestError::TooLarge(reason)) if copies.len() == 1 => {
            let rejection = Rejection {
                status: 413,
                kind: "document_too_large".into(),
                reason: format!("the copy of the document: {reason}"),
            };
            return Ok((vec![DocumentOutcome::Rejected(rejection)], Vec::new()));
        }
        Err(RequestError::TooLarge(_)) => {
            let (first, second) = copies.split_at(copies.len() / 2);
            let (mut outcomes, mut unsettled) = Box::pin(create(client, first)).await?;
            let (further, open) = Box::pin(create(client, second)).await?;
            let moved = open.into_iter().map(|mut one| {
                one.at += first.len();
                one
            });
            outcomes.extend(further);
            unsettled.extend(moved);
            return Ok((outcomes, unsettled));
        }
        Err(error) => return Err(error),
    };
    let (mut batch, rest) = Upsert::of_response(client, copies, response);
    batch.finish(client, rest).await?;
    Ok((batch.outcomes, batch.unsettled))
}

/// Whether a document satisfies the condition of a copy.
fn holds(when: &When, document: &Value) -> bool {
    let all = |all: &Vec<Condition>| all.iter().all(|condition| passes(condition, document));
    when.0.is_empty() || when.0.iter().any(all)
}

fn passes(condition: &Condition, document: &Value) -> bool {
    let Condition { field, test } = condition;
    let found = values(field.as_deref(), document);
    match test {
        Predicate::Exists(wanted) => found.iter().any(|value| !value.is_null()) == *wanted,
        Predicate::AtLeast(least) => found.iter().any(|value| {
            let level = value
                .as_str()
                .and_then(|text| Severity::from_text(text.as_bytes()));
            level.is_some_and(|level| level >= *least)
        }),
        // A level has several names.
        Predicate::Equals(text) if field.as_deref() == Some("level") => is_level(&found, text),
        Predicate::OneOf(texts) if field.as_deref() == Some("level") => {
            texts.iter().any(|text| is_level(&found, text))
        }
        test => found.iter().any(|value| match value {
            Value::String(text) => test.passes(text.as_bytes()),
            Value::Number(_) | Value::Bool(_) => test.passes(value.to_string().as_bytes()),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }),
    }
}

/// Whether one of these levels is the one that `text` names.
fn is_level(found: &[&Value], text: &str) -> bool {
    let wanted = Severity::from_text(text.as_bytes());
    let level = |value: &&Value| Severity::from_text(value.as_str()?.as_bytes());
    wanted.is_some() && found.iter().any(|value| level(value) == wanted)
}

/// The values of a document that a condition reads: of the level that of the worst line.
fn values<'v>(field: Option<&str>, document: &'v Value) -> Vec<&'v Value> {
    let windrow = |name: &str| document.get("windrow").and_then(|windrow| windrow.get(name));
    let first = |names: &[&str]| names.iter().find_map(|name| at(document, name));
    let found = match field {
        None => ["message", "log", "msg", "body"]
            .iter()
            .find_map(|name| document.get(*name).filter(|value| value.is_string())),
        Some("level") => windrow("level"),
        Some("tag") => windrow("tags"),
        Some("service") => windrow("services"),
        Some("namespace") => first(&NAMESPACE_NAMES),
        Some("environment") => first(&ENVIRONMENT_NAMES),
        Some(path) => at(document, path),
    };
    match found {
        Some(Value::Array(all)) => all.iter().collect(),
        Some(value) => vec![value],
        None => Vec::new(),
    }
}

/// The value at a path: under its literal name, else in nested objects.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if let Some(found) = value.get(path) {
        return Some(found);
    }
    let mut dots = path.match_indices('.').map(|(dot, _)| dot);
    dots.find_map(|dot| at(value.get(&path[..dot])?, &path[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_reads_the_whole_document() {
        let document = json!({"message": "a\nb", "status": 503, "kubernetes": {"namespace_name": "shop"},
            "http.path": "/x", "windrow": {"level": "error", "tags": ["a", "kube.b"], "services": ["api", "db"]}});
        let test = |field: Option<&str>, test| {
            passes(
                &Condition {
                    field: field.map(Into::into),
                    test,
                },
                &document,
            )
        };
        let equals = |text: &str| Predicate::Equals(text.into());
        assert!(test(Some("level"), Predicate::AtLeast(Severity::Warn)));
        assert!(!test(Some("level"), Predicate::AtLeast(Severity::Fatal)));
        assert!(test(Some("service"), equals("db")));
        assert!(test(Some("namespace"), equals("shop")));
        assert!(test(Some("status"), equals("503")));
        assert!(test(Some("http.path"), equals("/x")));
        assert!(test(
            Some("tag"),
            Predicate::Glob(vec![vec!["kube.".into(), "".into()]])
        ));
        assert!(test(Some("missing"), Predicate::Exists(false)));
        assert!(test(None, Predicate::OneOf(vec!["a\nb".into()])));
        assert!(!test(Some("missing"), equals("x")));
    }
}
