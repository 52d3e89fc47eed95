//! Configuration: one table of keys, three layers (flag, environment, file), one valid [`Config`].
//!
//! Owns the names, defaults, ranges and documentation of every key ([`KEYS`]). The flags, the
//! environment variables, the keys of the file, `docs/configuration.md` and the annotated
//! `windrow.toml` are generated from it.
//!
//! [`load`] reads all layers and reports all errors at once. Its result is valid by construction: a
//! component that receives its part does not check it again.
//!
//! Opens no socket, creates no folder, and checks of certificates only that the files can be
//! opened.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod builder;
mod elasticsearch;
mod environment;
mod error;
mod file;
mod keys;
mod kind;
mod load;
mod redact;
mod reference;
mod route;
mod secret;
mod suggestion;
#[cfg(test)]
mod tests;
mod types;
mod units;

pub use crate::metrics::Output as OutputKind;
pub use elasticsearch::{Auth, ClientCert, ElasticsearchConfig, IndexTemplate, OnConflict};
pub use environment::{Environment, ProcessEnvironment};
pub use error::{ConfigError, ConfigErrors, ValueSource};
pub use keys::{KEYS, Key};
pub use kind::{Kind, UntypedValue};
pub use load::{Flags, Loaded, Setting, Sources, load};
pub(crate) use redact::without_credentials;
pub use reference::{reference_markdown, reference_toml};
pub use route::{Copy, ENVIRONMENT_NAMES, NAMESPACE_NAMES, Route, RouteAction, When};
pub use secret::Secret;
pub use types::{Cidr, Condition, Listen, LogFormat, Network, ParseJson, PeerAddress, Predicate, Tls, User};
pub use units::{format_duration, format_size, parse_duration, parse_size};
use windrow_trace::DocumentOptions;

/// The whole configuration, from [`load`], or with every default from [`Config::default`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Folder of the journal, the embedded database and the dead letter.
    pub data_dir: PathBuf,
    /// Where documents go: at least one, none twice.
    pub outputs: Vec<OutputKind>,
    /// Memory budget for chunks, open traces and documents, bytes. The rest waits in the journal.
    pub memory_limit: u64,
    /// Drain timeout after the first stop signal.
    pub shutdown_grace: Duration,
    /// Seal and write open traces at a clean stop instead of leaving them in the journal.
    pub flush_on_exit: bool,
    /// Chunks remembered to recognise a repeated one; 0 remembers none.
    pub duplicate_window: u64,
    /// The Forward input.
    pub forward: Forward,
    /// The HTTP input, and what the OTLP input shares with it.
    pub http: HttpConfig,
    /// The OTLP input.
    pub otlp: OtlpConfig,
    /// Other instances.
    pub cluster: ClusterConfig,
    /// The journal.
    pub journal: JournalConfig,
    /// Gathering.
    pub trace: TraceConfig,
    /// The Elasticsearch output.
    pub elasticsearch: ElasticsearchConfig,
    /// Where records go that do not go to `elasticsearch.index`; the first that matches decides.
    pub routes: Vec<Route>,
    /// Documents that Elasticsearch gets a second time.
    pub copies: Vec<Copy>,
    /// The embedded database.
    pub sqlite: SqliteConfig,
    /// The dead letter.
    pub dead_letter: DeadLetterConfig,
    /// Rejected input.
    pub rejected: RejectedConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// Logging of the server itself.
    pub log: LogConfig,
}

impl Config {
    /// One bit for each of these outputs, by their number; all for none.
    pub(crate) fn output_bits(&self, outputs: &[OutputKind]) -> u8 {
        if outputs.is_empty() || self.outputs.iter().all(|output| outputs.contains(output)) {
            return u8::MAX;
        }
        let numbered = (0..8).zip(&self.outputs);
        let bits = numbered.filter(|(_, output)| outputs.contains(output));
        bits.fold(0, |bits, (number, _)| bits | 1 << number)
    }
}

