//! Builder of the configuration, with the rules that involve several keys.
//!
//! Does not check single keys: their kind does.

use std::path::PathBuf;

use super::elasticsearch::{Auth, ClientCert, ElasticsearchConfig, IndexTemplate, OnConflict};
use super::error::ConfigError;
use super::secret::Secret;
use super::types::{LogFormat, ParseJson, Tls};
use super::units::format_size;
use super::{
    AdminConfig, ClusterConfig, Config, DeadLetterConfig, Forward, HttpConfig, JournalConfig, LogConfig,
    OtlpConfig, OutputKind, RejectedConfig, SqliteConfig, TraceConfig,
};
use windrow_trace::DocumentOptions;

/// Share of `memory_limit` of the longest document of a trace. One that is merged is in memory a
/// dozen times: as the stored and the new document, their texts, their union and its continuations,
/// in the batches around it, in SQLite and in the search index. As JSON it is up to six times as
/// long as its records.
const TRACE_SHARE: u64 = 32;

/// A [`Config`] under construction, and the values that enter it only in combination.
#[derive(Debug)]
pub struct ConfigBuilder {
    pub(super) config: Config,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) udp_heartbeat: Option<bool>,
    pub(super) self_hostname: Option<String>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) data_stream: Option<String>,
    pub(super) api_key: Option<Secret>,
    pub(super) bearer_token: Option<Secret>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) gzip_level: u64,
    pub(super) install_template: bool,
    pub(super) template: IndexTemplate,
    pub(super) sqlite_path: Option<PathBuf>,
}

/// Result of the rules that involve several keys.
#[derive(Debug, Default)]
pub(super) struct Validation {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
}

impl ConfigBuilder {
    /// Checks the rules that involve several keys. The [`Config`] is valid if there are no errors.
    pub(super) fn build(self) -> (Config, Validation) {
        let mut validation = Validation::default();
        let mut config = self.config;
        config.data_dir = self.data_dir.unwrap_or_default();
        config.journal.dir = config.data_dir.join("journal");
        config.dead_letter.dir = config.data_dir.join("dead-letter");
        config.rejected.dir = config.data_dir.join("rejected");
        config.sqlite.path = self
            .sqlite_path
            .unwrap_or_else(|| config.data_dir.join("windrow.db"));

        config.forward.self_hostname = self.self_hostname.unwrap_or_else(default_hostname);
        let length = config.forward.self_hostname.len();
        if length > 255 {
            validation.error(
                "forward.self_hostname",
                format!("it has {length} bytes; allowed: 1 to 255"),
            );
        }

        config.forward.tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(Tls {
                cert,
                key,
                client_ca: self.tls_client_ca,
            }),
            (Some(_), None) => {
                validation.error_instead("forward.tls_cert", "it needs forward.tls_key (--tls-key)")
            }
            (None, Some(_)) => {
                validation.error_instead("forward.tls_key", "it needs forward.tls_cert (--tls-cert)")
            }
            (None, None) if self.tls_client_ca.is_some() => validation.error_instead(
                "forward.tls_client_ca",
                "it needs forward.tls_cert and forward.tls_key (--tls-cert, --tls-key)",
            ),
            (None, None) => None,
        };
        if config.forward.tls.is_some() && !config.cluster.peers.is_empty() && config.cluster.tls_ca.is_none()
        {
            validation.error(
                "cluster.tls_ca",
                "it is required with cluster.peers and forward.tls_cert: the certificates of the other instances are checked",
            );
        }
        let forward = &config.forward;
        let authenticates = forward.shared_key.is_some()
            || !forward.users.is_empty()
            || forward
                .networks
                .iter()
                .any(|network| network.shared_key.is_some());
        config.forward.udp_heartbeat = self.udp_heartbeat.unwrap_or(!authenticates);
        for network in &config.forward.networks {
            for name in &network.users {
                if !config.forward.users.iter().any(|user| user.name == *name) {
                    let what = format!(
                        "network {} names user {name:?}, who is not in forward.users",
                        network.cidr
                    );
                    validation.error("forward.networks", what);
                }
            }
        }

