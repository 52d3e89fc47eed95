//! Reading documents back: realtime `_mget`, which sees every write that was answered, refreshed or not.
//! Owns the bound on what one answer may hold.

use bytes::{BufMut, Bytes, BytesMut};
use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bulk::{Version, put_id};
use super::cluster::Cluster;
use super::nodes::{NoReply, Request};
use super::outcome::Problem;

/// An answer longer than this is asked for again in halves.
const LONGEST_ANSWER: u64 = 32 << 20;

/// A document as it stands in an index.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// There is none (or no such index).
    Missing,
    /// It is there.
    Here {
        /// For compare-and-set.
        version: Version,
        /// Its source; empty when it was not asked for.
        source: Bytes,
    },
    /// The shard could not answer.
    Failed(String),
}

/// Reads the documents of the given (index, id) pairs, in that order.
///
/// # Errors
/// The request failed as a whole.
pub(crate) async fn mget(
    cluster: &Cluster,
    wanted: &[(&str, &str)],
    sources: bool,
) -> Result<Vec<Found>, Problem> {
    let mut found = Vec::with_capacity(wanted.len());
    let mut rest = vec![wanted];
    while let Some(part) = rest.pop() {
        let mut request = Request::json(Method::Post, "/_mget", body(part));
        if !sources {
            request.query = &[("_source", "false")];
        }
        // A single document is taken at any length: there is no other way to it.
        if part.len() > 1 {
            request.longest_answer = LONGEST_ANSWER;
        }
        match cluster.nodes.send(&request).await {
            Err(NoReply::TooLong(_)) => {
                let (first, second) = part.split_at(part.len() / 2);
                rest.push(second);
                rest.push(first);
            }
            Err(NoReply::Problem(problem)) => return Err(problem),
            Ok(reply) => {
                let answer = reply.success()?;
                found.extend(parse(&answer, part.len()).map_err(Problem::Broken)?);
            }
        }
    }
    Ok(found)
}

fn body(wanted: &[(&str, &str)]) -> Bytes {
    let mut body =
        BytesMut::with_capacity(wanted.iter().map(|(index, id)| index.len() + id.len() + 32).sum());
    body.extend_from_slice(b"{\"docs\":[");
    for (n, (index, id)) in wanted.iter().enumerate() {
        if n > 0 {
            body.put_u8(b',');
        }
        body.extend_from_slice(b"{\"_index\":\"");
        body.extend_from_slice(index.as_bytes());
        body.extend_from_slice(b"\",\"_id\":\"");
        put_id(&mut body, id);
        body.extend_from_slice(b"\"}");
    }
    body.extend_from_slice(b"]}");
    body.freeze()
}

fn parse(answer: &Bytes, expected: usize) -> Result<Vec<Found>, String> {
    let wire: Wire<'_> = serde_json::from_slice(answer)
        .map_err(|e| format!("unreadable _mget answer of {} bytes: {e}", answer.len()))?;
    if wire.docs.len() != expected {
        return Err(format!(
            "_mget answer has {} documents, {expected} were asked for",
            wire.docs.len()
        ));
    }
    let one = |doc: WireDoc<'_>| match doc {
        WireDoc {
            error: Some(error), ..
        } if error.kind == "index_not_found_exception" => Found::Missing,
        WireDoc {
            error: Some(error), ..
        } => Found::Failed(format!("{}: {}", error.kind, error.reason)),
        WireDoc {
            found: true,
            seq_no: Some(seq_no),
            primary_term: Some(primary_term),
            source,
            ..
        } => Found::Here {
            version: Version { seq_no, primary_term },
            source: source.map_or_else(Bytes::new, |raw| answer.slice_ref(raw.get().as_bytes())),
        },
        WireDoc { found: true, .. } => Found::Failed("found without a sequence number".into()),
        WireDoc { found: false, .. } => Found::Missing,
    };
    Ok(wire.docs.into_iter().map(one).collect())
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    docs: Vec<WireDoc<'a>>,
}

#[derive(Deserialize)]
struct WireDoc<'a> {
    #[serde(default)]
    found: bool,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    error: Option<WireError>,
}

#[derive(Deserialize)]
struct WireError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: String,
}
