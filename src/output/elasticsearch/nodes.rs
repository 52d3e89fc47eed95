//! Node pool: sends a request to one of the live nodes.
//!
//! Owns connections, credentials, TLS and the state of each node; knows nothing of requests. Uses
//! the transport of the `elasticsearch` crate, one per node, because its own pools do not detect
//! dead nodes. That transport reads a response as a whole: requests whose responses matter are sent
//! beside it, and read piece by piece.

use std::error::Error as _;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use elasticsearch::auth::{ClientCertificate, Credentials};
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, Url};
use percent_encoding::percent_decode_str;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::http::{
    BodyError, MAX_SHORT_RESPONSE_BYTES, read_body, retry_after, streaming_client, with_sources,
};
pub(crate) use super::http::{Request, Response, SendError};
use super::outcome::RequestError;
use crate::config::{Auth, ElasticsearchConfig, Secret, without_credentials};

/// First delay until a dead node is probed; it doubles up to [`REPROBE_MAX`].
const REPROBE_FIRST: Duration = Duration::from_secs(1);
/// Longest delay until a dead node is probed.
const REPROBE_MAX: Duration = Duration::from_secs(10);

/// Timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the output cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An address is wrong.
    #[error("Elasticsearch address {url:?}: {reason}")]
    Url {
        /// The address, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No address is given.
    #[error("no Elasticsearch address is configured")]
    NoUrl,
    /// A certificate or key file is wrong.
    #[error("{what} {}: {reason}", file.display())]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file.
        file: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index pattern is wrong.
    #[error("{0}")]
    Index(String),
    /// Credentials are wrong.
    #[error("Elasticsearch credentials: {0}")]
    Credentials(String),
    /// The HTTP client cannot be built.
    #[error("Elasticsearch client: {0}")]
    Client(String),
}

/// The nodes of one cluster.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    next: AtomicUsize,
    timeout: Duration,
    /// Notified when a dead node is back.
    pub(crate) revived: Notify,
}

struct Node {
    url: String,
    transport: Transport,
    /// For responses that are read piece by piece.
    client: reqwest::Client,
    auth: Auth,
    dead: Mutex<Option<DeadState>>,
}

#[derive(Clone, Copy)]
struct DeadState {
    probe_at: Instant,
    /// Failures since it was live, minus one.
    failures: u32,
}

impl Nodes {
    pub(crate) fn open(config: &ElasticsearchConfig) -> Result<Self, OpenError> {
        if config.urls.is_empty() {
            return Err(OpenError::NoUrl);
        }
        let roots = config
            .ca_file
            .as_deref()
            .map(|file| read("CA file", file))
            .transpose()?;
        let identity = match &config.client_cert {
            None => None,
            Some(files) => {
                let mut pem = read("client key", &files.key)?;
                pem.push(b'\n');
                pem.extend(read("client certificate", &files.cert)?);
                Some(pem)
            }
        };
        let nodes = config
            .urls
            .iter()
            .map(|url| Node::open(url, config, roots.as_ref(), identity.as_ref()));
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
            timeout: config.request_timeout,
            revived: Notify::new(),
        })
    }

    /// Sends a request to a live node; tries the next one while nothing could be sent.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, SendError> {
        let mut last = RequestError::Unreachable("no node".into());
        for _ in 0..self.nodes.len() {
            let node = self.choose();
            match node.send(request, self.timeout).await {
                Err(SendError::Request(error)) => {
                    node.failed();
                    if !matches!(error, RequestError::Unreachable(_)) {
                        return Err(SendError::Request(error));
                    }
                    last = error;
                }
                other => {
                    // 502 to 504: a node that starts or stops, or a proxy in front of one.
                    match &other {
                        Ok(Response {
                            status: 502..=504, ..
                        }) => node.failed(),
                        _ => node.answered(),
                    }
                    return other;
                }
            }
            if self.alive() == 0 {
                break;
            }
        }
        Err(SendError::Request(last))
    }

    /// Number of nodes that are not known to be dead.
    pub(crate) fn alive(&self) -> usize {
        self.nodes.iter().filter(|node| node.dead().is_none()).count()
    }

    /// Round robin over the live nodes; without any, the one that is to be probed first.
    fn choose(&self) -> &Node {
        let start = self.next.fetch_add(1, Relaxed) % self.nodes.len();
        let ring = || self.nodes[start..].iter().chain(&self.nodes[..start]);
        let live = ring().find(|node| node.dead().is_none());
        live.or_else(|| ring().min_by_key(|node| node.dead().map(|dead| dead.probe_at)))
            .unwrap_or(&self.nodes[start])
    }

    /// Probes dead nodes; never returns.
    pub(crate) async fn probe(&self) {
        loop {
            tokio::time::sleep(REPROBE_FIRST / 2).await;
            for node in &self.nodes {
                if node.dead().is_some_and(|dead| dead.probe_at <= Instant::now()) {
                    let mut request = Request::json(Method::Get, "/", Bytes::new());
                    request.max_response_bytes = None;
                    match node.send(&request, PROBE_TIMEOUT).await {
                        Ok(Response { status, .. }) if status < 500 && status != 429 => {
                            node.answered();
                            self.revived.notify_one();
                        }
                        _ => node.failed(),
                    }
                }
            }
        }
    }
}

