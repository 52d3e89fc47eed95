//! Table of configuration keys: names, default, range and documentation of each key, in the order
//! of the documentation.

use std::collections::BTreeMap;
use std::time::Duration;

use windrow_trace::{IGNORED_IDS, KEY_NAMES, LEVEL_NAMES, SERVICE_NAMES, TEXT_NAMES};

use super::kind::{Kind, UntypedValue};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Path in the file, such as `trace.linger`.
    pub path: &'static str,
    /// Flag without its dashes, if there is one.
    pub flag: Option<&'static str>,
    /// Environment variables of other programs that are read too, after Windrow's own.
    pub aliases: &'static [&'static str],
    /// Value if no layer sets the key.
    pub default: DefaultValue,
    /// Type and range of its value, and the field that it sets.
    pub kind: Kind,
    /// Documentation, one or two sentences, with the meaning of 0 where it is special.
    pub doc: &'static str,
}

impl Key {
    /// The key of a file that holds the value of this key, if this is a secret with one.
    pub(super) fn file_key(&self) -> Option<&'static Self> {
        KEYS.iter()
            .filter(|key| matches!(key.kind, Kind::SecretFile(_) | Kind::UsersFile(_)))
            .find(|key| key.path.strip_suffix("_file") == Some(self.path))
    }
}

/// The default of a key.
#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    /// None: the key is off, or derived from others as its documentation says.
    None,
    /// A string, which durations and sizes are too.
    Text(&'static str),
    /// A number.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A list of strings.
    List(&'static [&'static str]),
    /// A table without pairs.
    EmptyTable,
    /// A list of one table with one pair of key and value.
    TableOf(&'static str, &'static str),
}

impl DefaultValue {
    pub(super) fn raw(self) -> Option<UntypedValue> {
        Some(match self {
            Self::None => return None,
            Self::Text(text) => UntypedValue::Text(text.into()),
            Self::Int(n) => UntypedValue::Int(n),
            Self::Bool(b) => UntypedValue::Bool(b),
            Self::List(list) => UntypedValue::List(
                list.iter()
                    .map(|text| UntypedValue::Text((*text).into()))
                    .collect(),
            ),
            Self::EmptyTable => UntypedValue::Table(BTreeMap::new()),
            Self::TableOf(key, value) => UntypedValue::List(vec![UntypedValue::Table(
                [(key.to_owned(), UntypedValue::Text(value.into()))].into(),
            )]),
        })
    }
}

impl Key {
    /// The default as TOML writes it, if there is one.
    #[must_use]
    pub fn default_toml(&self) -> Option<String> {
        self.default.raw().map(|raw| raw.to_toml())
    }

