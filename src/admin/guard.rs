//! Access control for log content.
//!
//! With a token, requests must present it. Without one, everyone who reaches the port has access;
//! the default is loopback. A browser on this machine reaches it too, for any web page whose name
//! resolves to 127.0.0.1 (DNS rebinding). Such a request has the page's name as `Host`, so without
//! a token only names that nobody else can own are accepted.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::session::Sessions;
use super::{AdminShared, problem};
use crate::config::{AdminConfig, Secret};

/// Suffixes of names that only a local network can assign (RFC 6761, RFC 6762, ICANN's `internal`,
/// Kubernetes).
const LOCAL_SUFFIXES: [&str; 5] = [".localhost", ".local", ".internal", ".svc", ".home.arpa"];

/// The paths that take a token in their address, as version 0.1.0 has documented. No other does: an
/// address is in histories, and in the logs of every proxy.
const URL_TOKEN_PATHS: [&str; 2] = ["/logs", "/api/v1/logs"];

const BEARER: &str = "\"Authorization: Bearer TOKEN\"";
const BEARER_OR_ADDRESS: &str = "\"Authorization: Bearer TOKEN\" or ?token=TOKEN";

pub(super) struct Guard {
    token: Option<Secret>,
    hosts: Vec<String>,
    pub(super) sessions: Sessions,
}

impl Guard {
    pub(super) fn new(config: &AdminConfig) -> Self {
        Self {
            token: config.token.clone(),
            hosts: config.hosts.clone(),
            sessions: Sessions::default(),
        }
    }

    /// Whether this is the token. Without a token nothing is.
    pub(super) fn is_token(&self, presented: &[u8]) -> bool {
        // Comparing digests does not leak the length of the token by timing.
        self.token.as_ref().is_some_and(|token| {
            let expected = Sha256::digest(token.expose().as_bytes());
            Sha256::digest(presented).ct_eq(&expected).into()
        })
    }

    fn authorize(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, String, &'static str)> {
        let from_address = URL_TOKEN_PATHS.contains(&uri.path());
        if self.token.is_some() {
            if self.sessions.permit(headers) {
                return Ok(());
            }
            let bearer = headers
                .get(header::AUTHORIZATION)
                .and_then(|value| bearer(value.as_bytes()));
            let in_address = parameter(uri, "token").map(String::into_bytes);
            if bearer.is_none() && in_address.is_some() && !from_address {
                let what = "a token in an address is in the logs of every proxy; send it as a header";
                return Err((StatusCode::UNAUTHORIZED, what.into(), BEARER));
            }
            let presented = bearer.map(<[u8]>::to_vec).or(in_address);
            let allowed = if from_address { BEARER_OR_ADDRESS } else { BEARER };
            return match presented {
                Some(presented) if self.is_token(&presented) => Ok(()),
                Some(_) => Err((StatusCode::UNAUTHORIZED, "wrong token".into(), allowed)),
                None => Err((
                    StatusCode::UNAUTHORIZED,
                    "a token is needed (admin.token)".into(),
                    allowed,
                )),
            };
        }
        self.check_host(uri, headers)
    }

    /// Refuses a `Host` that a foreign page can have.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, String, &'static str)> {
        // A request without Host does not come from a browser.
        let Some(host) = uri.host().or_else(|| headers.get(header::HOST)?.to_str().ok()) else {
            return Ok(());
        };
        if self.is_ours(host) {
            return Ok(());
        }
        let what =
            format!("the host name {host:?} is not accepted; add it to admin.hosts, or set admin.token");
        Err((
            StatusCode::FORBIDDEN,
            what,
            "IP addresses, localhost, names without a dot, admin.hosts",
        ))
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => host.split(':').next().unwrap_or(host),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_local = !name.contains('.') || LOCAL_SUFFIXES.iter().any(|end| name.ends_with(end));
        name.parse::<IpAddr>().is_ok()
            || is_local
            || self.hosts.iter().any(|known| known == "*" || *known == name)
    }
}

/// Passes a request for a file of the page on, which contains nothing of any log and needs no
/// token.
pub(super) async fn check_page(State(shared): State<AdminShared>, request: Request, next: Next) -> Response {
    let guard = &shared.guard;
    let checked = match guard.token {
        Some(_) => Ok(()),
        None => guard.check_host(request.uri(), request.headers()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err((status, what, allowed)) => problem(status, &what, allowed),
    }
}

/// Passes an authorized request on, and answers any other.
pub(super) async fn check(State(shared): State<AdminShared>, request: Request, next: Next) -> Response {
    match shared.guard.authorize(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, what, allowed)) => {
            let mut response = problem(status, &what, allowed);
            if status == StatusCode::UNAUTHORIZED {
                let challenge = axum::http::HeaderValue::from_static("Bearer realm=\"windrow\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

/// The token of `Bearer TOKEN`; the scheme in any case (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// The first query parameter of this name, decoded.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
