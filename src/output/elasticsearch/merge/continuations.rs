//! Continuations of a document that takes no further lines: created, or merged with what has their
//! ids.
//!
//! Call it once the document that they continue is stored as continued. Their ids and indices depend
//! on their own lines only, so they may be written again by anybody.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::bulk::{self, BulkDocument};
use super::super::client::Client;
use super::super::outcome::{DocumentOutcome, Rejection, RequestError};
use super::super::settle::Unsettled;
use super::super::upsert::Upsert;
use crate::output::DestinationId;
use windrow_trace::Continuation;

/// Bytes of one request; a longer document is sent alone.
const MAX_REQUEST_BYTES: usize = 8 << 20;

/// A continuation, and how many of its lines are new in the store.
struct FurtherDocument {
    content: Continuation,
    destination: DestinationId,
    new_lines: AtomicU32,
}

impl BulkDocument for FurtherDocument {
    fn id(&self) -> &str {
        &self.content.id
    }
    fn is_trace(&self) -> bool {
        true
    }
    fn first_ns(&self) -> i64 {
        self.content.first_ns
    }
    fn destination(&self) -> DestinationId {
        self.destination
    }
    fn json(&self) -> &[u8] {
        &self.content.document
    }
    fn mark_unchanged(&self) {
        self.new_lines.store(0, Ordering::Relaxed);
    }
    fn mark_merged(&self, new_lines: u32) {
        self.new_lines.store(new_lines, Ordering::Relaxed);
    }
}

/// The outcome of the first continuation that is not stored, if there is one, the number of lines
/// that were not stored before, and what is not settled.
type Written = Result<(Option<DocumentOutcome>, u32, Vec<Unsettled>), RequestError>;

/// Writes continuations of a document of this destination.
///
/// # Errors
/// A request failed as a whole.
// Boxed: a merge writes continuations and these may be merged, though no deeper than that.
pub(in super::super) fn write_continuations(
    client: &Client,
    destination: DestinationId,
    continuations: Vec<Continuation>,
) -> Pin<Box<dyn Future<Output = Written> + Send + '_>> {
    Box::pin(write_all(client, destination, continuations))
}

async fn write_all(client: &Client, destination: DestinationId, continuations: Vec<Continuation>) -> Written {
    let documents: Vec<_> = continuations
        .into_iter()
        .map(|content| FurtherDocument {
            new_lines: AtomicU32::new(content.lines),
            destination,
            content,
        })
        .collect();
    let (mut rejected, mut unsettled) = (None, Vec::new());
    let mut rest = &documents[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|document| {
            bytes += bulk::cost(*document);
            bytes <= MAX_REQUEST_BYTES
        });
        let (some, more) = rest.split_at(fits.count().max(1));
        rest = more;
        let (outcomes, open) = create(client, some).await?;
        unsettled.extend(open);
        for outcome in outcomes {
            match outcome {
                DocumentOutcome::Stored(_) => {}
                // All of them are tried before one that is refused for good decides.
                DocumentOutcome::Rejected(_) | DocumentOutcome::Refused(_) => {
                    rejected = rejected.or(Some(outcome));
                }
                other => return Ok((Some(other), 0, unsettled)),
            }
        }
    }
    let lines = documents
        .iter()
        .map(|document| document.new_lines.load(Ordering::Relaxed));
    Ok((rejected, lines.sum(), unsettled))
}

/// Creates documents in one request, heals refused ones, and merges those that exist.
async fn create(
    client: &Client,
    documents: &[FurtherDocument],
) -> Result<(Vec<DocumentOutcome>, Vec<Unsettled>), RequestError> {
    let body = bulk::create_body(&client.destinations, documents.iter(), Vec::new());
    // The name of their day may be an alias.
    let response = match client.bulk_located(body, documents.len()).await {
        Ok(response) => response,
        Err(RequestError::TooLarge(reason)) if documents.len() == 1 => {
            let rejection = Rejection {
                status: 413,
                kind: "document_too_large".into(),
                reason,
            };
            return Ok((vec![DocumentOutcome::Rejected(rejection)], Vec::new()));
        }
        Err(RequestError::TooLarge(_)) => {
            let (first, second) = documents.split_at(documents.len() / 2);
            let (mut outcomes, mut unsettled) = Box::pin(create(client, first)).await?;
            let (further, open) = Box::pin(create(client, second)).await?;
            outcomes.extend(further);
            unsettled.extend(open);
            return Ok((outcomes, unsettled));
        }
        Err(error) => return Err(error),
    };
    let (mut batch, rest) = Upsert::of_response(client, documents, response);
    batch.finish(client, rest).await?;
    Ok((batch.outcomes, batch.unsettled))
}