    /// Environment variable: the flag in capitals after `WINDROW_`, or the path where there is no
    /// flag.
    #[must_use]
    pub fn environment(&self) -> String {
        let name = self.flag.unwrap_or(self.path);
        format!("WINDROW_{}", name.replace(['.', '-'], "_").to_ascii_uppercase())
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

macro_rules! keys {
    ($($path:literal $(--$flag:literal)? $(also $alias:literal)*, $default:expr, $kind:expr, $doc:literal;)+) => {
        &[$(Key {
            path: $path,
            flag: { let flag: &[&'static str] = &[$($flag)?]; if flag.is_empty() { None } else { Some(flag[0]) } },
            aliases: &[$($alias),*],
            default: $default,
            kind: $kind,
            doc: $doc,
        },)+]
    };
}

/// Every key, in the order of the documentation.
pub static KEYS: &[Key] = keys! {
    "data_dir" --"data-dir", DefaultValue::Text("windrow-data"), Kind::Path(|d| &mut d.data_dir),
        "Folder of the journal, the embedded database, the dead letter and rejected input. One process at a time.";
    "output" --"output", DefaultValue::List(&["sqlite"]), Kind::Outputs(|d| &mut d.config.outputs),
        "Where documents go. With several, each document goes to all, and a chunk leaves the journal when all have confirmed it.";
    "memory_limit" --"memory-limit", DefaultValue::Text("512MiB"), Kind::Size(32 * MIB, 16 * TIB, |d| &mut d.config.memory_limit),
        "Memory budget for chunks, open traces and documents in flight. What does not fit waits in the journal.";
    "shutdown_grace" --"shutdown-grace", DefaultValue::Text("25s"), Kind::Duration(secs(0), HOUR, |d| &mut d.config.shutdown_grace),
        "Drain timeout after the first stop signal. Keep it below the kill timeout of your supervisor (30 s in Kubernetes).";
    "flush_on_exit" --"flush-on-exit", DefaultValue::Bool(false), Kind::Bool(|d| &mut d.config.flush_on_exit),
        "Write open traces at a clean stop. Otherwise they stay in the journal and are continued at the next start.";
    "duplicate_window" , DefaultValue::Int(500_000), Kind::Count(0, 100_000_000, |d| &mut d.config.duplicate_window),
        "Chunks remembered to recognise one that a client sends again, about 50 bytes each; 0 remembers none.";

    "route" , DefaultValue::List(&[]), Kind::Routes(|d| &mut d.config.routes),
        "Where records go: the first route whose condition holds decides, else elasticsearch.index or elasticsearch.data_stream. A trace with records on several routes becomes one document for each index. Conditions on tag, level, service, namespace, environment and any field; see docs/routing.md.";

    "copy" , DefaultValue::List(&[]), Kind::Copies(|d| &mut d.config.copies),
        "Documents that Elasticsearch gets a second time, in an index of their own: whole traces whose joined document satisfies the condition; see docs/routing.md.";

    "forward.listen" --"listen", DefaultValue::List(&["0.0.0.0:24224"]), Kind::Listen(|d| &mut d.config.forward.listen),
        "Addresses and unix sockets of the Forward input. Port 0 lets the system choose; the bound address is logged.";
    "forward.unix_mode" , DefaultValue::Text("0660"), Kind::Mode(|d| &mut d.config.forward.unix_mode),
        "Permission bits of unix sockets.";
    "forward.udp_heartbeat" , DefaultValue::None, Kind::BoolIfSet(|d| &mut d.udp_heartbeat),
        "Answer UDP heartbeats at the same addresses; Fluentd with heartbeat_type udp and Fluency need it. Default: true, or false when clients need a key or a password, which a heartbeat does not carry.";
    "forward.shared_key" --"shared-key", DefaultValue::None, Kind::Secret(|d| &mut d.config.forward.shared_key),
        "Require a handshake with this key (Shared_Key of Fluent Bit, shared_key of Fluentd).";
    "forward.shared_key_file" --"shared-key-file", DefaultValue::None, Kind::SecretFile(|d| &mut d.config.forward.shared_key),
        "File with the shared key, instead of shared_key. Read again on SIGHUP.";
    "forward.users" --"user", DefaultValue::None, Kind::Users(|d| &mut d.config.forward.users),
        "Require clients to log in as one of these users. Without shared_key the key is empty (Empty_Shared_Key of Fluent Bit).";
    "forward.users_file" , DefaultValue::None, Kind::UsersFile(|d| &mut d.config.forward.users),
        "File with one NAME:PASSWORD a line, instead of users. Passwords are read again on SIGHUP, new names at a start.";
    "forward.networks" , DefaultValue::None, Kind::Networks(|d| &mut d.config.forward.networks),
        "Serve only clients of these networks; the first match decides. A network can have its own key and users.";
    "forward.self_hostname" , DefaultValue::None, Kind::Name(|d| &mut d.self_hostname),
        "Name in the handshake, up to 255 bytes; it must differ from the name of every client. Default: \"windrow-\" and the name of the machine.";
    "forward.tls_cert" --"tls-cert", DefaultValue::None, Kind::File(|d| &mut d.tls_cert),
        "PEM file with certificate and chain; enables TLS on every TCP address. Read again on SIGHUP.";
    "forward.tls_key" --"tls-key", DefaultValue::None, Kind::File(|d| &mut d.tls_key),
        "PEM file with the private key of tls_cert.";
    "forward.tls_client_ca" --"tls-client-ca", DefaultValue::None, Kind::File(|d| &mut d.tls_client_ca),
        "PEM file with certificate authorities; each client must present a certificate of one of them.";
    "forward.proxy_protocol" , DefaultValue::Bool(false), Kind::Bool(|d| &mut d.config.forward.proxy_protocol),
        "Expect a header of the PROXY protocol, version 1 or 2, at the beginning of each TCP connection, before TLS, and take the client's address from it. Only behind a load balancer that sends it: others could choose their address.";
    "forward.json" , DefaultValue::Bool(true), Kind::Bool(|d| &mut d.config.forward.json),
        "Accept JSON on connections whose first byte is [ or {, without a shared key. With false such connections are closed.";
    "forward.max_message" , DefaultValue::Text("64MiB"), Kind::Size(KIB, GIB, |d| &mut d.config.forward.max_message),
        "Maximum size of a message. Raise it to 260MiB or more for Fluentd with file buffers. At most a quarter of memory_limit and of journal.limit.";
    "forward.max_decompressed" , DefaultValue::Text("128MiB"), Kind::Size(KIB, 4 * GIB, |d| &mut d.config.forward.max_decompressed),
        "Maximum size of a decompressed payload. A larger message is refused. At most a quarter of memory_limit.";
    "forward.max_connections" , DefaultValue::Int(16_384), Kind::Count(1, 1_000_000, |d| &mut d.config.forward.max_connections),
        "Maximum number of concurrent connections; further ones are refused, and /ready says so. Each takes a file descriptor.";
    "forward.max_connections_per_address" , DefaultValue::Int(0), Kind::CountOrNone(1, 1_000_000, |d| &mut d.config.forward.max_connections_per_address),
        "Maximum number of concurrent connections from one IPv4 address or IPv6 network of 64 bits; 0 for no such limit. Behind a load balancer all clients may have one address.";
    "forward.handshake_timeout" , DefaultValue::Text("10s"), Kind::Duration(ms(100), HOUR, |d| &mut d.config.forward.handshake_timeout),
        "Timeout of the TLS and Forward handshakes together.";
    "forward.progress_timeout" , DefaultValue::Text("60s"), Kind::Duration(ms(100), HOUR, |d| &mut d.config.forward.progress_timeout),
        "A connection that sends less than 1 KiB inside a message within this time is closed.";
    "forward.ack_timeout" , DefaultValue::Text("30s"), Kind::Duration(ms(100), HOUR, |d| &mut d.config.forward.ack_timeout),
        "A connection whose peer does not receive an ack within this time is closed.";
    "forward.idle_timeout" , DefaultValue::Text("0s"), Kind::DurationOrNever(secs(1), DAY, |d| &mut d.config.forward.idle_timeout),
        "Close a connection that sent nothing for this long; 0 for never. At least 75 s where clients keep connections alive.";
    "forward.max_connection_age" --"max-connection-age", DefaultValue::Text("0s"), Kind::DurationOrNever(ms(100), DAY, |d| &mut d.config.forward.max_connection_age),
        "Close a connection after an ack once it has this age, so that load spreads again over all servers; 0 for never.";
    "forward.max_connection_age_jitter" , DefaultValue::Int(20), Kind::Count(0, 100, |d| &mut d.config.forward.max_connection_age_jitter),
        "Random variation of max_connection_age, percent.";
    "forward.tag_prefix" , DefaultValue::Text(""), Kind::Text(1024, |d| &mut d.config.forward.tag_prefix),
        "Prefix of every tag; no dot is added.";

    "http.listen" --"http-listen", DefaultValue::None, Kind::Addresses(|d| &mut d.config.http.listen),
        "Addresses of the HTTP input; port 9880 is usual. It takes records as JSON, NDJSON, MessagePack or forms, over HTTP/1.1 and HTTP/2, with TLS when forward.tls_cert is set. Not set: off.";
    "http.tag" , DefaultValue::Text("http"), Kind::Text(1024, |d| &mut d.config.http.tag),
        "Tag of requests to / that name none by the parameter tag or the header Fluent-Tag. The path is the tag otherwise.";
    "http.time_key" , DefaultValue::None, Kind::Name(|d| &mut d.config.http.time_key),
        "Field with the time of a record: a number of seconds since 1970 (milliseconds, microseconds and nanoseconds are recognised), or ISO 8601. It is removed from the record. Not set: the time of arrival.";
    "http.max_body" , DefaultValue::Text("32MiB"), Kind::Size(KIB, GIB, |d| &mut d.config.http.max_body),
        "Maximum size of the body of a request to the HTTP or OTLP input, as sent, decompressed, and as MessagePack. A larger one is answered with 413. At most an eighth of memory_limit and a quarter of journal.limit.";
    "http.token" , DefaultValue::None, Kind::Secret(|d| &mut d.config.http.token),
        "Require \"Authorization: Bearer TOKEN\" of clients of the HTTP and OTLP inputs. Several tokens are separated by white space. With users either is enough.";
    "http.token_file" , DefaultValue::None, Kind::SecretFile(|d| &mut d.config.http.token),
        "File with the tokens, one a line, instead of token. Read again on SIGHUP.";
    "http.users" , DefaultValue::None, Kind::Users(|d| &mut d.config.http.users),
        "Require basic authentication as one of these users of clients of the HTTP and OTLP inputs.";
    "http.users_file" , DefaultValue::None, Kind::UsersFile(|d| &mut d.config.http.users),
        "File with one NAME:PASSWORD a line, instead of users. Passwords are read again on SIGHUP, new names at a start.";
    "http.cors_origins" , DefaultValue::None, Kind::Names(|d| &mut d.config.http.cors_origins),
        "Origins of web pages that may send records, such as \"https://app.example.com\", or \"*\" for all. Requests of other pages are answered with 403.";
    "http.idle_timeout" , DefaultValue::Text("75s"), Kind::Duration(secs(1), DAY, |d| &mut d.config.http.idle_timeout),
        "Close a connection of the HTTP or OTLP input that sent no request for this long.";

    "otlp.listen" --"otlp-listen", DefaultValue::None, Kind::Addresses(|d| &mut d.config.otlp.listen),
        "Addresses of the OTLP input for logs; ports 4318 and 4317 are usual. Each takes OTLP/HTTP (protobuf and JSON, path /v1/logs) and OTLP/gRPC. TLS, authentication and limits are those of the HTTP input. Not set: off.";
    "otlp.tag" , DefaultValue::Text("v1_logs"), Kind::Text(1024, |d| &mut d.config.otlp.tag),
        "Tag of records from the OTLP input. The default is that of Fluent Bit.";

    "cluster.peers" --"cluster-peers", DefaultValue::None, Kind::Peers(|d| &mut d.config.cluster.peers),
        "Forward addresses of the other instances, this one perhaps among them: IP:PORT, or dns:NAME:PORT for all addresses of a name. Records of a trace are handed over to the instance that owns it. All instances need the same configuration. Not set: off.";
    "cluster.timeout" , DefaultValue::Text("200ms"), Kind::Duration(ms(10), secs(10), |d| &mut d.config.cluster.timeout),
        "Time in which another instance must make records durable. After it they are kept and gathered here, and that instance gets none for a while.";
    "cluster.tls_ca" , DefaultValue::None, Kind::File(|d| &mut d.config.cluster.tls_ca),
        "PEM file with the authorities of the certificates of the other instances; required with forward.tls_cert. Read again on SIGHUP.";
    "cluster.tls_server_name" , DefaultValue::None, Kind::Name(|d| &mut d.config.cluster.tls_server_name),
        "Name in the certificates of the other instances. Default: the name or the IP address in cluster.peers.";

    "journal.segment_size" , DefaultValue::Text("64MiB"), Kind::Size(MIB, 4 * GIB, |d| &mut d.config.journal.segment_bytes),
        "Size of one segment file, at most a quarter of journal.limit.";
    "journal.limit" --"journal-limit", DefaultValue::Text("10GiB"), Kind::Size(4 * MIB, 1024 * TIB, |d| &mut d.config.journal.limit),
        "Size of the journal at which sockets are no longer read, until the outputs have caught up.";

    "trace.keys" , DefaultValue::List(&KEY_NAMES), Kind::Names(|d| &mut d.config.trace.keys),
        "Fields that may contain the trace id; the first with a usable one wins, and the first key is the name of the id in documents. A name with dots is also found in nested maps. Text and integers are ids, W3C traceparent, X-Amzn-Trace-Id, B3 and Jaeger headers contain one; 8 or 16 binary bytes become hex. NAME|bytes, NAME|base64 and NAME|hex say that the value is always such bytes, NAME|context that only such a header counts.";
    "trace.ignore" , DefaultValue::List(&IGNORED_IDS), Kind::NamesOrNone(|d| &mut d.config.trace.ignore),
        "Values that mean that there is no trace, in any case; zeros of any length and blanks mean it too. A record with no other id is stored on its own.";
    "trace.text" , DefaultValue::List(&TEXT_NAMES), Kind::Names(|d| &mut d.config.trace.text),
        "Fields that may contain the text of a record; the first with a string wins, else the first with another value, which gives its JSON. Without any, the text is made of all fields as key=value. A name with dots is also found in nested maps.";
    "trace.strip_ansi" , DefaultValue::Bool(true), Kind::Bool(|d| &mut d.config.trace.strip_ansi),
        "Remove ANSI escape sequences, such as colours, from texts.";
    "trace.level" , DefaultValue::List(&LEVEL_NAMES), Kind::Names(|d| &mut d.config.trace.level),
        "Fields that may contain the level of a record; the first with a known level wins. Words in any case, abbreviations, and the numbers of syslog, bunyan, pino, Monolog, Python and OpenTelemetry are known.";
    "trace.service" , DefaultValue::List(&SERVICE_NAMES), Kind::Names(|d| &mut d.config.trace.service),
        "Fields that may contain the service that wrote a record; the first with a text that is not blank wins.";
    "trace.merge" , DefaultValue::EmptyTable, Kind::Merge(|d| &mut d.config.trace.document.merge),
        "Which value the document has of a field that differs between the lines of a trace: the newest, the oldest, the greatest (max), the least (min), all as a sorted array of up to 100 (set), or that of the line with the worst level. Default: newest; worst for the fields of trace.level. Records with a field under another rule than newest and worst take more CPU time and memory.";
    "trace.keep_fields" , DefaultValue::Bool(false), Kind::Bool(|d| &mut d.config.trace.document.keep_fields),
        "Keep of every line the fields that differ from the document's, in windrow.fields, stored but not searchable: every record can then be got back as it came. Documents grow, and each record takes more CPU time and memory.";
    "trace.time_window" , DefaultValue::Text("3650d..1d"), Kind::TimeWindow(|d| &mut d.config.trace.time_window),
        "How far event times may lie before and after their reception, so that a wrong clock does not make indices of its own. An event outside of it gets the time of reception; windrow.metadata.originalTime has its own. \"none\" takes any time.";
    "trace.parse_json" --"parse-json", DefaultValue::Text("auto"), Kind::ParseJson(|d| &mut d.config.trace.parse_json),
        "When a record whose text is one JSON object becomes that object, as container logs need it: \"auto\" if the object has a trace id, \"always\", or \"never\". Its fields win over those around it.";
    "trace.complete" , DefaultValue::TableOf("contains", "request completed"), Kind::Conditions(|d| &mut d.config.trace.complete),
        "A record that satisfies one of these rules completes its trace. A rule without field tests the text of the record. With an empty list only time seals a trace.";
    "trace.linger" --"linger", DefaultValue::Text("1s"), Kind::Duration(secs(0), HOUR, |d| &mut d.config.trace.linger),
        "Wait for late lines after the completion record; shorter while many traces wait and late lines are rare.";
    "trace.idle_timeout" --"idle-timeout", DefaultValue::Text("30s"), Kind::Duration(ms(10), DAY, |d| &mut d.config.trace.idle_timeout),
        "A trace without a new line for this long is written. Later lines are merged into its document.";
    "trace.max_age" , DefaultValue::Text("10m"), Kind::Duration(ms(10), secs(11 * 3600), |d| &mut d.config.trace.max_age),
        "A trace of this age is written, even if lines still arrive.";
    "trace.max_traces" --"max-traces", DefaultValue::Int(1_000_000), Kind::Count(1, 1_000_000_000, |d| &mut d.config.trace.max_traces),
        "Maximum number of open traces; beyond it the least recently updated trace is written.";
    "trace.max_trace_bytes" , DefaultValue::Text("16MiB"), Kind::Size(KIB, GIB, |d| &mut d.config.trace.max_trace_bytes),
        "Maximum size of the document of a trace. Further lines go on in documents of their own with the same trace id, and so does a longer record. At most a 32nd of memory_limit, because a document is in memory several times while it is written, merged and indexed.";

    "document.schema" , DefaultValue::Text("plain"), Kind::Schema(|d| &mut d.config.trace.document.schema),
        "Names of what Windrow knows of a trace: those of the records, Elastic Common Schema (trace.id, log.level, service.name, event.duration, event.outcome), or OpenTelemetry (trace_id, body, severity_text, severity_number, service.name). Use the same one on all instances; stored documents of another one are still merged.";

    "elasticsearch.url" --"elasticsearch-url" also "ELASTICSEARCH_URL" also "ELASTICSEARCH_HOSTS", DefaultValue::List(&["http://127.0.0.1:9200"]), Kind::Urls(|d| &mut d.config.elasticsearch.urls),
        "Nodes of Elasticsearch (7.17 or newer) or OpenSearch. user:password@ before the host is taken as username and password.";
    "elasticsearch.index" --"index", DefaultValue::Text("requests-%Y-%m-%d"), Kind::Index(|d| &mut d.config.elasticsearch.index),
        "Index, with the UTC day of the trace's first event. A placeholder {FIELD|FALLBACK} stands for the value of a field of the record, or of tag, service, namespace, environment; see docs/routing.md.";
    "elasticsearch.data_stream" , DefaultValue::None, Kind::DataStream(|d| &mut d.data_stream),
        "Data stream, instead of elasticsearch.index. Windrow makes it if it is absent, with lifecycle, and keeps one document per trace over its rollovers. Placeholders as in elasticsearch.index.";
    "elasticsearch.max_destinations" , DefaultValue::Int(200), Kind::Count(1, 60_000, |d| &mut d.config.elasticsearch.max_destinations),
        "Index names that the placeholders of elasticsearch.index, elasticsearch.data_stream and of routes may make. Documents of further ones go to the name with every fallback, counted in windrow_destinations_fallback_records_total.";
    "elasticsearch.username" also "ELASTICSEARCH_USERNAME", DefaultValue::None, Kind::Name(|d| &mut d.username),
        "User name for basic authentication.";
    "elasticsearch.password" also "ELASTICSEARCH_PASSWORD", DefaultValue::None, Kind::Secret(|d| &mut d.password),
        "Password for basic authentication.";
    "elasticsearch.password_file" , DefaultValue::None, Kind::SecretFile(|d| &mut d.password),
        "File with the password, instead of password. Read again on SIGHUP and when Elasticsearch answers 401.";
    "elasticsearch.api_key" also "ELASTICSEARCH_API_KEY", DefaultValue::None, Kind::Secret(|d| &mut d.api_key),
        "API key, the base64 form that Elasticsearch shows as \"encoded\".";
    "elasticsearch.api_key_file" , DefaultValue::None, Kind::SecretFile(|d| &mut d.api_key),
        "File with the API key, instead of api_key. Read again on SIGHUP and when Elasticsearch answers 401.";
    "elasticsearch.bearer_token" , DefaultValue::None, Kind::Secret(|d| &mut d.bearer_token),
        "Bearer token.";
    "elasticsearch.bearer_token_file" , DefaultValue::None, Kind::SecretFile(|d| &mut d.bearer_token),
        "File with the bearer token, instead of bearer_token. Read again on SIGHUP and when Elasticsearch answers 401.";
    "elasticsearch.ca_file" , DefaultValue::None, Kind::File(|d| &mut d.config.elasticsearch.ca_file),
        "PEM file with certificate authorities to trust besides the built-in ones.";
    "elasticsearch.client_cert" , DefaultValue::None, Kind::File(|d| &mut d.client_cert),
        "PEM file with a client certificate.";
    "elasticsearch.client_key" , DefaultValue::None, Kind::File(|d| &mut d.client_key),
        "PEM file with the private key of client_cert.";
    "elasticsearch.insecure" , DefaultValue::Bool(false), Kind::Bool(|d| &mut d.config.elasticsearch.insecure),
        "Accept any server certificate. Only for trials.";
    "elasticsearch.system_proxy" , DefaultValue::Bool(false), Kind::Bool(|d| &mut d.config.elasticsearch.system_proxy),
        "Go through the proxy of HTTP_PROXY and HTTPS_PROXY.";
    "elasticsearch.request_timeout" , DefaultValue::Text("60s"), Kind::Duration(ms(100), HOUR, |d| &mut d.config.elasticsearch.request_timeout),
        "Longest wait for one answer.";
    "elasticsearch.bulk_size" , DefaultValue::Text("8MiB"), Kind::Size(KIB, 100 * MIB, |d| &mut d.config.elasticsearch.bulk_bytes),
        "A bulk request is sent when it has this size.";
    "elasticsearch.bulk_delay" , DefaultValue::Text("1s"), Kind::Duration(ms(1), HOUR, |d| &mut d.config.elasticsearch.bulk_delay),
        "A bulk request is sent when its oldest document has waited this long.";
    "elasticsearch.max_in_flight" , DefaultValue::Int(8), Kind::Count(1, 256, |d| &mut d.config.elasticsearch.max_in_flight),
        "Maximum number of concurrent bulk requests; fewer while Elasticsearch throttles.";
    "elasticsearch.gzip_level" , DefaultValue::Int(0), Kind::Count(0, 9, |d| &mut d.gzip_level),
        "Compression of bulk requests, 1 (fast) to 9 (small); 0 for none.";
    "elasticsearch.template" , DefaultValue::Bool(true), Kind::Bool(|d| &mut d.install_template),
        "Install an index template at the start.";
    "elasticsearch.template_name" , DefaultValue::Text("windrow"), Kind::Text(255, |d| &mut d.template.name),
        "Name of the template.";
    "elasticsearch.template_shards" , DefaultValue::Int(0), Kind::CountOrNone(1, 1024, |d| &mut d.template.shards),
        "Shards of a new index; 0 for the cluster's default.";
    "elasticsearch.template_replicas" , DefaultValue::None, Kind::CountIfSet(0, 1024, |d| &mut d.template.replicas),
        "Replicas of a new index. Default: the cluster's.";
    "elasticsearch.ignore_malformed" , DefaultValue::Bool(false), Kind::Bool(|d| &mut d.template.ignore_malformed),
        "Let new indices store a document although a field does not fit the mapping (the field is then not searchable), instead of rejecting it.";
    "elasticsearch.template_total_fields" , DefaultValue::Int(0), Kind::CountOrNone(1, 1_000_000, |d| &mut d.template.total_fields),
        "Fields that the mapping of a new index may have; 0 for the cluster's default, which is 1000. Documents with more are stored with the further fields in windrow.unmapped.";
    "elasticsearch.template_codec" , DefaultValue::None, Kind::Name(|d| &mut d.template.codec),
        "Compression of a new index, such as \"best_compression\" (smaller, slower to read). Default: the cluster's.";
    "elasticsearch.template_refresh_interval" , DefaultValue::Text("0s"), Kind::DurationOrNever(ms(100), HOUR, |d| &mut d.template.refresh_interval),
        "Time after which a new index makes documents visible to searches; 0 for the cluster's default, which is 1s. Longer takes less CPU time.";
    "elasticsearch.template_trace_id_keyword" , DefaultValue::Bool(true), Kind::Bool(|d| &mut d.template.trace_id_keyword),
        "Let new indices have traceId.keyword besides traceId, for queries written for the default mapping; it takes as much as traceId itself, twice the length of the id.";
    "elasticsearch.retention" , DefaultValue::Text("0s"), Kind::DurationOrNever(HOUR, secs(36_500 * 86_400), |d| &mut d.config.elasticsearch.retention),
        "Age at which the store deletes new indices, by a policy of ILM (Elasticsearch) or ISM (OpenSearch) that Windrow makes; 0 for never. A policy that Windrow did not make is never changed.";
    "elasticsearch.rollover_size" , DefaultValue::Text("0"), Kind::SizeOrNone(MIB, TIB, |d| &mut d.config.elasticsearch.rollover_size),
        "Size of a primary shard at which the store begins a new index, by the same policy; 0 for no such limit. For elasticsearch.data_stream, and for an elasticsearch.index without a date, which is an alias then.";
    "elasticsearch.rollover_age" , DefaultValue::Text("0s"), Kind::DurationOrNever(HOUR, secs(3650 * 86_400), |d| &mut d.config.elasticsearch.rollover_age),
        "Age at which the store begins a new index, like rollover_size; 0 for no such limit.";
    "elasticsearch.rollover_settle" , DefaultValue::Text("2m"), Kind::Duration(Duration::ZERO, HOUR, |d| &mut d.config.elasticsearch.rollover_settle),
        "Longest time for which a node of the store may not know of a rollover and write to the generation before it. Older generations are looked at once more this long after a rollover; until then the journal keeps what was written after it. Default: publish timeout (30s) and lag timeout (90s) of a cluster.";
    "elasticsearch.on_conflict" , DefaultValue::Text("unmapped"), Kind::OnConflict(|d| &mut d.config.elasticsearch.on_conflict),
        "A document of which the store refuses a field (another type, too many fields, too long): \"unmapped\" stores it with that field in windrow.unmapped, \"dead_letter\" refuses it.";
    "elasticsearch.completion_lookup" , DefaultValue::Text("2s"), Kind::DurationOrNever(ms(100), HOUR, |d| &mut d.config.elasticsearch.completion_lookup),
        "Time without a new line after which an open trace is looked up in the store. If its document is complete there, because the completion record came to another instance, the lines are merged at once. A trace is looked up again after twice the time, and rarely where little is found. 0 for never: its lines wait for trace.idle_timeout.";
    "elasticsearch.deferred_limit" , DefaultValue::Text("1GiB"), Kind::Size(MIB, 1024 * TIB, |d| &mut d.config.elasticsearch.deferred_limit),
        "Maximum size of the documents in data_dir that wait until an operator mends their index (closed, read-only, red). Beyond it they wait in memory.";
    "elasticsearch.retry_max_wait" , DefaultValue::Text("30s"), Kind::Duration(ms(100), HOUR, |d| &mut d.config.elasticsearch.retry_max_wait),
        "Longest backoff between two attempts. The number of attempts is not limited.";

    "sqlite.path" , DefaultValue::None, Kind::Path(|d| &mut d.sqlite_path),
        "File of the embedded database. Default: windrow.db in data_dir.";
    "sqlite.retention_age" , DefaultValue::Text("7d"), Kind::DurationOrNever(secs(1), secs(36_500 * 86_400), |d| &mut d.config.sqlite.retention_age),
        "Documents are deleted at this age; 0 for never.";
    "sqlite.retention_size" , DefaultValue::Text("10GiB"), Kind::SizeOrNone(MIB, 1024 * TIB, |d| &mut d.config.sqlite.retention_size),
        "Size beyond which the oldest documents are deleted; 0 for no limit.";

    "sqlite.search" , DefaultValue::Bool(true), Kind::Bool(|d| &mut d.config.sqlite.search),
        "Keep a search index in a file beside the database, filled behind the writer; without it traces are found by id only.";

    "dead_letter.limit" , DefaultValue::Text("1GiB"), Kind::Size(MIB, 1024 * TIB, |d| &mut d.config.dead_letter.limit),
        "Maximum size of the dead letter in data_dir. At the limit rejected documents wait until `windrow replay` or an operator makes room; none is dropped.";

    "rejected.limit" , DefaultValue::Text("64MiB"), Kind::Size(MIB, 1024 * TIB, |d| &mut d.config.rejected.limit),
        "Maximum size of the rejected input in data_dir: what is no record, and records that are too long for any document. At the limit the oldest is overwritten.";

    "admin.listen" --"admin", DefaultValue::Text("127.0.0.1:2020"), Kind::Address(|d| &mut d.config.admin.listen),
        "Address of health, metrics, the API and the page; \"none\" for no admin port. It shows log content, so the default is loopback.";
    "admin.token" --"admin-token", DefaultValue::None, Kind::Secret(|d| &mut d.config.admin.token),
        "Token required for the page, which asks for it, and for the API and /logs, as \"Authorization: Bearer TOKEN\"; /logs also takes ?token=TOKEN.";
    "admin.token_file" --"admin-token-file", DefaultValue::None, Kind::SecretFile(|d| &mut d.config.admin.token),
        "File with the token, instead of token. Read again on SIGHUP.";
    "admin.hosts" , DefaultValue::None, Kind::Hosts(|d| &mut d.config.admin.hosts),
        "Host names accepted for log content without a token, besides IP addresses, localhost and names without a dot; \"*\" for any. Protects against DNS rebinding.";

    "log.format" --"log-format", DefaultValue::Text("auto"), Kind::Format(|d| &mut d.config.log.format),
        "Format of the server's own log; \"auto\" is text on a terminal and JSON otherwise.";
    "log.level" --"log-level" also "RUST_LOG", DefaultValue::Text("info"), Kind::Filter(|d| &mut d.config.log.level),
        "Log filter in the syntax of RUST_LOG.";
};
