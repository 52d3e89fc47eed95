//! Outcomes of requests and documents, and how responses of Elasticsearch map to them.
//!
//! Pure tables: no state, no I/O. Each function says where its rows come from.

use std::time::Duration;

/// Outcome of writing one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DocumentOutcome {
    /// Elasticsearch has it durably.
    Stored(StoreResult),
    /// To be sent again.
    Retry(RetryReason),
    /// To be sent again, slowly: an operator must fix the cause, which the text names.
    Blocked(String),
    /// Can never be written.
    Rejected(Rejection),
}

/// Why a document is to be sent again, which decides when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RetryReason {
    /// The cluster processed the request and rejected this document for now: exponential backoff.
    Throttled,
    /// A request failed as a whole, with this document or before it. Congestion control decides the
    /// pause.
    NotAttempted,
    /// Other writers change the same document: soon, with jitter.
    Contended,
}

/// How a document was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreResult {
    /// It is new.
    Created,
    /// It existed; the union with it was written.
    Merged,
    /// It existed and contained everything.
    Unchanged,
}

/// Why a document can never be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status of the item, 0 when Elasticsearch did not decide it.
    pub status: u16,
    /// `error.type` of Elasticsearch, or a name that Windrow gives.
    pub kind: String,
    /// `error.reason`.
    pub reason: String,
}

/// Why a request has no per-item results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// 408, 425, 429, 5xx: nothing or only a part was processed; to be repeated after a pause.
    Overloaded {
        /// HTTP status.
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
        /// For the operator.
        reason: String,
    },
    /// No node could be reached: nothing was sent.
    Unreachable(String),
    /// Timeout: the request may have been applied.
    Timeout(String),
    /// The connection broke, or the response cannot be read: the request may have been applied.
    Broken(String),
    /// 413: the body is over the limit of the server or of a proxy.
    TooLarge(String),
    /// 400 for the whole request: a defect of Windrow or of a proxy.
    Malformed(String),
    /// 401 or 403 for the whole request.
    Denied(String),
    /// Any other status: most likely not Elasticsearch.
    Unexpected(String),
}

impl RequestError {
    /// From a status that is not a success.
    pub(crate) fn of_status(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let reason = format!("status {status}: {}", excerpt(body));
        match status {
            408 | 425 | 429 | 500..=599 => Self::Overloaded {
                status,
                retry_after,
                reason,
            },
            413 => Self::TooLarge(reason),
            400 => Self::Malformed(reason),
            401 | 403 => Self::Denied(reason),
            _ => Self::Unexpected(reason),
        }
    }

    /// Text for the operator.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Overloaded { reason, .. }
            | Self::Unreachable(reason)
            | Self::Timeout(reason)
            | Self::Broken(reason)
            | Self::TooLarge(reason)
            | Self::Malformed(reason)
            | Self::Denied(reason)
            | Self::Unexpected(reason) => reason,
        }
    }

    /// Short name for the log.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Overloaded { status: 429, .. } => "throttled",
            Self::Overloaded { .. } => "unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "broken",
            Self::TooLarge(_) => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Denied(_) => "denied",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Whether the request may have been applied, in whole or in part.
    pub(crate) fn may_have_applied(&self) -> bool {
        match self {
            Self::Overloaded { status, .. } => *status >= 500,
            Self::Timeout(_) | Self::Broken(_) | Self::Malformed(_) => true,
            Self::Unreachable(_) | Self::TooLarge(_) | Self::Denied(_) | Self::Unexpected(_) => false,
        }
    }

    /// Whether only an operator can fix it: retried slowly. A malformed body is not among these: it
    /// is split until the malformed document is alone.
    pub(crate) fn needs_operator(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Unexpected(_))
    }
}

/// Class of the result of one bulk item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemClass {
    /// Written.
    Written,
    /// The document exists already, or changed since it was read.
    Conflict,
    /// To be retried after a backoff.
    Retry,
    /// To be retried slowly: an operator must fix something.
    Blocked,
    /// Will never be accepted.
    Permanent,
}

