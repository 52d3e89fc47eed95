//! What an answer of Elasticsearch means: pure tables, for whole requests and for single items of a bulk.
//! Owns no state; see `docs` of each function for where its rows come from.

use std::time::Duration;

/// Why a whole request gave no per-item results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// 429, 5xx: nothing or not all was taken; the same body again after a pause.
    Pressure {
        /// HTTP status.
        status: u16,
        /// The server's own wish.
        retry_after: Option<Duration>,
        /// For the operator.
        reason: String,
    },
    /// No node could be reached; nothing was sent.
    Unreachable(String),
    /// Timeout: it is not known whether the request was carried out.
    Timeout(String),
    /// The connection ended, or the answer cannot be read: it is not known whether the request was carried out.
    Broken(String),
    /// 413: the body is longer than the server, or something before it, takes.
    TooLarge(String),
    /// 400 for the whole request: a mistake of ours, or something between us and Elasticsearch.
    Malformed(String),
    /// 401 or 403 for the whole request.
    Denied(String),
    /// Any other status: most likely not Elasticsearch.
    Unexpected(String),
}

impl Problem {
    /// From a status that is not a success.
    pub(crate) fn of_status(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let reason = format!("status {status}: {}", excerpt(body));
        match status {
            408 | 425 | 429 | 500..=599 => Self::Pressure {
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

    /// The sentence for the operator.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Pressure { reason, .. }
            | Self::Unreachable(reason)
            | Self::Timeout(reason)
            | Self::Broken(reason)
            | Self::TooLarge(reason)
            | Self::Malformed(reason)
            | Self::Denied(reason)
            | Self::Unexpected(reason) => reason,
        }
    }

    /// Label of the request counter.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Pressure { status: 429, .. } => "throttled",
            Self::Pressure { .. } => "unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "broken",
            Self::TooLarge(_) => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Denied(_) => "denied",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Whether the request may have been carried out all the same, in whole or in part.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            Self::Pressure { status, .. } => *status >= 500,
            Self::Timeout(_) | Self::Broken(_) | Self::Malformed(_) => true,
            Self::Unreachable(_) | Self::TooLarge(_) | Self::Denied(_) | Self::Unexpected(_) => false,
        }
    }

    /// Whether only an operator can mend it: tried again slowly. A malformed body is not among these: it is halved
    /// until the document that is in the way stands alone.
    pub(crate) fn needs_operator(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Unexpected(_))
    }
}

/// What to do with one item of a bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Written.
    Done,
    /// The document exists already, or changed since it was read.
    Conflict,
    /// Again after a backoff.
    Retry,
    /// Again, slowly: an operator must mend something.
    Blocked,
    /// Will never be accepted.
    Poison,
}

/// Verdict on one item of a bulk. `kind` is `error.type`, `reason` is `error.reason`.
///
/// Rows as seen in Elasticsearch 7.17 to 9 and OpenSearch; a 400 is a mistake in the document except where the type
/// or the text says that the index or the cluster is in the way.
pub(crate) fn item(status: u16, kind: &str, reason: &str) -> Verdict {
    match status {
        200..=299 => Verdict::Done,
        409 => Verdict::Conflict,
        429 if kind == "cluster_block_exception" => Verdict::Blocked, // flood-stage disk watermark
        429 => Verdict::Retry,
        401 | 403 | 404 => Verdict::Blocked, // read-only index, privileges, index that may not be created
        400 if in_the_way(kind, reason) => Verdict::Blocked,
        400..=499 => Verdict::Poison,
        _ => Verdict::Retry,
    }
}

/// A 400 that says nothing about the document.
fn in_the_way(kind: &str, reason: &str) -> bool {
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

/// The start of an answer, for messages: one line, not long. The reasons of single items, which can repeat what a
/// document says, do not come this way.
pub(crate) fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
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
            (200, "", "", Verdict::Done),
            (201, "", "", Verdict::Done),
            (409, "version_conflict_engine_exception", "", Verdict::Conflict),
            (429, "es_rejected_execution_exception", "", Verdict::Retry),
            (429, "circuit_breaking_exception", "", Verdict::Retry),
            (
                429,
                "cluster_block_exception",
                "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage]",
                Verdict::Blocked,
            ),
            (
                403,
                "cluster_block_exception",
                "index [x] blocked by: [FORBIDDEN/8/index write (api)]",
                Verdict::Blocked,
            ),
            (403, "security_exception", "", Verdict::Blocked),
            (
                404,
                "index_not_found_exception",
                "no such index",
                Verdict::Blocked,
            ),
            (503, "unavailable_shards_exception", "", Verdict::Retry),
            (500, "", "", Verdict::Retry),
            (502, "", "", Verdict::Retry),
            (504, "", "", Verdict::Retry),
            (
                400,
                "validation_exception",
                "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;",
                Verdict::Blocked,
            ),
            (
                400,
                "illegal_argument_exception",
                "pipeline with id [x] does not exist",
                Verdict::Blocked,
            ),
            (400, "index_closed_exception", "closed", Verdict::Blocked),
            (
                400,
                "mapper_parsing_exception",
                "failed to parse field [status] of type [long]",
                Verdict::Poison,
            ),
            (
                400,
                "document_parsing_exception",
                "[1:20] failed to parse",
                Verdict::Poison,
            ),
            (400, "strict_dynamic_mapping_exception", "", Verdict::Poison),
            (
                400,
                "illegal_argument_exception",
                "Limit of total fields [1000] has been exceeded",
                Verdict::Poison,
            ),
            (413, "", "", Verdict::Poison),
        ];
        for (status, kind, reason, verdict) in rows {
            assert_eq!(item(status, kind, reason), verdict, "{status} {kind} {reason}");
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
            let problem = Problem::of_status(status, None, b"{\"error\":\n\"x\"}");
            assert_eq!(
                (problem.label(), problem.needs_operator()),
                (label, operator),
                "{status}"
            );
            assert!(problem.reason().contains(&status.to_string()));
            assert!(!problem.reason().contains('\n'));
        }
    }
}
