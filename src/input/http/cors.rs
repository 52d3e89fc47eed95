//! Cross-origin requests: which web pages may send.
//!
//! Only browsers send `Origin`. Without a list no page may send: a page on the internet could
//! otherwise write into the log of a developer's machine.

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

use super::answer::{Answer, Problem};

/// Seconds for which a browser remembers the answer to a preflight request.
const PREFLIGHT_SECONDS: &str = "600";

/// Origins that may send.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<String>,
}

/// What the answer to a request must have for the browser.
#[derive(Debug, Default)]
pub(super) struct CorsHeaders(Vec<(HeaderName, HeaderValue)>);

impl Cors {
    pub(super) fn new(origins: &[String]) -> Self {
        let origins = origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_owned());
        Self {
            origins: origins.collect(),
        }
    }

    /// The headers for the answer, if the page may send.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<CorsHeaders, Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(CorsHeaders::default());
        };
        let all = self.origins.iter().any(|known| known == "*");
        let known = self
            .origins
            .iter()
            .any(|known| known.as_bytes() == origin.as_bytes());
        if !all && !known {
            return Err(Problem::Origin(
                String::from_utf8_lossy(origin.as_bytes()).into_owned(),
            ));
        }
        let allowed = if all {
            HeaderValue::from_static("*")
        } else {
            origin.clone()
        };
        Ok(CorsHeaders(vec![
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed),
            (header::VARY, HeaderValue::from_static("Origin")),
        ]))
    }

    /// The answer to a preflight request; `None` if the request is none.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Answer> {
        let asked = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if method != Method::OPTIONS || !asked || !headers.contains_key(header::ORIGIN) {
            return None;
        }
        let mut answer = Answer::no_content()
            .with_header(header::ACCESS_CONTROL_ALLOW_METHODS, "POST")
            .with_header(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        if let Some(names) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer
                .headers
                .push((header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone()));
        }
        Some(answer)
    }
}

impl CorsHeaders {
    pub(super) fn add_to(self, mut answer: Answer) -> Answer {
        answer.headers.extend(self.0);
        answer
    }
}
