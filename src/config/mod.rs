//! The configuration: one table of keys, three layers (flag, environment, file), one legal [`Config`].
//!
//! Owns the names, defaults, ranges and documentation of every key ([`KEYS`]). From that one table come the
//! flags of the command line, the `WINDROW_…` names, the file's keys, `docs/configuration.md` and the annotated
//! `windrow.toml`; none of them is written by hand.
//!
//! [`load`] reads all layers and reports every error of all of them at once. What it returns is legal by
//! construction: a stage that is handed its part need not check it again.
//!
//! It opens no socket, creates no folder, and reads no certificate beyond seeing that the file can be opened.

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
mod reference;
mod suggestion;
#[cfg(test)]
mod tests;
mod types;
mod units;

pub use crate::metrics::Output as OutputKind;
pub(crate) use elasticsearch::without_credentials;
pub use elasticsearch::{Auth, ClientCert, ElasticsearchConfig, IndexTemplate};
pub use environment::{Environment, ProcessEnvironment};
pub use error::{ConfigError, ConfigErrors, ValueSource};
pub use keys::{KEYS, Key};
pub use kind::{Kind, UntypedValue};
pub use load::{Flags, Loaded, Setting, Sources, load};
pub use reference::{reference_markdown, reference_toml};
pub use types::{Cidr, Listen, LogFormat, Network, Predicate, Rule, Secret, Tls, User};
pub use units::{format_duration, format_size, parse_duration, parse_size};

/// Everything that can be configured. Made by [`load`], or with every default by [`Config::default`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Folder of the journal, the embedded database and the dead letter.
    pub data_dir: PathBuf,
    /// Where documents go: at least one, none twice.
    pub outputs: Vec<OutputKind>,
    /// Bytes for chunks, open traces and documents in memory. More waits in the journal.
    pub memory_limit: u64,
    /// Longest drain after the first stop signal.
    pub shutdown_grace: Duration,
    /// Seal and write open traces at a clean stop, instead of leaving them in the journal.
    pub flush_on_exit: bool,
    /// Chunks remembered to recognise a repeated one; 0 remembers none.
    pub duplicate_window: u64,
    /// The Forward input.
    pub forward: Forward,
    /// The journal.
    pub journal: JournalConfig,
    /// Gathering.
    pub trace: TraceConfig,
    /// The Elasticsearch output.
    pub elasticsearch: ElasticsearchConfig,
    /// The embedded database.
    pub sqlite: SqliteConfig,
    /// The dead letter.
    pub dead_letter: DeadLetterConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// Logging of the server itself.
    pub log: LogConfig,
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
    /// Demand this key in the handshake. A network may have its own.
    pub shared_key: Option<Secret>,
    /// Users that may log in. Not empty: each client must.
    pub users: Vec<User>,
    /// Not empty: only clients of these networks are served, the first that matches decides.
    pub networks: Vec<Network>,
    /// Name of this server in the handshake, 1 to 255 bytes. Clients refuse a server of their own name.
    pub self_hostname: String,
    /// TLS on every TCP address.
    pub tls: Option<Tls>,
    /// Longest message, bytes.
    pub max_message: u64,
    /// Longest payload once decompressed, bytes.
    pub max_decompressed: u64,
    /// Connections at once.
    pub max_connections: u64,
    /// Connections at once from one address; `None`: as many as there may be at all.
    pub max_connections_per_address: Option<u64>,
    /// Longest TLS and Forward handshake.
    pub handshake_timeout: Duration,
    /// Longest time for the next KiB inside a message.
    pub progress_timeout: Duration,
    /// Longest time for a peer to take an ack.
    pub ack_timeout: Duration,
    /// Close a connection that sent nothing for so long; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Close a connection after an ack once it is so old; `None`: never.
    pub max_connection_age: Option<Duration>,
    /// The age of each connection varies by up to so many percent, 0 to 100.
    pub max_connection_age_jitter: u64,
    /// Put before every tag, without a dot.
    pub tag_prefix: String,
}

/// The journal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JournalConfig {
    /// Its folder, inside the data folder.
    pub dir: PathBuf,
    /// Bytes of one segment file; at most a quarter of `limit`.
    pub segment_bytes: u64,
    /// Bytes of all of them. Sockets are not read beyond.
    pub limit: u64,
}

/// Gathering.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TraceConfig {
    /// Fields that may hold the trace id, the first that does wins; at least one.
    pub keys: Vec<String>,
    /// Fields that may hold the text; at least one.
    pub text: Vec<String>,
    /// A record that satisfies one of these completes its trace. Empty: only time seals a trace.
    pub complete: Vec<Rule>,
    /// From the completion record until the trace is sealed.
    pub linger: Duration,
    /// Without a new line for so long a trace is sealed.
    pub idle_timeout: Duration,
    /// A trace is sealed once it is so old, whatever comes. At least `linger`.
    pub max_age: Duration,
    /// Open traces at once.
    pub max_traces: u64,
    /// Bytes of one trace; further lines go to the dead letter.
    pub max_trace_bytes: u64,
}

/// The embedded database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// Its file.
    pub path: PathBuf,
    /// Older documents go; `None`: never.
    pub retention_age: Option<Duration>,
    /// Beyond so many bytes the oldest documents go; `None`: no limit.
    pub retention_size: Option<u64>,
}

/// The dead letter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetterConfig {
    /// Its folder, inside the data folder.
    pub dir: PathBuf,
    /// Bytes of all its files.
    pub limit: u64,
}

/// The admin port.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Its address; `None`: no admin port.
    pub listen: Option<SocketAddr>,
    /// Demanded for whatever shows log content.
    pub token: Option<Secret>,
    /// Host names, besides addresses and `localhost`, under which a browser may ask; `*` for any.
    pub hosts: Vec<String>,
}

/// Logging of the server itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// Filter in the syntax of `RUST_LOG`, known to be legal.
    pub level: String,
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
            // A test holds that every default is legal.
            let applied = key
                .default
                .raw()
                .map_or(Ok(()), |raw| key.kind.apply(&raw, &mut builder));
            debug_assert!(applied.is_ok(), "default of {}: {applied:?}", key.path);
        }
        builder.build().0
    }
}