/// The Forward input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forward {
    /// Addresses and unix sockets; at least one.
    pub listen: Vec<Listen>,
    /// Permission bits of unix sockets, such as `0o660`.
    pub unix_mode: u32,
    /// Answer UDP heartbeats at the same addresses.
    pub udp_heartbeat: bool,
    /// Shared key required in the handshake. A network may have its own.
    pub shared_key: Option<Secret>,
    /// Users that may log in. If not empty, every client must.
    pub users: Vec<User>,
    /// If not empty, only clients of these networks are served; the first match decides.
    pub networks: Vec<Network>,
    /// Name of this server in the handshake, 1 to 255 bytes. Clients refuse a server with their own
    /// name.
    pub self_hostname: String,
    /// TLS on every TCP address.
    pub tls: Option<Tls>,
    /// Whether TCP connections begin with a header of the PROXY protocol, which names the client.
    pub proxy_protocol: bool,
    /// Accept JSON.
    pub json: bool,
    /// Maximum size of a message, bytes.
    pub max_message: u64,
    /// Maximum size of a decompressed payload, bytes.
    pub max_decompressed: u64,
    /// Maximum number of concurrent connections.
    pub max_connections: u64,
    /// Maximum number of concurrent connections from one address; `None`: no such limit.
    pub max_connections_per_address: Option<u64>,
    /// Timeout of the TLS and Forward handshakes together.
    pub handshake_timeout: Duration,
    /// Timeout for the next KiB inside a message.
    pub progress_timeout: Duration,
    /// Timeout for a peer to receive an ack.
    pub ack_timeout: Duration,
    /// Close a connection that sent nothing for this long; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Close a connection after an ack once it has this age; `None`: never.
    pub max_connection_age: Option<Duration>,
    /// Random variation of that age, percent, 0 to 100.
    pub max_connection_age_jitter: u64,
    /// Prefix of every tag; no dot is added.
    pub tag_prefix: String,
}

/// The HTTP input.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Its addresses; none: it is off.
    pub listen: Vec<SocketAddr>,
    /// Tag of requests that name none.
    pub tag: String,
    /// Field with the time of a record; `None`: the time of arrival.
    pub time_key: Option<String>,
    /// Maximum size of a body, bytes.
    pub max_body: u64,
    /// Bearer tokens, separated by white space.
    pub token: Option<Secret>,
    /// Users of basic authentication.
    pub users: Vec<User>,
    /// Origins of web pages that may send; `*` for all.
    pub cors_origins: Vec<String>,
    /// Close a connection that sent no request for this long.
    pub idle_timeout: Duration,
}

/// The OTLP input.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OtlpConfig {
    /// Its addresses; none: it is off.
    pub listen: Vec<SocketAddr>,
    /// Tag of its records.
    pub tag: String,
}

/// Other instances, to which records are handed over.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Where they listen, this instance perhaps among them; none: nothing is handed over.
    pub peers: Vec<PeerAddress>,
    /// How long one may take to make records durable.
    pub timeout: Duration,
    /// PEM file with the authorities of their certificates.
    pub tls_ca: Option<PathBuf>,
    /// Name in their certificates; `None`: the name or the address in `peers`.
    pub tls_server_name: Option<String>,
}

/// The journal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JournalConfig {
    /// Its folder, inside the data folder.
    pub dir: PathBuf,
    /// Size of one segment file, bytes; at most a quarter of `limit`.
    pub segment_bytes: u64,
    /// Size of all segment files, bytes, at which sockets are no longer read.
    pub limit: u64,
}