        let elasticsearch = &mut config.elasticsearch;
        if let Some(data_stream) = self.data_stream {
            elasticsearch.index = data_stream;
            elasticsearch.data_stream = true;
        }
        elasticsearch.deferred_dir = Some(config.data_dir.join("deferred"));
        elasticsearch.gzip_level = u32::try_from(self.gzip_level).unwrap_or(9);
        let schema = config.trace.document.schema;
        let template = IndexTemplate {
            schema,
            ..self.template
        };
        elasticsearch.template = self.install_template.then_some(template);
        elasticsearch.trace_life = config.trace.max_age + config.trace.idle_timeout + config.trace.linger;
        elasticsearch.auth = match (self.username, self.password, self.api_key, self.bearer_token) {
            (None, None, None, None) => Auth::None,
            (Some(user), Some(password), None, None) => Auth::Basic { user, password },
            (None, None, Some(key), None) => Auth::ApiKey(key),
            (None, None, None, Some(token)) => Auth::Bearer(token),
            (Some(_), None, None, None) => {
                validation.error_instead("elasticsearch.username", "it needs elasticsearch.password")
            }
            (None, Some(_), None, None) => {
                validation.error_instead("elasticsearch.password", "it needs elasticsearch.username")
            }
            _ => validation.error_instead(
                "elasticsearch",
                "only one of username with password, api_key and bearer_token can be set",
            ),
        };
        elasticsearch.client_cert = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some(ClientCert { cert, key }),
            (Some(_), None) => {
                validation.error_instead("elasticsearch.client_cert", "it needs elasticsearch.client_key")
            }
            (None, Some(_)) => {
                validation.error_instead("elasticsearch.client_key", "it needs elasticsearch.client_cert")
            }
            (None, None) => None,
        };
        if config.outputs.contains(&OutputKind::Elasticsearch) {
            warn_about_index(elasticsearch, &mut validation);
        }
        super::route::check(&config, &mut validation);
        if config.elasticsearch.insecure {
            validation.warn("elasticsearch.insecure: any certificate is accepted, so anyone on the way can read and change documents");
        }

        if let Some(address) = config.admin.listen
            && !address.ip().is_loopback()
            && config.admin.token.is_none()
        {
            validation.warn(format!(
                "admin.listen: {address} is not loopback, and without admin.token everyone who reaches it can read \
                 log content; set admin.token_file, or listen on 127.0.0.1"
            ));
        }

        let is_elsewhere =
            |name: &String| config.trace.keys.contains(name) || config.trace.text.contains(name);
        if let Some((name, _)) = config
            .trace
            .document
            .merge
            .iter()
            .find(|(name, _)| is_elsewhere(name))
        {
            let what = "it is a field of trace.keys or trace.text, which no rule merges; remove it";
            validation.error("trace.merge", format!("{name:?}: {what}"));
        }
        for what in key_warnings(&config.trace) {
            validation.warn(what);
        }
        if config.trace.max_age < config.trace.linger {
            validation.error("trace.max_age", "it must not be shorter than trace.linger");
        }

        // A message or trace larger than the budget that it must fit into would wait forever.
        let quarter = config.journal.limit / 4;
        if config.journal.segment_bytes > quarter {
            config.journal.segment_bytes = quarter;
        }
        validation.clamp(
            "forward.max_message",
            &mut config.forward.max_message,
            ("quarter", "journal.limit"),
            quarter,
        );
        if !config.http.listen.is_empty() || !config.otlp.listen.is_empty() {
            let most = quarter.min(config.memory_limit / 8);
            let max_body = &mut config.http.max_body;
            if *max_body > most {
                let (was, most_text) = (format_size(*max_body), format_size(most));
                // The body and what it is converted to are in memory together.
                validation.warn(format!(
                    "http.max_body: {was} is more than an eighth of memory_limit or a quarter of journal.limit; {most_text} is used"
                ));
                *max_body = most;
            }
        }
        let quarter = config.memory_limit / 4;
        validation.clamp(
            "forward.max_message",
            &mut config.forward.max_message,
            ("quarter", "memory_limit"),
            quarter,
        );
        validation.clamp(
            "forward.max_decompressed",
            &mut config.forward.max_decompressed,
            ("quarter", "memory_limit"),
            quarter,
        );
        validation.clamp(
            "trace.max_trace_bytes",
            &mut config.trace.max_trace_bytes,
            ("32nd", "memory_limit"),
            config.memory_limit / TRACE_SHARE,
        );
        (config, validation)
    }

    /// A builder without values; not valid until every default of [`KEYS`](super::KEYS) is applied.
    pub(super) fn empty() -> Self {
        Self {
            config: blank_config(),
            data_dir: None,
            udp_heartbeat: None,
            self_hostname: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            username: None,
            password: None,
            data_stream: None,
            api_key: None,
            bearer_token: None,
            client_cert: None,
            client_key: None,
            gzip_level: 0,
            install_template: false,
            template: IndexTemplate::default(),
            sqlite_path: None,
        }
    }
}

