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
    /// Refused, and neither its content nor the type of the error says whether the document or the
    /// index is at fault. Other documents of the index show that.
    Refused(Rejection),
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
    /// Its shard is not available: exponential backoff.
    Unavailable,
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
        let reason = format!("status {status}: {}", readable(body));
        match status {
            408 | 425 | 429 | 500..=599 => Self::Overloaded {
                status,
                retry_after,
                reason,
            },
            413 => Self::TooLarge(reason),
            400 => Self::Malformed(reason),
            401 | 403 => Self::Denied(reason),
            301 | 302 | 303 | 307 | 308 => Self::Unexpected(format!(
                "{reason}: redirects are not followed, because they lose the body of a request; set elasticsearch.url to the new address"
            )),
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

    /// Whether the content of the request may be the cause, such as for a firewall in front of the
    /// store: a part of the request may pass.
    pub(crate) fn may_be_content(&self) -> bool {
        match self {
            Self::Overloaded { status, .. } => !matches!(status, 429 | 503),
            Self::Denied(reason) => !reason.starts_with("status 401"),
            Self::Timeout(_) | Self::Broken(_) | Self::Unexpected(_) | Self::Malformed(_) => true,
            Self::Unreachable(_) | Self::TooLarge(_) => false,
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
    /// To be retried after a backoff: its shard is not available.
    Unavailable,
    /// To be retried slowly: an operator must fix something.
    Blocked,
    /// Refused for its content, or by something that looks at it.
    Refused,
}

/// Classifies one item of a bulk by its status and `error.type` alone: reasons quote documents.
///
/// Rows observed in Elasticsearch 7.17 to 9 and OpenSearch. A 400 is refused for the document,
/// unless its type blames index or cluster. Some types do both (`illegal_argument_exception`): see
/// [`is_about_content`].
pub(crate) fn classify_item(status: u16, kind: &str) -> ItemClass {
    match (status, kind) {
        (200..=299, _) => ItemClass::Written,
        (409, _) => ItemClass::Conflict,
        // Flood-stage disk watermark, read-only or closed index.
        (429 | 400, "cluster_block_exception" | "index_closed_exception") => ItemClass::Blocked,
        (429, _) => ItemClass::Retry,
        // Privileges, or an index that may not be created.
        (401 | 403 | 404, _) => ItemClass::Blocked,
        // Too many shards; a name that is no index name.
        (
            400,
            "validation_exception"
            | "invalid_index_name_exception"
            | "invalid_alias_name_exception"
            | "index_create_block_exception"
            | "resource_already_exists_exception",
        ) => ItemClass::Blocked,
        // An ingest pipeline failed on the document.
        (500, "fail_processor_exception" | "ingest_processor_exception" | "script_exception") => {
            ItemClass::Refused
        }
        (400..=499, _) => ItemClass::Refused,
        (
            503,
            "unavailable_shards_exception"
            | "no_shard_available_action_exception"
            | "primary_shard_missing_exception",
        ) => ItemClass::Unavailable,
        _ => ItemClass::Retry,
    }
}

/// Whether a refusal of this type is always about the content of the document.
pub(crate) fn is_about_content(status: u16, kind: &str) -> bool {
    status == 413
        || matches!(
            kind,
            "document_parsing_exception"
                | "mapper_parsing_exception"
                | "strict_dynamic_mapping_exception"
                | "parsing_exception"
                | "x_content_parse_exception"
                | "mapper_exception"
        )
}

/// Whether reading a document failed with an error that only an operator can fix.
pub(crate) fn is_read_blocked(kind: &str) -> bool {
    matches!(
        kind,
        "security_exception" | "index_closed_exception" | "cluster_block_exception"
    )
}

/// Why a request failed as a whole: type and reason of Elasticsearch's error, or the start of what
/// something else answered.
fn readable(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Wire {
        error: Error,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(rename = "type")]
        kind: String,
        reason: String,
    }
    match serde_json::from_slice::<Wire>(body) {
        Ok(Wire { error }) => excerpt(format!("{}: {}", error.kind, error.reason).as_bytes()),
        Err(_) => excerpt(body),
    }
}

/// A reason for the log and for `/ready`, without what it quotes of a document.
pub(crate) fn without_content(reason: &str) -> String {
    const QUOTES: [&str; 4] = [
        ", source[",
        " source[",
        " containing [",
        ". Preview of field's value",
    ];
    const MAX_REASON_CHARS: usize = 300;
    let ends = QUOTES.iter().filter_map(|quote| reason.find(quote));
    let end = ends.min().unwrap_or(reason.len());
    reason[..end].chars().take(MAX_REASON_CHARS).collect()
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
    fn items_by_status_and_type() {
        use ItemClass::*;
        let rows = [
            (200, "", Written),
            (201, "", Written),
            (409, "version_conflict_engine_exception", Conflict),
            (429, "es_rejected_execution_exception", Retry),
            (429, "circuit_breaking_exception", Retry),
            (429, "cluster_block_exception", Blocked),
            (403, "cluster_block_exception", Blocked),
            (403, "security_exception", Blocked),
            (404, "index_not_found_exception", Blocked),
            (503, "unavailable_shards_exception", Unavailable),
            (503, "process_cluster_event_timeout_exception", Retry),
            (500, "", Retry),
            (502, "", Retry),
            (504, "", Retry),
            (400, "validation_exception", Blocked),
            (400, "index_closed_exception", Blocked),
            (400, "illegal_argument_exception", Refused),
            (500, "fail_processor_exception", Refused),
            (400, "mapper_parsing_exception", Refused),
            (400, "document_parsing_exception", Refused),
            (400, "strict_dynamic_mapping_exception", Refused),
            (413, "", Refused),
        ];
        for (status, kind, class) in rows {
            assert_eq!(classify_item(status, kind), class, "{status} {kind}");
        }
        assert!(is_about_content(400, "document_parsing_exception"));
        assert!(!is_about_content(400, "illegal_argument_exception"));
    }

    #[test]
    fn reasons_are_shown_without_content() {
        for (reason, shown) in [
            (
                "[a][0] primary shard is not active Timeout: [1s], request: [BulkShardRequest [[a][0]] containing [index {[a][t], source[{}]}]]",
                "[a][0] primary shard is not active Timeout: [1s], request: [BulkShardRequest [[a][0]]",
            ),
            (
                "failed to parse field [code] of type [long] in document with id 'a'. Preview of field's value: 'secret'",
                "failed to parse field [code] of type [long] in document with id 'a'",
            ),
            ("closed", "closed"),
        ] {
            assert_eq!(without_content(reason), shown);
        }
        assert_eq!(without_content(&"é".repeat(1000)).chars().count(), 300);
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
