//! Settings of the Elasticsearch output, already checked by the configuration module. Owns the defaults.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the output needs to know; [`Default`] gives the documented defaults.
#[derive(Clone)]
pub struct ElasticsearchConfig {
    /// Base addresses of the nodes, for instance `https://es1:9200`; a path prefix is kept, `user:password@` is
    /// taken as basic authentication. Default: `http://127.0.0.1:9200`.
    pub urls: Vec<String>,
    /// Index name with strftime fields, filled from the UTC day of a document's first event. It must not change
    /// within a day. Default: `requests-%Y-%m-%d`.
    pub index: String,
    /// How to authenticate. Default: not at all.
    pub auth: Auth,
    /// PEM file with certificate authorities to trust besides the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// Client certificate for mutual TLS.
    pub client_cert: Option<ClientCert>,
    /// Accept any server certificate. Default: no.
    pub insecure: bool,
    /// Go through the proxy of `HTTP_PROXY`/`HTTPS_PROXY`. Default: no, Elasticsearch is reached directly.
    pub system_proxy: bool,
    /// Longest wait for one answer. Default: 60 s (Elasticsearch itself waits up to 60 s for a shard).
    pub request_timeout: Duration,
    /// A bulk request is sent when it holds this many bytes of documents. Default: 8 MiB.
    pub bulk_bytes: usize,
    /// ... or when its oldest document has waited this long. Default: 1 s.
    pub bulk_delay: Duration,
    /// Most bulk requests under way at once; fewer while Elasticsearch pushes back. Default: 8.
    pub max_in_flight: usize,
    /// gzip level of bulk bodies, 1 to 9; 0 sends them plain. Default: 0.
    pub gzip_level: u32,
    /// The index template to install at start; `None` installs nothing.
    pub template: Option<Template>,
    /// Longest time between the first events of two parts of one trace (age limit plus linger and lateness). A document
    /// whose first event lies so close to a day's boundary is looked up in the neighbouring index too. At most
    /// 12 h. Default: 10 min.
    pub trace_life: Duration,
    /// First step of the backoff after a failure. Default: 250 ms.
    pub backoff_base: Duration,
    /// Longest step of the backoff. Default: 30 s.
    pub backoff_cap: Duration,
    /// Pause before trying again what only an operator can mend (read-only index, refused credentials,
    /// cluster out of shards). Default: 30 s.
    pub slow_retry: Duration,
}

/// Without credentials, wherever they stand.
impl fmt::Debug for ElasticsearchConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| without_credentials(url)).collect();
        f.debug_struct("ElasticsearchConfig")
            .field("urls", &urls)
            .field("index", &self.index)
            .field("auth", &self.auth)
            .field("bulk_bytes", &self.bulk_bytes)
            .field("max_in_flight", &self.max_in_flight)
            .finish_non_exhaustive()
    }
}

/// An address as it may be shown: `user:password@` left out.
pub(crate) fn without_credentials(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

impl Default for ElasticsearchConfig {
    fn default() -> Self {
        Self {
            urls: vec!["http://127.0.0.1:9200".into()],
            index: "requests-%Y-%m-%d".into(),
            auth: Auth::None,
            ca_file: None,
            client_cert: None,
            insecure: false,
            system_proxy: false,
            request_timeout: Duration::from_secs(60),
            bulk_bytes: 8 << 20,
            bulk_delay: Duration::from_secs(1),
            max_in_flight: 8,
            gzip_level: 0,
            template: Some(Template::default()),
            trace_life: Duration::from_secs(600),
            backoff_base: Duration::from_millis(250),
            backoff_cap: Duration::from_secs(30),
            slow_retry: Duration::from_secs(30),
        }
    }
}

/// Credentials. Secrets do not appear in `Debug` output.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// No `Authorization` header.
    #[default]
    None,
    /// User name and password.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// API key as Elasticsearch hands it out: base64 of `id:key`.
    ApiKey(String),
    /// Bearer token.
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::ApiKey(_) => "ApiKey(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Files of a client certificate.
#[derive(Debug, Clone)]
pub struct ClientCert {
    /// PEM file with the certificate and its chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// What to put into the index template besides the mapping.
#[derive(Debug, Clone)]
pub struct Template {
    /// Name of the template. Default: `windrow`.
    pub name: String,
    /// `index.number_of_shards`; `None` leaves the cluster's default.
    pub shards: Option<u32>,
    /// `index.number_of_replicas`; `None` leaves the cluster's default.
    pub replicas: Option<u32>,
    /// Store a document although a field does not fit its mapping (the field is then not searchable), instead
    /// of sending it to the dead letter. Default: no.
    pub ignore_malformed: bool,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            name: "windrow".into(),
            shards: None,
            replicas: None,
            ignore_malformed: false,
        }
    }
}
