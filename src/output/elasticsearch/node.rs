//! Node of the cluster: its connections, credentials, TLS, and whether it is dead.

use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
    RETRY_AFTER,
};
use reqwest::{Certificate, Identity, Method, Url};
use tokio::time::Instant;

use super::connection_error::{in_words, with_sources};
use super::http::{BodyError, Request, Response, SendError, read_body};
use super::nodes::OpenError;
use super::outcome::RequestError;
use crate::config::{Auth, ElasticsearchConfig, Secret, without_credentials};

/// First delay until a dead node is probed; it doubles up to [`REPROBE_MAX`].
const REPROBE_FIRST: Duration = Duration::from_secs(1);
/// Longest delay until a dead node is probed.
const REPROBE_MAX: Duration = Duration::from_secs(10);

/// A connection that was idle for longer is probed before a request is sent on it: a firewall or a
/// load balancer may have forgotten it without a word.
const IDLE_BEFORE_PROBE: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(20)
};
/// Timeout of that probe.
const IDLE_PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Sent data that is not acknowledged for so long breaks the connection.
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval of TCP keepalives.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Longest `Retry-After` that is respected.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// A node of the cluster.
pub(super) struct Node {
    /// Base address, without a slash at the end.
    pub(super) url: String,
    client: RwLock<reqwest::Client>,
    settings: ClientSettings,
    auth: Auth,
    dead: Mutex<Option<DeadState>>,
    /// When it last answered.
    last_answer: Mutex<Option<Instant>>,
}

/// What a client of a node is built from.
struct ClientSettings {
    roots: Vec<Certificate>,
    identity: Option<Identity>,
    insecure: bool,
    system_proxy: bool,
}

impl ClientSettings {
    fn build(&self) -> reqwest::Result<reqwest::Client> {
        let mut headers = HeaderMap::new();
        // Responses are short and the network is near: compression would cost both sides more than
        // it saves.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("windrow/", env!("CARGO_PKG_VERSION")))
            // A redirected POST becomes a GET, or goes with its body to an address that nobody
            // configured.
            .redirect(reqwest::redirect::Policy::none())
            .tcp_keepalive(TCP_KEEPALIVE)
            .danger_accept_invalid_certs(self.insecure);
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        for root in &self.roots {
            builder = builder.add_root_certificate(root.clone());
        }
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        if !self.system_proxy {
            builder = builder.no_proxy();
        }
        builder.build()
    }
}

#[derive(Clone, Copy)]
struct DeadState {
    probe_at: Instant,
    /// Failures since it was live, minus one.
    failures: u32,
}

