//! Configuration of the Elasticsearch output.
//!
//! Most fields are keys; `trace_life`, `backoff_base` and `blocked_retry` are not, and can be set
//! by tests only.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::redact::without_credentials;
use super::secret::Secret;
use windrow_trace::DocumentSchema;

/// Configuration of the Elasticsearch output. [`Default`] gives the documented defaults.
#[derive(Clone)]
pub struct ElasticsearchConfig {
    /// Base addresses of the nodes, such as `https://es1:9200`; at least one. A path prefix is
    /// kept, `user:password@` is taken as basic authentication when `auth` is [`Auth::None`].
    pub urls: Vec<String>,
    /// Index name with strftime fields, filled from the UTC day of a document's first event. It
    /// does not change within a day.
    pub index: String,
    /// Whether `index` is the name of a data stream.
    pub data_stream: bool,
    /// Names that placeholders may make.
    pub max_destinations: u64,
    /// How to authenticate.
    pub auth: Auth,
    /// PEM file with certificate authorities to trust besides the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// Client certificate for mutual TLS.
    pub client_cert: Option<ClientCert>,
    /// Accept any server certificate.
    pub insecure: bool,
    /// Use the proxy of `HTTP_PROXY` and `HTTPS_PROXY`.
    pub system_proxy: bool,
    /// Timeout of one request. Elasticsearch itself waits up to 60 s for a shard.
    pub request_timeout: Duration,
    /// A bulk request is sent when it holds this many bytes of documents ...
    pub bulk_bytes: u64,
    /// ... or when its oldest document has waited this long.
    pub bulk_delay: Duration,
    /// Concurrent bulk requests, at least 1; fewer while Elasticsearch throttles.
    pub max_in_flight: u64,
    /// gzip level of bulk requests, 1 to 9; 0 sends them uncompressed.
    pub gzip_level: u32,
    /// The index template to install at the start; `None` installs none.
    pub template: Option<IndexTemplate>,
    /// Age at which documents are deleted with their index; `None`: never.
    pub retention: Option<Duration>,
    /// Size of a primary shard at which an alias gets a new index.
    pub rollover_size: Option<u64>,
    /// Age of an index at which an alias gets a new one.
    pub rollover_age: Option<Duration>,
    /// Longest time for which a node of the store may not know of a rollover.
    pub rollover_settle: Duration,
    /// What becomes of a document of which the store refuses a field.
    pub on_conflict: OnConflict,
    /// Silence after which the document of a trace without a completion record is looked up;
    /// `None`: it is not.
    pub completion_lookup: Option<Duration>,
    /// Folder for documents that wait for an operator; `None`: they wait in memory.
    pub deferred_dir: Option<PathBuf>,
    /// Size of all its files, bytes.
    pub deferred_limit: u64,
    /// Longest backoff between two attempts.
    pub retry_max_wait: Duration,
    /// Longest time between the first events of two parts of one trace: age limit, idle timeout and
    /// linger. A document whose first event is this close to midnight UTC is looked up in the
    /// neighbouring index too. At most 12 h.
    pub trace_life: Duration,
    /// First step of the exponential backoff.
    pub backoff_base: Duration,
    /// Pause before another attempt at what only an operator can fix: a read-only index, refused
    /// credentials, a cluster out of shards.
    pub blocked_retry: Duration,
}

impl ElasticsearchConfig {
    /// First step of the exponential backoff.
    pub(super) const BACKOFF_BASE: Duration = Duration::from_millis(250);
    /// Pause before another attempt at what only an operator can fix.
    pub(super) const BLOCKED_RETRY: Duration = Duration::from_secs(30);
}

/// Leaves out credentials, in addresses too.
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

/// What becomes of a document of which the store refuses a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// It is stored with the field in `windrow.unmapped`.
    #[default]
    Unmapped,
    /// It goes to the dead letter.
    DeadLetter,
}

/// How to authenticate to Elasticsearch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// No `Authorization` header.
    #[default]
    None,
    /// Basic authentication.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// API key as Elasticsearch hands it out: base64 of `id:key`.
    ApiKey(Secret),
    /// Bearer token.
    Bearer(Secret),
}

impl Auth {
    /// Its secret, if there is one.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::None => None,
            Self::Basic { password: secret, .. } | Self::ApiKey(secret) | Self::Bearer(secret) => {
                Some(secret)
            }
        }
    }
}

/// Files of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// PEM file with the certificate and its chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// The settings of the index template; its mapping is fixed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexTemplate {
    /// Name of the template.
    pub name: String,
    /// `index.number_of_shards`; `None` leaves the cluster's default.
    pub shards: Option<u64>,
    /// `index.number_of_replicas`; `None` leaves the cluster's default.
    pub replicas: Option<u64>,
    /// `index.mapping.ignore_malformed`: store a document although a field does not fit its mapping
    /// (the field is then not searchable), instead of rejecting it.
    pub ignore_malformed: bool,
    /// The names in documents, which the mapping covers.
    pub schema: DocumentSchema,
    /// `index.mapping.total_fields.limit`; `None` leaves the cluster's default.
    pub total_fields: Option<u64>,
    /// `index.codec`; `None` leaves the cluster's default.
    pub codec: Option<String>,
    /// `index.refresh_interval`; `None` leaves the cluster's default.
    pub refresh_interval: Option<Duration>,
    /// Whether the trace id has a subfield `keyword`, as the default mapping gives it.
    pub trace_id_keyword: bool,
}