/// Gathering.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TraceConfig {
    /// Paths that may contain the trace id, by precedence; at least one.
    pub keys: Vec<String>,
    /// Values that are no trace ids.
    pub ignore: Vec<String>,
    /// Paths that may contain the text, by precedence; at least one.
    pub text: Vec<String>,
    /// Whether a record whose text is a JSON object becomes that object.
    pub parse_json: ParseJson,
    /// Whether ANSI escape sequences are removed from texts.
    pub strip_ansi: bool,
    /// Paths that may contain the level of a line, by precedence; at least one.
    pub level: Vec<String>,
    /// Paths that may contain the service that wrote a line, by precedence; at least one.
    pub service: Vec<String>,
    /// What documents look like.
    pub document: DocumentOptions,
    /// How far event times may lie before and after the time of reception; `None`: any time is
    /// taken.
    pub time_window: Option<(Duration, Duration)>,
    /// A record that satisfies one of these rules completes its trace. Empty: only time seals a
    /// trace.
    pub complete: Vec<Condition>,
    /// Time from the completion record until the trace is sealed.
    pub linger: Duration,
    /// A trace without a new line for this long is sealed.
    pub idle_timeout: Duration,
    /// A trace is sealed at this age. At least `linger`.
    pub max_age: Duration,
    /// Maximum number of open traces.
    pub max_traces: u64,
    /// Maximum size of one trace, bytes; further lines go to the dead letter.
    pub max_trace_bytes: u64,
}

/// The embedded database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// Its file.
    pub path: PathBuf,
    /// Documents are deleted at this age; `None`: never.
    pub retention_age: Option<Duration>,
    /// Size in bytes beyond which the oldest documents are deleted; `None`: no limit.
    pub retention_size: Option<u64>,
    /// Keep a search index beside it.
    pub search: bool,
}

/// The dead letter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetterConfig {
    /// Its folder, inside the data folder.
    pub dir: PathBuf,
    /// Size of all its files, bytes.
    pub limit: u64,
}

/// Rejected input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RejectedConfig {
    /// Its folder, inside the data folder.
    pub dir: PathBuf,
    /// Size of all its files, bytes.
    pub limit: u64,
}

/// The admin port.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Its address; `None`: no admin port.
    pub listen: Option<SocketAddr>,
    /// Token required for everything that shows log content.
    pub token: Option<Secret>,
    /// `Host` values accepted besides addresses and `localhost`; `*` for any.
    pub hosts: Vec<String>,
}

/// Logging of the server itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogConfig {
    /// Format of log lines.
    pub format: LogFormat,
    /// Valid filter in the syntax of `RUST_LOG`.
    pub level: String,
}

impl Config {
    /// Every secret that comes from a file and can be read again.
    #[must_use]
    pub fn secrets_from_files(&self) -> Vec<Secret> {
        let forward = &self.forward;
        let elasticsearch = self.elasticsearch.auth.secret();
        let networks = forward
            .networks
            .iter()
            .filter_map(|network| network.shared_key.as_ref());
        let users = forward.users.iter().chain(&self.http.users);
        let users = users.map(|user| &user.password);
        let single = [
            forward.shared_key.as_ref(),
            elasticsearch,
            self.admin.token.as_ref(),
            self.http.token.as_ref(),
        ];
        single
            .into_iter()
            .flatten()
            .chain(networks)
            .chain(users)
            .filter(|secret| secret.is_from_file())
            .cloned()
            .collect()
    }
}

impl TraceConfig {
    /// Longest time between the first and the last line of one sealed part: at most 12 hours.
    #[must_use]
    pub fn longest_life(&self) -> Duration {
        self.max_age + self.linger
    }
}

impl Default for Config {
    /// Every key at its default, as [`KEYS`] has it.
    fn default() -> Self {
        let mut builder = builder::ConfigBuilder::empty();
        for key in KEYS {
            // A test checks that every default is valid.
            let applied = key
                .default
                .raw()
                .map_or(Ok(()), |raw| key.kind.apply(&raw, &mut builder));
            debug_assert!(applied.is_ok(), "default of {}: {applied:?}", key.path);
        }
        builder.build().0
    }
}

impl Default for ElasticsearchConfig {
    fn default() -> Self {
        let mut config = Config::default().elasticsearch;
        config.deferred_dir = None;
        config
    }
}
