//! Configured field names: which fields of a record hold trace id, text, level and service, and
//! what becomes of the others.

use super::field_names::top_level::MAPPED;
use super::merge_rule::MergeRule;
use super::msgpack::Token;
use super::schema::DocumentSchema;

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
    /// What documents look like.
    pub document: DocumentOptions,
}

/// What documents look like.
#[derive(Clone, Debug, Default)]
pub struct DocumentOptions {
    /// Merge rules of fields. Of the others the newest value counts; of those that hold the level
    /// that of the worst line.
    pub merge: Vec<(String, MergeRule)>,
    /// The names of what Windrow knows of a trace.
    pub schema: DocumentSchema,
    /// Keep the fields of every line, so that each record can be got back.
    pub keep_fields: bool,
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
            document: DocumentOptions::default(),
        }
    }
}

impl FieldNames {
    /// The name of the trace id in the document.
    pub(crate) fn key(&self) -> &str {
        let configured = || {
            self.keys
                .first()
                .map_or(super::state::DEFAULT_KEY, String::as_str)
        };
        self.document.schema.key().unwrap_or_else(configured)
    }

    /// Whether stores map fields of this name as values: a list or an object there is displaced.
    pub(crate) fn is_value_name(&self, name: &[u8]) -> bool {
        name == self.key().as_bytes() || MAPPED.iter().any(|other| other.as_bytes() == name)
    }

    /// The names of a document that no record gives it, with the name of its text.
    pub(crate) fn own<'n>(&'n self, text: Option<&'n str>) -> impl Iterator<Item = &'n str> {
        let derived = self.document.schema.derived_names().iter().copied();
        text.into_iter().chain([self.key()]).chain(derived)
    }

    /// Whether a field of this name may hold the trace id.
    pub(crate) fn is_key(&self, name: &[u8]) -> bool {
        self.keys.iter().any(|key| key.as_bytes() == name)
    }

    pub(crate) fn text_rank(&self, name: &[u8]) -> Option<usize> {
        self.text.iter().position(|text| text.as_bytes() == name)
    }

    /// The name of the joined text in the document, when its best name in the records has this rank.
    pub(crate) fn text_name(&self, rank: usize) -> Option<&str> {
        let name = self.text.get(rank)?;
        Some(self.document.schema.text().unwrap_or(name))
    }

    /// The merge rule of a field of records.
    pub(crate) fn merge_rule(&self, name: &[u8]) -> MergeRule {
        let configured = &self.document.merge;
        if let Some((_, rule)) = configured.iter().find(|(known, _)| known.as_bytes() == name) {
            return *rule;
        }
        if self.text_rank(name).is_none() && self.holds_level(name) {
            MergeRule::Worst
        } else {
            MergeRule::Newest
        }
    }

    /// The merge rule of a field of metadata.
    pub(crate) fn metadata_rule(&self, name: &[u8]) -> MergeRule {
        // Fluent Bit has the severity of an OTLP record there.
        if name == b"otlp" || self.holds_level(name) {
            MergeRule::Worst
        } else {
            MergeRule::Newest
        }
    }

    /// Whether the field may hold the level: it is a path to it, or where such a path begins.
    fn holds_level(&self, name: &[u8]) -> bool {
        self.level.iter().any(|path| {
            path.as_bytes()
                .strip_prefix(name)
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
        })
    }
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
