//! Authentication of requests: bearer tokens and users of basic authentication.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::answer::Problem;
use crate::config::{HttpConfig, Secret, User};

/// Who may send; everyone, if nothing is configured.
#[derive(Debug)]
pub(super) struct Auth {
    /// Tokens, separated by white space.
    tokens: Option<Secret>,
    users: Vec<User>,
}

impl Auth {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            tokens: config.token.clone(),
            users: config.users.clone(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.tokens.is_none() && self.users.is_empty()
    }

    /// Whether a request has the right credentials.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_open() {
            return Ok(());
        }
        let value = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let (scheme, rest) = value.and_then(split_scheme).unwrap_or_default();
        let allowed = if scheme.eq_ignore_ascii_case(b"bearer") {
            self.has_token(rest)
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            STANDARD.decode(rest).is_ok_and(|pair| self.has_user(&pair))
        } else {
            false
        };
        match allowed {
            true => Ok(()),
            false => Err(Problem::Unauthorized(self.schemes())),
        }
    }

    fn schemes(&self) -> Vec<&'static str> {
        let bearer = self.tokens.is_some().then_some("Bearer");
        let basic = (!self.users.is_empty()).then_some("Basic");
        bearer.into_iter().chain(basic).collect()
    }

    fn has_token(&self, presented: &[u8]) -> bool {
        let Some(tokens) = &self.tokens else {
            return false;
        };
        let tokens = tokens.expose();
        let known = tokens
            .split_ascii_whitespace()
            .map(|token| equal(token.as_bytes(), presented));
        any(known)
    }

    fn has_user(&self, pair: &[u8]) -> bool {
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let (name, password) = (&pair[..colon], &pair[colon + 1..]);
        any(self.users.iter().map(|user| {
            equal(user.name.as_bytes(), name) & equal(user.password.expose().as_bytes(), password)
        }))
    }
}

/// Looks at all, so that the time does not tell which one it was.
fn any(matches: impl Iterator<Item = Choice>) -> bool {
    matches.fold(Choice::from(0), |all, one| all | one).into()
}

/// Comparing digests does not leak the length of a secret by timing.
fn equal(known: &[u8], presented: &[u8]) -> Choice {
    Sha256::digest(known).ct_eq(&Sha256::digest(presented))
}

/// The scheme and the rest of an `Authorization` header (RFC 9110, 11.4).
fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    Some((&value[..space], value[space..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(auth: &Auth, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        auth.check(&headers).is_ok()
    }

    #[test]
    fn one_of_several_tokens_or_users_is_enough() {
        let open = Auth::new(&HttpConfig::default());
        assert!(check(&open, "") && check(&open, "Bearer x"));
        let mut config = HttpConfig {
            token: Some(Secret::new("first\nsecond\n")),
            ..HttpConfig::default()
        };
        let tokens = Auth::new(&config);
        assert!(check(&tokens, "Bearer first") && check(&tokens, "bearer  second"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer firs",
            "Bearer first second",
            "first",
            "Basic Zmlyc3Q=",
        ] {
            assert!(!check(&tokens, wrong), "{wrong:?}");
        }
        config.users = vec!["ann:a:b".parse().unwrap(), "bob:".parse().unwrap()];
        let both = Auth::new(&config);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(
            check(&both, &basic("ann:a:b")) && check(&both, &basic("bob:")) && check(&both, "Bearer first")
        );
        for wrong in ["ann:a", "bob:x", "ann", ":", "", "first:"] {
            assert!(!check(&both, &basic(wrong)), "{wrong:?}");
        }
        assert!(!check(&both, "Basic %%%"));
        let Err(Problem::Unauthorized(schemes)) = both.check(&HeaderMap::new()) else {
            panic!("it must be refused");
        };
        assert_eq!(schemes, ["Bearer", "Basic"]);
    }
}
