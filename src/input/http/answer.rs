//! Answers to requests, and the problems that refuse one.
//!
//! That a request was accepted can only be said with a proof that its records are durable.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::cluster::Durable;
use crate::metrics::HttpStatus;

/// Seconds after which a client is asked to send again what the journal could not take.
const RETRY_AFTER_SECONDS: u32 = 5;
const JSON: &str = "application/json";

/// An answer; [`Answer::accepted`] and [`Answer::empty_request`] are the only ones of success.
#[derive(Debug)]
pub(in crate::input) struct Answer {
    pub(in crate::input) status: StatusCode,
    pub(in crate::input) headers: Vec<(HeaderName, HeaderValue)>,
    content_type: &'static str,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// The records of a request are durable.
    pub(super) fn accepted(durable: Durable, records: u64) -> Self {
        // Consumed: one proof answers one request.
        drop(durable);
        Self::json(StatusCode::OK, &json!({ "records": records }))
    }

    /// A request without records, of which nothing has to be durable.
    pub(super) fn empty_request() -> Self {
        Self::json(StatusCode::OK, &json!({ "records": 0 }))
    }

    /// An answer of success with a body of another protocol.
    pub(in crate::input) fn with_body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    /// Headers after the body, for gRPC.
    pub(in crate::input) fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    /// A header.
    pub(in crate::input) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        let mut text = body.to_string();
        text.push('\n');
        Self {
            status,
            headers: Vec::new(),
            content_type: JSON,
            body: text.into(),
            trailers: None,
        }
    }

    /// An answer without a body.
    pub(super) fn no_content() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            headers: Vec::new(),
            content_type: "",
            body: Bytes::new(),
            trailers: None,
        }
    }

    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody {
            data: (!self.body.is_empty()).then_some(self.body),
            trailers: self.trailers,
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !self.content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub(in crate::input) enum Problem {
    /// The client's mistake, with its place.
    #[error("{0}")]
    Malformed(String),
    /// No credentials, or wrong ones; the schemes that are asked for.
    #[error("credentials are needed, and these are missing or wrong (http.token, http.users)")]
    Unauthorized(Vec<&'static str>),
    /// A web page that may not send.
    #[error("web pages of {0} may not send records; add the origin to http.cors_origins")]
    Origin(String),
    /// Not a path of this input.
    #[error("no such path: {path}; this input takes {allowed}")]
    NotFound { path: String, allowed: &'static str },
    #[error("{0} is not answered here; use POST")]
    Method(String),
    #[error("less than 1 KiB of the body came within {0:?}")]
    Slow(Duration),
    #[error("the body was sent too slowly while others waited for memory")]
    SlowWithMemory,
    #[error("a request needs Content-Length, or a chunked body")]
    LengthRequired,
    #[error("the body has more than {limit} bytes{what} (http.max_body)")]
    TooLarge { what: &'static str, limit: usize },
    #[error("{0}")]
    Unsupported(String),
    /// Nothing can be made durable; a retry may help.
    #[error("{0}")]
    Unavailable(String),
    /// The client has gone, nobody reads the answer.
    #[error("the client has gone: {0}")]
    Aborted(String),
}

impl Problem {
    pub(in crate::input) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Aborted(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow(_) | Self::SlowWithMemory => StatusCode::REQUEST_TIMEOUT,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the rest of the body is of no use: the connection is closed after the answer.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Slow(_) | Self::SlowWithMemory | Self::Aborted(_))
    }

    /// The answer, as JSON.
    pub(in crate::input) fn into_answer(self) -> Answer {
        let mut body = json!({ "error": self.to_string() });
        if let Self::TooLarge { limit, .. } = &self {
            body["limit"] = json!(limit);
        }
        self.headers_of(Answer::json(self.status(), &body))
    }

    /// `answer` with the headers that belong to the status.
    pub(in crate::input) fn headers_of(&self, mut answer: Answer) -> Answer {
        answer.status = self.status();
        match self {
            Self::Unauthorized(schemes) => schemes.iter().fold(answer, |answer, scheme| {
                answer.with_header(header::WWW_AUTHENTICATE, &format!("{scheme} realm=\"windrow\""))
            }),
            Self::Method(_) => answer.with_header(header::ALLOW, "POST, OPTIONS"),
            Self::Unavailable(_) => answer.with_header(header::RETRY_AFTER, &RETRY_AFTER_SECONDS.to_string()),
            Self::Unsupported(_) => answer.with_header(header::ACCEPT_ENCODING, "gzip, zstd, deflate"),
            problem if problem.ends_connection() => answer.with_header(header::CONNECTION, "close"),
            _ => answer,
        }
    }
}

/// The label under which a status is counted.
pub(super) fn counted_as(status: StatusCode) -> HttpStatus {
    match status.as_u16() {
        200 => HttpStatus::Ok,
        204 => HttpStatus::NoContent,
        401 => HttpStatus::Unauthorized,
        403 => HttpStatus::Forbidden,
        404 => HttpStatus::NotFound,
        405 => HttpStatus::MethodNotAllowed,
        408 => HttpStatus::RequestTimeout,
        411 => HttpStatus::LengthRequired,
        413 => HttpStatus::PayloadTooLarge,
        415 => HttpStatus::UnsupportedMediaType,
        503 => HttpStatus::ServiceUnavailable,
        _ => HttpStatus::BadRequest,
    }
}

/// The body of an answer: one piece, and trailers.
#[derive(Debug)]
pub(super) struct AnswerBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = self.data.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