impl Node {
    /// Checks the address and builds its client.
    pub(super) fn open(
        text: &str,
        config: &ElasticsearchConfig,
        roots: Option<&Vec<u8>>,
        identity: Option<&Vec<u8>>,
    ) -> Result<Self, OpenError> {
        let mut url = Url::parse(text).map_err(|e| OpenError::Url {
            url: without_credentials(text),
            reason: e.to_string(),
        })?;
        let auth = match (&config.auth, url.password()) {
            (Auth::None, Some(password)) => Auth::Basic {
                user: percent_decoded(url.username()),
                password: Secret::new(percent_decoded(password)),
            },
            (auth, _) => auth.clone(),
        };
        let cannot = |()| OpenError::Url {
            url: without_credentials(text),
            reason: "it cannot have a host".into(),
        };
        url.set_username("").map_err(cannot)?;
        url.set_password(None).map_err(cannot)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OpenError::Url {
                url: url.to_string(),
                reason: "it must begin with http:// or https://".into(),
            });
        }
        authorization(&auth)?;
        let file_error = |what, file: &Path, error: &reqwest::Error| OpenError::File {
            what,
            file: file.to_owned(),
            reason: with_sources(error),
        };
        let roots = match (&config.ca_file, roots) {
            (Some(file), Some(pem)) if !config.insecure => {
                Certificate::from_pem_bundle(pem).map_err(|error| file_error("CA file", file, &error))?
            }
            _ => Vec::new(),
        };
        if let (Some(file), true) = (&config.ca_file, roots.is_empty() && !config.insecure) {
            return Err(OpenError::File {
                what: "CA file",
                file: file.clone(),
                reason: "it has no certificate in PEM form".into(),
            });
        }
        let identity = match (&config.client_cert, identity) {
            (Some(files), Some(pem)) => Some(
                Identity::from_pem(pem)
                    .map_err(|error| file_error("client certificate or its key", &files.cert, &error))?,
            ),
            _ => None,
        };
        let settings = ClientSettings {
            roots,
            identity,
            insecure: config.insecure,
            system_proxy: config.system_proxy,
        };
        let client = settings.build().map_err(|error| match &config.client_cert {
            // The certificate is the only value that is checked here.
            Some(files) => file_error("client certificate or its key", &files.cert, &error),
            None => OpenError::Client(with_sources(&error)),
        })?;
        Ok(Self {
            url: url.as_str().trim_end_matches('/').to_owned(),
            client: RwLock::new(client),
            settings,
            auth,
            dead: Mutex::new(None),
            last_answer: Mutex::new(None),
        })
    }

    /// The client; its clones share connections.
    fn client(&self) -> reqwest::Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets all connections: none of them may lead anywhere.
    fn disconnect(&self) {
        if let Ok(fresh) = self.settings.build() {
            *self.client.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }

    /// Finds out cheaply whether connections that were idle for a while still lead to the node.
    async fn probe_idle(&self) {
        let idle = {
            let mut answered = self.last_answer.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = answered.is_some_and(|at| at.elapsed() > IDLE_BEFORE_PROBE);
            if idle {
                // Requests that are sent at the same time need no probe of their own.
                *answered = Some(Instant::now());
            }
            idle
        };
        if idle {
            let request = Request::json(Method::HEAD, "/", Bytes::new());
            if let Err(SendError::Request(RequestError::Timeout(_))) =
                self.send_once(&request, IDLE_PROBE_TIMEOUT).await
            {
                tracing::debug!(node = %self.url, "an idle connection leads nowhere any more");
            }
        }
    }

    /// Sends a request. After a 401 a secret that comes from a file is read again, and if it has
    /// changed, the request is sent once more.
    pub(super) async fn send(&self, request: &Request, timeout: Duration) -> Result<Response, SendError> {
        self.probe_idle().await;
        let used = self.auth.secret().map(Secret::expose);
        let response = self.send_once(request, timeout).await?;
        let secret = self.auth.secret().filter(|secret| secret.is_from_file());
        let (401, Some(secret)) = (response.status, secret.cloned()) else {
            return Ok(response);
        };
        let fresh = secret.clone();
        match tokio::task::spawn_blocking(move || fresh.reload()).await {
            Ok(Err(reason)) => tracing::warn!(reason, "cannot read the credentials of Elasticsearch again"),
            // It may have been read again by another request, or by a SIGHUP.
            Ok(Ok(_)) if used != Some(secret.expose()) => {
                tracing::info!(node = %self.url, "the credentials of Elasticsearch have changed");
                return self.send_once(request, timeout).await;
            }
            Ok(Ok(_)) | Err(_) => {}
        }
        Ok(response)
    }

    async fn send_once(&self, request: &Request, timeout: Duration) -> Result<Response, SendError> {
        let mut headers = HeaderMap::new();
        let media = if request.ndjson {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if request.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        match authorization(&self.auth) {
            Ok(Some(value)) => drop(headers.insert(AUTHORIZATION, value)),
            Ok(None) => {}
            Err(error) => return Err(SendError::Request(RequestError::Denied(error.to_string()))),
        }
        let mut builder = self
            .client()
            .request(request.method.clone(), format!("{}{}", self.url, request.path))
            .headers(headers)
            .timeout(timeout);
        if !request.query.is_empty() {
            builder = builder.query(request.query);
        }
        if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        let response = builder
            .send()
            .await
            .map_err(|error| SendError::Request(self.request_error(error)))?;
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let status = response.status().as_u16();
        if let Some(to) = response
            .headers()
            .get(LOCATION)
            .filter(|_| (300..400).contains(&status))
        {
            let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
            return Err(SendError::Request(RequestError::Unexpected(format!(
                "{}: status {status}: moved to {to}; redirects are not followed, because they lose the body of a request: set elasticsearch.url to the new address",
                self.url
            ))));
        }
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        match read_body(response, request.max_response_bytes).await {
            Ok(body) => Ok(Response {
                status,
                retry_after,
                body,
            }),
            Err(BodyError::TooLarge(bytes)) => Err(SendError::ResponseTooLarge(bytes)),
            Err(BodyError::Http(error)) => Err(SendError::Request(match self.request_error(error) {
                RequestError::Unreachable(reason) => RequestError::Broken(reason),
                other => other,
            })),
        }
    }

    fn request_error(&self, error: reqwest::Error) -> RequestError {
        let error = error.without_url();
        let reason = format!("{}: {}", self.url, in_words(&with_sources(&error)));
        if error.is_timeout() {
            // It may be the connection, and there may be more of its kind.
            self.disconnect();
            RequestError::Timeout(reason)
        } else if error.is_connect() {
            RequestError::Unreachable(reason)
        } else {
            RequestError::Broken(reason)
        }
    }

    /// When it is to be probed; `None` while it is not known to be dead.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        let dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        dead.map(|dead| dead.probe_at)
    }

    /// It did not answer, or not as a node.
    pub(super) fn failed(&self) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = dead.map_or(0, |dead| dead.failures.saturating_add(1));
        if failures == 0 {
            tracing::debug!(node = %self.url, "node is dead");
        }
        let pause = REPROBE_FIRST
            .saturating_mul(1 << failures.min(8))
            .min(REPROBE_MAX);
        *dead = Some(DeadState {
            probe_at: Instant::now() + pause,
            failures,
        });
    }

    /// It answered.
    pub(super) fn answered(&self) {
        let was = self.dead.lock().unwrap_or_else(PoisonError::into_inner).take();
        if was.is_some() {
            tracing::debug!(node = %self.url, "node is back");
        }
    }
}

fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, OpenError> {
    let text = match auth {
        Auth::None => return Ok(None),
        Auth::Basic { user, password } => {
            format!("Basic {}", BASE64.encode(format!("{user}:{}", password.expose())))
        }
        Auth::ApiKey(key) => format!("ApiKey {}", key.expose()),
        Auth::Bearer(token) => format!("Bearer {}", token.expose()),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        OpenError::Credentials("they contain a character that an HTTP header cannot carry".into())
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