/// Classifies one item of a bulk. `kind` is `error.type`, `reason` is `error.reason`.
///
/// Rows observed in Elasticsearch 7.17 to 9 and OpenSearch. A 400 is an error in the document
/// except where type or text blame the index or the cluster.
pub(crate) fn classify_item(status: u16, kind: &str, reason: &str) -> ItemClass {
    match status {
        200..=299 => ItemClass::Written,
        409 => ItemClass::Conflict,
        429 if kind == "cluster_block_exception" => ItemClass::Blocked, // flood-stage disk watermark
        429 => ItemClass::Retry,
        401 | 403 | 404 => ItemClass::Blocked, // read-only index, privileges, index that may not be created
        400 if is_index_problem(kind, reason) => ItemClass::Blocked,
        400..=499 => ItemClass::Permanent,
        _ => ItemClass::Retry,
    }
}

/// Whether a 400 is about the index or the cluster, not about the document.
fn is_index_problem(kind: &str, reason: &str) -> bool {
    const KINDS: [&str; 4] = [
        "index_closed_exception",
        "invalid_index_name_exception",
        "cluster_block_exception",
        "invalid_alias_name_exception",
    ];
    const TEXTS: [&str; 7] = [
        "shards open",      // "this cluster currently has [1000]/[1000] maximum normal shards open"
        "no write index",   // the name is an alias without a write index
        "data stream",      // the name is a data stream: merges are not possible
        "pipeline with id", // the default pipeline is missing
        "auto-create",      // action.auto_create_index forbids it
        "auto creation",
        "require_alias",
    ];
    KINDS.contains(&kind) || TEXTS.iter().any(|text| reason.contains(text))
}

/// The start of a response body, for messages: one line. Never used for items, whose reasons can
/// quote documents.
pub(crate) fn excerpt(body: &[u8]) -> String {
    const MAX_EXCERPT_BYTES: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_EXCERPT_BYTES)]);
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.trim().is_empty() {
        "no text".into()
    } else {
        line.trim().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_by_the_table() {
        let rows = [
            (200, "", "", ItemClass::Written),
            (201, "", "", ItemClass::Written),
            (409, "version_conflict_engine_exception", "", ItemClass::Conflict),
            (429, "es_rejected_execution_exception", "", ItemClass::Retry),
            (429, "circuit_breaking_exception", "", ItemClass::Retry),
            (
                429,
                "cluster_block_exception",
                "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage]",
                ItemClass::Blocked,
            ),
            (
                403,
                "cluster_block_exception",
                "index [x] blocked by: [FORBIDDEN/8/index write (api)]",
                ItemClass::Blocked,
            ),
            (403, "security_exception", "", ItemClass::Blocked),
            (
                404,
                "index_not_found_exception",
                "no such index",
                ItemClass::Blocked,
            ),
            (503, "unavailable_shards_exception", "", ItemClass::Retry),
            (500, "", "", ItemClass::Retry),
            (502, "", "", ItemClass::Retry),
            (504, "", "", ItemClass::Retry),
            (
                400,
                "validation_exception",
                "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;",
                ItemClass::Blocked,
            ),
            (
                400,
                "illegal_argument_exception",
                "pipeline with id [x] does not exist",
                ItemClass::Blocked,
            ),
            (400, "index_closed_exception", "closed", ItemClass::Blocked),
            (
                400,
                "mapper_parsing_exception",
                "failed to parse field [status] of type [long]",
                ItemClass::Permanent,
            ),
            (
                400,
                "document_parsing_exception",
                "[1:20] failed to parse",
                ItemClass::Permanent,
            ),
            (400, "strict_dynamic_mapping_exception", "", ItemClass::Permanent),
            (
                400,
                "illegal_argument_exception",
                "Limit of total fields [1000] has been exceeded",
                ItemClass::Permanent,
            ),
            (413, "", "", ItemClass::Permanent),
        ];
        for (status, kind, reason, class) in rows {
            assert_eq!(
                classify_item(status, kind, reason),
                class,
                "{status} {kind} {reason}"
            );
        }
    }

    #[test]
    fn requests_by_the_table() {
        for (status, label, operator) in [
            (429, "throttled", false),
            (502, "unavailable", false),
            (503, "unavailable", false),
            (504, "unavailable", false),
            (413, "too_large", false),
            (400, "malformed", false),
            (401, "denied", true),
            (403, "denied", true),
            (404, "unexpected", true),
            (302, "unexpected", true),
        ] {
            let error = RequestError::of_status(status, None, b"{\"error\":\n\"x\"}");
            assert_eq!(
                (error.label(), error.needs_operator()),
                (label, operator),
                "{status}"
            );
            assert!(error.reason().contains(&status.to_string()));
            assert!(!error.reason().contains('\n'));
        }
    }
}
