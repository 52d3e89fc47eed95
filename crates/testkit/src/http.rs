//! Small blocking HTTP requests: a status and JSON or text, never an error for a status code.

use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Content-Type`, or empty.
    pub content_type: String,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.text))
    }
}

/// One request; `body` is sent with `content_type` when given.
///
/// # Errors
/// When no answer came: connection refused, reset, no answer within 60 s.
pub fn request(method: &str, url: &str, body: Option<(&str, &[u8])>) -> Result<Answer, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    let mut builder = http::Request::builder().method(method).uri(url);
    if let Some((content_type, _)) = body {
        builder = builder.header("content-type", content_type);
    }
    let bytes = body.map(|(_, bytes)| bytes.to_vec()).unwrap_or_default();
    let request = builder.body(bytes).map_err(|error| error.to_string())?;
    let answer = agent
        .configure_request(request)
        .allow_non_standard_methods(true)
        .build();
    let mut answer = agent
        .run(answer)
        .map_err(|error| format!("{method} {url}: {error}"))?;
    let content_type = answer
        .headers()
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let text = answer
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_string()
        .map_err(|error| format!("{method} {url}: {error}"))?;
    Ok(Answer {
        status: answer.status().as_u16(),
        content_type,
        text,
    })
}

/// GET.
///
/// # Errors
/// As [`request`].
pub fn get(url: &str) -> Result<Answer, String> {
    request("GET", url, None)
}

/// A request with a JSON body.
///
/// # Errors
/// As [`request`].
pub fn send_json(method: &str, url: &str, body: &Value) -> Result<Answer, String> {
    request(
        method,
        url,
        Some(("application/json", body.to_string().as_bytes())),
    )
}

/// A text as a part of an address, percent-encoded.
pub fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if is_plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
