//! Sessions of the page: a cookie instead of the token, and the protection of changes.
//!
//! A browser sends the token once, to `POST /api/v1/login`, and gets a random cookie that scripts
//! cannot read and that is not sent along with requests from foreign pages. Changes are accepted
//! only from the page itself: a foreign page can send a `POST` to a loopback address too.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::AdminShared;
use super::api::error;

/// Name of the cookie.
const COOKIE: &str = "windrow-session";
/// How long a session lasts.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Sessions that are kept; the oldest is forgotten beyond it.
const MAX_SESSIONS: usize = 1000;
/// Random bytes of a session.
const SECRET_BYTES: usize = 24;
/// Wrong tokens that are answered within [`FAILURE_WINDOW`]; further logins are refused.
const MAX_FAILURES: usize = 20;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// The sessions in progress.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<SessionTable>);

#[derive(Debug, Default)]
struct SessionTable {
    /// Hashes of the secrets with their ends, the oldest first.
    sessions: VecDeque<([u8; 32], Instant)>,
    /// Times of the last wrong tokens, the oldest first.
    failures: VecDeque<Instant>,
}

impl Sessions {
    /// Begins a session and returns its secret.
    fn begin(&self, now: Instant) -> Result<String, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut table = self.lock();
        table.sessions.retain(|(_, end)| *end > now);
        while table.sessions.len() >= MAX_SESSIONS {
            table.sessions.pop_front();
        }
        table
            .sessions
            .push_back((Sha256::digest(&secret).into(), now + LIFETIME));
        Ok(secret)
    }

    fn contains(&self, secret: &str, now: Instant) -> bool {
        // The table has hashes, so a comparison tells nothing about a secret.
        let hash: [u8; 32] = Sha256::digest(secret).into();
        self.lock()
            .sessions
            .iter()
            .any(|(known, end)| *known == hash && *end > now)
    }

    fn end(&self, secret: &str) {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        self.lock().sessions.retain(|(known, _)| *known != hash);
    }

    /// Whether so many logins failed that the next one must wait.
    fn is_limited(&self, now: Instant) -> bool {
        let mut table = self.lock();
        while table
            .failures
            .front()
            .is_some_and(|at| now - *at >= FAILURE_WINDOW)
        {
            table.failures.pop_front();
        }
        table.failures.len() >= MAX_FAILURES
    }

    fn failed(&self, now: Instant) {
        self.lock().failures.push_back(now);
    }

    /// Whether the request has the cookie of a session.
    pub(super) fn permit(&self, headers: &HeaderMap) -> bool {
        cookie(headers).is_some_and(|secret| self.contains(secret, Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session cookie of a request.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, secret)| secret)
}

/// Why a change is refused: it does not come from the page itself or from a program.
///
/// A browser sends `Origin` with every `POST`, and a foreign page cannot set the content type to
/// JSON without a preflight, which is not answered here.
pub(super) fn foreign_change(uri: &Uri, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let host = uri.host().or_else(|| text(header::HOST));
    if let Some(origin) = text(header::ORIGIN) {
        let same = origin
            .split_once("://")
            .is_some_and(|(_, authority)| Some(authority) == host);
        if !same {
            return Some((StatusCode::FORBIDDEN, "changes are accepted from this page only"));
        }
    }
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return Some((StatusCode::FORBIDDEN, "changes are accepted from this page only"));
    }
    let is_json = text(header::CONTENT_TYPE).is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    });
    (!is_json).then_some((
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send \"Content-Type: application/json\"",
    ))
}

#[derive(Deserialize)]
struct LoginRequest {
    token: String,
}

/// `POST /api/v1/login` with `{"token":"…"}`: sets the cookie.
pub(super) async fn login(
    State(shared): State<AdminShared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some((status, what)) = foreign_change(&uri, &headers) {
        return error(status, what);
    }
    let sessions = &shared.guard.sessions;
    let now = Instant::now();
    if sessions.is_limited(now) {
        return error(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wrong tokens; try again in a minute",
        );
    }
    let Ok(LoginRequest { token }) = serde_json::from_slice(&body) else {
        return error(StatusCode::BAD_REQUEST, "the body is no {\"token\":\"…\"}");
    };
    if !shared.guard.is_token(token.as_bytes()) {
        sessions.failed(now);
        return error(StatusCode::FORBIDDEN, "wrong token");
    }
    let Ok(secret) = sessions.begin(now) else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the system gives no random numbers",
        );
    };
    // Set by a proxy that terminates TLS in front of this port.
    let secure = headers
        .get("x-forwarded-proto")
        .is_some_and(|protocol| protocol == "https");
    let secure = if secure { "; Secure" } else { "" };
    set_cookie(&format!(
        "{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        LIFETIME.as_secs()
    ))
}

/// `POST /api/v1/logout`: ends the session.
pub(super) async fn logout(State(shared): State<AdminShared>, uri: Uri, headers: HeaderMap) -> Response {
    if let Some((status, what)) = foreign_change(&uri, &headers) {
        return error(status, what);
    }
    if let Some(secret) = cookie(&headers) {
        shared.guard.sessions.end(secret);
    }
    set_cookie(&format!(
        "{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
    ))
}

fn set_cookie(cookie: &str) -> Response {
    let mut response = axum::Json(serde_json::json!({ "ok": true })).into_response();
    // The text has hexadecimal digits only.
    if let Ok(value) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_session_ends_by_itself_and_by_logout() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let [first, second] = [(); 2].map(|()| sessions.begin(now).unwrap());
        assert_ne!(first, second);
        assert!(sessions.contains(&first, now) && sessions.contains(&second, now));
        sessions.end(&first);
        assert!(!sessions.contains(&first, now) && sessions.contains(&second, now));
        assert!(!sessions.contains(&second, now + LIFETIME));
        assert!(!sessions.contains("", now));
    }

    #[test]
    fn sessions_and_wrong_tokens_are_bounded() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let first = sessions.begin(now).unwrap();
        for _ in 0..MAX_SESSIONS {
            sessions.begin(now).unwrap();
        }
        assert!(!sessions.contains(&first, now));
        assert_eq!(sessions.lock().sessions.len(), MAX_SESSIONS);
        for _ in 0..MAX_FAILURES {
            assert!(!sessions.is_limited(now));
            sessions.failed(now);
        }
        assert!(sessions.is_limited(now));
        assert!(!sessions.is_limited(now + FAILURE_WINDOW));
    }

    #[test]
    fn changes_come_from_the_page_or_from_a_program() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let foreign = foreign_change(&Uri::from_static("/api/v1/login"), &headers(pairs));
            foreign.map(|(status, _)| status.as_u16())
        };
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "127.0.0.1:2020");
        assert_eq!(check(&[host, json]), None);
        assert_eq!(check(&[host, json, ("origin", "http://127.0.0.1:2020")]), None);
        assert_eq!(
            check(&[host, json, ("origin", "http://127.0.0.1:2021")]),
            Some(403)
        );
        assert_eq!(check(&[host, json, ("origin", "null")]), Some(403));
        assert_eq!(check(&[host, json, ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(check(&[host, json, ("sec-fetch-site", "same-site")]), Some(403));
        assert_eq!(check(&[host, ("content-type", "text/plain")]), Some(415));
        assert_eq!(check(&[host]), Some(415));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        assert_eq!(
            cookie(&headers(&[("cookie", "a=b; windrow-session=x1; c=d")])),
            Some("x1")
        );
        assert_eq!(cookie(&headers(&[("cookie", "a=windrow-session")])), None);
    }
}