impl Validation {
    /// Records an error.
    pub(super) fn error(&mut self, key: &str, what: impl Into<String>) {
        let (key, what) = (key.to_owned(), what.into());
        self.errors.push(ConfigError {
            source: None,
            key,
            value: None,
            what,
            allowed: None,
        });
    }

    /// Records an error and returns a placeholder for the value.
    fn error_instead<T: Default>(&mut self, key: &str, what: &str) -> T {
        self.error(key, what);
        T::default()
    }

    pub(super) fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    /// Lowers a value to `most`, which is `share` of the key `bound`.
    fn clamp(&mut self, key: &str, value: &mut u64, (share, bound): (&str, &str), most: u64) {
        if *value > most {
            let (was, most_text) = (format_size(*value), format_size(most));
            self.warn(format!(
                "{key}: {was} is more than a {share} of {bound}; {most_text} is used"
            ));
            *value = most;
        }
    }
}

/// What looks wrong about `trace.keys` without any record.
fn key_warnings(trace: &TraceConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for (number, key) in trace.keys.iter().enumerate() {
        if trace.keys[..number].contains(key) {
            warnings.push(format!("trace.keys: {key:?} is listed twice"));
        }
        if trace.text.contains(key) {
            warnings.push(format!(
                "trace.keys: {key:?} is in trace.text too; a record whose text is its trace id joins no trace"
            ));
        }
        if key.trim() != key || key.starts_with('.') || key.ends_with('.') || key.contains("..") {
            warnings.push(format!(
                "trace.keys: {key:?} has blanks at its ends or an empty part between dots; no usual record has such a field"
            ));
        }
        if let Some((_, form)) = key.rsplit_once('|')
            && !["bytes", "base64", "hex", "context"].contains(&form)
        {
            warnings.push(format!(
                "trace.keys: {key:?}: {form:?} is no form of an id (bytes, base64, hex, context), so the whole is the name of a field"
            ));
        }
    }
    warnings
}

/// Warns of index settings that cannot work as they are.
fn warn_about_index(config: &ElasticsearchConfig, validation: &mut Validation) {
    let index = &config.index;
    // Elasticsearch has templates that make data streams of `logs-*-*` and similar names.
    let built_in = ["logs-", "metrics-", "synthetics-", "traces-apm", "profiling-"];
    if config.template.is_none()
        && !config.data_stream
        && built_in.iter().any(|prefix| index.starts_with(prefix))
        && index.matches('-').count() > 1
    {
        validation.warn(format!(
            "elasticsearch.index: templates of Elasticsearch make data streams of names like {index:?}; use \
             another prefix, elasticsearch.data_stream, or elasticsearch.template = true"
        ));
    }
    let rolls = config.rollover_age.is_some() || config.rollover_size.is_some();
    if rolls && index.contains('%') {
        validation.warn(
            "elasticsearch.rollover_age and rollover_size have no effect with a date in elasticsearch.index; remove the date",
        );
    }
}

/// Differs from the name of the machine, which a client on the same machine uses.
fn default_hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let name = if name.is_empty() { "server" } else { name };
    format!("windrow-{name}")
}

