//! `/api/v1/dead-letter`: refused documents by reason, and their replay.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::AdminShared;
use super::api::error;
use super::guard::parameter;
use super::session::foreign_change;
use crate::output::dead_letter::{DeadLetterBrowser, Entry, EntryContent, PageCursor};
use crate::output::replay::ReplaySummary;

/// Entries of a page.
const PAGE_ENTRIES: usize = 50;

/// The future result of a replay; the error is a message for the reader.
pub type Replaying = Pin<Box<dyn Future<Output = Result<ReplaySummary, String>> + Send>>;

/// What the admin port does with the dead letter.
#[derive(Clone)]
pub struct DeadLetterAccess {
    /// Reads the folder.
    pub browser: Arc<DeadLetterBrowser>,
    /// Sends its documents again; `None` if no output takes them.
    pub replay: Option<Arc<dyn Fn() -> Replaying + Send + Sync>>,
    /// One reader at a time, so that a slow disk holds one thread.
    turn: Arc<Semaphore>,
}

impl DeadLetterAccess {
    /// Access to the dead letter that `browser` reads.
    pub fn new(browser: DeadLetterBrowser, replay: Option<Arc<dyn Fn() -> Replaying + Send + Sync>>) -> Self {
        Self {
            browser: Arc::new(browser),
            replay,
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Answers with counts by reason and a page of entries.
pub(super) async fn list(State(shared): State<AdminShared>, uri: Uri) -> Response {
    let Some(access) = &shared.state.dead_letter else {
        return error(StatusCode::NOT_IMPLEMENTED, "there is no dead letter here");
    };
    let from = match parameter(&uri, "cursor").map(|text| parse_cursor(&text)) {
        None => PageCursor::default(),
        Some(Some(cursor)) => cursor,
        Some(None) => return error(StatusCode::BAD_REQUEST, "cursor is not one of this API"),
    };
    let reason = parameter(&uri, "reason").filter(|reason| !reason.is_empty());
    let browser = Arc::clone(&access.browser);
    // Held by the read itself, which goes on when the request is given up.
    let turn = Arc::clone(&access.turn).acquire_owned().await;
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let reasons = browser.reasons()?;
        let page = browser.page(from, reason.as_deref(), PAGE_ENTRIES)?;
        Ok::<_, std::io::Error>((reasons, page))
    });
    let (reasons, page) = match read.await.map_err(std::io::Error::other).flatten() {
        Ok(read) => read,
        Err(failed) => {
            let what = format!("the dead letter cannot be read: {failed}");
            return error(StatusCode::SERVICE_UNAVAILABLE, what);
        }
    };
    let total: u64 = reasons.iter().map(|reason| reason.entries).sum();
    let bytes: u64 = reasons.iter().map(|reason| reason.bytes).sum();
    let body = DeadLetterView {
        total,
        bytes,
        reasons: reasons
            .iter()
            .map(|reason| ReasonView {
                reason: &reason.kind,
                output: &reason.source,
                count: reason.entries,
                bytes: reason.bytes,
            })
            .collect(),
        entries: page.entries.iter().map(EntryView::of).collect(),
        omitted: page.omitted,
        next: page
            .next
            .map(|cursor| format!("{}.{}", cursor.file, cursor.offset)),
    };
    Json(body).into_response()
}

#[derive(Serialize)]
struct DeadLetterView<'a> {
    total: u64,
    bytes: u64,
    reasons: Vec<ReasonView<'a>>,
    entries: Vec<EntryView<'a>>,
    omitted: usize,
    next: Option<String>,
}

#[derive(Serialize)]
struct ReasonView<'a> {
    reason: &'a str,
    output: &'a str,
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryView<'a> {
    time: String,
    output: &'a str,
    status: Option<u16>,
    r#type: &'a str,
    reason: &'a str,
    index: Option<&'a str>,
    document_id: Option<&'a str>,
    lines: Option<u32>,
    /// As it is in the dead letter: numbers keep their digits.
    document: Option<&'a RawValue>,
}

impl<'a> EntryView<'a> {
    fn of(entry: &'a Entry) -> Self {
        let document = match &entry.content {
            EntryContent::Document(json) => serde_json::from_slice(json).ok(),
            EntryContent::Raw(_) => None,
        };
        Self {
            time: entry.time.to_string(),
            output: &entry.source,
            status: entry.status,
            r#type: &entry.kind,
            reason: &entry.reason,
            index: entry.index.as_deref(),
            document_id: entry.id.as_deref(),
            lines: entry.lines,
            document,
        }
    }
}

fn parse_cursor(text: &str) -> Option<PageCursor> {
    let (file, offset) = text.split_once('.')?;
    Some(PageCursor {
        file: file.parse().ok()?,
        offset: offset.parse().ok()?,
    })
}

/// `POST /api/v1/dead-letter/replay`: sends the documents again.
pub(super) async fn replay(State(shared): State<AdminShared>, uri: Uri, headers: HeaderMap) -> Response {
    if let Some((status, what)) = foreign_change(&uri, &headers) {
        return error(status, what);
    }
    let access = shared.state.dead_letter.as_ref();
    let Some(replay) = access.and_then(|access| access.replay.as_ref()) else {
        let what = "only the Elasticsearch output takes documents again, and it is not configured";
        return error(StatusCode::NOT_IMPLEMENTED, what);
    };
    // In a task of its own: a reader who leaves does not stop it halfway.
    match tokio::spawn(replay()).await {
        Ok(Ok(summary)) => Json(outcome(&summary)).into_response(),
        Ok(Err(what)) => error(StatusCode::SERVICE_UNAVAILABLE, what),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, failed.to_string()),
    }
}

fn outcome(summary: &ReplaySummary) -> Value {
    let ReplaySummary {
        entries,
        written,
        refused,
        postponed,
        not_replayable,
        unreadable,
        first_reason,
        ..
    } = summary;
    let mut message = format!("{written} of {entries} documents were written");
    for (count, what) in [
        (refused, "refused again"),
        (postponed, "not attempted"),
        (not_replayable, "not for Elasticsearch"),
        (unreadable, "unreadable"),
    ] {
        if *count > 0 {
            message += &format!(", {count} {what}");
        }
    }
    if let Some(reason) = first_reason {
        message += &format!(". First reason: {reason}");
    }
    json!({
        "entries": entries,
        "written": written,
        "refused": refused,
        "postponed": postponed,
        "notReplayable": not_replayable,
        "unreadable": unreadable,
        "firstReason": first_reason,
        "message": message,
    })
}
