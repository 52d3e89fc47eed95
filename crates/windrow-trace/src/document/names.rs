//! Field names: which fields of a record hold the trace id and the text, and which names are
//! reserved in documents.

use std::borrow::Cow;

use super::msgpack::Token;

/// The fields that are read as trace id, text, level and service, each in order of preference.
#[derive(Clone, Debug)]
pub struct FieldNames {
    /// Fields that may hold the trace id. The first is its name in the document.
    pub keys: Vec<String>,
    /// Fields that may hold the text.
    pub text: Vec<String>,
    /// Paths that may hold the level of a line: the first that has one.
    pub level: Vec<String>,
    /// Paths that may hold the service that wrote a line: the first that has one.
    pub service: Vec<String>,
}

/// Where loggers write the level: zap, slog, zerolog, logrus, winston, pino, bunyan, log4j2,
/// Logback, structlog, Monolog, semantic_logger, GELF (`level`); Google Cloud (`severity`); ECS
/// (`log.level`); Python (`levelname`, `levelno`); `OpenTelemetry` (`severity_text`,
/// `severity_number`); Serilog (`@l`); journald (`PRIORITY`); loguru (`record.level.name`);
/// PostgreSQL (`error_severity`).
pub const LEVEL_NAMES: [&str; 27] = [
    "level",
    "severity",
    "log.level",
    "lvl",
    "levelname",
    "level_name",
    "severity_text",
    "severityText",
    "SeverityText",
    "@l",
    "Level",
    "Severity",
    "LEVEL",
    "loglevel",
    "log_level",
    "logLevel",
    "LogLevel",
    "severity_number",
    "severityNumber",
    "SeverityNumber",
    "PRIORITY",
    "level_value",
    "levelno",
    "record.level.name",
    "syslog_severity",
    "error_severity",
    "pri",
];

/// Where applications and collectors write the service.
pub const SERVICE_NAMES: [&str; 22] = [
    "service_name",
    "service.name",
    "serviceName",
    "ServiceName",
    "service",
    "app",
    "app_name",
    "appName",
    "application",
    "dd.service",
    "resource.service.name",
    "resource.attributes.service.name",
    "kubernetes.labels.app.kubernetes.io/name",
    "kubernetes.labels.app_kubernetes_io/name",
    "kubernetes.labels.app",
    "kubernetes.labels.k8s-app",
    "kubernetes.container_name",
    "container_name",
    "SYSLOG_IDENTIFIER",
    "appname",
    "ident",
    "_SYSTEMD_UNIT",
];

impl Default for FieldNames {
    fn default() -> Self {
        let own = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        Self {
            keys: own(&["traceId", "trace_id", "trace.id"]),
            text: own(&["message", "log", "msg"]),
            level: own(&LEVEL_NAMES),
            service: own(&SERVICE_NAMES),
        }
    }
}

impl FieldNames {
    /// The name of the trace id in the document.
    pub(crate) fn key(&self) -> &str {
        self.keys
            .first()
            .map_or(super::state::DEFAULT_KEY, String::as_str)
    }

    pub(crate) fn text_rank(&self, name: &[u8]) -> Option<usize> {
        self.text.iter().position(|text| text.as_bytes() == name)
    }
}

/// Names that the document or Elasticsearch reserves. A record's field of such a name gets a `_`
/// appended.
fn is_reserved(name: &[u8]) -> bool {
    const METADATA: [&[u8]; 15] = [
        b"_id",
        b"_index",
        b"_source",
        b"_type",
        b"_routing",
        b"_field_names",
        b"_ignored",
        b"_seq_no",
        b"_version",
        b"_primary_term",
        b"_doc_count",
        b"_nested_path",
        b"_tier",
        b"_size",
        b"_feature",
    ];
    match name.first() {
        None => true,
        Some(b'@') => name == b"@timestamp",
        Some(b'w') => name == b"windrow",
        Some(b'_') => METADATA.contains(&name),
        Some(_) => false,
    }
}

/// The name of a record's field in the document: valid UTF-8 and not reserved.
pub(crate) fn document_name(name: &[u8]) -> Cow<'_, [u8]> {
    if is_reserved(name) {
        renamed(name)
    } else if std::str::from_utf8(name).is_err() {
        Cow::Owned(String::from_utf8_lossy(name).into_owned().into_bytes())
    } else {
        Cow::Borrowed(name)
    }
}

pub(crate) fn renamed(name: &[u8]) -> Cow<'static, [u8]> {
    Cow::Owned([name, b"_"].concat())
}

/// The bytes of a value that counts as a string: `str`, or `bin` that is UTF-8 (Ruby and Python
/// clients send both).
pub fn as_text(token: Token<'_>) -> Option<&[u8]> {
    match token {
        Token::Str(text) => Some(text),
        Token::Bin(bytes) if std::str::from_utf8(bytes).is_ok() => Some(bytes),
        _ => None,
    }
}
