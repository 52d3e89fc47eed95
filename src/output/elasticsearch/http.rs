//! HTTP request and response of one node, and the client that reads responses piece by piece: a body
//! is bounded while it is read, also when no length is announced.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elasticsearch::http::Method;
use elasticsearch::http::headers::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, RETRY_AFTER};

use super::outcome::RequestError;
use crate::config::ElasticsearchConfig;

/// Longest `Retry-After` that is respected.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// What is read of a response with an error status: its beginning goes into messages.
const MAX_ERROR_BYTES: u64 = 64 << 10;

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
    /// A longer response is not read. `None`: the status is enough, and a response that announces no
    /// length is not read at all.
    pub(crate) max_response_bytes: Option<u64>,
}

/// Longest response to a request without a bound of its own.
pub(super) const MAX_SHORT_RESPONSE_BYTES: u64 = 4 << 20;

impl Request {
    pub(crate) fn json(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            path: path.into(),
            query: &[],
            body: body.into(),
            ndjson: false,
            gzip: false,
            max_response_bytes: Some(MAX_SHORT_RESPONSE_BYTES),
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
    /// The response is longer than allowed: bytes.
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

/// The wait that a response asks for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// A client with the settings of a node's transport.
pub(super) fn streaming_client(
    config: &ElasticsearchConfig,
    roots: Option<&Vec<u8>>,
    identity: Option<&Vec<u8>>,
) -> reqwest::Result<reqwest::Client> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        .user_agent(concat!("windrow/", env!("CARGO_PKG_VERSION")))
        .danger_accept_invalid_certs(config.insecure);
    if !config.system_proxy {
        builder = builder.no_proxy();
    }
    if let Some(pem) = roots.filter(|_| !config.insecure) {
        for root in reqwest::Certificate::from_pem_bundle(pem)? {
            builder = builder.add_root_certificate(root);
        }
    }
    if let Some(pem) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(pem)?);
    }
    builder.build()
}

/// An error with its sources in one line; the outer errors of the HTTP client say little.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