fn blank_config() -> Config {
    use std::time::Duration;
    Config {
        data_dir: PathBuf::new(),
        outputs: Vec::new(),
        memory_limit: 0,
        shutdown_grace: Duration::ZERO,
        flush_on_exit: false,
        duplicate_window: 0,
        forward: Forward {
            listen: Vec::new(),
            unix_mode: 0,
            udp_heartbeat: false,
            shared_key: None,
            users: Vec::new(),
            networks: Vec::new(),
            self_hostname: String::new(),
            tls: None,
            proxy_protocol: false,
            json: false,
            max_message: 0,
            max_decompressed: 0,
            max_connections: 0,
            max_connections_per_address: None,
            handshake_timeout: Duration::ZERO,
            progress_timeout: Duration::ZERO,
            ack_timeout: Duration::ZERO,
            idle_timeout: None,
            max_connection_age: None,
            max_connection_age_jitter: 0,
            tag_prefix: String::new(),
        },
        http: HttpConfig::default(),
        otlp: OtlpConfig::default(),
        cluster: ClusterConfig::default(),
        journal: JournalConfig {
            dir: PathBuf::new(),
            segment_bytes: 0,
            limit: 0,
        },
        trace: TraceConfig {
            keys: Vec::new(),
            text: Vec::new(),
            parse_json: ParseJson::Auto,
            level: Vec::new(),
            service: Vec::new(),
            document: DocumentOptions::default(),
            ignore: Vec::new(),
            strip_ansi: true,
            time_window: None,
            complete: Vec::new(),
            linger: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            max_age: Duration::ZERO,
            max_traces: 0,
            max_trace_bytes: 0,
        },
        elasticsearch: ElasticsearchConfig {
            urls: Vec::new(),
            index: String::new(),
            data_stream: false,
            max_destinations: 0,
            auth: Auth::None,
            ca_file: None,
            client_cert: None,
            insecure: false,
            system_proxy: false,
            request_timeout: Duration::ZERO,
            bulk_bytes: 0,
            bulk_delay: Duration::ZERO,
            max_in_flight: 0,
            gzip_level: 0,
            template: None,
            retention: None,
            rollover_size: None,
            rollover_age: None,
            rollover_settle: Duration::ZERO,
            on_conflict: OnConflict::Unmapped,
            completion_lookup: None,
            deferred_dir: None,
            deferred_limit: 0,
            retry_max_wait: Duration::ZERO,
            trace_life: Duration::ZERO,
            backoff_base: ElasticsearchConfig::BACKOFF_BASE,
            blocked_retry: ElasticsearchConfig::BLOCKED_RETRY,
        },
        routes: Vec::new(),
        copies: Vec::new(),
        sqlite: SqliteConfig {
            path: PathBuf::new(),
            retention_age: None,
            retention_size: None,
            search: false,
        },
        dead_letter: DeadLetterConfig {
            dir: PathBuf::new(),
            limit: 0,
        },
        rejected: RejectedConfig {
            dir: PathBuf::new(),
            limit: 0,
        },
        admin: AdminConfig {
            listen: None,
            token: None,
            hosts: Vec::new(),
        },
        log: LogConfig {
            format: LogFormat::Auto,
            level: String::new(),
        },
    }
}

/// Warns about keys that are set and have no effect.
pub(super) fn warn_unused(config: &Config, set_by_hand: &[&str], warnings: &mut Vec<String>) {
    let set = |section: &str| set_by_hand.iter().find(|key| key.starts_with(section));
    let (http, otlp) = (config.http.listen.is_empty(), config.otlp.listen.is_empty());
    if let Some(key) = set("http.").filter(|_| http && otlp) {
        warnings.push(format!(
            "{key} is set, but nothing listens for HTTP; set http.listen or otlp.listen"
        ));
    }
    if let Some(key) = set("otlp.").filter(|_| otlp) {
        warnings.push(format!(
            "{key} is set, but nothing listens for OTLP; set otlp.listen"
        ));
    }
    if !config.outputs.contains(&OutputKind::Elasticsearch)
        && let Some(key) = set_by_hand.iter().find(|key| key.starts_with("elasticsearch."))
    {
        warnings.push(format!(
            "{key} is set, but documents do not go to Elasticsearch; add --output elasticsearch"
        ));
    }
}