impl Node {
    fn open(
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
        let shown = url.to_string();
        let mut headers = HeaderMap::new();
        // Responses are short and the network is near: compression would cost both sides more than
        // it saves.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        authorization(&auth)?;
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url)).headers(headers);
        if !config.system_proxy {
            builder = builder.disable_proxy();
        }
        if config.insecure {
            builder = builder.cert_validation(CertificateValidation::None);
        } else if let (Some(file), Some(pem)) = (&config.ca_file, roots) {
            let chain = Certificate::from_pem(pem).map_err(|e| OpenError::File {
                what: "CA file",
                file: file.clone(),
                reason: e.to_string(),
            })?;
            builder = builder.cert_validation(CertificateValidation::Full(chain));
        }
        if let Some(pem) = identity {
            builder = builder.auth(Credentials::Certificate(ClientCertificate::Pem(pem.clone())));
        }
        let transport = builder.build().map_err(|error| match &config.client_cert {
            // The certificate is the only value that is checked here.
            Some(files) => OpenError::File {
                what: "client certificate or its key",
                file: files.cert.clone(),
                reason: error.to_string(),
            },
            None => OpenError::Client(error.to_string()),
        })?;
        let client = streaming_client(config, roots, identity)
            .map_err(|error| OpenError::Client(error.to_string()))?;
        Ok(Self {
            url: shown,
            transport,
            client,
            auth,
            dead: Mutex::new(None),
        })
    }

    /// Sends a request. After a 401 a secret that comes from a file is read again, and if it has
    /// changed, the request is sent once more.
    async fn send(&self, request: &Request, timeout: Duration) -> Result<Response, SendError> {
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
        match request.max_response_bytes {
            Some(max_bytes) => self.send_streaming(request, headers, timeout, max_bytes).await,
            None => self.send_short(request, headers, timeout).await,
        }
    }

    /// Sends a request and reads the response piece by piece.
    async fn send_streaming(
        &self,
        request: &Request,
        headers: HeaderMap,
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Response, SendError> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Put => reqwest::Method::PUT,
            Method::Post => reqwest::Method::POST,
            Method::Delete => reqwest::Method::DELETE,
            Method::Head => reqwest::Method::HEAD,
        };
        let url = format!("{}{}", self.url.trim_end_matches('/'), request.path);
        let mut builder = self.client.request(method, url).headers(headers).timeout(timeout);
        if !request.query.is_empty() {
            builder = builder.query(request.query);
        }
        let sent = builder.body(request.body.clone()).send().await;
        let response = sent.map_err(|error| SendError::Request(self.streaming_error(error)))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        match read_body(response, max_bytes).await {
            Ok(body) => Ok(Response {
                status,
                retry_after,
                body,
            }),
            Err(BodyError::TooLarge(bytes)) => Err(SendError::ResponseTooLarge(bytes)),
            Err(BodyError::Http(error)) => Err(SendError::Request(match self.streaming_error(error) {
                RequestError::Unreachable(reason) => RequestError::Broken(reason),
                other => other,
            })),
        }
    }

    fn streaming_error(&self, error: reqwest::Error) -> RequestError {
        self.classify(&error.without_url())
    }

    /// Sends a request of which the status is enough.
    async fn send_short(
        &self,
        request: &Request,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Response, SendError> {
        let body = (!request.body.is_empty()).then(|| request.body.clone());
        let query = (!request.query.is_empty()).then_some(request.query);
        let sent = self
            .transport
            .send(request.method, &request.path, headers, query, body, Some(timeout))
            .await;
        let response = sent.map_err(|error| SendError::Request(self.request_error(&error)))?;
        let status = response.status_code().as_u16();
        let retry_after = retry_after(response.headers());
        let body = match response.content_length() {
            Some(length) if length > MAX_SHORT_RESPONSE_BYTES => {
                return Err(SendError::ResponseTooLarge(length));
            }
            // It may have no end; the status is enough.
            None => Bytes::new(),
            Some(_) => response.bytes().await.map_err(|error| {
                SendError::Request(match self.request_error(&error) {
                    RequestError::Unreachable(reason) => RequestError::Broken(reason),
                    other => other,
                })
            })?,
        };
        Ok(Response {
            status,
            retry_after,
            body,
        })
    }

    fn request_error(&self, error: &elasticsearch::Error) -> RequestError {
        // Its source says more; the crate `reqwest` must have the version that `elasticsearch` uses.
        match error
            .source()
            .and_then(|source| source.downcast_ref::<reqwest::Error>())
        {
            Some(source) => self.classify(source),
            None => RequestError::Broken(format!("{}: {}", self.url, with_sources(error))),
        }
    }

    fn classify(&self, error: &reqwest::Error) -> RequestError {
        let reason = format!("{}: {}", self.url, with_sources(error));
        if error.is_timeout() {
            RequestError::Timeout(reason)
        } else if error.is_connect() {
            RequestError::Unreachable(reason)
        } else {
            RequestError::Broken(reason)
        }
    }

    fn dead(&self) -> Option<DeadState> {
        *self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) {
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

    fn answered(&self) {
        let was = self.dead.lock().unwrap_or_else(PoisonError::into_inner).take();
        if was.is_some() {
            tracing::debug!(node = %self.url, "node is back");
        }
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.nodes.iter().map(|node| &node.url))
            .finish()
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

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(file).map_err(|e| OpenError::File {
        what,
        file: file.into(),
        reason: e.to_string(),
    })
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
