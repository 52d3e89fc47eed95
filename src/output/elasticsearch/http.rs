//! HTTP request and response of a node. A body is bounded while it is read, also when no length is
//! announced.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Method;

use super::outcome::RequestError;

/// What is read of a response with an error status: its beginning goes into messages.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Longest response to a request without a bound of its own.
const MAX_SHORT_RESPONSE_BYTES: u64 = 4 << 20;

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
    /// A longer response is not read.
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
            max_response_bytes: MAX_SHORT_RESPONSE_BYTES,
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
    /// The response is longer than allowed: bytes that were announced or have come.
    ResponseTooLarge(u64),
}

/// Why the body of a response was not read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// It is longer than allowed: bytes that were announced or have come.
    TooLarge(u64),
    /// The connection failed.
    Http(reqwest::Error),
}

impl From<reqwest::Error> for BodyError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

/// Reads a body of at most `max_bytes`; of an error only the beginning.
///
/// # Errors
/// It is longer, or the connection failed.
pub(super) async fn read_body(mut response: reqwest::Response, max_bytes: u64) -> Result<Bytes, BodyError> {
    let is_error = !response.status().is_success();
    let most = if is_error { MAX_ERROR_BYTES } else { max_bytes };
    let announced = response.content_length().unwrap_or(0);
    if announced > most && !is_error {
        return Err(BodyError::TooLarge(announced));
    }
    // A body of one chunk is not copied.
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
            let expected = announced.max(length + next.len() as u64).min(most);
            whole.reserve(usize::try_from(expected).unwrap_or(0));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&next);
        length += next.len() as u64;
    }
    match is_error {
        true if whole.is_empty() => Ok(first),
        true => Ok(whole.freeze()),
        false => Err(BodyError::TooLarge(length)),
    }
}
