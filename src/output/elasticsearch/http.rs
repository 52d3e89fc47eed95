//! HTTP request and response of one node. A response is bounded while it is read, also when it
//! announces no length.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, Url};

use super::outcome::RequestError;

/// Longest response to a request that names no bound of its own.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;
/// What is read of a response with an error status: its excerpt goes into messages.
const MAX_ERROR_RESPONSE_BYTES: u64 = 64 << 10;

/// An HTTP request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: &'static [(&'static str, &'static str)],
    pub(crate) body: Bytes,
    /// NDJSON instead of one JSON object.
    pub(crate) ndjson: bool,
    /// The body is compressed.
    pub(crate) gzip: bool,
    /// Longest response; more is not read.
    pub(crate) max_response_bytes: u64,
}

impl Request {
    pub(crate) fn json(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            path: path.into(),
            query: &[],
            body: body.into(),
            ndjson: false,
            gzip: false,
            max_response_bytes: MAX_RESPONSE_BYTES,
        }
    }
}

/// An HTTP response of any status.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Response {
    /// The body if the status is 2xx.
    ///
    /// # Errors
    /// The error for any other status.
    pub(crate) fn success(self) -> Result<Bytes, RequestError> {
        match self.status {
            200..=299 => Ok(self.body),
            status => Err(RequestError::of_status(status, self.retry_after, &self.body)),
        }
    }
}

/// Why there is no response.
pub(crate) enum SendError {
    /// The request failed.
    Request(RequestError),
    /// The response is longer than allowed. The reason, with the numbers.
    ResponseTooLarge(String),
}

/// Why the body of a response was not read.
pub(super) enum BodyError {
    /// It is longer than allowed. The reason, with the numbers.
    TooLarge(String),
    /// The connection failed.
    Http(reqwest::Error),
}

impl From<reqwest::Error> for BodyError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

/// Reads a response up to the bound of its request. Of an error only the beginning is read.
pub(super) async fn read_body(
    mut response: reqwest::Response,
    request: &Request,
    node: &Url,
) -> Result<Bytes, BodyError> {
    let is_error = !response.status().is_success();
    let most = match is_error {
        true => MAX_ERROR_RESPONSE_BYTES,
        false => request.max_response_bytes,
    };
    let too_large = |what: &str, bytes: u64| {
        BodyError::TooLarge(format!(
            "{node}: the response to {} is too long ({bytes} bytes {what}, the limit is {most}): the node is not \
             Elasticsearch, or a proxy before it is broken",
            request.path
        ))
    };
    let announced = response.content_length().unwrap_or(0);
    if announced > most && !is_error {
        return Err(too_large("announced", announced));
    }
    // A response of one chunk is not copied.
    let Some(first) = response.chunk().await? else {
        return Ok(Bytes::new());
    };
    let mut whole = BytesMut::new();
    let mut length = first.len() as u64;
    while length <= most {
        let Some(next) = response.chunk().await? else {
            return Ok(if whole.is_empty() { first } else { whole.freeze() });
        };
        if whole.is_empty() {
            whole.reserve(usize::try_from(announced.max(length + next.len() as u64).min(most)).unwrap_or(0));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&next);
        length += next.len() as u64;
    }
    match is_error {
        true if whole.is_empty() => Ok(first),
        true => Ok(whole.freeze()),
        false => Err(too_large("read", length)),
    }
}
