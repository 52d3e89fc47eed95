//! Realtime `_mget`: sees every acknowledged write, refreshed or not.
//!
//! Owns the bound on the size of one response.

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bulk::Version;
use super::client::Client;
use super::http::{Request, SendError};
use super::outcome::RequestError;
use windrow_trace::write_escaped;

/// A longer response is requested again in halves.
const MAX_RESPONSE_BYTES: u64 = 32 << 20;
/// Longest response with one document: Elasticsearch takes documents of up to 100 MiB.
const MAX_DOCUMENT_RESPONSE_BYTES: u64 = 101 << 20;

/// What of each document is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Its version.
    None,
    /// All of its source.
    All,
    /// Why it was sealed.
    Reason,
}

/// Result for one requested document.
#[derive(Debug, Clone)]
pub(crate) enum MgetItem {
    /// It does not exist, or its index does not.
    Missing,
    /// It exists.
    Found {
        /// For compare-and-set.
        version: Version,
        /// Its source; empty when it was not requested.
        source: Bytes,
    },
    /// It could not be read.
    Failed {
        /// `error.type`
        kind: String,
        /// For the operator.
        reason: String,
    },
}

/// Reads the documents of the given (index, id) pairs, in that order.
///
/// # Errors
/// The request failed as a whole.
pub(crate) async fn mget(
    client: &Client,
    requested: &[(&str, &str)],
    fields: Fields,
) -> Result<Vec<MgetItem>, RequestError> {
    let mut found = Vec::with_capacity(requested.len());
    let mut rest = vec![requested];
    while let Some(part) = rest.pop() {
        let mut request = Request::json(Method::POST, "/_mget", body(part));
        request.query = match fields {
            Fields::None => &[("_source", "false")],
            Fields::All => &[],
            Fields::Reason => &[("_source_includes", "windrow.reason")],
        };
        // A single document cannot be split.
        request.max_response_bytes = match part.len() {
            1 => MAX_DOCUMENT_RESPONSE_BYTES,
            _ => MAX_RESPONSE_BYTES,
        };
        match client.nodes.send(&request).await {
            Err(SendError::ResponseTooLarge(bytes)) if part.len() == 1 => {
                return Err(RequestError::Broken(format!(
                    "the response to an _mget of one document is too long (at least {bytes} bytes, the limit is \
                     {MAX_DOCUMENT_RESPONSE_BYTES}): the node is not Elasticsearch, or a proxy in front of it is broken"
                )));
            }
            Err(SendError::ResponseTooLarge(_)) => {
                let (first, second) = part.split_at(part.len() / 2);
                rest.push(second);
                rest.push(first);
            }
            Err(SendError::Request(error)) => return Err(error),
            Ok(reply) => {
                let response = reply.success()?;
                found.extend(parse(&response, part.len()).map_err(RequestError::Broken)?);
            }
        }
    }
    Ok(found)
}

fn body(requested: &[(&str, &str)]) -> Bytes {
    let mut body: Vec<u8> = Vec::with_capacity(
        requested
            .iter()
            .map(|(index, id)| index.len() + id.len() + 32)
            .sum(),
    );
    body.extend_from_slice(b"{\"docs\":[");
    for (n, (index, id)) in requested.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"_index\":\"");
        body.extend_from_slice(index.as_bytes());
        body.extend_from_slice(b"\",\"_id\":\"");
        write_escaped(&mut body, id.as_bytes());
        body.extend_from_slice(b"\"}");
    }
    body.extend_from_slice(b"]}");
    body.into()
}

fn parse(response: &Bytes, expected: usize) -> Result<Vec<MgetItem>, String> {
    let wire: MgetWire<'_> = serde_json::from_slice(response)
        .map_err(|e| format!("unreadable _mget response of {} bytes: {e}", response.len()))?;
    if wire.docs.len() != expected {
        return Err(format!(
            "_mget response has {} documents, {expected} were requested",
            wire.docs.len()
        ));
    }
    let one = |doc: MgetWireDocument<'_>| match doc {
        MgetWireDocument {
            error: Some(error), ..
        } if error.kind == "index_not_found_exception" => MgetItem::Missing,
        MgetWireDocument {
            error: Some(error), ..
        } => MgetItem::Failed {
            reason: format!("{}: {}", error.kind, error.reason),
            kind: error.kind,
        },
        MgetWireDocument {
            found: true,
            seq_no: Some(seq_no),
            primary_term: Some(primary_term),
            source,
            ..
        } => MgetItem::Found {
            version: Version { seq_no, primary_term },
            source: source.map_or_else(Bytes::new, |raw| response.slice_ref(raw.get().as_bytes())),
        },
        MgetWireDocument { found: true, .. } => MgetItem::Failed {
            kind: "no_sequence_number".into(),
            reason: "found without a sequence number".into(),
        },
        MgetWireDocument { found: false, .. } => MgetItem::Missing,
    };
    Ok(wire.docs.into_iter().map(one).collect())
}

#[derive(Deserialize)]
struct MgetWire<'a> {
    #[serde(borrow)]
    docs: Vec<MgetWireDocument<'a>>,
}

#[derive(Deserialize)]
struct MgetWireDocument<'a> {
    #[serde(default)]
    found: bool,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    error: Option<MgetWireError>,
}

#[derive(Deserialize)]
struct MgetWireError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: String,
}
